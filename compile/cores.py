"""ARM's cores, one row each: all that this project knows of a core stands here.

Sources: part numbers and features from Linux (``arch/arm64``) and ARM's technical reference
manuals; caches and first-level translation from these manuals, the second level's size as boards
have it (Wikipedia, articles on the boards); scheduling models from LLVM 19,
``llvm/lib/Target/AArch64/AArch64Processors.td``; boards from Wikipedia, "List of ARM processors".
What a manual leaves open, and what was measured to be less than it says, has its source at its row.
"""

from __future__ import annotations

import dataclasses

from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF

DEFAULT_CORE = "cortex-a72"
#: The target that is called by no core's name: the default core.
ARM = "arm"
#: Bytes of a line of the caches, of all cores.
LINE = 64


@dataclasses.dataclass(frozen=True)
class Scheduling:
    """What knows the costs of a core's instructions: several cores share one.

    Attributes
    ----------
    name : str
        A scheduling model as LLVM calls it; of cores that issue in order, what takes its place
        (`deploy.estimate.in_order`), for LLVM's is far from what was measured.
    made_for : str
        The core that it describes, as llvm-mca knows it.
    in_order : bool
        Whether that core issues in order.
    decoded : int or None
        Instructions that the core itself decodes a cycle, where `made_for` decodes more.
    """

    name: str
    made_for: str
    in_order: bool = False
    decoded: int | None = None


@dataclasses.dataclass(frozen=True)
class ArmCore:
    """One core.

    Attributes
    ----------
    name : str
        The name that LLVM (``-mcpu``) and this project use.
    found_in : str
        Boards and phones that have it.
    qemu : str
        The ``-cpu`` model of QEMU 7.2. Another core's name means a stand-in: the same generation of
        the instruction set, so that what is legal on one is legal on the other.
    part, variant, revision : int
        In ``/proc/cpuinfo`` (implementer 0x41, ARM).
    features : str
        The line ``Features`` of ``/proc/cpuinfo``, as Linux prints it on such a core.
    scheduling : Scheduling
        What llvm-mca knows of it.
    first, second : tuple of int
        Data caches: KiB and ways. The second level is as large as boards have it; how much of that
        strips may take is a budget of its own (`compiler.targets.CACHE_BUDGET`).
    pages : int
        Entries of the first level of its translation of addresses, fully associative.
    first_bytes : int
        Bytes a cycle from the second level into the first.
    lookup : int
        Cycles to look a page up that the first level of translation lacks, in the second.
    is_target : bool
        Whether it is offered as a target; else it can only be emulated.
    instructions : tuple of int
        First-level cache of instructions: KiB and ways.
    sharing : int
        Cores of a cluster, which share the second level; 1 where each has its own.
    has_long_window : bool
        Whether it has so many instructions under way (128 of the Cortex-A76) that lines from the
        second level and a third come while it works.
    """

    name: str
    found_in: str
    qemu: str
    part: int
    variant: int
    revision: int
    features: str
    scheduling: Scheduling
    first: tuple[int, int]
    second: tuple[int, int]
    pages: int
    first_bytes: int = 16
    # "Usually" three, says the Cortex-A76's manual; ARM's other manuals leave it open.
    lookup: int = 3
    is_target: bool = True
    instructions: tuple[int, int] = (64, 4)
    sharing: int = 1
    has_long_window: bool = False

    @property
    def computes_in_half(self) -> bool:
        """Whether its vectors add and multiply numbers of half precision."""
        return HALF_FEATURE in self.features.split()

    @property
    def is_stand_in(self) -> bool:
        """Whether QEMU has no model of this very core."""
        return self.qemu != self.name


# What /proc/cpuinfo calls arithmetic on vectors of half precision numbers.
HALF_FEATURE = "asimdhp"
# The same of sums of four products of int8.
DOT_FEATURE = "asimddp"
_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
    " asimddp"
)
_V8_2_SSBS = _V8_2 + " ssbs"
_A53 = Scheduling("scoreboard of measured costs", "cortex-a53", in_order=True)
_A55 = Scheduling("scoreboard of known costs", "cortex-a55", in_order=True)
_A57 = Scheduling("CortexA57Model", "cortex-a57")
# ARM's Cortex-A73 decodes two instructions a cycle (AnandTech, "The ARM Cortex-A73: Artemis
# Unveiled"), the A57 three.
_A73 = Scheduling("CortexA57Model decoding 2", "cortex-a57", decoded=2)
_N1 = Scheduling("NeoverseN1Model", "neoverse-n1")

