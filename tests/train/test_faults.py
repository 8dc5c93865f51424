"""Runs that are killed or find no room, and runs of several processes.

Run as a program: FOLDER KIND, which trains the little network in FOLDER and tells of each update.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.train.test_loop import NET, drawn_images, fresh, halves
from tests.train.test_masks import Growing
from yoloprune.darknet import weights as weights_file
from yoloprune.errors import InputError
from yoloprune.train import run_folder
from yoloprune.train.batches import batches
from yoloprune.train.loop import Evaluation, Resources, train
from yoloprune.train.masks import Masks, MaskSchedule
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.processes import process_group
from yoloprune.train.progress import TrainingProgress
from yoloprune.train.ranks import rank_of
from yoloprune.train.samples import Samples

ROOT = Path(__file__).resolve().parents[2]
SQUARE = "[convolutional]\nbatch_normalize=1\nfilters=10\nsize=3\npad=1\nactivation=leaky\n"
NORMS = NET.replace(
    "[convolutional]\nfilters=14", f"[batchnorm]\n{SQUARE}{SQUARE}share_index=4\n[convolutional]\nfilters=14"
)
"""With running statistics by themselves, and such as two layers move."""


def killed_again_and_again(folder: Path) -> None:
    """A run that goes on where it was."""
    model, recipe = fresh()
    recipe = replace(recipe, iterations=60, checkpoint_every=3, evaluate_every=25)

    def tell(now: TrainingProgress) -> None:
        print(now.record.iteration, flush=True)
        time.sleep(0.02)  # so that it isn't far ahead of who reads

    found = train(
        model,
        drawn_images(folder / "images"),
        recipe,
        folder=folder / "training",
        seed=5,
        evaluation=Evaluation(lambda network: float(sum(parameter.sum() for parameter in network.parameters()))),
        resources=Resources(workers=1),
        progress=tell,
    )
    for name, weights in (("best", found.best), ("last", found.last)):
        weights_file.write(folder / f"{name}.weights", weights, model.graph.layers, force=True)


def together(folder: Path, schedule: MaskSchedule | None = None) -> None:
    """A run that processes share, or one process alone."""
    text = NORMS.replace("subdivisions=2", f"subdivisions={os.environ['PARTS']}")
    model, recipe = fresh(text.replace("=0.002", f"={os.environ.get('RATE', '0.002')}"))
    recipe = replace(recipe, iterations=5)
    with process_group("cpu"):
        found = train(
            model,
            drawn_images(folder / "images"),
            recipe,
            folder=folder,
            seed=5,
            masks=Masks(halves(model), schedule),
            resources=Resources(workers=0),
        )
    if rank_of() == 0:
        weights_file.write(folder / "last.weights", found.last, model.graph.layers, force=True)


def growing(folder: Path) -> None:
    """As `together`, with masks that the first process chooses from its weights."""
    together(folder, Growing({0: 0.5, 2: 0.6, 4: 0.7}))


def spoilt(folder: Path) -> None:
    """As `together`, but one process has no numbers after its third update, and alone knows of it; at the full rate."""
    original = Optimizer.step

    def step(optimizer: Optimizer, iteration: int, rate: float) -> None:
        original(optimizer, iteration, rate)
        if (rank_of(), iteration, rate) == (1, 3, 0.002):
            with torch.no_grad():
                optimizer._parameters[0][0].fill_(np.nan)

    Optimizer.step = step  # type: ignore[method-assign]
    together(folder)


def loading(folder: Path) -> None:
    """Makes mini-batches until it is ended, and tells which processes do."""
    model, recipe = fresh()
    samples = Samples.of(drawn_images(folder / "images"), model.graph, recipe, 1, 0)
    for _ in batches(samples, range(0, 1 << 40, 2), 2, 2):
        print(*(process.pid for process in active_children()), flush=True)


def started(
    command: list[str], folder: Path, kind: str, *, start_new_session: bool = False, **environment: str
) -> subprocess.Popen[str]:
    changed = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    full = [sys.executable, *command, "-m", "tests.train.test_faults", str(folder), kind]
    return subprocess.Popen(
        full, env=changed, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=start_new_session
    )


def test_killed_at_any_moment_it_ends_as_undisturbed(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        (folder / "images").mkdir(parents=True)
        drawn_images(folder / "images")
    for least in (1, 6):  # the second time behind a checkpoint, whatever the first left
        with started([], killed, "killed") as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(least, 20))):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with started([], killed, "killed") as process:
        told = process.communicate()[0].split()
    assert told[-1] == "60"
    assert len(told) < 60  # it did go on
    with started([], whole, "killed") as process:  # with as many threads, which decide the order of sums
        process.communicate()
    for name in ("best", "last"):
        one, other = ((folder / f"{name}.weights").read_bytes() for folder in (whole, killed))
        assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest(), name
    logs = [(folder / "training" / run_folder.LOG).read_text() for folder in (whole, killed)]
    assert logs[0] == logs[1]
    assert [line.split(",")[0] for line in logs[0].splitlines()[1:]] == [str(number) for number in range(1, 61)]
    left = {path.name for path in (killed / "training").iterdir() if not path.name.startswith(".")}
    assert left == {run_folder.CHECKPOINT, run_folder.LOG, run_folder.CHART}


def test_processes_end_with_who_started_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with started([], tmp_path, "loading") as process:
        assert process.stdout is not None
        workers = process.stdout.readline().split()
        assert len(workers) == 2
        process.send_signal(signal.SIGKILL)
    while any(running(int(worker)) for worker in workers):
        time.sleep(0.1)


def running(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_reaches_all_and_stops_between_updates(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with started([], tmp_path, "killed", start_new_session=True) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        told = process.stdout.read().split()
    assert process.returncode == -signal.SIGINT
    saved = torch.load(tmp_path / "training" / run_folder.CHECKPOINT, weights_only=True)
    assert saved["iteration"] in (int(told[-1]), int(told[-1]) + 1) if told else saved["iteration"] in (4, 5)


def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images = drawn_images(tmp_path / "images")
    model, recipe = fresh()
    recipe = replace(recipe, iterations=9, checkpoint_every=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(now: TrainingProgress) -> None:
        if now.record.iteration == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # writes beyond this fail, as on a full disk

    try:
        with pytest.raises(InputError, match=r"last\.pt: cannot be written"):
            train(model, images, recipe, folder=tmp_path / "run", seed=1, progress=fill, resources=Resources(workers=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    saved = torch.load(tmp_path / "run" / run_folder.CHECKPOINT, weights_only=True)
    assert saved["iteration"] == 2
    assert not list((tmp_path / "run").glob(".*"))
    expected = train(model, images, recipe, folder=tmp_path / "whole", seed=1, resources=Resources(workers=0))
    found = train(model, images, recipe, folder=tmp_path / "run", seed=1, resources=Resources(workers=0))
    assert found.history == expected.history


@pytest.mark.parametrize(("kind", "parts", "rate"), [("together", "1", "0.002"), ("together", "2", "0.002"),
                                                     ("spoilt", "2", "0.001"), ("growing", "2", "2e-5")])  # fmt: skip
def test_two_processes_are_one_with_twice_the_mini_batches(
    one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, parts: str, rate: str
) -> None:
    """Also where numbers end in one of them: both go back then, and on as one process at half the rate."""
    (tmp_path / "images").mkdir()
    drawn_images(tmp_path / "images")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
        (folder / "images").symlink_to(tmp_path / "images")
    model, _ = fresh(NORMS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # The smallest weights are the same in spite of rounding, which is far finer at a small rate than weights are apart.
    rates = {"RATE": rate} if kind == "growing" else {}
    with started(launch, shared, kind, PARTS=parts, **rates) as process:
        process.communicate()
    assert process.returncode == 0
    monkeypatch.setenv("PARTS", "2")
    monkeypatch.setenv("RATE", rate)
    (growing if kind == "growing" else together)(alone)
    one, two = (weights_file.read(folder / "last.weights", model.graph.layers) for folder in (alone, shared))
    assert one.header == two.header
    for layer, a, b, start in zip(model.graph.layers, one.layers, two.layers, model.weights.layers, strict=True):
        for name in a:  # running statistics too
            assert np.abs(a[name] - b[name]).max() <= 1e-6 * np.abs(a[name]).max(), (layer, name)
            assert (a[name] != start[name]).any()
    assert (alone / run_folder.LOG).read_text().splitlines()[-1].split(",")[0] == "5"
    logs = [
        np.loadtxt(folder / run_folder.LOG, delimiter=",", skiprows=1, usecols=(1, 2)) for folder in (alone, shared)
    ]
    np.testing.assert_allclose(logs[1], logs[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("device", "number", "reason"),
    [("cuda:0", "0", "expected cuda, of which each process of torchrun takes one, found cuda:0"),
     ("cuda", "2", "expected a GPU for each process of torchrun, found 2")],
)  # fmt: skip
def test_each_process_needs_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str, number: str, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launched = {"WORLD_SIZE": "3", "RANK": number, "LOCAL_RANK": number}
    with pytest.raises(InputError, match=reason), process_group(device, launched):
        pass


def test_processes_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: told.extend([backend, how["device_id"]]))
    monkeypatch.setattr(dist, "barrier", lambda: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with process_group("cuda", {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}) as place:
        assert place == "cuda:1"
    assert told == [torch.device("cuda:1"), "nccl", torch.device("cuda:1")]


if __name__ == "__main__":
    kinds = {"killed": killed_again_and_again, "together": together, "spoilt": spoilt, "loading": loading}
    kinds["growing"] = growing
    kinds[sys.argv[2]](Path(sys.argv[1]))
