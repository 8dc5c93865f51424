"""What library code warns of is shown by commands, once, on stderr, and stops nothing."""

from __future__ import annotations

import warnings

import pytest

from yoloprune.console import screen_of
from yoloprune.errors import InputWarning, warn
from yoloprune.report.answers import Answer


def test_each_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    shown = warnings.showwarning
    with screen_of(None, False, False) as screen:
        for line in (3, 4, 3):
            warn("odd", file="a.cfg", line=line)
        screen.warn("a.cfg:4: odd")
        screen.show(Answer({}, ("done",)))
    seen = capsys.readouterr()
    assert seen.err == "yoloprune: warning: a.cfg:3: odd\nyoloprune: warning: a.cfg:4: odd\n"
    assert seen.out == "done\n"
    assert warnings.showwarning is shown


def test_quiet_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    with screen_of(None, True, False):
        warn("odd")
    assert capsys.readouterr() == ("", "")


def test_other_warnings_stay_what_they_are() -> None:
    with screen_of(None, False, False), pytest.raises(UserWarning, match="of another"):
        warnings.warn("of another", UserWarning, stacklevel=1)


def test_outside_of_commands_it_is_a_warning() -> None:
    with pytest.warns(InputWarning, match=r"^a\.cfg: odd$"):
        warn("odd", file="a.cfg")
