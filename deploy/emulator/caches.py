"""Data caches of the cores, for the simulated misses that stand beside an estimate.

Line sizes, ways and first-level sizes are those of the cores' Technical Reference Manuals; where
ARM leaves a size to the maker of the chip, that of a common chip is taken: BCM2711 for the A72,
BCM2712 for the A76, RK3399 for the A53, and the middle of ARM's range elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
LINE = 64


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
class Caches:
    """The two levels next to a core."""

    first: Cache
    second: Cache

    @property
    def plugin_arguments(self) -> str:
        """As counter.c reads them: sets and ways of each level."""
        return ",".join(
            f"{name}={cache.size // LINE // cache.ways}:{cache.ways}"
            for name, cache in (("l1", self.first), ("l2", self.second))
        )


def _of(first: int, ways: int, second: int, second_ways: int) -> Caches:
    return Caches(Cache(first * KIB, ways), Cache(second * KIB, second_ways))


CACHES: dict[str, Caches] = {
    "cortex-a35": _of(32, 4, 512, 8),
    "cortex-a53": _of(32, 4, 512, 16),
    "cortex-a55": _of(32, 4, 128, 4),
    "cortex-a57": _of(32, 2, 2048, 16),
    "cortex-a72": _of(32, 2, 1024, 16),
    "cortex-a73": _of(32, 4, 1024, 16),
    "cortex-a75": _of(64, 16, 256, 8),
    "cortex-a76": _of(64, 4, 512, 8),
    "cortex-a77": _of(64, 4, 256, 8),
    "cortex-a78": _of(64, 4, 512, 8),
    "neoverse-n1": _of(64, 4, 1024, 8),
}
