"""Tables say what was measured; the plot shows every curve."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console, RenderableType
from rich.table import Table

from tests.drawn import CFG
from tests.helpers import graph_of, random_model
from yoloprune.choices import GRID
from yoloprune.darknet.predictions import Detections
from yoloprune.options import AnalysisOptions, PruneOptions, Settings
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.limits import Limits
from yoloprune.prune.sensitivity import Curve, Point, Sensitivity, Setup
from yoloprune.report import following
from yoloprune.report import tables as report
from yoloprune.report.plots import plot_sensitivity
from yoloprune.steps.ana import Analysed
from yoloprune.steps.detect import Found
from yoloprune.steps.stat import Stat
from yoloprune.steps.tradeoff import TradeOff, trade_offs
from yoloprune.steps.verify import Verified
from yoloprune.workspace import DEFAULT, Figures, Input, Round, Workspace

SETUP = Setup("", "", "", "alexeyab", False, "map50", 7)


def shown(part: RenderableType, *, colour: bool = False) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    Console(file=stream, width=200, force_terminal=colour, color_system=system).print(part)  # type: ignore[arg-type]
    return stream.getvalue()


def cells(part: RenderableType) -> list[list[str]]:
    """Rows of a table, split at blanks, without title and caption."""
    if isinstance(part, Table):
        part.title = part.caption = None
    return [line.split() for line in shown(part).splitlines() if line.strip() and "──" not in line]


def curve(label: int, losses: list[float], units: int = 10, gone: int = 0) -> Curve:
    points = [Point(gone + 1 + index, 0.6 - loss) for index, loss in enumerate(losses)]
    return Curve((label,), units, tuple(range(units)), gone, tuple(points))


@pytest.fixture
def sensitivity() -> Sensitivity:
    curves = (curve(3, [0.005, 0.03, 0.2]), curve(8, [-0.01]), curve(9, [0.1], gone=4))
    return Sensitivity(SETUP, AnalysisOptions(tolerances=(0.01,), sparsities=GRID), 0.6, 0.58, curves)


def analysed(known: Sensitivity, gain: float, frontier: list[tuple[float, float]]) -> Analysed:
    return Analysed(known, {curve.label: gain for curve in known.curves}, frontier, (), Path("sensitivity.json"))


def test_the_group_with_most_to_win_comes_first(sensitivity: Sensitivity) -> None:
    rows = cells(report.sensitivity_table(sensitivity, {"3": 0.02, "8": 0.25, "9": 0.1}))
    assert [row[0] for row in rows[-3:]] == ["8", "9", "3"]
    assert rows[-3][1:] == ["10", "25.0%", "10%", "0.6100", "1"]
    assert rows[-1][1:] == ["10", "2.0%", "0%", "0.5950", "0.5700", "0.4000", "3"]


def test_what_prunable_at_stands_with_its_interval(sensitivity: Sensitivity) -> None:
    first, second, third = sensitivity.curves
    sure = replace(second, points=(replace(second.points[0], interval=(-0.022, 0.002)),))
    made = replace(sensitivity, curves=(first, sure, third))
    table = report.sensitivity_table(made, {"3": 0.3, "8": 0.2, "9": 0.1})
    assert "loss: of mAP@0.50 over classes with objects" in str(table.caption)
    assert str(table.caption).endswith("±: half of the 90 % interval of the loss there, on 7 images")
    rows = cells(table)
    assert rows[-3][:4] == ["3", "10", "30.0%", "0%"]
    assert rows[-2][:5] == ["8", "10", "20.0%", "10%", "±0.012"]


def test_losses_are_coloured(sensitivity: Sensitivity) -> None:
    text = shown(report.sensitivity_table(sensitivity, {"3": 0.3, "8": 0.2, "9": 0.1}), colour=True)
    for value, code in (("0.5950", 32), ("0.5700", 33), ("0.4000", 31), ("0.6100", 32)):
        assert f"\x1b[{code}m{value}" in text


def test_a_measurement_stands_under_its_sparsity(sensitivity: Sensitivity) -> None:
    lines = shown(report.sensitivity_table(sensitivity, {"3": 0.3, "8": 0.2, "9": 0.1})).splitlines()
    head = next(line for line in lines if "50%" in line)
    row = next(line for line in lines if line.strip().startswith("9 "))
    assert row.index("0.5000") + 6 == head.index("50%") + 3


def test_the_plot_has_a_panel_a_group(sensitivity: Sensitivity, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "plot.png"
    frontier = [(0.0, 0.0), (0.05, 0.4)]
    plot_sensitivity(analysed(sensitivity, 0.1, frontier), file)
    few = cv2.imread(str(file))
    screened = replace(curve(0, [0.01, 0.02]), proxy=((2, 0.01), (8, 0.5)))
    points = tuple(replace(point, interval=(0.0, 0.05)) for point in screened.points)
    curves = tuple(replace(screened, producers=(number,), points=points) for number in range(40))
    many = Sensitivity(SETUP, AnalysisOptions(tolerances=(0.01,)), 0.6, 0.6, curves)
    plot_sensitivity(analysed(many, 0.1, frontier), file)
    more = cv2.imread(str(file))
    assert few is not None
    assert more is not None
    assert more.shape[0] > 3 * few.shape[0]

    def orange(picture: np.ndarray) -> int:
        blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
        return int(((red > 200) & (green > 120) & (blue < 90)).sum())

    assert orange(few) == 0
    assert orange(more) > 500
    assert [path.name for path in file.parent.iterdir()] == ["plot.png"]


def test_the_plot_of_nothing(tmp_path: Path) -> None:
    nothing = Sensitivity(SETUP, AnalysisOptions(tolerances=(0.01,)), 0.6, 0.6, ())
    plot_sensitivity(analysed(nothing, 0.0, [(0.0, 0.0)]), tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")) is not None


def test_changes_are_against_the_first() -> None:
    rows = {
        "original": Figures("map50_present", 0.75, 2.0, 1.99, 1000, 991, 4020),
        "slim": Figures("map50_present", 0.7, 1.5, 1.5, 400, 397, 1620),
    }
    first, second = cells(report.figures_table(rows))[-2:]
    assert first == ["original", "0.7500", "2.000", "1,000", "0.00402"]
    assert second == ["slim", "0.7000", "1.500", "-25.0%", "400", "-60.0%", "0.00162", "-59.7%"]


def test_packed_bytes_where_they_are_known() -> None:
    """A network that is too large has none."""
    small = Figures("map50_present", 0.75, 2.0, 2.0, 1000, 1000, 4020, 3600)
    large = replace(small, packed=None)
    head, first, second = cells(report.figures_table({"original": small, "slim": replace(small, packed=900)}))[-3:]
    assert " ".join(head) == "network mAP@0.50 BFLOPs parameters MB MB packed"
    assert (first[-1], second[-2:]) == ("0.0036", ["0.0009", "-75.0%"])
    assert cells(report.figures_table({"original": small, "other": large}))[-1][-1] == "-"
    assert "packed" not in shown(report.figures_table({"original": large}))
    nothing = Input("", "")
    done = Round(1, PruneOptions(0.02), 0.02, small, replace(small, packed=900))
    rows = cells(report.round_table(Workspace(Path("w"), nothing, nothing, nothing, Settings(), small, (done,))))
    assert [row[-1] for row in rows[-2:]] == ["0.0036", "0.0%"]
    assert rows[-1][-2] == "0.0009"


def test_zeros_are_shown_where_there_are_many() -> None:
    """Over 1 % in a row, of either kind."""
    original = Figures("map50_present", 0.75, 2.0, 2.0, 1000, 1000, 4020)
    sparse = Figures("map50_present", 0.7, 2.0, 0.5, 1000, 300, 4020)
    head, first, second = cells(report.figures_table({"original": original, "pruned": sparse}))[-3:]
    assert " ".join(head) == "network mAP@0.50 BFLOPs effective BFLOPs parameters nonzero MB"
    assert first == ["original", "0.7500", "2.000", "2.000", "1,000", "1,000", "0.00402"]
    assert second == ["pruned", "0.7000", "2.000", "0.500", "-75.0%", "1,000", "300", "-70.0%", "0.00402"]
    for changed, there in (
        (replace(original, nonzero=991, effective_bflops=1.99), False),
        (replace(original, nonzero=989), True),
        (replace(original, effective_bflops=1.97), True),
    ):
        assert ("nonzero" in shown(report.figures_table({"original": original, "pruned": changed}))) == there
    empty = replace(original, nonzero=0, effective_bflops=0.0)
    assert cells(report.figures_table({"original": empty, "pruned": original}))[-1][3:] == [
        "2.000", "1,000", "1,000", "0.00402",
    ]  # fmt: skip


def test_groups_and_what_is_left() -> None:
    units = ChannelUnits.of(graph_of(CFG)).without({"2": [0, 1, 2]})
    rows = cells(report.group_table(units))
    assert ["2", "12", "9", "25.0%"] in rows
    assert ["0+1", "8", "8", "0.0%"] in rows


def test_layers_as_darknet_shows_them() -> None:
    graph = graph_of(CFG)
    rows = cells(report.layer_table(Stat(graph, 4321)))
    body = rows[1:]
    assert [row[:2] for row in body[:-1]] == [[str(layer.index), layer.name] for layer in graph.layers]
    assert body[1][2:] == ["8/8", "3x3/1", "32x32x8", "32x32x8", "0.000", "104"]
    assert body[3][2:] == ["2x2/2", "32x32x12", "16x16x12"]
    assert body[-1] == ["total", f"{graph.bflops:.3g}", f"{graph.parameters:,}"]
    assert report.layer_table(Stat(graph, 4321)).caption == "4,321 bytes of weights"


def test_layers_show_how_much_of_them_is_zeros() -> None:
    """Layer 2 is a 1x1 convolution of 12 x 8; 48 of its 96 weights go, and its biases, which don't count."""
    model = random_model(graph_of(CFG), 3)
    assert "sparsity" not in shown(report.layer_table(Stat(model.graph, 4321, model.weights)))
    arrays = {name: array.copy() for name, array in model.weights.layers[2].items()}
    arrays["weight"][::2], arrays["bias"][:] = 0, 0
    sparse = model.with_arrays({2: arrays})
    stat = Stat(sparse.graph, 4321, sparse.weights)
    rows = cells(report.layer_table(stat))[1:]
    assert [rows[index][-1] for index in (0, 2)] == ["0.0%", "50.0%"]
    assert rows[3][-1] == "16x16x12"  # a pool: nothing behind its shape
    found = stat.as_dict()
    whole, layers = model.graph.parameters, found["layers"]
    assert found["nonzero"] == sum(layer["nonzero"] for layer in layers) == whole - 48 - 12
    assert (layers[2]["nonzero"], layers[2]["sparsity"]) == (layers[2]["parameters"] - 60, 0.5)
    assert (layers[3]["nonzero"], layers[3]["sparsity"]) == (0, None)
    without = Stat(model.graph, 4321).as_dict()
    assert not {"nonzero", "sparsity"} & {*without, *without["layers"][2]}


