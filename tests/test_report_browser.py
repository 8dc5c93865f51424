"""report.html in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import yoloprune
from tests.browser import browser
from tests.drawn import trained

WIDTHS = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
ORDER = "return [...document.querySelectorAll('#panels-1 > figure')].map((each) => Number(each.dataset[arguments[0]]))"
ROWS = "return [...document.querySelectorAll('#classes tbody tr')].map((each) => each.cells[arguments[0]].textContent)"
OUTSIDE = """
return performance.getEntriesByType('resource').map((each) => each.name).filter((each) => !each.startsWith('data:'))
"""


def test_a_report_in_a_browser(one_thread: None, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        made = trained(tmp_path / "set")
        space = tmp_path / "space"
        yoloprune.ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.3, 0.6))
        yoloprune.prune(ratio=0.4, multiple=1, workspace=space)
        yoloprune.finetune(iterations=2, workspace=space, workers=0)
        file = Path(shutil.move(space / "report.html", tmp_path / "mailed.html"))
        shutil.rmtree(space)
        for width in (400, 1400):
            page.open(file, width, 800)
            whole, seen = page.run(WIDTHS)
            assert whole <= seen <= width
            assert page.run("return getComputedStyle(document.querySelector('.chart.wide')).display") == (
                "none" if width == 400 else "block"
            )
        ink = "return getComputedStyle(document.body).backgroundColor"
        light = page.run(ink)
        page.open(file, 1400, 800, dark=True)
        assert page.run(ink) != light

        gains = page.run(ORDER, "gain")
        assert gains == sorted(gains, reverse=True)
        select = "const select = document.getElementById('order-1'); select.value = arguments[0]; "
        choose = f"{select}select.dispatchEvent(new Event('change'))"
        for key in ("size", "layer", "prunable"):
            page.run(choose, key)
            values = page.run(ORDER, key)
            assert values == sorted(values, reverse=True)
        assert len(values) == 3

        press = "document.querySelectorAll('#classes th button')[arguments[0]].click()"
        for column in (0, 2):
            page.run(press, column)
            rising = page.run(ROWS, column)
            assert rising == sorted(rising)
            page.run(press, column)
            assert page.run(ROWS, column) == rising[::-1]

        shown = "const d = document.querySelector('dialog'); return [d.open, d.querySelectorAll('svg.chart').length]"
        assert page.run(shown) == [False, 0]
        page.run("document.querySelector('#panels-1 .enlarge').click()")
        assert page.run(shown) == [True, 1]
        assert page.run("return document.querySelector('dialog .values').checkVisibility()")
        page.run("document.querySelector('dialog .close').click()")
        assert page.run(shown)[0] is False

        photos = "return [...document.querySelectorAll('.photo')].map((each) => each.getBoundingClientRect().height)"
        assert min(page.run(photos), default=1) > 0
        assert page.run(OUTSIDE) == []
        assert page.errors() == []
        page.picture(tmp_path / "report.png")
        assert (tmp_path / "report.png").stat().st_size > 10_000


def test_the_browser_tells_of_errors(tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        (tmp_path / "bad.html").write_text("<script>nothing()</script>")
        page.open(tmp_path / "bad.html", 400, 300)
        (said,) = page.errors()
        assert "nothing is not defined" in said
