"""Data caches of ARM's cores, and what memory costs beside instructions.

What comes of them is in `memory_cycles.py`. A page whose place the first level of translation
lacks is looked up in the second: a pass over one group's channels of a layer with many does that
every few pixels. A load of which the latest stores wrote a part waits until that is in the cache:
sums that are kept in memory, in pieces of another length, do that in every step.

Read in ARM's Technical Reference Manuals: the A35's, A53's and A72's second level, the A55's and
A76's first, the A76's 256 bits from one to the other, the pages of the A72 and the A76. The rest
of ARM's is common knowledge, not looked up; where ARM leaves a size to the maker of the chip, that
of a common chip is taken (BCM2711 for the A72, BCM2712 for the A76, RK3399 for the A53), and where
no width was found, 128 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from shuffledeploy.compiler.cores import CORES, LINE, ArmCore

KIB = 1024
# Cycles that a blocked load waits: Intel's top-down metrics, for LD_BLOCKS.STORE_FORWARD. No figure
# of ARM's was found; there, too, the store has to get through the pipeline first.
BLOCKED_LOAD = 13

# Cycles for a line that no prefetcher saw coming, until it runs ahead. Chosen on times of ncnn's
# networks (`published_times.csv`): of ARM's cores on two boards with a Cortex-A72, Raspberry Pi 4
# and RK3399, where 80 to 150 do as well; of those with a long window on the Raspberry Pi 5.
ARM_START, LONG_WINDOW_START = 100, 18


@dataclass(frozen=True)
class Cache:
    """A set-associative cache with lines of `LINE` bytes.

    Attributes
    ----------
    size : int
        Bytes.
    ways : int
        Lines of a set.
    """

    size: int
    ways: int


@dataclass(frozen=True)
class Translation:
    """The first level of a core's translation of addresses of data, for pages of 4 KiB.

    Attributes
    ----------
    pages : int
        How many it knows the place of.
    ways : int
        Pages of a set.
    cycles : float
        To look a page up in the second level.
    """

    pages: int
    ways: int
    cycles: float


@dataclass(frozen=True)
class Caches:
    """What is next to a core.

    Attributes
    ----------
    first, second : Cache
        The levels of data cache that are the core's own, or its cluster's.
    translation : Translation
        Where pages are.
    first_bytes, second_bytes : float
        Bytes a cycle that come into the first level, and into the second from what lies behind.
    start_cycles : float
        For a line of the first level that does not follow others.
    hides_following : bool
        Whether lines that follow others, and lines of a third level, come while the core works.
    third : Cache or None
        A third level. Of ARM's it is a board's and not a core's, and kernels are scored without.
    """

    first: Cache
    second: Cache
    translation: Translation
    first_bytes: float
    second_bytes: float
    start_cycles: float
    hides_following: bool = False
    third: Cache | None = None

    @property
    def plugin_arguments(self) -> str:
        """As counter.c reads them: sets and ways of each."""
        entries = {
            "l1": (self.first.size // LINE, self.first.ways),
            "l2": (self.second.size // LINE, self.second.ways),
            "pages": (self.translation.pages, self.translation.ways),
        }
        return ",".join(f"{name}={all_ // ways}:{ways}" for name, (all_, ways) in entries.items())

    @property
    def shapes(self) -> tuple[int, int, int, int]:
        """As counter.c takes them from a guest: three levels and the pages, 0 for no third."""
        pages = _shape(self.translation.pages, self.translation.ways)
        first, second, third = (
            _shape(level.size // LINE, level.ways) if level else 0
            for level in (self.first, self.second, self.third)
        )
        return first, second, third, pages


def _shape(entries: int, ways: int) -> int:
    return entries // ways * 256 + ways


def _arm(core: ArmCore) -> Caches:
    # 128 bits to the interconnect.
    return Caches(
        _kib(*core.first), _kib(*core.second), Translation(core.pages, core.pages, core.lookup),
        core.first_bytes, 16, LONG_WINDOW_START if core.has_long_window else ARM_START,
        core.has_long_window,
    )  # fmt: skip


def _kib(size: int, ways: int) -> Cache:
    return Cache(size * KIB, ways)


#: By the core's name; those of x86 cores stand in `x86_caches.py`.
ARM_CACHES: dict[str, Caches] = {name: _arm(core) for name, core in CORES.items()}
