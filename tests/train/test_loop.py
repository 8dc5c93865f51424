"""The loop: what it computes does not depend on how it was run, held values stay, and what fails says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.train.nets import graph
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import ClassSplit, Split
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError, InputWarning
from yoloprune.train import checkpoint, run_folder
from yoloprune.train.batches import network_input
from yoloprune.train.loop import Evaluation, Resources, Trained, train
from yoloprune.train.masks import Masks
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.progress import Record, TrainingProgress
from yoloprune.train.recipe import Recipe
from yoloprune.train.unsupported import unsupported

NET = """[net]
batch=6
subdivisions=2
width=32
height=24
channels=3
learning_rate=0.002
max_batches=6
burn_in=2
hue=.1
saturation=1.5
exposure=1.5

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=10
size=3
stride=2
pad=1
activation=leaky

[dropout]
probability=.2

[convolutional]
filters=14
size=1
activation=linear

[yolo]
classes=2
num=2
anchors=8,8, 16,12
jitter=.2
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Nine pictures of rectangles, bright ones and dark ones."""
    return drawn_images(tmp_path_factory.mktemp("images"))


def drawn_images(folder: Path) -> Split:
    rng = np.random.default_rng(0)
    paths, truths = [], []
    for number in range(9):
        w, h = int(rng.integers(30, 60)), int(rng.integers(30, 60))
        pixels = rng.integers(90, 160, (h, w, 3), np.uint8)
        rows = []
        for kind in rng.integers(0, 2, rng.integers(0, 4)):
            bw, bh = rng.integers(8, 20, 2)
            x, y = rng.integers(0, w - bw), rng.integers(0, h - bh)
            pixels[y : y + bh, x : x + bw] = 255 * kind
            rows.append([kind, (x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h])
        paths.append(folder / f"{number}.png")
        if not paths[-1].exists():  # other processes may be reading it
            cv2.imwrite(str(paths[-1]), pixels)
        truths.append(np.array(rows, np.float32).reshape(-1, 5))
    return Split(("dark", "bright"), tuple(paths), tuple(truths), tuple(np.zeros((0, 5), np.float32) for _ in paths))


def fresh(text: str = NET) -> tuple[Model, Recipe]:
    net = graph(text)
    return Model(net, weights_file.initial(net.layers, 3)), replace(Recipe.from_graph(net), ema_alpha=0.9)


def same(a: Weights, b: Weights) -> bool:
    pairs = zip(a.layers, b.layers, strict=True)
    return a.header == b.header and all((x[name] == y[name]).all() for x, y in pairs for name in x)


def plain_metric(network: Network) -> float:
    assert not network.training
    return float(sum(parameter.sum() for parameter in network.parameters()))


def stop_at(iteration: int, how: Callable[[], None]) -> Callable[[TrainingProgress], None]:
    def progress(found: TrainingProgress) -> None:
        if found.record.iteration == iteration:
            how()

    return progress


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def run(
    images: Split,
    folder: Path,
    *,
    evaluate: Callable[[Network], float] = plain_metric,
    measured: str = "",
    workers: int = 0,
    **options: Any,
) -> Trained:
    model, recipe = fresh()
    recipe = replace(recipe, evaluate_every=2)
    evaluation, resources = Evaluation(evaluate, measured), Resources(workers=workers)
    given = {"folder": folder, "seed": 5, "evaluation": evaluation, "resources": resources, **options}
    return train(model, images, recipe, **given)


def test_an_interrupted_run_ends_as_an_undisturbed_one(images: Split, tmp_path: Path) -> None:
    expected = run(images, tmp_path / "whole", workers=3)
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(images, folder, progress=stop_at(2, raise_interrupt))
    with pytest.raises(KeyboardInterrupt):
        run(images, folder, progress=stop_at(3, lambda: os.kill(os.getpid(), signal.SIGINT)))

    def interrupted(network: Network) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, folder, evaluate=interrupted)
    found = run(images, folder, workers=1)
    assert same(found.last, expected.last)
    assert same(found.best, expected.best)
    assert found.history == expected.history
    assert [record.iteration for record in found.history if record.metric is not None] == [2, 4, 6]
    assert (tmp_path / "whole" / run_folder.LOG).read_text() == (folder / run_folder.LOG).read_text()
    assert not same(run(images, tmp_path / "other", seed=6).last, expected.last)


def test_a_signal_within_an_update_waits_for_its_end(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(images, tmp_path / "whole")
    count = 0

    def step(optimizer: Optimizer, iteration: int, rate: float, original: Callable[..., None] = Optimizer.step) -> None:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGINT)
        original(optimizer, iteration, rate)

    monkeypatch.setattr(Optimizer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "parts")
    saved = torch.load(tmp_path / "parts" / run_folder.CHECKPOINT, weights_only=True)
    assert saved["iteration"] == 4
    assert same(run(images, tmp_path / "parts").last, expected.last)


def halves(model: Model) -> Mask:
    """Every other channel of the first layer is pruned, and their columns in the second."""
    masks: list[dict[str, np.ndarray]] = [{} for _ in model.graph.layers]
    first, second = model.graph.layers[:2]
    for spec in first.tensors():
        masks[0][spec.name] = np.ones(spec.shape, bool)
        masks[0][spec.name][::2] = False
    masks[1]["weight"] = np.ones(second.tensors()[-1].shape, bool)
    masks[1]["weight"][:, ::2] = False
    return Mask(tuple(masks))


def test_held_values_stay_exactly(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, iterations=1000, momentum=0.95, checkpoint_every=1000, batch=2, subdivisions=1)
    assert recipe.decay > 0
    assert recipe.ema_alpha > 0
    mask = halves(model)
    found = train(model, images, recipe, folder=tmp_path, seed=1, masks=Masks(mask), resources=Resources(workers=1))
    saved = torch.load(tmp_path / run_folder.CHECKPOINT, weights_only=True)
    for layer in (0, 1):
        for spec in model.graph.layers[layer].tensors():
            free = mask.layers[layer].get(spec.name)
            if free is None:
                continue
            for tensor in (
                found.last.layers[layer][spec.name],
                saved["network"][f"layers.{layer}.{spec.name}"].numpy(),
                saved["average"][f"layers.{layer}.{spec.name}"].numpy(),
            ):
                assert (tensor[~free] == spec.masked).all(), spec
                assert (tensor[free] != model.weights.layers[layer][spec.name][free]).mean() > 0.9, spec
    moments = [state["momentum_buffer"] for state in saved["optimizer"]["state"].values()]
    assert any((moment[::2] == 0).all() and (moment[1::2] != 0).any() for moment in moments if moment.dim() == 4)


def test_subdivisions_change_nothing_without_batch_statistics(images: Split, tmp_path: Path) -> None:
    text = NET.replace("batch_normalize=1\n", "").replace(".2\n\n[conv", "0\n\n[conv").replace("=.2", "=0")
    ends = []
    for parts in (1, 3):
        model, recipe = fresh(text.replace("subdivisions=2", f"subdivisions={parts}"))
        ends.append(train(model, images, recipe, folder=tmp_path / str(parts), seed=1))
    assert [record.loss for record in ends[0].history] == pytest.approx([r.loss for r in ends[1].history], rel=1e-5)
    for a, b in zip(ends[0].last.layers, ends[1].last.layers, strict=True):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_best_and_last_are_kept(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    metrics = iter([0.2, 0.7, 0.5])
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(network: Network) -> float:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(metrics)

    found = train(
        model,
        images,
        replace(recipe, evaluate_every=2, ema_alpha=0),
        folder=tmp_path,
        seed=1,
        evaluation=Evaluation(evaluate),
    )
    assert (found.best_metric, found.best_iteration) == (0.7, 4)
    assert (found.best.header.seen, found.last.header.seen) == (24, 36)
    np.testing.assert_array_equal(found.best.layers[0]["weight"], seen[1]["layers.0.weight"])
    np.testing.assert_array_equal(found.last.layers[0]["weight"], seen[2]["layers.0.weight"])


def test_any_seed_and_policy_will_do_without_max_batches(images: Split, tmp_path: Path) -> None:
    text = NET.replace("max_batches=6\n", "policy=poly\npower=1\n").replace("burn_in=2\n", "")
    net = graph(text)
    recipe = Recipe.from_graph(net, iterations=4)
    model = Model(net, weights_file.initial(net.layers, 3))
    found = train(model, images, recipe, folder=tmp_path, seed=1 << 40, resources=Resources(workers=0))
    assert [record.rate for record in found.history] == pytest.approx([0.0015, 0.001, 0.0005, 0])
    with pytest.raises(InputError, match="expected max_batches=, found none"):
        Recipe.from_graph(net)


def test_it_learns(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = Recipe.for_finetuning(model.graph, 60, learning_rate=0.01, batch=9)
    told: list[TrainingProgress] = []
    found = train(model, images, recipe, folder=tmp_path, seed=1, progress=told.append)
    assert found.history[-1].average < 0.6 * found.history[0].average
    rates = [record.rate for record in found.history]
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] == pytest.approx(0.0001, rel=0.02)
    assert [progress.record for progress in told] == list(found.history)
    assert told[-1].seconds_left == 0
    assert told[0].images_per_second > 0
    assert found.history[1].average == pytest.approx(0.9 * found.history[0].loss + 0.1 * found.history[1].loss)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, iterations=50, schedule=replace(recipe.schedule, learning_rate=1e12))
    with pytest.warns(InputWarning), pytest.raises(InputError, match=r"iteration \d+: .*layer \d+ \[\w+\]"):
        train(model, images, recipe, folder=tmp_path, seed=1)
    saved = torch.load(tmp_path / run_folder.CHECKPOINT, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["network"].values())


def test_what_is_saved_does_not_grow_with_what_was(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, checkpoint_every=1)
    log, checkpoint = tmp_path / run_folder.LOG, tmp_path / run_folder.CHECKPOINT
    sizes = []

    def look(found: TrainingProgress) -> None:
        sizes.append(checkpoint.stat().st_size)
        if found.record.iteration == 4:
            log.write_text("before\n")

    train(model, images, recipe, folder=tmp_path, seed=1, progress=look, resources=Resources(workers=0))
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == ["before", "4", "5", "6"]
    assert len(set(sizes[2:])) == 1  # from the first momentum on


def test_a_checkpoint_of_another_run_is_refused(images: Split, tmp_path: Path) -> None:
    run(images, tmp_path)
    with pytest.raises(InputError, match=r"last\.pt: belongs to a run with other"):
        run(images, tmp_path, seed=9)
    with pytest.raises(InputError, match=r"last\.pt: belongs to a run with other"):
        run(images, tmp_path, measured="something else")
    file = tmp_path / run_folder.CHECKPOINT
    whole, saved = file.read_bytes(), torch.load(file, weights_only=True)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            found = checkpoint.read(file, saved["run"])
        except InputError:
            refused += 1
        else:
            assert all(torch.equal(tensor, saved["network"][name]) for name, tensor in found.network.items())
    assert refused > 200
    (tmp_path / run_folder.CHECKPOINT).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"last\.pt: is no checkpoint"):
        run(images, tmp_path)


def test_bad_input_is_refused(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    nothing = Split(images.names, (), (), ())
    with pytest.raises(InputError, match="expected images to train on"):
        train(model, nothing, recipe, folder=tmp_path, seed=1)
    with pytest.raises(InputError, match=r"subdivisions: expected 1\.\.2"):
        replace(recipe, batch=2, subdivisions=3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    bad = replace(images, images=(broken,) * len(images.images))
    with pytest.raises(InputError, match=r"broken\.png"):
        train(model, bad, recipe, folder=tmp_path, seed=1)


def test_what_is_not_supported_is_said() -> None:
    assert unsupported(graph(NET)) == []
    text = NET.replace("burn_in=2", "burn_in=2\ntrack=1\nadam=0\nclip=0")
    found = unsupported(graph(text.replace("jitter=.2", "jitter=.2\nonlyforward=1\nclip=1")))
    assert len(found) == 3
    assert "net.cfg:10: track=1 is not supported" in found[0]
    assert "onlyforward=1 is not supported" in found[1]
    assert "clip=1 is not supported" in found[2]


def test_frozen_layers_stay_and_normalize_by_what_they_know(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, frozen=frozenset({0}), ema_alpha=0)
    found = train(model, images, recipe, folder=tmp_path, seed=1, resources=Resources(workers=0))
    for name, array in found.last.layers[0].items():
        np.testing.assert_array_equal(array, model.weights.layers[0][name])
    assert (found.last.layers[1]["mean"] != model.weights.layers[1]["mean"]).all()
    assert (found.last.layers[1]["weight"] != model.weights.layers[1]["weight"]).any()


def test_it_stops_where_nothing_gets_better(images: Split, tmp_path: Path) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, iterations=30, evaluate_every=2, patience=3)
    metrics = iter([0.2, 0.7, 0.5, 0.1, 0.8, 0.6, 0.8, 0.3, 0.9])  # of equals the later is the best, and no better
    found = train(
        model,
        images,
        recipe,
        folder=tmp_path,
        seed=1,
        evaluation=Evaluation(lambda network: next(metrics)),
        resources=Resources(workers=0),
    )
    assert (len(found.history), found.best_iteration, found.best_metric) == (16, 14, 0.8)
    again = train(model, images, recipe, folder=tmp_path, seed=1, evaluation=Evaluation(lambda network: 1.0))
    assert again.history == found.history


def test_ctrl_c_while_the_chart_is_drawn_counts_no_measurement_twice(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, recipe = fresh()
    recipe = replace(recipe, iterations=12, evaluate_every=1, patience=3)

    def whole(folder: Path, stopped_at: int) -> tuple[int, int]:
        metrics = iter([0.1, 0.2, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1])
        plot, drawn = run_folder.plot_training, [0]

        def stopping(records: Sequence[Record], *rest: Any) -> None:
            drawn[0] += 1
            if drawn[0] == stopped_at:
                raise KeyboardInterrupt
            plot(records, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "plot_training", stopping)
            for _ in range(2):
                with suppress(KeyboardInterrupt):
                    found = train(
                        model, images, recipe, folder=folder, seed=1,
                        evaluation=Evaluation(lambda network: next(metrics)), resources=Resources(workers=0),
                    )  # fmt: skip
                    return len(found.history), found.best_iteration
        raise AssertionError("stopped twice")

    assert whole(tmp_path / "undisturbed", 0) == whole(tmp_path / "stopped", 3) == (8, 5)


def test_bfloat16_follows_float32(images: Split, tmp_path: Path) -> None:
    ends = []
    for half in (False, True):
        model, recipe = fresh()
        recipe = replace(recipe, bfloat16=half, iterations=12)
        ends.append(train(model, images, recipe, folder=tmp_path / str(half), seed=1, resources=Resources(workers=0)))
    losses = [[record.loss for record in end.history] for end in ends]
    assert losses[0] != losses[1]
    # A value has 8 bits: within 2^-8 of it, and a few times that as updates follow each other.
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=0.03 * losses[0][0])
    for layers in zip(ends[0].last.layers, ends[1].last.layers, strict=True):
        if layers[0]:  # single values of a layer, its biases say, may go further apart
            a, b = (np.concatenate([array.ravel() for array in each.values()]) for each in layers)
            assert np.linalg.norm(b - a) < 0.05 * np.linalg.norm(a)


def test_several_sizes_train_one_network(images: Split, tmp_path: Path) -> None:
    text = NET.replace("jitter=.2", "jitter=.2\nrandom=1.8").replace("burn_in=2", "burn_in=2\nresize_step=8")
    model, recipe = fresh(text)
    recipe = replace(recipe, iterations=60, sizes=replace(recipe.sizes, iterations=10000))
    sizes = {recipe.sizes.at(model.graph.net.input, number, 1) for number in range(1, 61)}
    assert len(sizes) > 3
    found = train(model, images, recipe, folder=tmp_path, seed=1)
    cells = [size.h * size.w for size in (recipe.sizes.at(model.graph.net.input, number, 1) for number in (1, 60))]
    losses = [found.history[at].average / count for at, count in zip((0, -1), cells, strict=True)]
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize("keys", ["mosaic=1\nmosaic_bound=1", "mixup=1", "blur=1\ngaussian_noise=20"])
def test_pictures_put_together_do_not_depend_on_workers(images: Split, tmp_path: Path, keys: str) -> None:
    ends = []
    for workers in (0, 3):
        model, recipe = fresh(NET.replace("burn_in=2", f"burn_in=2\n{keys}"))
        folder = tmp_path / str(workers)
        ends.append(
            train(model, images, recipe, folder=folder, seed=1, resources=Resources(workers=workers, cache_bytes=9000))
        )
    assert same(ends[0].last, ends[1].last)
    plain, recipe = fresh()
    other = train(plain, images, recipe, folder=tmp_path / "plain", seed=1)
    assert not same(other.last, ends[0].last)


CLASSES = """[net]
batch=8
width=20
height=20
channels=3
learning_rate=.05
max_batches=80
min_crop=20
max_crop=30
angle=7
aspect=1.2
label_smooth_eps=.1

