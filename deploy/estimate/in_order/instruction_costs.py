"""What single instructions cost on cores that issue in order: a table, with a source a row.

Sources of `instruction_costs.csv`: insn_bench is github.com/ocxtal/insn_bench_aarch64 at commit
5145ffc9, `results/raspberry-pi-3_cortex-a53.md`, measured on a Raspberry Pi 3: latencies, and how
many are done a cycle. LLVM is LLVM 19. Which instructions go together in a cycle is told by ncnn's
developer guide, "arm a53 a55 dual issue". Nothing measured was found of the Cortex-A35: it has the
costs of the Cortex-A53.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.estimate.in_order.operands import Operation

_TABLE = Path(__file__).with_name("instruction_costs.csv")
_SAME_AS = {"cortex-a35": "cortex-a53"}
#: 64-bit ways of vectors that such a core has.
WAYS = 2
# 64-bit ways of vectors, of two, that a load to vectors takes in each of its cycles: a load of one
# word, of more. An fmla of 128 bits takes both, and has to wait.
_WAYS_OF_LOADS = {"cortex-a35": (1, 1), "cortex-a53": (1, 1), "cortex-a55": (0, WAYS)}
# Of 64-bit words, a cycle: "st1.s (multi)", "st2.s", "st3.s", "st4.s" of insn_bench.
_STORED_WORDS = {"st2": 2.0, "st3": 1.5, "st4": 1.6}
_NOTHING = frozenset(("nop", "hint", "bti", "yield", "prfm", "prfum"))
_ROTATED = frozenset(
    ("lsl", "lsr", "asr", "ror", "extr", "ubfx", "sbfx", "ubfiz", "sbfiz", "ubfm", "sbfm", "bfi",
     "bfm", "bfxil", "sxtw", "sxtb", "sxth", "uxtb", "uxth", "uxtw", "rev", "rbit"),
)  # fmt: skip
_GROUPS = {
    **dict.fromkeys(("mul", "msub"), "multiply"),
    **dict.fromkeys(("madd", "mneg"), "multiply-add"),
    **dict.fromkeys(("smull", "umull", "smaddl", "umaddl", "smsubl", "umsubl"), "multiply-long"),
    **dict.fromkeys(("smulh", "umulh"), "multiply-high"),
    **dict.fromkeys(("sdiv", "udiv"), "divide"),
}
_VECTOR_GROUPS = {
    **dict.fromkeys(
        ("and", "orr", "eor", "bic", "orn", "not", "mov", "movi", "mvni", "fmov"), "vector-logic"
    ),
    **dict.fromkeys(
        ("fcmgt", "fcmge", "fcmeq", "fcmlt", "fcmle", "facgt", "facge", "fcsel"), "vector"
    ),
    **dict.fromkeys(
        ("fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "fmlal", "fmlal2"), "float-fused"
    ),
    **dict.fromkeys(("fdiv", "fsqrt"), "float-divide"),
    **dict.fromkeys(("sadalp", "uadalp"), "accumulate-pairs"),
    **dict.fromkeys(
        ("mul", "mla", "mls", "smull", "smull2", "umull", "umull2", "smlal", "smlal2", "umlal",
         "umlal2", "smlsl", "smlsl2", "sdot", "udot", "sqdmulh", "sqrdmulh"), "vector-multiply",
    ),
    **dict.fromkeys(
        ("addp", "addv", "saddl", "saddl2", "uaddl", "uaddl2", "saddw", "saddw2", "uaddw",
         "uaddw2", "saddlp", "uaddlp", "saddlv", "uaddlv", "abs", "sqxtn", "sqxtn2", "uqxtn"),
        "vector-long",
    ),
    **dict.fromkeys(("scvtf", "ucvtf"), "float"),
}  # fmt: skip


@dataclass(frozen=True)
class InstructionCost:
    """What one instruction takes.

    Attributes
    ----------
    unit : str or None
        ``memory``, ``multiply``, ``vector`` or ``branch``, which one instruction has at a time
        (of vectors: as many as have ways); None for the rest.
    ways : int
        64-bit ways of vectors that it takes in each of its cycles, of two.
    cycles : int
        How long it has its unit.
    latency : int
        Cycles until its result can be read.
    late_latency : int
        Until one that adds to it can read it.
    holds_issue : bool
        Whether nothing goes beside it until its last cycle.
    """

    unit: str | None
    ways: int
    cycles: int
    latency: int
    late_latency: int
    holds_issue: bool = False


def cost_of(operation: Operation, core: str) -> InstructionCost:
    """Return what an instruction costs.

    Parameters
    ----------
    operation : Operation
        The instruction.
    core : str
        ``cortex-a35``, ``cortex-a53`` or ``cortex-a55``.

    Raises
    ------
    KeyError
        The core does not issue in order, or nothing is known of it.
    """
    table = _costs(_SAME_AS.get(core, core))
    if operation.is_branch:
        return InstructionCost("branch", 0, 1, 1, 1)
    if operation.name in _NOTHING:
        unit = "memory" if operation.access else None
        return InstructionCost(unit, 0, 1, 1, 1)
    if operation.access == "store":
        latency, cycles = table["store"]
        a_cycle = _STORED_WORDS.get(operation.name, 2.0) if operation.is_vector else 2.0
        taken = max(cycles, round(operation.words / a_cycle))
        return InstructionCost("memory", 0, taken, latency, latency)
    if operation.access == "load":
        return _load(operation, core, table)
    return _vector(operation, table) if operation.is_vector else _integer(operation, table)


def _load(operation: Operation, core: str, table: dict[str, tuple[int, int]]) -> InstructionCost:
    """Cost a load: a word of 64 bits a cycle."""
    wide = operation.name in ("ldr", "ldp", "ldur", "ldnp")
    group = "load-vector" if operation.is_vector else "load" if wide else "load-narrow"
    latency, cycles = table[group]
    taken = cycles * max(1, operation.words)
    last = latency + taken - cycles
    ways = _WAYS_OF_LOADS[core][operation.words > 1] if operation.is_vector else 0
    return InstructionCost("memory", ways, taken, last, last, operation.is_vector)


def _integer(operation: Operation, table: dict[str, tuple[int, int]]) -> InstructionCost:
    group = _GROUPS.get(operation.name)
    if group is not None:
        latency, cycles = table[group]
        return InstructionCost("multiply", 0, cycles, latency, latency)
    is_shifted = operation.name in _ROTATED or any(
        word in operation.text for word in ("lsl", "lsr", "asr", "sxt", "uxt")
    )
    latency, cycles = table["shifted" if is_shifted else "integer"]
    return InstructionCost(None, 0, cycles, latency, latency)


def _vector(operation: Operation, table: dict[str, tuple[int, int]]) -> InstructionCost:
    to_integer = bool(operation.writes) and operation.writes[0].startswith("x")
    fallback = "float" if operation.name.startswith("f") else "vector"
    group = "to-integer" if to_integer else _VECTOR_GROUPS.get(operation.name, fallback)
    latency, cycles = table[group]
    late = table.get(f"{group}-late", (latency, cycles))[0] if operation.accumulators else latency
    is_whole = operation.is_wide or group in ("float-divide", "accumulate-pairs")
    return InstructionCost("vector", WAYS if is_whole else 1, cycles, latency, late)


@functools.cache
def _costs(core: str) -> dict[str, tuple[int, int]]:
    """Read a core's rows: latency and cycles by group."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        found = {row["group"]: (int(row["latency"]), int(row["cycles"]))
                 for row in csv.DictReader(file) if row["core"] == core}  # fmt: skip
    if not found:
        raise KeyError(core)
    return found
