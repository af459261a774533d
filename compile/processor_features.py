"""What this machine's processor can do, as Linux tells it; without TVM."""

from __future__ import annotations

import platform

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


def general_names() -> list[str]:
    """List LLVM's names of whatever can do no more than this machine's core, the closest first.

    LLVM names a core by its model alone. A hypervisor or the firmware may hide instructions that it
    takes for granted then, and some models were sold without them.
    """
    features, levels = cpu_features(), _X86_LEVELS if platform.machine() == "x86_64" else {}
    return [name for name, has in levels.items() if has <= features]
