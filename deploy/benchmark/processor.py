"""The processor: its name, the cores that engines run on, and who else takes their time."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Set where AVX-512 is hidden from programs (`hidden_avx512`), so that reports say so.
HIDES_AVX512 = "SHUFFLEDEPLOY_HIDES_AVX512"


def cpu_model() -> str:
    """Name the processor as Linux does, and what is hidden of it."""
    return _linux_name() + (", AVX-512 hidden" if HIDES_AVX512 in os.environ else "")


def _linux_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def benchmark_cores(threads: int) -> list[int]:
    """Choose the cores of the workers: the last ones, the first serves interrupts on many."""
    return sorted(os.sched_getaffinity(0))[-threads:]


@contextmanager
def out_of_the_way(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process off the workers' cores, where there are others."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed - set(cores) or allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def core_times(cores: Sequence[int]) -> tuple[int, int]:
    """Read ticks stolen from, and spent on, these cores; zeros where Linux does not tell."""
    stolen = spent = 0
    wanted = {f"cpu{core}" for core in cores}
    try:
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, *fields = line.split()
            if name in wanted and len(fields) >= 8:
                stolen += int(fields[7])
                spent += sum(map(int, fields[:8]))
    except OSError:
        pass
    return stolen, spent


def stolen_share(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Give the share of the time between two readings that the hypervisor gave to others."""
    spent = after[1] - before[1]
    return (after[0] - before[0]) / spent if spent > 0 else None
