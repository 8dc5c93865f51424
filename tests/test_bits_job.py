"""Few bits in a job: trained with, found layer by layer, and packed without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.drawn import Bench, bench
from tests.jobs import ana, export, prune
from yoloprune import cli
from yoloprune.artefacts import sha256
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.exact import exact_codes
from yoloprune.darknet.model import Model, load
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.formats import ypz
from yoloprune.options import FinetuneOptions
from yoloprune.progress import Progress
from yoloprune.prune.grid_file import load_grids, save_grids
from yoloprune.prune.plan import Plan
from yoloprune.prune.quantize import Quantization, quantizable_layers, quantize
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.pack import pack, unpack
from yoloprune.steps.undo import undo
from yoloprune.workspace import Workspace


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


def pruned_job(made: Bench, space: Path) -> Path:
    """Half of the weights are pruned, without an image."""
    ana(
        made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,), granularity="weight"
    )  # fmt: skip
    prune(sparsity=0.5, calibrate=0, workspace=space)
    return space


def few(**options: Any) -> FinetuneOptions:
    told: dict[str, Any] = {"iterations": 2, "workers": 0, "batch": 4, "bits": 4, "learning_rate": 0.003}
    return FinetuneOptions(**told | options)


def trained(made: Bench, space: Path) -> Model:
    return load(made.cfg, Workspace.load(space).finetuned_file(len(Workspace.load(space).rounds)), ALEXEYAB)


def bits_of(model: Model) -> dict[int, int]:
    """Of layers whose weights are on a grid, bit by bit."""
    found = {}
    for index in quantizable_layers(model.graph):
        weight = model.weights.layers[index]["weight"]
        if answer := exact_codes(weight.reshape(len(weight), -1)):
            found[index] = answer[0].bits
    return found


@pytest.mark.parametrize("grid", ["uniform", "kmeans"])
def test_finetuned_with_few_bits_and_packed_without_loss(made: Bench, tmp_path: Path, grid: str) -> None:
    space = pruned_job(made, tmp_path / "space")
    done = finetune(few(bits_grid=grid), workspace=space)
    model, job = trained(made, space), open_job(space)
    held = job.units.mask().apply(model)
    for arrays, same in zip(model.weights.layers, held.weights.layers, strict=True):
        assert all(np.array_equal(arrays[key], same[key]) for key in arrays)
    for index in quantizable_layers(model.graph):
        weight = model.weights.layers[index]["weight"]
        rows = [weight.ravel()] if grid == "kmeans" else weight.reshape(len(weight), -1)
        assert all(len(np.unique(row)) <= 16 for row in rows)
    assert done.after.accuracy == job.inputs.measure.accuracy(network_for_measuring(model))
    exported = export(tmp_path / "slim", workspace=space)
    small = pack(exported.cfg, exported.weights, tmp_path / "a.ypz").after
    assert unpack(tmp_path / "a.ypz", tmp_path / "out").weights.read_bytes() == exported.weights.read_bytes()
    forms = [entry.bits for entry in ypz.read(tmp_path / "a.ypz").entries if entry.bits]
    assert len(forms) >= 3
    assert max(forms) <= 4
    if grid == "kmeans":
        return
    finetune(few(bits=None), workspace=space, force=True)
    assert not bits_of(trained(made, space))
    exported = export(tmp_path / "floats", workspace=space)
    assert small < 0.75 * pack(exported.cfg, exported.weights, tmp_path / "b.ypz").after


def test_goes_on_bit_for_bit_after_an_interrupt(made: Bench, tmp_path: Path) -> None:
    spaces = [pruned_job(made, tmp_path / name) for name in ("whole", "broken")]
    finetune(few(), workspace=spaces[0])

    def stop(progress: Progress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(few(), workspace=spaces[1], progress=stop)
    with pytest.raises(InputError, match=r"grids.json.* expected --bits 5 --grid uniform, found others; --force"):
        finetune(few(bits=5), workspace=spaces[1])
    finetune(few(), workspace=spaces[1])
    for name in ("finetuned.weights", "training/last.weights", "training/grids.json", "training/first.weights"):
        assert len({sha256(space / "round-1" / name) for space in spaces}) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bits": 9}, "--bits: expected 2 to 8"),
        ({"bits": None, "bits_grid": "kmeans"}, "--grid kmeans: expected --bits"),
    ],
)
def test_what_makes_no_sense_is_refused(made: Bench, tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        finetune(few(**options), workspace=tmp_path)


def test_bits_of_each_layer_by_what_they_lose(made: Bench, tmp_path: Path) -> None:
    """Behind a round of weights: found, trained with, packed; a second round has fewer; and it is taken back."""
    space = pruned_job(made, tmp_path / "space")
    finetune(few(bits=None, iterations=1), workspace=space)
    zeros = open_job(space).units.mask()
    found = ana(made.cfg, made.weights, made.data, workspace=space, granularity="bits", calibrate=4)
    assert {curve.size for curve in found.curves} == {32}
    assert len(found.curves) == len(quantizable_layers(open_job(space).model.graph))
    assert all(24 <= point.dropped <= 30 for curve in found.curves for point in curve.points)
    done = prune(ratio=0.8, workspace=space)
    file = space / "round-2" / "grids.json"
    grids, plan = load_grids(file, done.units.graph), Plan.load(space / "round-2" / "plan.json")
    assert {str(index): 32 - grid.bits for index, grid in grids.items()} == {
        label: count for label, count in plan.pruned.items() if count
    }
    counts = {group.label: group.weights for group in done.units.groups}  # type: ignore[attr-defined]
    left = sum(counts[label] * (1 - count / 32) for label, count in plan.pruned.items())
    assert 0.1 * sum(counts.values()) < left <= 0.2 * sum(counts.values())
    before = load(made.cfg, space / "round-2" / "pruned.weights", ALEXEYAB)
    for weights in (before, trained_after(made, space)):
        for index, grid in grids.items():
            weight = weights.weights.layers[index]["weight"]
            assert grid.values(grid.nearest(weight)).tobytes() == weight.tobytes()
        assert all(
            not weights.weights.layers[index][name][~kept].any()
            for index, layer in enumerate(zeros.layers)
            for name, kept in layer.items()
            if name == "weight"
        )
    exported = export(tmp_path / "slim", workspace=space)
    packed = pack(exported.cfg, exported.weights, tmp_path / "a.ypz")
    assert unpack(packed.file, tmp_path / "out").weights.read_bytes() == exported.weights.read_bytes()
    fewer = prune(ratio=0.9, workspace=space, reuse_analysis=True)
    assert all(count >= plan.pruned[label] for label, count in fewer.units.count().items())
    undo(space)
    assert open_job(space).units.grids.keys() == grids.keys()
    with pytest.raises(InputError, match="only channels go before something else, and weights before bits"):
        prune(ratio=0.9, workspace=space, granularity="weight")
    undo(space)
    assert not file.exists()
    assert not open_job(space).units.grids


def trained_after(made: Bench, space: Path) -> Model:
    for refused in ({"bits": 4}, {"bits": None, "schedule": "constant"}):
        with pytest.raises(InputError, match="expected a round of channels or weights"):
            finetune(few(**refused), workspace=space)
    finetune(few(bits=None), workspace=space)
    return trained(made, space)


def test_short_for_the_granularity(made: Bench) -> None:
    words = ("ana", made.cfg, made.weights, "--data", made.data, "--bits", "--dry-run", "--json", "-")
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert json.loads(result.stdout)["groups"] == 5  # depthwise layers, too


def test_the_file_of_grids(made: Bench, tmp_path: Path) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    for kind in ("uniform", "kmeans"):
        _, grids = quantize(model, Quantization(3, kind))
        save_grids(tmp_path / "grids.json", grids)
        again = load_grids(tmp_path / "grids.json", model.graph)
        for index, grid in grids.items():
            for old, new in ((grid.scales, again[index].scales), (grid.codebook, again[index].codebook)):
                assert (old is None and new is None) or (old is not None and np.array_equal(old, new))
    text = (tmp_path / "grids.json").read_text()
    for old, new, expected in (
        ('"bits": 3', '"bits": 9', "grids.0: bits: expected 2 to 8"),
        ('"0": {', '"3": {', "grids.3: expected layers among 0, 1"),
        ('"codebook": [\n    0.0,', '"codebook": [\n    1.0,', "the first 0"),
        ('"codebook": [\n    0.0,', '"codebook": [\n', "codebook: expected float32"),
        ('"scales": null', '"scales": [0.5]', "either scales or a codebook"),
    ):
        assert old in text, old
        (tmp_path / "bad.json").write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=expected):
            load_grids(tmp_path / "bad.json", model.graph)