def test_tables_are_whole_at_80_columns(sensitivity: Sensitivity) -> None:
    """Names of groups and numbers too: cells only break at blanks."""
    original = Figures("map50_present", 0.7512, 65.312, 65.312, 64_363_101, 64_363_101, 257_452_404)
    sparse = replace(original, accuracy=0.7411, effective_bflops=20.123, nonzero=21_363_101)
    curves = [replace(each, producers=(*each.producers, 100, 101, 102)) for each in sensitivity.curves]
    points = [tuple(replace(point, interval=(-0.1, 0.1)) for point in each.points) for each in curves]
    curves = [replace(each, points=known) for each, known in zip(curves, points, strict=True)]
    options = AnalysisOptions(tolerances=(0.005, 0.01, 0.02, 0.05))
    known = replace(sensitivity, options=options, curves=tuple(curves))
    gains = {each.label: 0.123 for each in curves}
    for table, words in (
        (report.figures_table({"original": original, "finetuned, slim": sparse}), ["64,363,101", "21,363,101"]),
        (report.sensitivity_table(known, gains), ["3+100+101+102", "±0.100"]),
        (report.layer_table(Stat(graph_of(CFG), 4321)), ["convolutional", "32x32x12"]),
        (report.trade_off_table(analysed(known, 0.1, [])), ["--threshold"]),
    ):
        stream = io.StringIO()
        Console(file=stream, width=80).print(table)
        assert max(map(len, stream.getvalue().splitlines())) <= 80
        assert all(word in stream.getvalue() for word in words)


