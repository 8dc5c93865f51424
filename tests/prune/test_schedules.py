"""Schedules of sparsity against values worked out by hand from TensorFlow's and PaddlePaddle's formulas."""

from __future__ import annotations

from pathlib import Path

import pytest

from yoloprune.errors import InputError
from yoloprune.prune.schedules import Span, SparsitySchedule, parse_schedule, parse_span, polynomial


def typed(text: str, iterations: int = 1000, per_epoch: float = 10, **options: object) -> SparsitySchedule:
    return parse_schedule(text, iterations, per_epoch, **options)  # type: ignore[arg-type]


def due(schedule: SparsitySchedule, until: int) -> list[int]:
    return [t for t in range(until) if schedule.due(t)]


def test_polynomial_is_tensorflows_and_its_last_step_always_comes() -> None:
    """PolynomialDecay(0.1, 0.8, 250, 700): p = 0, 100/450 ...; 0.8 - 0.7 (1 - p)^3. 100 doesn't divide 450."""
    schedule = typed("polynomial", begin="250", end="700", initial=0.1)
    assert due(schedule, 1001) == [250, 350, 450, 550, 650, 700]
    hand = [0.1, 0.8 - 0.7 * 343 / 729, 0.8 - 0.7 * 125 / 729, 0.8 - 0.7 / 27, 0.8 - 0.7 / 729, 0.8]
    assert hand[1] == pytest.approx(0.470644718792867, abs=1e-14)
    found = [schedule.sparsity(t, 0.8) for t in (250, 350, 450, 550, 650, 700)]
    assert found == pytest.approx(hand, abs=1e-12)
    assert (schedule.begin, schedule.final) == (250, 700)
    # Between two steps what the last one left holds; before the first nothing is gone, and in the end all of it.
    assert [schedule.sparsity(t, 0.8) for t in (0, 249)] == [0, 0]
    assert [schedule.sparsity(t, 0.8) for t in (349, 699, 701, 1000)] == pytest.approx([hand[0], hand[4], 0.8, 0.8])
    # A group that is to lose less than the initial sparsity loses that from the begin on.
    assert [schedule.sparsity(t, 0.05) for t in (249, 250, 550, 700)] == [0, 0.05, 0.05, 0.05]