CORES: dict[str, ArmCore] = {
    core.name: core
    for core in (
        ArmCore("cortex-a35", "i.MX 8X, RK3308 (in order)",
                "cortex-a35", 0xD04, 1, 0, _V8_0, _A53, (32, 4), (512, 8), 10, is_target=False,
                instructions=(32, 2), sharing=4),
        ArmCore("cortex-a53", "Raspberry Pi 3, Snapdragon 410/625 (in order)",
                "cortex-a53", 0xD03, 0, 4, _V8_0, _A53, (32, 4), (512, 16), 10,
                instructions=(32, 2), sharing=4),
        # QEMU 7.2 has no A55: the A76 has the same ARMv8.2 instructions (dot products, fp16).
        ArmCore("cortex-a55", "little core of most phones since 2018 (in order)",
                "cortex-a76", 0xD05, 2, 0, _V8_2, _A55, (32, 4), (128, 4), 16,
                instructions=(32, 4)),
        # A page's place "adds over 20 extra cycles": measured on a Tegra X1, which the Jetson Nano
        # has, too (Chips and Cheese, "Cortex A57, Nintendo Switch's CPU").
        ArmCore("cortex-a57", "Jetson TX1, Jetson Nano, Snapdragon 810",
                "cortex-a57", 0xD07, 1, 3, _V8_0, _A57, (32, 2), (2048, 16), 32, lookup=20,
                instructions=(48, 3), sharing=4),
        ArmCore("cortex-a72",
                "Raspberry Pi 4, RK3399, Snapdragon 650 (the default, also called arm)",
                "cortex-a72", 0xD08, 0, 3, _V8_0, _A57, (32, 2), (1024, 16), 32,
                instructions=(48, 3), sharing=4),
        # ARMv8.0, like the A72. A line of 64 bytes takes 7.05 cycles from the second level, whose
        # interface has 128 bits: eight chains of pointers through 512 KiB take 23.5 ns a step at
        # 2.4 GHz (sbc-bench, results/4o1A.txt, a Khadas VIM3). A linear reader is no faster, and a
        # page's place takes 5 cycles (Chips and Cheese, "Arm's Cortex A73: Resource Limits, What
        # are Those?", measured on the same chip).
        ArmCore("cortex-a73", "Kirin 960, Snapdragon 835, Amlogic S922X",
                "cortex-a72", 0xD09, 0, 2, _V8_0, _A73, (32, 4), (1024, 16), 48, 9, lookup=5,
                sharing=4),
        # ARMv8.2, like the A76.
        ArmCore("cortex-a75", "Snapdragon 845, Exynos 9820",
                "cortex-a76", 0xD0A, 3, 1, _V8_2, _A57, (64, 16), (256, 8), 48, is_target=False),
        ArmCore("cortex-a76", "Raspberry Pi 5, RK3588, Snapdragon 855",
                "cortex-a76", 0xD0B, 4, 1, _V8_2_SSBS, _N1, (64, 4), (512, 8), 48, 32,
                has_long_window=True),
        ArmCore("cortex-a77", "Snapdragon 865, Dimensity 1000",
                "cortex-a76", 0xD0D, 1, 0, _V8_2_SSBS, _N1, (64, 4), (256, 8), 48, 32,
                is_target=False, has_long_window=True),
        ArmCore("cortex-a78", "Snapdragon 888, Jetson Orin (as A78AE), Dimensity 1200",
                "cortex-a76", 0xD41, 1, 0, _V8_2_SSBS, _N1, (64, 4), (512, 8), 32, 32,
                has_long_window=True),
        ArmCore("neoverse-n1", "AWS Graviton 2, Ampere Altra",
                "neoverse-n1", 0xD0C, 3, 1, _V8_2_SSBS, _N1, (64, 4), (1024, 8), 48, 32,
                has_long_window=True),
    )
}  # fmt: skip


def no_half(name: str) -> str:
    """Say that a target has no arithmetic for half precision, and what to do."""
    having = ", ".join(core.name for core in CORES.values() if core.computes_in_half)
    return (
        f"--precision {HALF}: {name} has no arithmetic for half precision: take"
        f" --precision {FLOAT}, or a core that has it ({having}, hosts with AVX512-FP16)"
    )


def core_of_part(part: str) -> str | None:
    """Name the core of a part number as ``/proc/cpuinfo`` tells it (``0xd08``); None if unknown."""
    number = int(part, 16) if part else -1
    return next((core.name for core in CORES.values() if core.part == number), None)


def scheduling_of(name: str) -> str | None:
    """Name LLVM's scheduling model of a core, None for a core that is not known here."""
    return CORES[name].scheduling.name if name in CORES else None


def describe_scheduling(name: str) -> str:
    """Say which scheduling model a core has, and whose it really is."""
    if name not in CORES:
        return "none known: ranked by instructions"
    model = CORES[name].scheduling
    own = "its own" if model.made_for == name else f"made for the {model.made_for}"
    return f"{model.name}, {own}"
