"""Writes a page's chapters as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shuffledeploy.deploy.report_page.figures import Chapter
from shuffledeploy.model.printable import printable

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes
    ----------
    title, made : str
        What it is about; the day on which it was made.
    chapters : sequence of Chapter
        From top to bottom.
    """

    title: str
    made: str
    chapters: Sequence[Chapter]


def render(page: Page) -> str:
    """Write a page as HTML: no script, nothing that is fetched, all text escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    return environment.get_template(_TEMPLATE).render(page=page)


def _shown(value: object) -> object:
    """Spell out letters that could change how the text around them is shown."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
