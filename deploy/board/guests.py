"""Guests: what QEMU is to be for a core, and what the board says of itself then."""

from __future__ import annotations

import difflib
import platform
from dataclasses import dataclass

from shuffledeploy.compiler.cores import CORES, LINE, ArmCore
from shuffledeploy.model.errors import UsageError


@dataclass(frozen=True)
class Guest:
    """What QEMU is to be: an architecture, and one of its ``-cpu`` models for it."""

    architecture: str
    model: str


def find_core(name: str) -> ArmCore:
    """Return a core by its name.

    Raises
    ------
    UsageError
        When it cannot be emulated; names those that can.
    """
    if name in CORES:
        return CORES[name]
    near = difflib.get_close_matches(name, CORES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"core '{name}' cannot be emulated{hint}; choose one of {', '.join(CORES)}")


def guest_of(core: str) -> Guest:
    """Return the guest with a core of `compiler.cores.CORES`."""
    return Guest("aarch64", find_core(core).qemu)


def guest_like_host() -> Guest:
    """Return the guest that runs what this machine runs, as far as QEMU can."""
    return Guest(platform.machine(), "max")


def cpuinfo(core: ArmCore) -> str:
    """Return ``/proc/cpuinfo`` of a board with one cluster of such cores."""
    return "".join(
        f"processor\t: {place}\nBogoMIPS\t: 108.00\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x{core.variant:x}\n"
        f"CPU part\t: 0x{core.part:03x}\nCPU revision\t: {core.revision}\n\n"
        for place in range(core.sharing)
    )


def cache_files(core: ArmCore, place: int) -> dict[str, str]:
    """Return the files of ``/sys/devices/system/cpu/cpuN/cache`` of a board with such cores.

    Engines part a second level among the cores that share it: one that believed to have it alone
    would block its loops for more than a board lets it have. Source: Linux,
    ``Documentation/ABI/testing/sysfs-devices-system-cpu``; levels stand in the order in which its
    ``drivers/base/cacheinfo.c`` numbers them.

    Parameters
    ----------
    core : ArmCore
        The core.
    place : int
        N, from 0 to one less than ``core.sharing``.
    """
    own = (place, f"{1 << place:x}")
    shared = (f"0-{core.sharing - 1}" if core.sharing > 1 else "0", f"{(1 << core.sharing) - 1:x}")
    levels = ((1, "Data", core.first, own), (1, "Instruction", core.instructions, own),
              (2, "Unified", core.second, shared))  # fmt: skip
    files: dict[str, str] = {}
    for index, (level, kind, (kib, ways), (cores, mask)) in enumerate(levels):
        facts = {
            "id": 0, "level": level, "type": kind, "size": f"{kib}K",
            "coherency_line_size": LINE, "ways_of_associativity": ways,
            "number_of_sets": kib * 1024 // LINE // ways,
            "shared_cpu_list": cores, "shared_cpu_map": mask,
        }  # fmt: skip
        files |= {f"index{index}/{name}": f"{fact}\n" for name, fact in facts.items()}
    return files


def main_id_register(core: ArmCore) -> int:
    """Return MIDR_EL1 of a core: implementer, variant, architecture, part, revision."""
    return 0x41 << 24 | core.variant << 20 | 0xF << 16 | core.part << 4 | core.revision
