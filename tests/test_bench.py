"""Times of networks: what is timed, in which readers, and what a folder for the board measures."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.helpers import graph_of, random_model
from yoloprune.artefacts import load_json, save_json
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.model import Graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.prune.channels import trace
from yoloprune.prune.latency import Latency, Timings, all_networks, readers_in
from yoloprune.readers import READERS, board
from yoloprune.readers.ncnn_convert import convert
from yoloprune.report.times import bench_table
from yoloprune.steps.bench import Bench, bench
from yoloprune.steps.board import emit
from yoloprune.steps.milliseconds import Milliseconds, networks_of
from yoloprune.steps.objective import check_objective

NET = "[net]\nwidth=13\nheight=17\nchannels=3\n"
CONV = "[convolutional]\nfilters={}\nsize=3\npad=1\nactivation=leaky\n"
LAYERS = NET + CONV.format(24) + "[maxpool]\nsize=2\nstride=1\n" + CONV.format(32) + CONV.format(5)


def written(folder: Path, text: str, name: str = "net") -> tuple[Path, Path]:
    model = random_model(graph_of(text), 1)
    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    cfg_file.write(cfg, model.graph.cfg)
    weights_file.write(weights, model.weights, model.graph.layers)
    return cfg, weights


def here(*names: str) -> None:
    for name in names:
        if reason := READERS[name].available():
            pytest.skip(reason)


def test_spread_is_of_the_order_statistics() -> None:
    times = np.random.default_rng(0).permutation(np.arange(101.0)) / 1000
    assert board.spread(times.tolist()) == pytest.approx({"low": 10, "median": 50, "high": 90})


def test_what_a_reader_refuses_is_told_and_the_rest_timed(tmp_path: Path) -> None:
    here("opencv")
    small, odd = written(tmp_path, LAYERS), written(tmp_path, NET + "[local]\nfilters=2\nsize=3\n", "odd")
    found = bench([*small, *odd], reader=("opencv",), rounds=2, threads=1)
    assert list(found.ms[str(small[0])]) == ["opencv"]
    assert found.ms[str(odd[0])] == {}
    assert list(found.refused) == [str(odd[0])]
    assert found.refused[str(odd[0])]["opencv"]
    assert found.ms_all_threads == {}
    assert found.bflops[str(small[0])] == graph_of(LAYERS).bflops


def test_files_are_checked_before_anything_is_timed(tmp_path: Path) -> None:
    cfg, weights = written(tmp_path, LAYERS)
    with pytest.raises(InputError, match=r"expected CFG WEIGHTS .* found 3 files"):
        networks_of([cfg, weights, cfg], "alexeyab")
    with pytest.raises(InputError, match="found one twice"):
        networks_of([cfg, weights, cfg, weights], "alexeyab")
    with pytest.raises(InputError, match=r"--reader: expected some of darknet, .* found 'tflite'"):
        bench([cfg, weights], reader=("tflite",))
    short = tmp_path / "short.weights"
    short.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"short\.weights"):
        bench([cfg, weights, cfg, short])
    copy = tmp_path / "copy.weights"
    copy.write_bytes(weights.read_bytes())
    assert [each.name for each in networks_of([cfg, weights, cfg, copy], "alexeyab")] == [str(weights), str(copy)]


def test_a_speed_up_is_against_the_first_and_its_operations() -> None:
    ms = {"a.cfg": {"opencv": Milliseconds(8, 7, 9)}, "b.cfg": {"opencv": Milliseconds(2, 1, 3)}}
    done = Bench(ms, {}, 1, {"a.cfg": 3.0, "b.cfg": 0.6}, {}, {})
    assert done.speed_up("b.cfg", "opencv") == 4
    assert done.speed_up("a.cfg", "opencv") is None
    assert done.speed_up("b.cfg", "ncnn") is None
    console = Console(width=80, file=None)
    with console.capture() as shown:
        console.print(bench_table(done))
    row = next(line for line in shown.get().splitlines() if "b.cfg" in line).split()
    assert row == ["b.cfg", "opencv", "2.00", "(1.00-3.00)", "0.600", "4.00", "0.80"]


def test_ncnn_is_timed_with_darknets_windows(tmp_path: Path) -> None:
    """The converter's own would make the map smaller. In a process of its own, as ncnn is by its worker."""
    here("ncnn")
    cfg, weights = written(tmp_path, LAYERS)
    model = random_model(graph_of(LAYERS), 1)
    image = np.random.default_rng(2).random((3, 17, 13), np.float32)
    np.save(tmp_path / "image.npy", image)
    made = convert(cfg.read_bytes(), weights.read_bytes(), own_windows=False)
    (tmp_path / "param").write_text(made.param)
    (tmp_path / "bin").write_bytes(made.model)
    code = (
        "import sys, numpy as np; from pathlib import Path; from yoloprune.readers import board\n"
        "at = Path(sys.argv[1])\n"
        "net = board.ncnn_loaded((at / 'param').read_text(), (at / 'bin').read_bytes(), exact=True)\n"
        "np.save(at / 'out.npy', board.ncnn_values(net, np.load(at / 'image.npy'), [sys.argv[2]])[0])\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, made.ends[0]], check=True, cwd=Path(__file__).parents[1])
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(image[None]), want=[3])[3].numpy()[0]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, atol=1e-5 * np.abs(ours).max())


