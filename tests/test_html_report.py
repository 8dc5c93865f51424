"""report.html says what the workspace's files say, at every stage of a job, and nothing in it comes from elsewhere."""

from __future__ import annotations

import math
import re
import shutil
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

import yoloprune
from tests.drawn import Bench, bench, trained
from tests.test_cli import answer, call
from tests.test_report import SETUP, curve
from yoloprune.errors import InputWarning
from yoloprune.options import AnalysisOptions, PruneOptions, Settings
from yoloprune.progress import Progress
from yoloprune.prune.search import Expectation
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.report import charts
from yoloprune.report.html import page
from yoloprune.report.markup import Markup, join, tag
from yoloprune.report.svg import Axis, thinned
from yoloprune.steps.milliseconds import Times
from yoloprune.steps.repeat import words_of
from yoloprune.steps.summary import Analysis, JobSummary, summary
from yoloprune.steps.tradeoff import TradeOff
from yoloprune.workspace import Figures, Input, Round, Workspace

HOSTILE = "<script>alert(1)</script>\"'&\udc80\x01"
Position = tuple[float, float]


def figures(accuracy: float, bflops: float, nonzero: int = 1000) -> Figures:
    return Figures("map50_present", accuracy, bflops, bflops, 1000, nonzero, 4020)


@pytest.fixture
def job() -> JobSummary:
    """Two rounds, the second not trained; a quarter and half of the BFLOPs are gone."""
    known = Sensitivity(SETUP, AnalysisOptions(tolerances=(0.01,)), 0.6, 0.6, (curve(3, [0.01, 0.02, 0.1]),))
    first = Round(1, PruneOptions(0.02), 0.02, figures(0.6, 2), figures(0.5, 1.5), figures(0.59, 1.5))
    second = Round(2, PruneOptions(0.04), 0.04, figures(0.59, 1.5), figures(0.55, 1.0))
    nothing = Input("net.cfg", "")
    workspace = Workspace(Path("w"), nothing, nothing, nothing, Settings(), figures(0.6, 2), (first, second))
    analysis = Analysis(
        1, known, 0.01, {"3": 0.1}, (TradeOff(0.0, 0.1, 0.0, (0.0, 0.01)), TradeOff(0.01, 0.3, 0.02, (0.01, 0.03)))
    )
    return JobSummary(workspace, "channel", (), (analysis,), (), None, None, (), (), {})


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return trained(tmp_path / "set")


def elements(chart: Markup, kind: str, class_: str) -> list[ElementTree.Element]:
    """Elements of a chart that are of all these classes."""
    wanted = set(class_.split())
    return [each for each in ElementTree.fromstring(chart).iter(kind) if wanted <= set(each.get("class", "").split())]


def scales(chart: Markup) -> tuple[Axis, Axis]:
    """What the numbers beside the axes say: from pixels to values, across and up."""
    ticks = elements(chart, "text", "tick")
    across = [each for each in ticks if each.get("text-anchor") == "middle" and each.text]
    up = [each for each in ticks if each.get("text-anchor") == "end"]
    return _scale(across, "x"), _scale(up, "y")


def _scale(ticks: Sequence[ElementTree.Element], key: str) -> Axis:
    values = [float((each.text or "").rstrip("%")) / (100 if "%" in (each.text or "") else 1) for each in ticks]
    places = [float(each.get(key, "")) for each in ticks]
    assert len(values) > 2
    steps = np.diff(places) / np.diff(values)
    assert np.allclose(steps, steps[0], rtol=0.01)
    return Axis(places[0], places[-1], values[0], values[-1])


def beyond(axis: Axis, pixel: float) -> float:
    """The value at a pixel, also outside of the ticks."""
    return axis.start + (pixel - axis.low) / (axis.high - axis.low) * (axis.end - axis.start)


def dots(chart: Markup, class_: str) -> list[Position]:
    """Values of a chart's points, by its own axes."""
    x, y = scales(chart)
    found = elements(chart, "circle", f"dot {class_}")
    return [(beyond(x, float(each.get("cx", ""))), beyond(y, float(each.get("cy", "")))) for each in found]


def close(found: Sequence[Position], expected: Sequence[Position], step: float) -> None:
    """Pixels are written with two decimals, so values are within a thousandth of the axes."""
    assert np.allclose(found, expected, atol=step)