def test_rounds() -> None:
    def figures(accuracy: float, bflops: float) -> Figures:
        return Figures("map50_present", accuracy, bflops, bflops, 1000, 1000, 4020)

    nothing = Input("", "")
    first = Round(1, PruneOptions(0.02), 0.02, figures(0.7, 2), figures(0.6, 1.5), figures(0.69, 1.5))
    second = Round(2, PruneOptions(0.04), 0.04, figures(0.69, 1.5), figures(0.5, 1.0))
    workspace = Workspace(Path("w"), nothing, nothing, nothing, Settings(), figures(0.7, 2), (first, second))
    rows = cells(report.round_table(workspace))
    assert rows[-2] == ["1", "0.0200", "0.7000", "0.6000", "0.6900", "1.500", "1,000", "25.0%"]
    assert rows[-1] == ["2", "0.0400", "0.6900", "0.5000", "-", "1.000", "1,000", "50.0%"]
    assert report.round_dict(workspace)["rounds"][1]["finetuned"] is None

    trained = replace(figures(0.69, 1.5), nonzero=250, effective_bflops=0.5)
    sparse = replace(workspace, rounds=(replace(first, finetuned=trained), second))
    head, whole, one, two = cells(report.round_table(sparse))[-4:]
    assert " ".join(head[5:]) == "BFLOPs effective BFLOPs parameters nonzero BFLOPs off"
    assert whole == ["original", "0.7000", "2.000", "2.000", "1,000", "1,000"]
    assert one == ["1", "0.0200", "0.7000", "0.6000", "0.6900", "1.500", "0.500", "1,000", "250", "25.0%"]
    assert two[5:] == ["1.000", "1.000", "1,000", "1,000", "50.0%"]
    assert report.round_dict(sparse)["rounds"][0]["finetuned"] == {
        "map50_present": 0.69, "bflops": 1.5, "effective_bflops": 0.5,
        "parameters": 1000, "nonzero": 250, "bytes": 4020, "packed": None,
    }  # fmt: skip


