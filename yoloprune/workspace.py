"""The folder that a job lives in: what it was started with, and every round of pruning so far."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from yoloprune.artefacts import atomic_path, load_json, read_bytes, save_json, sha256, typed
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions, PruneOptions, Settings

DEFAULT: Final = Path("yoloprune-workspace")
_FILE = "workspace.json"
Role = Literal["cfg", "weights", "data"]
ROLES: Final[tuple[Role, ...]] = ("cfg", "weights", "data")
"""Inputs of a job."""


@dataclass(frozen=True)
class Input:
    """A file that the job was started with; it is the same wherever it lies."""

    path: str = field(compare=False)
    sha256: str
    content: bytes | None = field(default=None, compare=False, repr=False, metadata={"stored": False})
    """Its bytes, where it has been opened."""

    @classmethod
    def opened(cls, path: Path) -> Self:
        """The file as it is now. InputError if it cannot be read."""
        content = read_bytes(path)
        return cls(str(path.resolve()), hashlib.sha256(content).hexdigest(), content)

    def is_in(self, path: str | Path) -> bool:
        """Whether a file is there and holds what this one did."""
        try:
            return sha256(path) == self.sha256
        except InputError:
            return False


@dataclass(frozen=True)
class Figures:
    """A network's accuracy and size."""

    metric: str
    """Key of the accuracy in reports: map50_present, top1 ..."""
    accuracy: float
    bflops: float
    effective_bflops: float
    """Without operations on weights that are 0."""
    parameters: int
    """Floats in its .weights."""
    nonzero: int
    """Those that are not 0."""
    bytes: int
    packed: int | None = None
    """Bytes of cfg and weights packed without loss (formats/); None where that would take too long."""
    ms: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Median milliseconds of an image on one thread, by reader, where that was asked for; not stored."""

    def as_dict(self) -> dict[str, Any]:
        """As reports show it."""
        return {
            self.metric: self.accuracy,
            "bflops": self.bflops,
            "effective_bflops": self.effective_bflops,
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "bytes": self.bytes,
            "packed": self.packed,
            **({"ms": dict(self.ms)} if self.ms else {}),
        }


@dataclass(frozen=True)
class Round:
    """What was pruned at a time, and the training after it if there was any."""

    number: int
    options: PruneOptions
    """As they held: what was left out is filled in."""
    threshold: float | None
    """What each group alone was allowed to lose; by ratio or total loss the most that one does. None where groups were
    not pruned by what they lose."""
    before: Figures
    pruned: Figures
    finetuned: Figures | None = None
    finetuning: FinetuneOptions | None = None
    """How it was trained."""

    @property
    def newest(self) -> Figures:
        """After the training, if there was one."""
        return self.finetuned or self.pruned


@dataclass(frozen=True)
class Workspace:
    """What `workspace.json` says, and where things are."""

    folder: Path
    cfg: Input
    weights: Input
    data: Input
    settings: Settings
    original: Figures | None = None
    """Of the network that the job started with, once measured."""
    rounds: tuple[Round, ...] = ()
    pictures: str = ""
    """SHA-256 of what is measured on (`Measure.digest`)."""

    @property
    def file(self) -> Path:
        """`workspace.json`."""
        return self.folder / _FILE

    @property
    def search_file(self) -> Path:
        """What `run --target-map` has tried."""
        return self.folder / "search.json"

    @property
    def report_file(self) -> Path:
        """What people look at."""
        return self.folder / "report.html"

    @property
    def milliseconds_file(self) -> Path:
        """How long its networks take, as they were when they were timed last."""
        return self.folder / "milliseconds.json"

    def round_folder(self, number: int) -> Path:
        """Files of a round, counted from 1."""
        return self.folder / f"round-{number}"

    def sensitivity_file(self, number: int) -> Path:
        """The analysis that round `number` chooses by."""
        return self.round_folder(number) / "sensitivity.json"

    def plan_file(self, number: int) -> Path:
        """All that is pruned after round `number`."""
        return self.round_folder(number) / "plan.json"

    def mask_file(self, number: int) -> Path:
        """Which values are kept after round `number`."""
        return self.round_folder(number) / "mask.bits"

    def trained_plan_file(self, number: int) -> Path:
        """What is pruned after the training of round `number`, where a schedule chose that."""
        return self.round_folder(number) / "trained-plan.json"

    def newest_plan_file(self, number: int) -> Path:
        """What is pruned after round `number` as it is now."""
        of_round = self.rounds[number - 1]
        chosen_in_training = of_round.finetuning is not None and of_round.finetuning.schedule is not None
        return self.trained_plan_file(number) if chosen_in_training else self.plan_file(number)

    def grids_file(self, number: int) -> Path:
        """What values weights take after round `number`, where it was one of bits."""
        return self.round_folder(number) / "grids.json"

    def pruned_file(self, number: int) -> Path:
        """Masked weights of round `number`."""
        return self.round_folder(number) / "pruned.weights"

    def finetuned_file(self, number: int) -> Path:
        """Trained masked weights of round `number`."""
        return self.round_folder(number) / "finetuned.weights"

    def details_file(self, number: int, *, trained: bool = False) -> Path:
        """What was measured of round `number` in detail, after its pruning or its training; 0: of the original."""
        if number == 0:
            return self.folder / "original-details.json"
        return self.round_folder(number) / ("finetuned-details.json" if trained else "pruned-details.json")

    def newest_details_file(self) -> Path:
        """Of the newest weights."""
        number = self.rounds[-1].number if self.rounds else 0
        return self.details_file(number, trained=bool(number) and self.rounds[-1].finetuned is not None)

    def training_folder(self, number: int) -> Path:
        """Checkpoints and log of round `number`."""
        return self.round_folder(number) / "training"

    def input(self, role: Role) -> Input:
        """The cfg, the weights or the .data file."""
        return {"cfg": self.cfg, "weights": self.weights, "data": self.data}[role]

    def copy_of(self, role: Role) -> Path:
        """Where the workspace keeps an input."""
        return self.folder / "inputs" / f"original.{role}"

    def open_input(self, role: Role) -> Input:
        """An input opened: the user's file while it is what it was, else the workspace's copy of it.

        InputError if neither is.
        """
        each = self.input(role)
        for path in (Path(each.path), self.copy_of(role)):
            try:
                found = Input.opened(path)
            except InputError:
                continue
            if found == each:
                return replace(each, content=found.content)
        expected = f"expected the file that the workspace was started with (sha256 {each.sha256[:12]})"
        raise InputError(
            f"{expected}, found another or none there and in {self.copy_of(role)}; ana --force starts anew",
            file=each.path,
        )

    def opened(self) -> Self:
        """The same with all inputs opened."""
        cfg, weights, data = map(self.open_input, ROLES)
        return replace(self, cfg=cfg, weights=weights, data=data)

    @property
    def last(self) -> Round:
        """The last round. InputError if nothing is pruned yet."""
        if not self.rounds:
            raise InputError("nothing is pruned yet; run yoloprune prune first", file=self.folder)
        return self.rounds[-1]

    def current_weights(self) -> Path | None:
        """The newest weights: finetuned, else pruned; None before the first round, where they are the original ones."""
        if not self.rounds:
            return None
        number = self.rounds[-1].number
        return self.finetuned_file(number) if self.rounds[-1].finetuned else self.pruned_file(number)

    def with_original(self, figures: Figures) -> Self:
        """The original measured."""
        return replace(self, original=figures)

    def with_round(self, done: Round) -> Self:
        """A round added, or the last one replaced."""
        earlier = tuple(each for each in self.rounds if each.number < done.number)
        return replace(self, rounds=(*earlier, done))

    def without_last(self) -> Self:
        """The last round undone."""
        return replace(self, rounds=self.rounds[:-1])

    def make_way(self, number: int) -> None:
        """Before round `number` is done anew: it is no longer named as done, and what was made of it goes.

        In this order: what is interrupted leaves a job that is less far, not one whose files belong to two.
        """
        self.save()
        shutil.rmtree(self.training_folder(number), ignore_errors=True)
        self.details_file(number, trained=True).unlink(missing_ok=True)
        self.milliseconds_file.unlink(missing_ok=True)
        self.forget_behind(number)

    def take_back(self, number: int) -> None:
        """What round `number` made goes, once it is no longer named as done; the analysis that it chose by stays."""
        self.make_way(number)
        for file_of in (self.plan_file, self.mask_file, self.grids_file, self.pruned_file, self.finetuned_file):
            file_of(number).unlink(missing_ok=True)
        self.trained_plan_file(number).unlink(missing_ok=True)
        self.trained_plan_file(number).with_name("trained-mask.bits").unlink(missing_ok=True)
        self.details_file(number).unlink(missing_ok=True)

    def forget_behind(self, number: int) -> None:
        """What was measured on weights of round `number` goes: there will be others."""
        shutil.rmtree(self.round_folder(number + 1), ignore_errors=True)

    def begin(self) -> None:
        """Write a new workspace; the rounds of the job that lives in its folder, if one does, go."""
        if self.file.exists():
            for old_round in self.folder.glob("round-*"):
                shutil.rmtree(old_round)
            self.search_file.unlink(missing_ok=True)
        for role in ROLES:
            self.copy_of(role).unlink(missing_ok=True)
        for file in (self.details_file(0), self.milliseconds_file):
            file.unlink(missing_ok=True)
        self.save()

    def save(self) -> None:
        """Write `workspace.json`, and copies of the inputs that are open where they are missing."""
        for role in ROLES:
            content, copy = self.input(role).content, self.copy_of(role)
            if content is not None and not copy.exists():
                with atomic_path(copy) as temporary:
                    temporary.write_bytes(content)
        payload = {key: value for key, value in asdict(self).items() if key != "folder"}
        for role in ROLES:
            del payload[role]["content"]
        save_json(self.file, "workspace", payload)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a workspace. InputError if there is none. What its inputs have become, `file_of` asks."""
        file = folder / _FILE
        if not file.exists():
            raise InputError("no workspace here; yoloprune ana CFG WEIGHTS starts one", file=folder)
        workspace = typed(cls, {**load_json(file, "workspace"), "folder": folder}, file)
        if workspace.original is not None and workspace.original.bflops <= 0:
            found = workspace.original.bflops
            raise InputError(f"original.bflops: expected more than 0, found {found:g}", file=file)
        return workspace

    def started(self, *, force: bool) -> Self:
        """A new workspace as it is, or the one that is in its folder, if that was started with the same.

        Files are the same wherever they lie, and so is a .data file by which the same `pictures` are measured: where
        they are now is kept. force: a workspace without rounds is started anew. InputError without it, if another job
        lives there or what can't be read.
        """
        if not self.file.exists():
            return self
        try:
            old = self.load(self.folder)
        except InputError:
            if force:
                return self
            raise
        was, found = _begun_with(old), _begun_with(self)
        differing = [key for key in was if was[key] != found[key]]
        if differing == ["data"] and old.pictures == self.pictures:
            differing = []
        if differing and not force:
            listed = ", ".join(f"{key} {_said(was[key])} (found {_said(found[key])})" for key in differing)
            raise InputError(f"was started with {listed}; --force replaces it, -w names another", file=self.folder)
        if differing or (force and not old.rounds):
            return self
        moved = replace(old, cfg=self.cfg, weights=self.weights, data=self.data)
        if [(each.path, each.sha256) for each in map(moved.input, ROLES)] != [
            (each.path, each.sha256) for each in map(old.input, ROLES)
        ]:
            moved.copy_of("data").unlink(missing_ok=True)
            moved.save()
        return moved


def _begun_with(workspace: Workspace) -> dict[str, object]:
    """What makes one job another, by the names that users know."""
    settings = {f"--{key.replace('_', '-')}": value for key, value in vars(workspace.settings).items()}
    return {role: workspace.input(role) for role in ROLES} | settings


def _said(value: object) -> str:
    if isinstance(value, Input):
        return f"{value.path} ({value.sha256[:12]})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "left out" if value is None else str(value)
