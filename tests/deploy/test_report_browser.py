"""The page of `report.py` in a browser: on a phone, on a desk, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from headless_browser import DARK, LIGHT, Browser, ensure_browser
from PIL import Image
from reported import changed_bundle, comparison_document, written
from tiny import tiny_bundle

from shuffledeploy.deploy.report import main
from shuffledeploy.model.errors import Failure

PHONE, DESK = 360, 1200
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
#: Texts of pictures that reach beyond them, or that lie over another.
CLASHING = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const edge = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
    texts.forEach(([text, box], i) => {
      if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1)
        found.push(text.textContent + " leaves its picture");
      for (const [other, its] of texts.slice(i + 1))
        if (box.left < its.right && its.left < box.right && box.top + 2 < its.bottom
            && its.top + 2 < box.bottom)
          found.push(text.textContent + " lies over " + other.textContent);
    });
  }
  return found;
})()"""
WIDTHS = """(() => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  return [document.documentElement.scrollWidth, document.documentElement.clientWidth];
})()"""


@pytest.fixture(scope="module")
def browser() -> Browser:
    """Headless Chromium."""
    try:
        return ensure_browser()
    except Failure as error:
        pytest.skip(f"no browser: {error}")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page about two networks, one with a name that would like to be more, and others."""
    folder = tmp_path_factory.mktemp("report")
    hostile = changed_bundle(tiny_bundle("host"), folder / "hostile", network=HOSTILE)
    compared = written(folder / "compared.json", comparison_document())
    page = folder / "page.html"
    arguments = [str(tiny_bundle("host").path), str(hostile.path), "--device", "local"]
    assert main([*arguments, "--compare", str(compared), "--output", str(page)]) == 0
    return page


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_wider_than_the_screen_and_no_text_lies_over_another(
    browser: Browser, page: Path, width: int
) -> None:
    scrolled, shown = browser.ask(page, WIDTHS, width)
    assert (scrolled, shown) == (width, width)
    assert browser.ask(page, CLASHING, width) == []


def test_names_run_nothing_and_nothing_is_fetched(browser: Browser, page: Path) -> None:
    title, scripts, images, fetched = browser.ask(
        page,
        "[document.title, document.scripts.length, document.images.length,"
        " performance.getEntriesByType('resource').length]",
    )
    assert title.startswith("tiny, <script>")
    # The one script is that which asks.
    assert (scripts, images, fetched) == (1, 0, 0)


def test_light_and_dark_are_the_readers_choice(browser: Browser, page: Path) -> None:
    corners = {}
    for scheme in (LIGHT, DARK):
        with Image.open(browser.picture(page, PHONE, 700, scheme)) as picture:
            assert picture.size == (PHONE, 700)
            corners[scheme] = picture.convert("L").getpixel((2, 2))
    assert corners[LIGHT] > 200
    assert corners[DARK] < 60