def test_readers() -> None:
    verified = Verified(
        {"yoloprune": 0.1, "opencv": 3.0},
        {"yoloprune": 1e-6, "opencv": 0.2},
        {"darknet": "gone"},
        {"other": "bad"},
        1e-4,
    )
    text = shown(report.reader_table(verified))
    assert "same" in next(line for line in text.splitlines() if "yoloprune" in line)
    assert "differs by more than 0.0001" in next(line for line in text.splitlines() if "opencv" in line)
    assert "skipped: gone" in text


def test_boxes_are_in_pixels() -> None:
    found = Detections(*map(torch.tensor, ([0], [1], [0.875], [[0.5, 0.25, 0.2, 0.1]])))
    nothing = found.rows(torch.zeros(0, dtype=torch.int64))
    pictures = [Found(Path("a/dog.jpg"), (200, 100), found, Path()), Found(Path("b.png"), (9, 9), nothing, Path())]
    rows = cells(report.detection_table(pictures, ["cat", "big dog"]))
    assert ["dog.jpg", "big", "dog", "0.88", "80", "20", "40", "10"] in rows
    assert ["b.png", "nothing", "found"] in rows
    payload = report.detection_dict(pictures, ["cat", "big dog"])
    assert payload["images"][0]["detections"][0]["class"] == "big dog"
    assert payload["images"][1]["detections"] == []


