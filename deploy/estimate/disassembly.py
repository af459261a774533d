"""Runs of machine code as assembly, by llvm-mc: many at a time."""

from __future__ import annotations

from collections.abc import Sequence

from shuffledeploy.deploy.estimate.block_costs import ModelledCore
from shuffledeploy.model.errors import Failure

# Instructions that no compiler writes, between the runs that one llvm-mc disassembles.
_MARKERS = {
    "aarch64": ("0xff 0x2f 0x03 0xd5", "hint\t#127"),
    "x86_64": ("0x0f 0x1f 0x80 0x5a 0x5a 0x5a 0x5a", "nopl\t1515870810(%rax)"),
}


def disassemble(core: ModelledCore, codes: Sequence[bytes]) -> list[list[str]]:
    """Return each run's instructions, a line each.

    Raises
    ------
    Failure
        llvm-mc does not understand one of them.
    """
    marker, shown = _MARKERS[core.architecture]
    text = "\n".join(" ".join(map(hex, code)) + "\n" + marker for code in codes)
    # What was executed is legal there, whatever LLVM believes of the core.
    extensions = ["-mattr=+all"] if core.architecture == "aarch64" else []
    arguments = ["--disassemble", f"-triple={core.architecture}-linux-gnu", f"-mcpu={core.name}",
                 *extensions]  # fmt: skip
    answer = core.tools.run(core.tools.mc, arguments, text + "\n")
    runs: list[list[str]] = [[]]
    for told in answer.splitlines():
        # Behind some instructions stands what llvm-mc thinks of them.
        line = told.partition(" // ")[0].strip()
        if line == shown:
            runs.append([])
        elif line and not line.startswith("."):
            runs[-1].append(line)
    if len(runs) != len(codes) + 1:
        raise Failure("llvm-mc did not understand the code")
    return runs[:-1]
