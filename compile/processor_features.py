"""What this machine's processor can do: as Linux tells it, and as LLVM names it."""

from __future__ import annotations

import platform

from shuffledeploy.compiler.ir.tvm_edges import system_cpu

# Names that LLVM gives to whatever has these instructions, by their names in /proc/cpuinfo.
_X86_LEVELS = {
    "x86-64-v3": frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}),
    "x86-64": frozenset[str](),
}


def cpu_features() -> frozenset[str]:
    """Features that Linux reports for this machine's first core."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a real file
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def host_cpus() -> list[str]:
    """List LLVM's names that this machine's core may go by, the closest first.

    LLVM goes by the model alone. A hypervisor or the firmware may hide instructions that it takes
    for granted then, and some models were sold without them.
    """
    levels = _X86_LEVELS if platform.machine() == "x86_64" else {}
    return [system_cpu(), *(name for name, has in levels.items() if has <= cpu_features())]