def test_polynomial_takes_any_power_and_frequency() -> None:
    """Power 1 is a line: steps of 3 over 9 iterations are thirds. Power 0.5: 1 - sqrt(1 - p)."""
    line = typed("polynomial", iterations=12, every="3", power=1.0)
    assert due(line, 13) == [0, 3, 6, 9]
    assert [line.share(t) for t in (0, 3, 6, 9)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    root = typed("polynomial", iterations=100, end="100", every="36", power=0.5)
    assert due(root, 101) == [0, 36, 72, 100]
    assert [root.share(t) for t in (0, 36, 72, 100)] == pytest.approx([0, 0.2, 1 - 0.5291502622129182, 1])


def test_constant_is_tensorflows() -> None:
    """ConstantSparsity(0.5, 7, 40, frequency=10), and a last choice at the end."""
    schedule = typed("constant", iterations=50, begin="7", end="40", every="10")
    assert due(schedule, 51) == [7, 17, 27, 37, 40]
    assert [schedule.sparsity(t, 0.5) for t in (6, 7, 39, 50)] == [0, 0.5, 0.5, 0.5]
    assert schedule.final == 40


LOG = {0: 0.1121219121, 3: 0.1777090262, 6: 0.2242438242, 30: 0.4019528504, 33: 0.4149003768, 57: 0.4924750280, 60: 0.5}
"""0.5 ln(2 + e/3)/ln(22): at e = 0 0.5 * 0.6931471806/3.0910424534, and so on."""


def test_log_is_paddles() -> None:
    schedule = typed("log", iterations=1000, per_epoch=10)
    assert due(schedule, 1001) == list(range(0, 601, 30))
    assert {e: schedule.sparsity(e * 10, 0.5) for e in LOG} == pytest.approx(LOG, abs=1e-9)
    assert schedule.sparsity(89, 0.5) == schedule.sparsity(60, 0.5)
    # floor(s M): of 100, 17.77 and 22.42 and 41.49; 0.7 * 10 is 6.99... in binary, and all 7 go.
    assert [schedule.count(t, 50, 100) for t in (0, 30, 60, 330, 599, 600)] == [11, 17, 22, 41, 49, 50]
    assert schedule.count(600, 7, 10) == 7


def test_log_begins_and_ends_with_whole_passes() -> None:
    """Three quarters of 136 updates are 13 whole passes of 7.5: E = 13, I = 3. And I = 4 does not divide 7."""
    schedule = typed("log", iterations=136, per_epoch=7.5)
    assert due(schedule, 137) == [0, 22, 45, 68, 90, 98] == [round(e * 7.5) for e in (0, 3, 6, 9, 12, 13)]
    uneven = typed("log", iterations=100, per_epoch=10, begin="1 epoch", end="8 epochs", every="4epochs")
    assert due(uneven, 101) == [10, 50, 80]
    # ln 2/ln 3.75, ln 3/ln 3.75
    assert [uneven.share(t) for t in (9, 10, 50, 80)] == pytest.approx([0, 0.5244139, 0.8311764, 1], abs=1e-6)
    with pytest.raises(InputError, match="log: expected a whole pass over the images between 0 and 7, found none"):
        typed("log", iterations=10, per_epoch=8)
    # More images in an update than there are: passes that begin together count once, as the last of them.
    tiny = typed("log", iterations=100, per_epoch=0.25)
    assert due(tiny, 101) == list(range(16))


def test_steps_hold_until_the_next() -> None:
    schedule = typed("steps 5:0.25,0:.1, 2 epochs:0.3")
    assert schedule.steps == ((0, 0.1), (5, 0.25), (20, 0.3), (750, 1.0))
    assert [schedule.sparsity(t, 0.4) for t in (0, 4, 5, 19, 20, 749, 750)] == pytest.approx(
        [0.04, 0.04, 0.1, 0.1, 0.12, 0.12, 0.4]
    )
    assert typed("steps 5:1").steps == ((5, 1.0),)
    assert typed("steps 10:.5,900:1.0").steps == ((10, 0.5), (900, 1.0))
    assert typed("steps 10:.5", end="40").final == 40


MODULE = """
calls = []
def ramp(iteration):
    calls.append(iteration)
    return iteration / 100
def double(iteration):
    return 2
def broken(iteration):
    return 1 / (10 - iteration)
def words(iteration):
    return "much"
number = 3
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name."""
    (tmp_path / "my_ramp_of_test.py").write_text(MODULE)
    (tmp_path / "my_fault_of_test.py").write_text("raise RuntimeError('at home')")
    monkeypatch.syspath_prepend(tmp_path)
    return "my_ramp_of_test"


def test_a_function_of_the_users_is_asked_at_each_step(users_module: str) -> None:
    schedule = typed(f"{users_module}:ramp", begin="5", end="60", every="20")
    assert schedule.steps == ((5, 0.05), (25, 0.25), (45, 0.45), (60, 1.0))


def test_what_the_users_function_does_wrong_is_said(users_module: str) -> None:
    for name, message in {
        "double": r"double\(0\): expected a share of the final sparsity in 0\.\.1, found 2",
        "broken": r"broken\(10\) fails: ZeroDivisionError",
        "words": r"words\(0\): expected a share .* found 'much'",
        "number": r"expected a function from iteration to share, found 3",
        "missing": r"cannot be imported, AttributeError",
    }.items():
        with pytest.raises(InputError, match=message):
            typed(f"{users_module}:{name}", end="30", every="10")
    with pytest.raises(InputError, match=r"nowhere\.at\.all:f: cannot be imported, ModuleNotFoundError"):
        typed("nowhere.at.all:f")
    with pytest.raises(InputError, match="cannot be imported, RuntimeError: at home"):
        typed("my_fault_of_test:f")


def test_counts_are_rounded_as_tensorflows() -> None:
    """Of 10 to lose 7: shares 1/8, 1/2, 7/8 are 0.875, 3.5, 6.125 units; the final count is exact for all sizes."""
    schedule = SparsitySchedule(((0, 0.125), (1, 0.5), (2, 0.875), (3, 1.0)))
    assert [schedule.count(t, 7, 10) for t in range(4)] == [1, 4, 6, 7]
    for size in range(1, 60):
        for floors in (False, True):
            ends = SparsitySchedule(((0, 0.999), (1, 1.0)), floors=floors)
            assert [ends.count(1, count, size) for count in range(size + 1)] == list(range(size + 1))


@pytest.mark.parametrize(("text", "iterations"), [("100", 100), (" 7 ", 7), ("2.5 epochs", 25), ("2.5epochs", 25),
                                                  ("1 epoch", 10), ("0.26epochs", 3), ("0", 0)])  # fmt: skip
def test_spans(text: str, iterations: int) -> None:
    assert parse_span(text, 10) == iterations


@pytest.mark.parametrize("text", ["", "-1", "2.5", "1e3", "3 weeks", "epochs", "nan", "9" * 5000, "٣"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="end: expected iterations like 100, or epochs like"):
        typed("polynomial", end=text)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cubic", {}, "schedule: expected constant, polynomial, log, .*, found 'cubic'"),
        ("constant 3", {}, "found 'constant 3'"),
        ("polynomial", {"begin": "50", "end": "50"}, "expected an end after the begin at 50, found 50"),
        ("polynomial", {"begin": "800"}, "expected an end after the begin at 800, found 750"),
        ("polynomial", {"end": "1001"}, "end: expected at most the 1000 iterations of the training, found 1001"),
        ("polynomial", {"end": "100.5 epochs"}, "found 1005"),
        ("constant", {"every": "0"}, "every: expected at least 1 iteration, found 0"),
        ("log", {"every": "0.01 epochs"}, "every: expected at least 1 iteration, found 0.1"),
        ("polynomial", {"power": 0.0}, "power: expected more than 0, found 0"),
        ("polynomial", {"power": float("nan")}, "power: expected more than 0, found nan"),
        ("polynomial", {"initial": 1.0}, "initial sparsity: expected 0 or more and less than 1, found 1"),
        ("log", {"initial": 0.5}, "expected with polynomial only, found with 'log'"),
        ("steps", {}, "expected ITERATION:SHARE"),
        ("steps 3", {}, "expected ITERATION:SHARE.* found '3'"),
        ("steps 3:1.5", {}, r"expected a share .* in 0\.\.1 at 3, found 1.5"),
        ("steps 3:.5,3:.6", {}, "expected one share at iteration 3, found two"),
        ("steps 3:-1", {}, "expected ITERATION:SHARE"),
        ("steps 800:.5", {}, "expected none after the end at 750, found one at 800"),
        ("steps 1200:1", {}, "expected none after the end at 1000, found one at 1200"),
        ("steps 3:.5", {"begin": "2"}, "steps: expected no begin and no every"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        typed(text, **options)


def test_a_schedule_holds_what_it_promises() -> None:
    for steps in ((), ((0, 0.5),), ((3, 0.5), (3, 1.0)), ((4, 0.5), (3, 1.0)), ((-1, 0.5), (3, 1.0))):
        with pytest.raises(InputError, match="steps: expected"):
            SparsitySchedule(steps)


def test_the_digest_tells_all_that_differs_and_no_last_bit() -> None:
    one, other = 0.1 + 0.2, 0.3
    assert one != other
    plain = SparsitySchedule(((0, other), (5, 1.0)))
    assert plain.digest() == SparsitySchedule(((0, one), (5, 1.0))).digest()
    assert plain.digest() == "480a5cc89bf98585cfc00f28e768f202c612122c64ada54ca9a120002c8cb16f"
    others = [
        SparsitySchedule(((0, 0.3), (6, 1.0))),
        SparsitySchedule(((0, 0.31), (5, 1.0))),
        SparsitySchedule(plain.steps, initial=0.1),
        SparsitySchedule(plain.steps, floors=True),
        SparsitySchedule(plain.steps, regrow=False),
    ]
    assert len({each.digest() for each in (plain, *others)}) == 6
    assert polynomial(Span(0, 9, 2)).digest() == typed("polynomial", end="9", every="2").digest()
