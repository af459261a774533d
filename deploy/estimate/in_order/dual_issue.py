"""When instructions start on a core that issues up to two a cycle, in the order of the program.

A small scoreboard. Two instructions start in a cycle if all that they read is there, they want
different units, and the first is no vector load that takes more than this cycle. What cannot start
holds back all that follows. Left out: that the Cortex-A53's vector instructions wait in a queue of
their own while integer ones go on, that a vector load cannot start in the fourth cycle of an fmla,
and branches that were predicted wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shuffledeploy.deploy.estimate.in_order.instruction_costs import WAYS, cost_of
from shuffledeploy.deploy.estimate.in_order.operands import FLAGS, read_operation

_SLOTS = 2
# Rounds until a run is steady, the last of which is counted; long runs are steady earlier.
_ROUNDS, _LONG, _ROUNDS_OF_LONG = 3, 400, 2
_UNITS = {None: 0, "memory": 1, "multiply": 2, "vector": 3, "branch": 4}
_VECTOR = _UNITS["vector"]
_REGISTERS = {
    name: place for place, name in enumerate([*(f"{k}{i}" for k in "xv" for i in range(32)), FLAGS])
}


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction as the scoreboard wants it: registers and units are places in lists."""

    reads: tuple[int, ...]
    reads_late: tuple[int, ...]
    writes: tuple[int, ...]
    address: int
    unit: int
    ways: int
    cycles: int
    latency: int
    late_latency: int
    holds_issue: bool


def cycles_of(lines: Sequence[str], core: str) -> float:
    """Return the cycles that a run of instructions takes when it loops on itself.

    Parameters
    ----------
    lines : sequence of str
        Assembly, as llvm-mc prints it.
    core : str
        ``cortex-a35``, ``cortex-a53`` or ``cortex-a55``.

    Returns
    -------
    float
        Of one round, caches hit and branches predicted.
    """
    rounds = _ROUNDS if len(lines) < _LONG else _ROUNDS_OF_LONG
    ends = _start_all([_step(line, core) for line in lines], rounds)
    return float(ends[-1] - ends[-2])


@functools.lru_cache(maxsize=1 << 17)
def _step(line: str, core: str) -> _Step:
    operation = read_operation(line)
    cost = cost_of(operation, core)
    return _Step(
        _places(operation.reads), _places(operation.accumulators),
        _places(operation.writes), _REGISTERS.get(operation.address or "", -1), _UNITS[cost.unit],
        cost.ways, cost.cycles, cost.latency, cost.late_latency,
        cost.holds_issue and cost.cycles > 1,
    )  # fmt: skip


def _places(registers: Iterable[str]) -> tuple[int, ...]:
    # The zero register, which is always there, has no place.
    return tuple(_REGISTERS[name] for name in registers if name in _REGISTERS)


def _start_all(run: Sequence[_Step], rounds: int) -> list[int]:
    """Run some rounds; return the cycle in which the last instruction of each started."""
    ready = [0] * len(_REGISTERS)
    ready_late = [0] * len(_REGISTERS)
    free = [0] * len(_UNITS)
    now, slots, ways = 0, _SLOTS, WAYS
    ends = []
    for _ in range(rounds):
        for step in run:
            start = free[step.unit]
            for place in step.reads:
                start = max(start, ready[place])
            for place in step.reads_late:
                start = max(start, ready_late[place])
            if start <= now and (not slots or ways < step.ways):
                start = now + 1
            if start > now:
                now, slots, ways = start, _SLOTS, WAYS
            slots -= 1
            ways -= step.ways
            # Vector instructions share their unit, as far as there are ways; the others do not.
            if step.unit and (step.unit != _VECTOR or step.cycles > 1):
                free[step.unit] = now + step.cycles
            for place in step.writes:
                ready[place] = now + step.latency
                ready_late[place] = now + step.late_latency
            if step.address >= 0:
                ready[step.address] = ready_late[step.address] = now + 1
            if step.holds_issue:
                now, slots, ways = now + step.cycles - 1, 1, WAYS - step.ways
        ends.append(now)
    return ends
