"""`check`: whether and where a network's files break or mean something else in other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoloprune.compat import PROFILES, Finding, WeightsFile, profile_named
from yoloprune.compat import check as findings_of
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.weights import mapped


@dataclass(frozen=True)
class Checked:
    """What was found."""

    findings: Sequence[Finding]
    readers: tuple[str, ...]
    """For whom was looked."""

    @property
    def broken(self) -> bool:
        """Whether a reader refuses the files or crashes."""
        return any(finding.severity == "break" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As reports show it."""
        return {"findings": [asdict(finding) for finding in self.findings]}


def check(cfg: Path, weights: Path | None = None, *, reader: str | None = None) -> Checked:
    """Look through a cfg, and its weights file, for one reader or all.

    Also where this package refuses the cfg. InputError only for files that nobody reads.
    """
    readers = tuple(PROFILES.values()) if reader is None else (profile_named(reader),)
    file = None if weights is None else WeightsFile(weights.name, mapped(weights))
    found = findings_of(cfg_file.read(cfg, lenient=True), readers, file)
    return Checked(found, tuple(each.name for each in readers))
