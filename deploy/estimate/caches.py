"""Data caches of the cores, and what memory costs beside instructions.

A core waits for lines that its first-level cache lacks: cycles for them are added to those of its
instructions, as the execution-cache-memory model does for streams that a prefetcher sees coming
(Treibig and Hager, "Introducing a performance model for bandwidth-limited loop kernels", 2009).
Latencies of lines are left out. A page whose place the first level of translation lacks is looked
up in the second: a pass over one group's channels of a layer with many does that every few pixels.
A load of which the latest stores wrote a part waits until that is in the cache: sums that are kept
in memory, in pieces of another length, do that in every step.

Read in ARM's Technical Reference Manuals: the A35's, A53's and A72's second level, the A55's and
A76's first, the A76's 256 bits from one to the other, the pages of the A72 and the A76. The rest
of ARM's is common knowledge, not looked up; where ARM leaves a size to the maker of the chip, that
of a common chip is taken (BCM2711 for the A72, BCM2712 for the A76, RK3399 for the A53), and where
no width was found, 128 bits. Of
Skylake Server and its kin: sustained bandwidths of Intel's Optimization Reference Manual, table
"Cache Comparison Between Skylake Microarchitecture and Broadwell Microarchitecture".
"""

from __future__ import annotations

from dataclasses import dataclass

from shuffledeploy.compiler.cores import CORES, LINE, ArmCore
from shuffledeploy.deploy.estimate.executed_blocks import MemoryEvents

KIB = 1024
# Cycles to look a page up. Intel's: half way between nine, which its top-down metrics charge for
# one alone, and one, with others under way (chosen on seeds 1, 2, 11 of validate_score.py, where
# 3 to 7 do as well). The Cortex-A76's manual says that its second level "usually" takes three;
# ARM's other manuals leave it open.
INTEL_LOOKUP, ARM_LOOKUP = 5, 3
# Cycles that a blocked load waits: Intel's top-down metrics, for LD_BLOCKS.STORE_FORWARD. No figure
# of ARM's was found; there, too, the store has to get through the pipeline first.
BLOCKED_LOAD = 13


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
    third : Cache or None
        A third level, which is a board's and not a core's: kernels are scored without.
    """

    first: Cache
    second: Cache
    translation: Translation
    first_bytes: float
    second_bytes: float
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

    def transfer_cycles(self, events: MemoryEvents) -> float:
        """Estimate cycles for the lines that both levels lacked."""
        lines = events.l1_misses / self.first_bytes + events.l2_misses / self.second_bytes
        return LINE * lines

    def stall_cycles(self, events: MemoryEvents) -> float:
        """Estimate cycles for pages that were looked up and loads that waited for stores."""
        return self.translation.cycles * events.page_misses + BLOCKED_LOAD * events.blocked_loads


def _shape(entries: int, ways: int) -> int:
    return entries // ways * 256 + ways


def _arm(core: ArmCore) -> Caches:
    # 128 bits to the interconnect.
    translation = Translation(core.pages, core.pages, ARM_LOOKUP)
    return Caches(_kib(*core.first), _kib(*core.second), translation, core.first_bytes, 16)


def _kib(size: int, ways: int) -> Cache:
    return Cache(size * KIB, ways)


_SKYLAKE_SERVER = Caches(_kib(32, 8), _kib(1024, 16), Translation(64, 4, INTEL_LOOKUP), 52, 15)

CACHES: dict[str, Caches] = {
    **{name: _arm(core) for name, core in CORES.items()},
    "skylake-avx512": _SKYLAKE_SERVER,
    "cascadelake": _SKYLAKE_SERVER,
    "cooperlake": _SKYLAKE_SERVER,
}
