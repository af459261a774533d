"""Data caches of the cores, and what it costs to move a line between them.

A core waits for lines that its first-level cache lacks: cycles for them are added to those of its
instructions, as the execution-cache-memory model does for streams that a prefetcher sees coming
(Treibig and Hager, "Introducing a performance model for bandwidth-limited loop kernels", 2009).
Latencies are left out. Nothing here was fitted to times.

Read in ARM's Technical Reference Manuals: the A35's, A53's and A72's second level, the A55's and
A76's first, the A76's 256 bits from one to the other. The rest of ARM's is common knowledge, not
looked up; where ARM leaves a size to the maker of the chip, that of a common chip is taken (BCM2711
for the A72, BCM2712 for the A76, RK3399 for the A53), and where no width was found, 128 bits. Of
Skylake Server and its kin: sustained bandwidths of Intel's Optimization Reference Manual, table
"Cache Comparison Between Skylake Microarchitecture and Broadwell Microarchitecture".
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
    """The two levels next to a core.

    Attributes
    ----------
    first, second : Cache
        The levels.
    first_bytes, second_bytes : float
        Bytes a cycle that come into the first level, and into the second from what lies behind.
    """

    first: Cache
    second: Cache
    first_bytes: float
    second_bytes: float

    @property
    def plugin_arguments(self) -> str:
        """As counter.c reads them: sets and ways of each level."""
        return ",".join(
            f"{name}={cache.size // LINE // cache.ways}:{cache.ways}"
            for name, cache in (("l1", self.first), ("l2", self.second))
        )

    def transfer_cycles(self, misses: tuple[int, int]) -> float:
        """Estimate cycles for the lines that both levels lacked."""
        return LINE * (misses[0] / self.first_bytes + misses[1] / self.second_bytes)


def _arm(first: Cache, second: Cache, first_bytes: float = 16) -> Caches:
    # 128 bits to the interconnect, all of them.
    return Caches(first, second, first_bytes, 16)


def _kib(size: int, ways: int) -> Cache:
    return Cache(size * KIB, ways)


_SKYLAKE_SERVER = Caches(_kib(32, 8), _kib(1024, 16), 52, 15)

CACHES: dict[str, Caches] = {
    "cortex-a35": _arm(_kib(32, 4), _kib(512, 8)),
    "cortex-a53": _arm(_kib(32, 4), _kib(512, 16)),
    "cortex-a55": _arm(_kib(32, 4), _kib(128, 4)),
    "cortex-a57": _arm(_kib(32, 2), _kib(2048, 16)),
    "cortex-a72": _arm(_kib(32, 2), _kib(1024, 16)),
    "cortex-a73": _arm(_kib(32, 4), _kib(1024, 16)),
    "cortex-a75": _arm(_kib(64, 16), _kib(256, 8)),
    "cortex-a76": _arm(_kib(64, 4), _kib(512, 8), 32),
    "cortex-a77": _arm(_kib(64, 4), _kib(256, 8), 32),
    "cortex-a78": _arm(_kib(64, 4), _kib(512, 8), 32),
    "neoverse-n1": _arm(_kib(64, 4), _kib(1024, 8), 32),
    "skylake-avx512": _SKYLAKE_SERVER,
    "cascadelake": _SKYLAKE_SERVER,
    "cooperlake": _SKYLAKE_SERVER,
}
