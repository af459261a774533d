"""The ARM cores that can be emulated, and which QEMU model stands in for each."""

from __future__ import annotations

import difflib
import platform
from dataclasses import dataclass

from shuffledeploy.model.errors import UsageError


@dataclass(frozen=True)
class Core:
    """One ARM core as QEMU 7.2 can show it.

    Attributes
    ----------
    name : str
        The name that LLVM (``-mcpu``) and this project use.
    qemu : str
        The QEMU ``-cpu`` model. Another core's name means a stand-in: the same generation of the
        instruction set, so that what is legal on one is legal on the other.
    part : int
        The part number in ``/proc/cpuinfo`` (implementer 0x41, ARM).
    variant, revision : int
        The core's version in ``/proc/cpuinfo``.
    features : str
        The line ``Features`` of ``/proc/cpuinfo``, as Linux prints it on such a core.
    """

    name: str
    qemu: str
    part: int
    variant: int
    revision: int
    features: str

    @property
    def is_stand_in(self) -> bool:
        """Whether QEMU has no model of this very core."""
        return self.qemu != self.name


@dataclass(frozen=True)
class Guest:
    """What QEMU is to be: an architecture, and one of its ``-cpu`` models for it."""

    architecture: str
    model: str


_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
    " asimddp"
)
_V8_2_SSBS = _V8_2 + " ssbs"

CORES: dict[str, Core] = {
    core.name: core
    for core in (
        Core("cortex-a35", "cortex-a35", 0xD04, 1, 0, _V8_0),
        Core("cortex-a53", "cortex-a53", 0xD03, 0, 4, _V8_0),
        # QEMU 7.2 has no A55: the A76 has the same ARMv8.2 instructions (dot products, fp16).
        Core("cortex-a55", "cortex-a76", 0xD05, 2, 0, _V8_2),
        Core("cortex-a57", "cortex-a57", 0xD07, 1, 3, _V8_0),
        Core("cortex-a72", "cortex-a72", 0xD08, 0, 3, _V8_0),
        # ARMv8.0, like the A72.
        Core("cortex-a73", "cortex-a72", 0xD09, 0, 2, _V8_0),
        # ARMv8.2, like the A76.
        Core("cortex-a75", "cortex-a76", 0xD0A, 3, 1, _V8_2),
        Core("cortex-a76", "cortex-a76", 0xD0B, 4, 1, _V8_2_SSBS),
        Core("cortex-a77", "cortex-a76", 0xD0D, 1, 0, _V8_2_SSBS),
        Core("cortex-a78", "cortex-a76", 0xD41, 1, 0, _V8_2_SSBS),
        Core("neoverse-n1", "neoverse-n1", 0xD0C, 3, 1, _V8_2_SSBS),
    )
}

DEFAULT_CORE = "cortex-a72"


def find_core(name: str) -> Core:
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
    """Return the guest with a core of :data:`CORES`."""
    return Guest("aarch64", find_core(core).qemu)


def guest_like_host() -> Guest:
    """Return the guest that runs what this machine runs, as far as QEMU can."""
    return Guest(platform.machine(), "max")


def cpuinfo(core: Core) -> str:
    """Return ``/proc/cpuinfo`` of a board with one such core."""
    return (
        f"processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x{core.variant:x}\n"
        f"CPU part\t: 0x{core.part:03x}\nCPU revision\t: {core.revision}\n\n"
    )


def main_id_register(core: Core) -> int:
    """Return MIDR_EL1 of a core: implementer, variant, architecture, part, revision."""
    return 0x41 << 24 | core.variant << 20 | 0xF << 16 | core.part << 4 | core.revision
