"""Texts of graphs before and after a pass, kept as files that a test compares with."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"
FLAG = "--update-golden"


class GoldenFiles:
    """Compares texts with the files of a folder, or writes the files anew.

    Attributes
    ----------
    folder : Path
        Where the files are, ``<name>.txt`` each.
    update : bool
        Whether to write them.
    """

    def __init__(self, folder: Path, *, update: bool) -> None:
        self.folder, self.update = folder, update

    def check(self, name: str, before: str, after: str) -> None:
        """Fail with a unified diff where the file of a name holds another text."""
        path = self.folder / f"{name}.txt"
        text = f"Before\n\n{before}\n\nAfter\n\n{after}\n"
        if self.update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        kept = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != kept:
            lines = kept.splitlines(), text.splitlines()
            diff = difflib.unified_diff(*lines, f"golden/{path.name}", "this run", lineterm="")
            told = f"{path.name} is another graph; pytest {FLAG} keeps the new one:"
            pytest.fail("\n".join([told, "", *diff]), pytrace=False)