@pytest.mark.parametrize("size", [charts.WIDE, charts.NARROW])
def test_rounds_stand_at_what_they_save_and_reach(job: JobSummary, size: tuple[int, int]) -> None:
    chart = charts.tradeoff(job, size)
    close(dots(chart, "before"), [(0.0, 0.6)], 1e-3)
    close(dots(chart, "pruned"), [(0.25, 0.5), (0.5, 0.55)], 1e-3)
    close(dots(chart, "after"), [(0.25, 0.59)], 1e-3)
    assert [each.text for each in elements(chart, "text", "mark")] == ["round 1", "round 2"]
    x, y = scales(chart)
    (promise,) = elements(chart, "path", "line promise")
    pairs = [tuple(map(float, each.split())) for each in promise.get("d", "")[1:].split("L")]
    close([(beyond(x, a), beyond(y, b)) for a, b in pairs], [(0.1, 0.6), (0.3, 0.58)], 1e-3)


def test_of_weights_the_share_that_is_zero_counts(job: JobSummary) -> None:
    first = replace(job.workspace.rounds[0], pruned=figures(0.5, 2, 400), finetuned=None)
    sparse = replace(job, granularity="weight", workspace=replace(job.workspace, rounds=(first,)))
    chart = charts.tradeoff(sparse, charts.WIDE)
    close(dots(chart, "pruned"), [(0.6, 0.5)], 1e-3)
    assert "weights off" in chart
    assert "Not zero" in page(sparse)


def test_rounds_that_are_close_have_no_name_on_another(job: JobSummary) -> None:
    first = job.workspace.rounds[0]
    many = tuple(replace(first, number=number) for number in range(1, 9))
    chart = charts.tradeoff(replace(job, workspace=replace(job.workspace, rounds=many)), charts.NARROW)
    names = [(float(each.get("x", "")), float(each.get("y", ""))) for each in elements(chart, "text", "mark")]
    assert 2 <= len(names) < 8
    apart = [abs(a[0] - b[0]) >= 56 or abs(a[1] - b[1]) >= 15 for i, a in enumerate(names) for b in names[:i]]
    assert all(apart)


def test_measurements_stand_on_their_curve(job: JobSummary) -> None:
    known = job.analyses[0].sensitivity
    (only,) = known.curves
    sure = replace(only, points=tuple(replace(each, interval=(0.0, 0.05)) for each in only.points))
    chart = charts.sensitivity(known, sure, Expectation.of(known))
    close(dots(chart, "after"), [(0.1, 0.01), (0.2, 0.02), (0.3, 0.1)], 1e-3)
    assert len(elements(chart, "path", "band after")) == 1
    (prunable,) = elements(chart, "path", "good")
    place = float(prunable.get("d", "")[1:].split()[0])
    assert beyond(scales(chart)[0], place) == pytest.approx(0.1, abs=1e-3)
    assert "10% pruned: loses 0.0100 (0.0000 to 0.0500)" in chart
    assert not elements(charts.sensitivity(known, only, Expectation.of(known)), "path", "band")


