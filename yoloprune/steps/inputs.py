"""The files that a job is about, each opened once, when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.data import DataFile, list_images, read_data
from yoloprune.darknet.dialect import dialect_named
from yoloprune.darknet.model import Graph, Model, load_graph
from yoloprune.detect.intact import check_pictures
from yoloprune.detect.load import fit_for, load_measure
from yoloprune.detect.measure import Measure, network_for_measuring
from yoloprune.detect.pictures import Pictures
from yoloprune.errors import InputError
from yoloprune.options import Settings
from yoloprune.progress import OnProgress, Progress, silent
from yoloprune.workspace import Input, Workspace


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a job was started with."""

    cfg: Input
    weights: Input
    data: Input
    settings: Settings
    device: str

    @classmethod
    def of(cls, workspace: Workspace, device: str) -> Inputs:
        """Of a workspace whose inputs are open."""
        return cls(workspace.cfg, workspace.weights, workspace.data, workspace.settings, device)

    @classmethod
    def opened(cls, cfg: Path, weights: Path, data: Path | None, settings: Settings, device: str) -> Inputs:
        """Of files; `data` as in `find_data`. InputError for what can't be read, of the network first."""
        network = cls(Input.opened(cfg), Input.opened(weights), Input("", ""), settings, device)
        original = network.original
        inputs = replace(network, data=Input.opened(find_data(cfg, data)))
        vars(inputs).update(graph=original.graph, original=original)  # cached properties, which needn't be read again
        return inputs

    def on(self, device: str) -> Inputs:
        """The same for another device."""
        if device == self.device:
            return self
        moved = replace(self, device=device)
        vars(moved).update(graph=self.graph, original=self.original, listed=self.listed)
        return moved

    @cached_property
    def graph(self) -> Graph:
        """Of the cfg."""
        return load_graph(self.cfg.path, dialect_named(self.settings.dialect), self.cfg.content)

    @cached_property
    def original(self) -> Model:
        """The network that the job started with."""
        layers, file = self.graph.layers, self.weights.path
        if self.settings.allow_partial:
            return Model(self.graph, weights_file.read_partial(file, layers, 0, self.weights.content)[0])
        return Model(self.graph, weights_file.read(file, layers, self.weights.content))

    @cached_property
    def listed(self) -> DataFile:
        """The .data file; what it names is looked for beside where the user has it."""
        path = Path(self.data.path)
        return read_data(path, path.parent, self.data.content)

    @cached_property
    def measure(self) -> Measure:
        """Ready to measure on the images of the valid list."""
        settings = self.settings
        return load_measure(
            self.graph,
            self.listed,
            metric=settings.metric,
            letterbox=settings.letterbox,
            limit=settings.images,
            device=self.device,
            teacher=None if settings.labels else network_for_measuring(self.original, self.device),
        )

    @cached_property
    def findings(self) -> Any:
        """What the original network predicts of the measure's images."""
        return self.measure.predictions(network_for_measuring(self.original, self.device))

    @cached_property
    def _train_images(self) -> dict[int, tuple[Path, ...]]:
        return {}

    @cached_property
    def _train_batches(self) -> dict[int, list[Tensor]]:
        return {}

    def calibration_batches(self, count: int) -> list[Tensor]:
        """The calibration images as network input, in batches [B,C,H,W]; decoded once."""
        if count not in self._train_batches:
            self._train_batches[count] = self.batches(self.calibration_images(count))
        return self._train_batches[count]

    def batches(self, images: Sequence[Path]) -> list[Tensor]:
        """Images as network input, in batches [B,C,H,W]."""
        pictures = Pictures(images, self.graph, fit_for(self.graph, self.settings.letterbox), self.device)
        return [batch.inputs for batch in pictures]

    def calibration_images(self, count: int) -> tuple[Path, ...]:
        """The first `count` images of the train list; no labels are needed. InputError where there are none."""
        if count and count not in self._train_images:
            self._train_images[count] = list_images(self.listed, "train", count)
        return self._train_images.get(count, ())


def find_data(cfg: Path, data: Path | None) -> Path:
    """The .data file: the one named, else the only one beside the cfg or in the current folder. InputError else."""
    if data is not None:
        return data
    candidates = data_candidates(cfg)
    if len(candidates) != 1:
        listed = ", ".join(str(path) for path in candidates) or "none"
        raise InputError(f"--data: expected one .data file beside {cfg} or here, found {listed}")
    return candidates[0]


def data_candidates(cfg: Path) -> list[Path]:
    """The .data files beside a cfg and in the current folder."""
    return sorted({path.resolve() for folder in (cfg.parent, Path()) for path in folder.glob("*.data")})


def expect_one_of(option: str, found: object, known: Sequence[object]) -> None:
    """InputError if an option is given and none of those known."""
    if found is not None and found not in known:
        raise InputError(f"{option}: expected one of {', '.join(map(str, known))}, found {found}")


def check_readable(images: Iterable[Path], graph: Graph, progress: OnProgress = silent) -> None:
    """InputError that names every image that can't be decoded; told of before work that would end there."""
    check_pictures(tuple(images), graph.net.input.c, lambda done, total: progress(Progress("pictures", done, total)))