def test_the_script_for_the_board_stands_alone() -> None:
    tree = ast.parse(Path(board.__file__).read_text(), feature_version=(3, 8))
    imported = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported - sys.stdlib_module_names == {"numpy", "cv2", "ncnn"}
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


def law(graph: Graph, step: int) -> float:
    """Seconds of a layer in a program that computes `step` filters at once."""
    layer = graph.layers[-1]
    return (layer.source_shapes[0].c + 3) * -(-layer.out.c // step) * step * 1e-9


@pytest.mark.parametrize("step", [1, 4, 8])
def test_all_that_a_program_may_be_asked_for_is_written(tmp_path: Path, step: int) -> None:
    """A file of times made elsewhere gives the prices that timing here would."""
    graph = graph_of(LAYERS)
    channels, file = trace(graph), tmp_path / "timings.json"
    networks = all_networks(graph, channels)
    times = {key: law(each, step) for key, each in networks.items()}
    save_json(file, "latency", {"readers": {"board, one thread": times}})
    given = Latency(graph, channels, Timings(file, "board, one thread", None))
    timer = Timings(tmp_path / "own.json", "here", lambda graphs: [law(each, step) for each in graphs])
    own = Latency(graph, channels, timer)
    assert given.step == own.step == step
    for inputs, output in ((3, 24), (3, 11), (3, 7)):
        assert given(0, (inputs,), output) == own(0, (inputs,), output) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda times: times.popitem(), "lacks 1 layers of this network"),
        (lambda times: times.update({next(iter(times)): -1e-9}), "expected seconds, found -1e-09"),
        (lambda times: times.update({next(iter(times)): float("nan")}), "expected a number, found nan"),
        (lambda times: times.update({next(iter(times)): True}), "expected a number, found True"),
        (lambda times: times.update({next(iter(times)): "1"}), "expected a number, found '1'"),
    ],
)
def test_a_file_of_times_is_checked(tmp_path: Path, change: Any, message: str) -> None:
    graph = graph_of(LAYERS)
    channels, file = trace(graph), tmp_path / "timings.json"
    times = {key: law(each, 1) for key, each in all_networks(graph, channels).items()}
    change(times)
    payload = {"yoloprune": "latency", "version": 3, "readers": {"opencv, one thread": times}}
    file.write_text(json.dumps(payload))
    with pytest.raises(InputError, match=message):
        Latency(graph, channels, Timings(file, "opencv, one thread", None))
    with pytest.raises(InputError, match=r"expected times in ncnn, found opencv, one thread|expected"):
        Timings(file, "ncnn", None)


def test_timings_are_for_latency(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--timings is for --objective latency"):
        check_objective("bflops", None, "timings.json")
    check_objective("latency", "tflite", "timings.json")  # a board's reader needn't be one of ours


def test_the_folder_for_the_board_times_and_prune_takes_it(tmp_path: Path) -> None:
    here("opencv")
    files = written(tmp_path, LAYERS)
    done = emit(files, tmp_path / "board")
    assert done.networks == 1
    with pytest.raises(InputError, match="exists already"):
        emit(files, tmp_path / "board")
    assert emit(files, tmp_path / "board", force=True) == done
    script = tmp_path / "board" / "time_here.py"
    words = [sys.executable, "-I", str(script), "--reader", "opencv", "--rounds", "2"]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    timed = json.loads((tmp_path / "board" / "bench.json").read_text())
    assert 0 < timed["ms"][str(files[0])]["opencv"]["low"] <= timed["ms"][str(files[0])]["opencv"]["high"]
    known = readers_in(tmp_path / "board" / "timings.json")["opencv, one thread"]
    assert len(known) == done.layers
    graph = graph_of(LAYERS)
    Latency(graph, trace(graph), Timings(tmp_path / "board" / "timings.json", "opencv, one thread", None))
    other = graph_of(LAYERS.replace("filters=32", "filters=40"))
    with pytest.raises(InputError, match="lacks"):
        Latency(other, trace(other), Timings(tmp_path / "board" / "timings.json", "opencv, one thread", None))
    assert load_json(tmp_path / "board" / "timings.json", "latency")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        emit(files, mine, force=True)