def test_names_are_no_markup() -> None:
    tables = report.accuracy_tables({"map50": 0.5, "images": 3, "ap": {"x": None, "y": 0.25}})
    assert cells(tables[0])[-2:] == [["x", "-"], ["y", "0.2500"]]
    assert cells(tables[1])[-2:] == [["map50", "0.5000"], ["images", "3"]]
    assert len(report.accuracy_tables({"top1": 0.5})) == 1


def test_what_comes_next_can_be_copied(sensitivity: Sensitivity) -> None:
    """Every word is one: quoted where it needs to be, with the workspace where it isn't the usual one."""
    space = Path("my workspace")
    assert following.after_prune(DEFAULT) == "yoloprune finetune --epochs 20"
    assert shlex.split(following.after_finetune(space)) == ["yoloprune", "export", "-o", "slim", "-w", "my workspace"]
    done = analysed(sensitivity, 0.1, [])
    nothing = [TradeOff(each, 0.25, 0.03, (0.0, 0.1)) for each in (0.005, 0.01)]
    going = [TradeOff(0.02, 0.3, 0.04, (0.0, 0.1)), TradeOff(0.05, 0.6, 0.2, (0.0, 0.5))]
    of_round = replace(done, gone=0.25, trade_offs=(*nothing, *going))
    assert following.after_ana(of_round, DEFAULT) == "yoloprune prune --threshold 0.02"
    at_a_point = replace(done, trade_offs=(*nothing, *going))
    assert following.after_ana(at_a_point, DEFAULT) == "yoloprune prune --threshold 0.01"
    lost = replace(done, gone=0.25, trade_offs=tuple(nothing))  # 0.02 is lost already
    assert following.after_ana(lost, DEFAULT) == "yoloprune prune --threshold 0.03"


def test_the_joint_loss_is_expected_to_be_the_sum() -> None:
    """Of what each group adds where a threshold lets it go: by hand on two groups of ten units."""
    curves = (curve(3, [0.005, 0.03, 0.2]), curve(8, [0.002, 0.009, 0.04]))
    wide = tuple(
        replace(each, points=tuple(replace(point, interval=(-0.003, 0.005)) for point in each.points))
        for each in curves
    )
    known = Sensitivity(SETUP, AnalysisOptions(tolerances=(0.01, 0.03)), 0.6, 0.6, wide)
    costs = Made({"3": 0.04, "8": 0.02})
    first, second = trade_offs(costs, known, Limits(), (0.01, 0.03))  # type: ignore[arg-type]
    assert (first.removed, second.removed) == pytest.approx((1 * 0.04 + 2 * 0.02, 2 * 0.04 + 2 * 0.02))
    assert (first.joint_loss, second.joint_loss) == pytest.approx((0.005 + 0.009, 0.03 + 0.009))
    noise = (2 * 0.004**2) ** 0.5
    low, high = first.interval
    assert low == pytest.approx(0.014 - (0.007**2 + noise**2) ** 0.5)
    assert high == pytest.approx(0.014 + (0.014**2 + noise**2) ** 0.5)


class Made:
    """Costs by the share that each unit of a group saves."""

    each_saves, whole = True, 1.0

    def __init__(self, saved: dict[str, float]) -> None:
        self.saved = saved

    def total(self, allocation: dict[str, int]) -> float:
        return 1 - sum(self.saved[label] * count for label, count in allocation.items())
