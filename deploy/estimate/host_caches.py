"""The caches of this machine: sizes as its kernel tells them, the rest as its core is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from shuffledeploy.compiler.cores import LINE
from shuffledeploy.deploy.estimate.caches import KIB, Cache, Caches

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_NO_INSTRUCTIONS = ("Data", "Unified")


def as_on_this_machine(caches: Caches, folder: Path = _SYSFS) -> Caches:
    """Give a core's caches with the sizes that this machine's first core has.

    LLVM calls a core by what it can execute; makers give cores of one name other second levels.

    Parameters
    ----------
    caches : Caches
        As the core is known.
    folder : Path
        Where Linux describes caches; levels that it does not describe stay as they are.
    """
    found = {
        level: cache
        for index in sorted(folder.glob("index*"))
        if (described := _described(index)) is not None
        for level, cache in [described]
    }
    return dataclasses.replace(
        caches, first=found.get(1, caches.first), second=found.get(2, caches.second)
    )


def _described(index: Path) -> tuple[int, Cache] | None:
    """Read one cache: its level, and what it is; None of instructions, or where facts are amiss."""
    try:
        facts = {
            name: (index / name).read_text().strip()
            for name in ("level", "type", "size", "ways_of_associativity")
        }
        size = int(facts["size"].removesuffix("K")) * KIB
        level, ways = int(facts["level"]), int(facts["ways_of_associativity"])
    except (OSError, ValueError):
        return None
    if facts["type"] not in _NO_INSTRUCTIONS or size <= 0 or ways <= 0:
        return None
    # What is simulated has a power of two of sets.
    sets = size // LINE // ways
    return (level, Cache(size, ways)) if sets.bit_count() == 1 else None
