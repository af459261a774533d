"""What stands on a page: figures with their kinds, bars of a picture and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["measured", "counted", "simulated", "estimated"]
#: Whose figure a bar is; each has its colour.
Series: TypeAlias = Literal["ours", "paper", "peer"]

_LONGEST_LABEL = 36
# Of the width of a picture: what is left of it holds the end of an error bar.
_FULL_PERCENT = 96.0


@dataclass(frozen=True)
class Fact:
    """A line of a page.

    Attributes
    ----------
    label, text : str
        What it is; what is found.
    kind : str or None
        Of the figure in the text; None where there is none.
    note : str
        What the reader has to know beside it; maybe empty.
    """

    label: str
    text: str
    kind: Kind | None = None
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar of a picture.

    Attributes
    ----------
    label : str
        What it stands for.
    value : float
        How long it is.
    text : str
        The value and its unit.
    kind : str
        Of the value.
    series : str
        Whose figure it is.
    ends : tuple of float or None
        Of its error bar, in the value's unit.
    """

    label: str
    value: float
    text: str
    kind: Kind
    series: Series = "ours"
    ends: tuple[float, float] | None = None

    @property
    def short_label(self) -> str:
        """The label, cut where a phone's width ends."""
        if len(self.label) <= _LONGEST_LABEL:
            return self.label
        return self.label[: _LONGEST_LABEL - 1] + "…"


@dataclass(frozen=True)
class PlacedBar:
    """A bar, and where it lies in a picture: parts of the picture's width, in percent."""

    bar: Bar
    length: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BarPicture:
    """Bars below each other, of one unit.

    Attributes
    ----------
    title : str
        What is shown, for those who do not see it too.
    bars : tuple of Bar
        From top to bottom.
    """

    title: str
    bars: tuple[Bar, ...]

    @property
    def placed(self) -> tuple[PlacedBar, ...]:
        """The bars with their places: the longest, with its error bar, takes the whole width."""
        longest = max((max(bar.value, *(bar.ends or ())) if bar.ends else bar.value
                       for bar in self.bars), default=0.0)  # fmt: skip
        scale = _FULL_PERCENT / longest if longest > 0 else 0.0
        return tuple(
            PlacedBar(bar, bar.value * scale, *(end * scale for end in bar.ends or ()))
            for bar in self.bars
        )

    @property
    def kind(self) -> Kind | None:
        """The kind of all bars; None where they differ."""
        kinds = {bar.kind for bar in self.bars}
        return kinds.pop() if len(kinds) == 1 else None


@dataclass(frozen=True)
class Section:
    """A part of a page: facts, a picture, a table, what has to be said below them.

    Attributes
    ----------
    heading : str
        Of the part.
    facts : tuple of Fact
        Lines.
    picture : BarPicture or None
        A picture.
    columns : tuple of str
        Headings of the table.
    rows : sequence of tuple of str
        Of the table; the first cell names the row.
    table_title : str
        What opens the table, which is folded; empty for an open one.
    notes : tuple of str
        Sentences below.
    """

    heading: str
    facts: tuple[Fact, ...] = ()
    picture: BarPicture | None = None
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    table_title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """All about one network, or one comparison of several.

    Attributes
    ----------
    title, subtitle : str
        What it is about.
    headlines : tuple of Fact
        The few figures that come first.
    sections : tuple of Section
        The rest.
    """

    title: str
    subtitle: str
    headlines: tuple[Fact, ...]
    sections: tuple[Section, ...]
