"""Commands look for garbage seldom; what imports this package keeps its own ways."""

from __future__ import annotations

import gc

import pytest

from shuffledeploy.model.errors import command


@pytest.mark.smoke
def test_a_command_looks_for_garbage_seldom() -> None:
    before = gc.get_threshold()
    seen: list[int] = []

    @command
    def main(argv: list[str] | None = None) -> int:
        seen.append(gc.get_threshold()[0])
        return 0

    try:
        main([])
        assert seen[0] > 10_000
        assert gc.isenabled(), "what a long search leaves is still found"
    finally:
        gc.set_threshold(*before)