[convolutional]
filters=6
size=3
stride=2
batch_normalize=1
activation=leaky

[convolutional]
filters=2
activation=linear

[avgpool]

[softmax]
"""


def test_a_classifier_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(12):
        stripes = np.zeros((33, 41, 3), np.uint8)
        stripes[::4] = stripes[1::4] = rng.integers(100, 256, 3)
        kind = number % 2
        pixels = stripes if kind else stripes.transpose(1, 0, 2)
        paths.append(tmp_path / f"{('lying', 'standing')[kind]}{number}.png")
        cv2.imwrite(str(paths[-1]), pixels)
    split = ClassSplit(("lying", "standing"), tuple(paths), tuple(number % 2 for number in range(12)))
    model, recipe = fresh(CLASSES)
    found = train(model, split, recipe, folder=tmp_path / "run", seed=1)
    # With a tenth dealt out, Darknet's cost -ln p0 - ln p1 is least at p = .9 and then 2.41, and 1.39 at p = .5.
    network = Network(model.graph)
    network.set_weights(found.last)
    network.eval()
    with torch.inference_mode():
        right = 0
        for number, path in enumerate(paths):
            pixels = cv2.cvtColor(cv2.imread(str(path))[6:26, 6:26], cv2.COLOR_BGR2RGB)
            output = network(network_input(torch.from_numpy(pixels)[None], torch.device("cpu")))
            right += int(output[3].flatten().argmax()) == number % 2
    assert right >= 11
    with pytest.raises(InputError, match="expected a network with an output of classes"):
        train(fresh()[0], split, recipe, folder=tmp_path / "run", seed=1)


def test_what_a_classifier_does_not_get_is_said() -> None:
    found = unsupported(graph(CLASSES.replace("angle=7", "mosaic=1\ncutmix=1")))
    assert ["cutmix=1" in found[0], "mosaic=1" in found[1], len(found)] == [True, True, 2]
