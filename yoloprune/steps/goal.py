"""What pruning may lose, what it is to remove, or how sparse it is to be: checked as a user says it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from yoloprune.choices import DIVISIONS
from yoloprune.errors import InputError
from yoloprune.options import GoalOptions
from yoloprune.run_options import LayeredOptions, RunOptions

OF_ROUNDS: Final = {
    "threshold": "round_thresholds",
    "total_loss": "round_total_losses",
    "ratio": "round_ratios",
    "sparsity": "round_sparsities",
    "global_sparsity": "round_global_sparsities",
}
"""Goals that `run` takes for its rounds: the name of one, and of the list, among the options."""
_POINTS: Final = 100
"""Of accuracy in a whole; people name losses in points and shares in percent."""


@dataclass(frozen=True)
class Goal:
    """Exactly one of these is given."""

    threshold: float | None = None
    """Accuracy that each group, pruned alone, may lose against the original network."""
    ratio: float | None = None
    """Share of the objective to remove."""
    total_loss: float | None = None
    """Accuracy that all groups together may lose."""
    sparsity: float | None = None
    """Share of units that goes, nothing measured."""
    global_sparsity: float | None = None
    """Share of all weights that goes, by one magnitude."""
    magnitude: str | None = None
    """Below which weights go, as users write it."""

    @classmethod
    def of(cls, options: GoalOptions) -> Self:
        """As given. InputError unless there is exactly one, and in its range; if relative, a loss."""
        goal = cls(**{name: getattr(options, name) for name in vars(cls())})
        given = [name for name, value in vars(goal).items() if value is not None]
        if len(given) != 1:
            *names, last = (f"--{name.replace('_', '-')}" for name in vars(goal))
            raise InputError(f"expected one of {', '.join(names)} and {last}")
        if options.relative and goal.loss is None:
            raise InputError(f"--relative is for --threshold and --total-loss, found --{given[0].replace('_', '-')}")
        if options.divide not in DIVISIONS:
            raise InputError(f"--divide: expected one of {', '.join(DIVISIONS)}, found {options.divide!r}")
        if options.divide != DIVISIONS[0] and goal.sparsity is None:
            raise InputError(f"--divide {options.divide}: expected --sparsity")
        for option, loss in (("--threshold", goal.threshold), ("--total-loss", goal.total_loss)):
            if loss is not None:
                check_loss(option, loss)
        for name in ("ratio", "sparsity", "global_sparsity"):
            share = getattr(goal, name)
            if share is not None:
                check_share(f"--{name.replace('_', '-')}", share)
        return goal

    @property
    def name(self) -> str:
        """Which is given."""
        return next(name for name, value in vars(self).items() if value is not None)

    @property
    def loss(self) -> float | None:
        """What may be lost, by each group or by all; None where something else is asked for."""
        return self.total_loss if self.threshold is None else self.threshold

    @property
    def prescribed(self) -> bool:
        """Whether it says how much of each group goes, so that nothing is measured for it."""
        return self.loss is None and self.ratio is None

    def scaled(self, accuracy: float) -> Self:
        """The losses, given as fractions of `accuracy`, as accuracy."""
        threshold, total_loss = (
            None if loss is None else loss * accuracy for loss in (self.threshold, self.total_loss)
        )
        return replace(self, threshold=threshold, total_loss=total_loss)


def goals_of_rounds(options: RunOptions) -> list[Goal]:
    """The goal of each round; none with `target_map`, as each is found by the one before, and layer by layer.

    InputError unless there is one list of goals, all in their ranges.
    """
    if options.layered.layer_by_layer:
        check_layered(options)
        return []
    if options.layered != LayeredOptions():
        raise InputError("--keep, --group-epochs, --class-images, --places and --refit: expected --layer-by-layer")
    if options.rounds < 1:
        raise InputError(f"--rounds: expected at least 1, found {options.rounds}")
    one = options.prune
    listed: dict[str, tuple[Any, ...]] = {}
    for name, plural in OF_ROUNDS.items():
        single = getattr(one, name)
        if values := getattr(options, plural) or (() if single is None else (single,)):
            listed[name] = values
    if len(listed) + (options.target_map is not None) != 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in OF_ROUNDS)
        raise InputError(f"expected one of {names} and --target-map")
    if options.final_loss is not None:
        check_loss("--final-loss", options.final_loss)
    if options.target_map is not None:
        _check_target(options, options.target_map)
        return []
    ((name, values),) = listed.items()
    if len(values) == 1:
        values = tuple(values[0] * number / options.rounds for number in range(1, options.rounds + 1))
    elif options.rounds not in (1, len(values)):
        raise InputError(f"--rounds {options.rounds}: expected {len(values)}, as many as are listed, or none")
    nothing = vars(Goal())
    goals = [Goal(**{name: value}) for value in values]
    for goal in reversed(goals):
        Goal.of(replace(one, **nothing | vars(goal)))
    return goals


def _check_target(options: RunOptions, target: float) -> None:
    """InputError unless it is an accuracy, and what else is said goes with it."""
    check_share("--target-map", target)
    for name in ("final_loss", "rounds"):
        if getattr(options, name) not in (None, 1):
            raise InputError(f"--target-map: expected no --{name.replace('_', '-')}, for it decides that itself")
    Goal.of(replace(options.prune, ratio=target))


def check_layered(options: RunOptions) -> None:
    """InputError unless `--layer-by-layer` has one goal, and nothing that it can't do."""
    layered, option = options.layered, "--layer-by-layer"
    goals = {"--keep": layered.keep, "--ratio": layered_ratio(options)}
    given = {name: share for name, share in goals.items() if share is not None}
    if len(given) != 1 or len(options.round_ratios) > 1:
        raise InputError(f"{option}: expected one of --keep and --ratio, and one share")
    for name, share in given.items():
        check_share(name, share)
    contrary = {
        **{f"--{name.replace('_', '-')}": getattr(options, OF_ROUNDS[name]) for name in OF_ROUNDS if name != "ratio"},
        "--target-map": options.target_map is not None,
        "--rounds": options.rounds > 1,
        "--final-loss": options.final_loss is not None,
        "--drop-branches": options.prune.drop_branches,
        "--schedule": options.finetune.schedule,
        "--processes, --devices": options.where.count > 1,
        "--granularity": options.analysis.granularity not in (None, "channel"),
        "--group-epochs 0": not layered.group_epochs > 0,
    }
    for said, asked in contrary.items():
        if asked:
            raise InputError(f"{said}: expected no such thing with {option}")


def layered_ratio(options: RunOptions) -> float | None:
    """The share of the objective that `--layer-by-layer` removes, where that is its goal."""
    return options.round_ratios[0] if options.round_ratios else options.prune.ratio


def check_loss(option: str, loss: float) -> None:
    """InputError unless a loss of accuracy is at least 0 and under 1, where nothing would be left."""
    if not 0 <= loss < 1:
        raise InputError(f"{option}: expected a loss of at least 0 and under 1, found {loss:g}{meant(loss)}")


def check_share(option: str, share: float) -> None:
    """InputError unless a share is between 0 and 1."""
    if not 0 < share < 1:
        raise InputError(f"{option}: expected a share between 0 and 1, found {share:g}{meant(share)}")


def meant(*values: float) -> str:
    """A guess, to end an error with, where points or percent were given."""
    if not values or not all(1 <= each < _POINTS for each in values):
        return ""
    return f"; did you mean {','.join(f'{each / _POINTS:g}' for each in values)}?"