def test_axes_have_round_numbers() -> None:
    assert Axis(0, 1, 0, 100).ticks(5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert Axis(0.581, 0.699, 50, 0).ticks(6) == [0.6, 0.62, 0.64, 0.66, 0.68]
    assert Axis(-0.02, 0.12, 0, 9).ticks(4) == [0, 0.05, 0.1]
    assert [Axis(0, 4, 10, 50).at(value) for value in (0, 1, 4, 9, -1)] == [10, 20, 50, 50, 10]
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, width = rng.normal(), 10 ** rng.uniform(-5, 5)
        ticks = Axis(low, low + width, 0, 1).ticks(6)
        assert 2 <= len(ticks) <= 7
        assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_few_of_many_points() -> None:
    points = [(float(number), 0.0) for number in range(1000)]
    some = thinned(points, 7)
    assert (len(some), some[0], some[-1]) == (7, points[0], points[-1])
    assert thinned(points[:7], 7) == points[:7]


def test_what_is_no_markup_is_escaped() -> None:
    made = tag("p", HOSTILE, Markup("<b>bold</b>"), 1.5, None, title=HOSTILE, data_x=2, hidden=None)
    assert made == (
        '<p title="&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;?\ufffd" data-x="2">'
        "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;?\ufffd<b>bold</b>1.5</p>"
    )
    assert join("<", Markup("<")) == "&lt;<"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


class Reader(HTMLParser):
    """Elements of a page as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def sections(text: str) -> list[str | None]:
    return [attributes.get("id") for kind, attributes in Reader(text).found if kind == "section"]


def check_alone(text: str) -> None:
    """Nothing is loaded, nothing but our own script runs, and every link leads somewhere within."""
    found = Reader(text).found
    assert [kind for kind, _ in found].count("script") == 1
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for kind, attributes in found:
        assert not attributes.keys() & {"src", "style", "action", "srcset", "onclick", "onload", "xlink:href"}, kind
        target = attributes.get("href") or ""
        assert not target or target.startswith("data:image/jpeg;base64,") or target[1:] in ids, target
    assert "Content-Security-Policy" in text.split("<style>")[0]
    assert not re.findall(r"url\(|@import|https?:", re.sub(r"data:[^\"]*", "", text))


STAGES = ["figures", "tradeoff", "sensitivity", "classes", "confusion", "repeat"]


def test_every_stage_has_its_report(made: Bench, tmp_path: Path) -> None:
    space = tmp_path / "space"
    file = space / "report.html"
    yoloprune.ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0)
    analysed = file.read_text()
    check_alone(analysed)
    assert sections(analysed) == STAGES
    assert "Analysed, nothing pruned yet." in analysed
    pruned = yoloprune.prune(ratio=0.3, multiple=1, workspace=space)
    text = file.read_text()
    check_alone(text)
    assert set(sections(text)) == {*STAGES, "rounds", "kept", "pictures"}
    for number in (pruned.original, pruned.after):
        assert f"{number.accuracy:.4f}" in Reader(text).said
    kept = [f"{each.size - pruned.units.count()[each.label]:,}" for each in pruned.units.groups]
    rows = re.findall(r"<tr>(.*?)</tr>", text.split('id="kept"')[1].split("</section>")[0])[1:]
    assert [re.findall(r'class="number">([^<]*)</td>', row)[1] for row in rows] == kept
    yoloprune.finetune(iterations=3, workspace=space, workers=0)
    yoloprune.prune(ratio=0.5, multiple=1, workspace=space)
    whole = file.read_text()
    assert "training" in sections(whole)
    assert len(whole) < 3_000_000
    assert page(summary(space)) == whole
    moved = tmp_path / "moved"
    shutil.copytree(space, moved)
    shutil.rmtree(made.folder)
    left = page(summary(moved))
    assert "images that were measured on can&#x27;t be read" in left
    assert "tradeoff" in sections(left)


def test_the_command_opens_what_it_writes(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    space = tmp_path / "a space"
    yoloprune.ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,))
    file = space / "report.html"
    written = file.read_text()
    file.unlink()
    found = answer("report", "-w", space)
    assert found == {"files": {"report": str(file)}}
    assert file.read_text() == written
    assert not opened
    assert str(file) in call("report", "-w", space, "--open").stdout
    assert opened == [file.resolve().as_uri()]
    assert "no workspace here" in call("report", "-w", tmp_path / "nowhere", status=2).stderr
    yoloprune.prune(ratio=0.3, multiple=1, workspace=space, dry_run=True)
    assert file.read_text() == written


def test_times_are_shown_until_networks_change(job: JobSummary, tmp_path: Path) -> None:
    file = tmp_path / "milliseconds.json"
    figures_of = {"original": figures(0.6, 2), "round 2": figures(0.55, 1.0)}
    known = {"original": {"opencv": 8.0, "darknet": 40.0}, "round 2": {"opencv": 6.0}}
    Times.keep(file, {name: replace(each, ms=known[name]) for name, each in figures_of.items()})
    assert Times.load(file) == Times(known)
    text = page(replace(job, ms=Times.load(file).networks))
    said = Reader(text).said
    assert "opencv 6.00 before 8.00 -25.0%" in said
    assert "darknet" not in said  # which doesn't run the newest
    assert "Milliseconds" not in page(job)
    workspace = replace(job.workspace, folder=tmp_path)
    workspace.make_way(2)
    assert not file.exists()


@pytest.mark.parametrize("labels", [True, False])
def test_weights_and_no_labels(made: Bench, tmp_path: Path, labels: bool) -> None:
    space = tmp_path / "space"
    yoloprune.ana(
        made.cfg, made.weights, made.data, workspace=space, calibrate=4, labels=labels, granularity="weight",
        sparsities=(0.5,),
    )  # fmt: skip
    yoloprune.prune(ratio=0.5, workspace=space)
    text = (space / "report.html").read_text()
    check_alone(text)
    assert "weights off" in text
    assert ("agreement" in text) != labels
    assert {"kept", "pictures"} < set(sections(text))


def test_steps_measure_what_the_report_shows(made: Bench, tmp_path: Path) -> None:
    """What is measured anew where a step's file is gone is the same; and nothing is where none is."""
    space = tmp_path / "space"
    yoloprune.ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,))
    yoloprune.prune(ratio=0.3, multiple=1, workspace=space)
    known = summary(space)
    told: list[Progress] = []
    assert Path(yoloprune.report(space, progress=told.append)) == space / "report.html"
    assert not told
    for file in (space / "original-details.json", space / "round-1" / "pruned-details.json"):
        file.unlink()
    assert summary(space).before is summary(space).after is None
    again = yoloprune.report(space, progress=told.append).job
    assert [each.text for each in told if each.text] == ["measuring the original net", "measuring the newest net"]
    for one, other in ((known.before, again.before), (known.after, again.after)):
        assert one is not None
        assert other is not None
        assert (one.confusion, one.classes) == (other.confusion, other.classes)
        assert math.isclose(one.accuracy, other.accuracy)
    (space / "original-details.json").unlink()
    made.image().unlink()
    with pytest.warns(InputWarning, match="without what can't be measured"):
        assert yoloprune.report(space).job.before is None


