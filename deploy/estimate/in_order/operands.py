"""One line of AArch64 assembly, as llvm-mc prints it: what it reads, what it writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The register that compares write and conditions read.
FLAGS = "nzcv"
_STACK = "x31"
_REGISTER = re.compile(r"\b(?:([xwvqdshb])(\d{1,2})|w?(sp))\b")
_ADDRESS = re.compile(r"\[([^\]]*)\](!)?(?:,\s*(.*))?$")
_LANE = re.compile(r"\[\d+\]$")
_WIDE = re.compile(r"\.(?:16b|8h|4s|2d)\b|\bq\d")
_BRANCHES = frozenset(("b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"))
_COMPARES = frozenset(("cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp"))
_WRITE_FLAGS = _COMPARES | {"adds", "subs", "ands", "bics", "adcs", "sbcs", "negs"}
_READ_FLAGS = frozenset(
    ("csel", "csinc", "csinv", "csneg", "cset", "csetm", "cinc", "cinv", "cneg", "ccmp", "ccmn",
     "fcsel", "fccmp", "adc", "sbc", "adcs", "sbcs"),
)  # fmt: skip
#: What adds to its destination, and reads it late.
ACCUMULATING = frozenset(
    ("fmla", "fmls", "mla", "mls", "smlal", "smlal2", "umlal", "umlal2", "smlsl", "smlsl2",
     "umlsl", "umlsl2", "sdot", "udot", "fmlal", "fmlal2", "sadalp", "uadalp"),
)  # fmt: skip
# What changes a part of its destination.
_CHANGING = ACCUMULATING | {
    "ins", "bsl", "bit", "bif", "movk", "bfi", "bfxil", "bfm", "tbx", "sli", "sri", "xtn2",
    "sqxtn2", "uqxtn2", "fcvtn2", "usra", "ssra",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """An instruction.

    Attributes
    ----------
    name : str
        Without condition and arrangement, such as ``fmla`` or ``b``.
    reads, writes : tuple of str
        Registers as ``x0`` and ``v0``, and `FLAGS`. The stack pointer is ``x31``.
    accumulators : tuple of str
        What it reads beside, and late: destinations that it adds to.
    address : str or None
        The address register that it advances.
    access : str or None
        ``load`` or ``store``; None where it reaches no memory.
    words : int
        Data registers of 64 bits that it loads or stores; one of 128 bits counts twice.
    is_branch, is_vector, is_wide : bool
        Whether it is a branch, works on vector registers, works on all their 128 bits.
    text : str
        The operands.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    accumulators: tuple[str, ...] = ()
    address: str | None = None
    access: str | None = None
    words: int = 0
    is_branch: bool = False
    is_vector: bool = False
    is_wide: bool = False
    text: str = ""


def read_operation(line: str) -> Operation:
    """Read a line such as ``fmla v0.4s, v1.4s, v2.s[0]``."""
    mnemonic, _, text = line.strip().partition("\t")
    name = mnemonic.split(".")[0]
    parts = _split(text)
    if name in _BRANCHES:
        condition = (FLAGS,) if "." in mnemonic else ()
        return Operation(name, (*_registers(text), *condition), (), is_branch=True, text=text)
    place = next((i for i, part in enumerate(parts) if part.startswith("[")), None)
    if place is not None:
        return _access(name, parts[:place], ", ".join(parts[place:]), text)
    return _arithmetic(name, parts, text)


def _access(name: str, data_parts: list[str], address_text: str, text: str) -> Operation:
    found = _ADDRESS.match(address_text)
    base = _registers(found[1]) if found else _registers(address_text)
    step = _registers(found[3] or "") if found else []
    advanced = base[0] if found and base and (found[2] or found[3]) else None
    data = [register for part in data_parts for register in _registers(part)]
    advances = (advanced,) if advanced else ()
    is_vector = any(register.startswith("v") for register in data)
    words = _words(name, data_parts, len(data), is_vector=is_vector)
    if name.startswith("prf"):
        return Operation(name, (*base, *step), (), access="load", words=1, text=text)
    if name.startswith("st"):
        return Operation(name, (*data, *base, *step), advances, address=advanced, access="store",
                         words=words, is_vector=is_vector, text=text)  # fmt: skip
    # A lane that is loaded leaves the others as they are.
    kept = data if data_parts and _LANE.search(data_parts[0]) else []
    return Operation(name, (*base, *step, *kept), (*data, *advances), address=advanced,
                     access="load", words=words, is_vector=is_vector, text=text)  # fmt: skip


def _words(name: str, parts: list[str], registers: int, *, is_vector: bool) -> int:
    """Count 64-bit words: of structures a lane at a time, half as many as registers."""
    if not is_vector:
        return registers
    if parts and parts[0].startswith("{"):
        if _LANE.search(parts[0]) or name in ("ld1r", "ld2r", "ld3r", "ld4r"):
            return (registers + 1) // 2
        return registers * (2 if _WIDE.search(parts[0]) else 1)
    return registers * (2 if parts and parts[0].startswith("q") else 1)


def _arithmetic(name: str, parts: list[str], text: str) -> Operation:
    registers = [_registers(part) for part in parts]
    first = registers[0] if registers else []
    sources = [register for part in registers[1:] for register in part]
    inserts = bool(parts) and _LANE.search(parts[0]) is not None
    reads, writes = list(sources), list(first)
    if name in _COMPARES:
        reads, writes = first + sources, []
    elif inserts or (name in _CHANGING and name not in ACCUMULATING):
        reads += first
    if name in _READ_FLAGS:
        reads.append(FLAGS)
    if name in _WRITE_FLAGS:
        writes.append(FLAGS)
    late = tuple(first) if name in ACCUMULATING else ()
    if name in ("fmadd", "fmsub", "fnmadd", "fnmsub"):
        reads, late = sources[:-1], tuple(sources[-1:])
    is_vector = any(register.startswith("v") for register in first + sources)
    is_wide = is_vector and not inserts and _WIDE.search(text) is not None
    return Operation(name, tuple(reads), tuple(writes), late, is_vector=is_vector,
                     is_wide=is_wide, text=text)  # fmt: skip


def _registers(text: str) -> list[str]:
    """List the registers of a text; a range of vectors in full."""
    found = [_STACK if stack else f"{'x' if kind in 'xw' else 'v'}{number}"
             for kind, number, stack in _REGISTER.findall(text)]  # fmt: skip
    if " - " in text and len(found) == 2:
        first, last = (int(register[1:]) for register in found)
        return [f"v{(first + i) % 32}" for i in range((last - first) % 32 + 1)]
    return found


def _split(text: str) -> list[str]:
    """Part operands at commas, but not within brackets."""
    parts = re.split(r",\s*(?![^\[{]*[\]}])", text)
    return [part.strip() for part in parts if part.strip()]
