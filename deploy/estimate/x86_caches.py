"""Caches of x86 cores, by LLVM's names of them: for the proof of the estimate on such a machine.

Sizes and ways: WikiChip (articles on the microarchitectures). Bytes a cycle from the second level
into the first that Intel's cores sustain: its Optimization Reference Manual, 29 for Skylake's
client cores (Table 2-5), 52 for its server cores (table "Cache Comparison Between Skylake
Microarchitecture and Broadwell Microarchitecture", which has the 15 from the third level, too).
Haswell and Broadwell have the same width as Skylake's client cores; later cores the same as the
server cores, whose figure is taken. AMD's have 32 bytes (7-cpu.com, Zen 2), Zen 5 has 64; from the
third level 32 on all of them. AMD's lookup of a page is charged as Intel's.

Golden Cove's servers have a third level behind a mesh. Lines come from there through the sixteen
fill buffers of the first level (AnandTech, "A Deep Dive into Intel's Alder Lake
Microarchitectures"), each taken for the 37 ns that Intel's top-down metrics of Sapphire Rapids
charge for such a line, 111 cycles at 3 GHz: 9 bytes a cycle. They add to what
the core is busy with, as between all levels of Intel's in the execution-cache-memory model. Of
other cores they count only where they take longer than the core is busy: so the estimate was proved
on Cascade Lake.
"""

from __future__ import annotations

from collections.abc import Iterable

from shuffledeploy.compiler.cores import LINE
from shuffledeploy.deploy.estimate.caches import KIB, Cache, Caches, Translation

# Cycles to look a page up: of seven to nine, which Intel's top-down metrics charge for one alone,
# and one, with others under way (chosen on seeds of validate_score.py: on 1, 2, 11 on a Cascade
# Lake 3 to 7 do as well, on 43 on an Emerald Rapids 1 to 3).
_LOOKUP = 3
# These cores hide a line that no prefetcher saw behind hundreds of instructions under way.
_START = 0

_CLIENT_BYTES, _SERVER_BYTES, _INTEL_THIRD_BYTES = 29, 52, 15
# Fill buffers, bytes of a line, nanoseconds, cycles a nanosecond.
_MESH_BYTES = 16 * LINE / (37 * 3.0)
# One core's share of it: WikiChip.
_MESH_THIRD = Cache(1920 * KIB, 15)
_ZEN_BYTES, _ZEN5_BYTES, _AMD_THIRD_BYTES = 32, 64, 32


def _caches(
    first: tuple[int, int], second: tuple[int, int], pages: tuple[int, int], first_bytes: float,
    second_bytes: float = _INTEL_THIRD_BYTES, third: Cache | None = None,
) -> Caches:  # fmt: skip
    """Build a row of KiB and ways, entries and ways, bytes a cycle, and a third level that adds."""
    one, two = (Cache(size * KIB, ways) for size, ways in (first, second))
    return Caches(
        one, two, Translation(*pages, _LOOKUP), first_bytes, second_bytes, _START, third=third
    )


def _zen(second: tuple[int, int], pages: int) -> Caches:
    return _caches((32, 8), second, (pages, pages), _ZEN_BYTES, _AMD_THIRD_BYTES)


def _rows() -> Iterable[tuple[str, Caches]]:
    skylake = _caches((32, 8), (256, 4), (64, 4), _CLIENT_BYTES)
    server = _caches((32, 8), (1024, 16), (64, 4), _SERVER_BYTES)
    sunny_cove = _caches((48, 12), (512, 8), (64, 4), _SERVER_BYTES)
    for name in ("haswell", "broadwell"):
        yield name, _caches((32, 8), (256, 8), (64, 4), _CLIENT_BYTES)
    yield "skylake", skylake
    for name in ("skylake-avx512", "cascadelake", "cooperlake"):
        yield name, server
    for name in ("icelake-client", "rocketlake"):
        yield name, sunny_cove
    yield "icelake-server", _caches((48, 12), (1280, 20), (64, 4), _SERVER_BYTES)
    yield "tigerlake", _caches((48, 12), (1280, 20), (64, 4), _SERVER_BYTES)
    yield "alderlake", _caches((48, 12), (1280, 10), (96, 6), _SERVER_BYTES)
    yield "raptorlake", _caches((48, 12), (2048, 16), (96, 6), _SERVER_BYTES)
    for name in ("sapphirerapids", "emeraldrapids"):
        yield name, _caches((48, 12), (2048, 16), (96, 6), _SERVER_BYTES, _MESH_BYTES, _MESH_THIRD)
    for name in ("znver1", "znver2", "znver3"):
        yield name, _zen((512, 8), 64)
    yield "znver4", _zen((1024, 8), 72)
    yield "znver5", _caches((48, 12), (1024, 16), (96, 96), _ZEN5_BYTES, _AMD_THIRD_BYTES)


#: By LLVM's name of the core.
X86_CACHES: dict[str, Caches] = dict(_rows())
