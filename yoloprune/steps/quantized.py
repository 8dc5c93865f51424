"""Where training with few bits begins: a network's weights on grids, which stay as they are while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from yoloprune.choices import CALIBRATE, GRIDS
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.grid import LEAST_BITS, MOST_BITS, Grid
from yoloprune.darknet.model import Model
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.grid_file import load_grids, save_grids
from yoloprune.prune.quantize import Quantization, quantize
from yoloprune.steps.inputs import Inputs, expect_one_of
from yoloprune.steps.training import Training
from yoloprune.train.processes import Processes, process_group

_FREE: Final = 0.8
"""Share of the way to where another value is nearest that a weight may begin at: of those that calibration images moved
there, no first update is to move many back."""


def check_bits(bits: int | None, grid: str) -> None:
    """InputError for bits and grids that there aren't."""
    if bits is not None and not LEAST_BITS <= bits <= MOST_BITS:
        raise InputError(f"--bits: expected {LEAST_BITS} to {MOST_BITS}, found {bits}")
    expect_one_of("--grid", grid, GRIDS)
    if bits is None and grid != GRIDS[0]:
        raise InputError(f"--grid {grid}: expected --bits")


def on_grids(
    training: Training, inputs: Inputs, options: FinetuneOptions, device: str, progress: OnProgress
) -> Training:
    """The training of a network whose weights are on grids of few bits, if options say so, from the first update on.

    Calibration images of the train list choose grids and rounding. Both are kept in the training's folder,
    `grids.json` and `first.weights`: a training goes on from the same, whatever computes it.
    """
    if options.bits is None:
        return training
    grids_file, first, graph = training.folder / "grids.json", training.folder / "first.weights", training.model.graph
    with process_group(device) as place:
        processes = Processes()
        if processes.rank == 0 and not grids_file.exists():
            images = inputs.on(place).calibration_batches(CALIBRATE)
            said = f"{options.bits} bits on {sum(map(len, images))} calibration images"
            progress(Progress(training.stage, 0, training.recipe.iterations, said))
            how = Quantization(options.bits, options.bits_grid)
            rounded, grids = quantize(training.model, how, images, device=place)
            weights_file.write(first, _unrounded(training.model, rounded, grids).weights, graph.layers, force=True)
            save_grids(grids_file, grids)
        processes.barrier()
    grids = load_grids(grids_file, graph)
    if any((grid.bits, _kind(grid)) != (options.bits, options.bits_grid) for grid in grids.values()):
        expected = f"expected --bits {options.bits} --grid {options.bits_grid}"
        raise InputError(f"{expected}, found others; --force starts anew", file=grids_file)
    model = Model(graph, weights_file.read(first, graph.layers))
    return replace(
        training,
        model=model,
        recipe=replace(training.recipe, evaluate_start=True),
        masks=replace(training.masks, grids=grids),
        start=None,
    )


def _unrounded(model: Model, rounded: Model, grids: Mapping[int, Grid]) -> Model:
    """The rounded model with weights as near as they can be to those before that round to the same."""
    changed = {}
    for index, grid in grids.items():
        before, after = (each.weights.layers[index] for each in (model, rounded))
        changed[index] = {**after, "weight": grid.near(after["weight"], before["weight"], _FREE)}
    return rounded.with_arrays(changed)


def _kind(grid: Grid) -> str:
    uniform, kmeans = GRIDS
    return kmeans if grid.scales is None else uniform