def test_names_that_are_markup(one_thread: None, tmp_path: Path) -> None:
    made = bench(tmp_path / "a <b> & 'c'")
    (made.folder / "set.names").write_text('<script>alert("x")</script>\n</style><img src=x onerror=y>\n')
    image = made.image(2)
    named = image.rename(image.with_name("<svg onload=z>.png"))
    shutil.copyfile(made.label(2), made.label(2).with_name("<svg onload=z>.txt"))
    listed = (made.folder / "valid.txt").read_text().replace(image.name, named.name)
    (made.folder / "valid.txt").write_text(listed)
    space = tmp_path / "<i>"
    yoloprune.ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,))
    yoloprune.prune(sparsity=0.7, multiple=1, workspace=space)
    text = (space / "report.html").read_text()
    check_alone(text)
    kinds = {kind for kind, _ in Reader(text).found}
    assert not kinds & {"img", "i"}
    assert '<script>alert("x")</script>' in Reader(text).said
    assert "&lt;i&gt;" in text


def test_a_classifiers_report(one_thread: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        names = [f"{split}-{('lying', 'standing')[number % 2]}-{number}.png" for number in range(7)]
        for number, name in enumerate(names):
            pixels = rng.integers(0, 160, (31, 27, 3), np.uint8)
            pixels[:: 3 if number % 2 else 1, :: 1 if number % 2 else 3] += 90
            assert cv2.imwrite(str(tmp_path / name), pixels)
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
    (tmp_path / "names").write_text("lying\nstanding\n")
    (tmp_path / "set.data").write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nlabels=names\n")
    (tmp_path / "net.cfg").write_text(
        "[net]\nbatch=6\nwidth=20\nheight=20\nchannels=3\nlearning_rate=.05\nmax_batches=6\n"
        "[convolutional]\nfilters=6\nsize=3\nstride=2\nbatch_normalize=1\nactivation=leaky\n"
        "[convolutional]\nfilters=2\nactivation=linear\n[avgpool]\n[softmax]\n[cost]\ntype=sse\n"
    )
    found = yoloprune.train(tmp_path / "net.cfg", tmp_path / "set.data", tmp_path / "out", iterations=6, workers=0)
    space = tmp_path / "space"
    yoloprune.ana(
        tmp_path / "net.cfg", found.best, tmp_path / "set.data", workspace=space, calibrate=0, sparsities=(0.5,)
    )
    yoloprune.prune(sparsity=0.6, multiple=1, workspace=space)
    job = summary(space)
    assert job.before is not None
    assert [each.objects for each in job.before.classes] == [4, 3]
    assert sum(count for *_, count in job.before.confusion) == 7
    right = sum(count for true, answer, count in job.before.confusion if true == answer)
    assert right / 7 == pytest.approx(job.before.accuracy)
    text = page(job)
    check_alone(text)
    assert "top-1 accuracy" in text
    assert {"classes", "confusion", "pictures"} < set(sections(text))
    assert "Precision and recall" not in text


def test_options_are_said_as_the_command_line_has_them() -> None:
    from typer.main import get_command

    from yoloprune.cli import app
    from yoloprune.cli.command import _value
    from yoloprune.options import FinetuneOptions

    commands = get_command(app).commands  # type: ignore[attr-defined]
    trained = FinetuneOptions(epochs=2.5, distill=True, labels=False, regrow=False, schedule="log", bf16=True)
    measured = Settings("pjreddie", letterbox=False, metric="map75", images=9, labels=False, allow_partial=True)
    for name, options in (
        ("prune", PruneOptions(0.015, exclude=(3, 5), multiple=4, compensation="none", relative=True)),
        ("prune", PruneOptions(sparsity=0.5, granularity="n:m", n_of_m="2:4", only=("1x1", "7"), exclude=())),
        ("prune", PruneOptions(magnitude="3:0.01", granularity="weight", criterion="sparsegpt")),
        ("finetune", trained),
        ("finetune", FinetuneOptions(iterations=7, freeze=(0, 1), learning_rate=1e-05)),
        ("ana", AnalysisOptions(tolerances=(0.005, 0.1), calibrate=0, compensation="batch norm", seed=3)),
        ("ana", measured),
    ):
        files = ["net.cfg", "net.weights"] if name == "ana" else []
        context = commands[name].make_context(name, [*files, *words_of(options)])
        assert _value(type(options), context.params) == options
        assert words_of(options, options) == []
