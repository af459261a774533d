"""What a straight run of instructions costs on a core at steady state, by llvm-mca.

Each run is modelled as if it were looping on itself, every load hitting the first-level cache and
every branch predicted. A run is costed once and remembered by its bytes, over runs of the program
too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.model.errors import Failure

if TYPE_CHECKING:
    from shuffledeploy.deploy.estimate.remembered_costs import RememberedCosts

# Instructions that no compiler writes, between the runs that one llvm-mc disassembles.
_MARKERS = {
    "aarch64": ("0xff 0x2f 0x03 0xd5", "hint\t#127"),
    "x86_64": ("0x0f 0x1f 0x80 0x5a 0x5a 0x5a 0x5a", "nopl\t1515870810(%rax)"),
}
# Most instructions in a run -> iterations: the slope is taken between so many and `_MANY` times as
# many. Long enough to be steady, short enough to take milliseconds.
_ITERATIONS = ((24, 100), (150, 30), (1000, 8), (1 << 30, 3))
_MANY = 3
# Instructions up to which it is quicker to have one llvm-mca read them `_MANY` times more than to
# start another: a start takes 27 ms, a line 0.05 ms (measured).
_READ_AGAIN = 250
# Cycles of throughput beyond which an instruction is suspicious: the model may be of another kind
# of use than ours.
OUTLYING_CYCLES = 20.0
# Instructions that a core renames a cycle, where LLVM's model has another number: it says 6 of
# Skylake and its kin (Intel's Optimization Reference Manual: 4), which hides that loads and
# arithmetic compete for these places.
_DISPATCH = dict.fromkeys(("skylake", "skylake-avx512", "cascadelake", "cooperlake"), 4)
# A repeated string instruction is counted once an element; cores write or copy 32 bytes a cycle.
_REPEATED = re.compile(r"^rep\s+\w+?([bwlq])\s")
_STRING_BYTES_A_CYCLE = 32.0
_ELEMENT = {"b": 1, "w": 2, "l": 4, "q": 8}

_INSTRUCTION = re.compile(r"^\s*\d+\s+\d+\s+(\d+\.\d+)\s+[*U\s]*?\s*([a-z].*)$")


@dataclass(frozen=True)
class BlockCost:
    """Cycles of one execution of a run of instructions. Their kind is: estimated.

    Attributes
    ----------
    iterations : float
        What one more iteration of it adds, between two numbers of iterations: knows latencies and
        what depends on what.
    throughput : float
        Its reciprocal throughput: knows only how many units of the core are how long taken.
    outlying : tuple of str
        Instructions with a suspiciously large cost.
    """

    iterations: float
    throughput: float
    outlying: tuple[str, ...] = ()


class BlockCosts:
    """Costs of runs of instructions on one core; a run is costed once.

    Parameters
    ----------
    tools : LlvmTools
        LLVM's tools.
    architecture, core : str
        ``aarch64`` or ``x86_64``, and LLVM's name of the core (``-mcpu``).
    workers : int
        How many llvm-mca run at once. The costs do not depend on it.
    remembered : RememberedCosts, optional
        What earlier runs found; what is new is added.
    """

    def __init__(
        self,
        tools: LlvmTools,
        architecture: str,
        core: str,
        workers: int = 1,
        remembered: RememberedCosts | None = None,
    ) -> None:
        self._tools = tools
        self._architecture = architecture
        self._target = [f"-mtriple={architecture}-linux-gnu", f"-mcpu={core}"]
        self._dispatch = [f"-dispatch={_DISPATCH[core]}"] if core in _DISPATCH else []
        self._workers = workers
        self._remembered = remembered
        self._known: dict[bytes, BlockCost | str] = {}

    def of(self, codes: Collection[bytes]) -> dict[bytes, BlockCost | str]:
        """Cost runs of instructions.

        Returns
        -------
        dict
            For each run's bytes its cost, or why there is none.
        """
        if self._remembered is not None:
            for code in set(codes) - self._known.keys():
                if (cost := self._remembered.find(code)) is not None:
                    self._known[code] = cost
        new = sorted(set(codes) - self._known.keys())
        shares = [new[start :: self._workers] for start in range(self._workers)]
        with ThreadPoolExecutor(self._workers) as pool:
            for costs in pool.map(self._cost_all, shares):
                self._known.update(costs)
                if self._remembered is not None:
                    # A refusal may have been a tool's bad moment: only costs are kept.
                    self._remembered.add(
                        {code: c for code, c in costs.items() if isinstance(c, BlockCost)}
                    )
        return {code: self._known[code] for code in codes}

    def _cost_all(self, codes: Sequence[bytes]) -> dict[bytes, BlockCost | str]:
        """Cost many runs together; where one spoils it for all, one by one."""
        if not codes:
            return {}
        try:
            return dict(zip(codes, self._cost(codes), strict=True))
        except Failure as error:
            if len(codes) == 1:
                return {codes[0]: str(error)}
            middle = len(codes) // 2
            return {**self._cost_all(codes[:middle]), **self._cost_all(codes[middle:])}

    def _cost(self, codes: Sequence[bytes]) -> list[BlockCost]:
        texts = self._disassemble(codes)
        costs = [_string_cost(lines) for lines in texts]
        plain = [[line for line in lines if not _REPEATED.match(line)] for lines in texts]
        least = 0
        for most, iterations in _ITERATIONS:
            members = [i for i, lines in enumerate(plain) if least < len(lines) <= most]
            least = most
            if members:
                found = self._model([plain[i] for i in members], iterations)
                for index, cost in zip(members, found, strict=True):
                    extra = costs[index].iterations
                    costs[index] = BlockCost(
                        cost.iterations + extra, cost.throughput + extra, cost.outlying
                    )
        return costs

    def _disassemble(self, codes: Sequence[bytes]) -> list[list[str]]:
        marker, shown = _MARKERS[self._architecture]
        text = "\n".join(" ".join(map(hex, code)) + "\n" + marker for code in codes)
        arguments = ["--disassemble", self._target[0].replace("-mtriple", "-triple"),
                     *self._target[1:], *self._every_extension()]  # fmt: skip
        answer = self._tools.run(self._tools.mc, arguments, text + "\n")
        lines = [line.strip() for line in answer.splitlines()]
        runs: list[list[str]] = [[]]
        for line in lines:
            if line == shown:
                runs.append([])
            elif line and not line.startswith("."):
                runs[-1].append(line)
        if len(runs) != len(codes) + 1:
            raise Failure("llvm-mc did not understand the code")
        return runs[:-1]

    def _every_extension(self) -> list[str]:
        # What was executed is legal there, whatever LLVM believes of the core.
        return ["-mattr=+all"] if self._architecture == "aarch64" else []

    def _model(self, runs: Sequence[Sequence[str]], few: int) -> list[BlockCost]:
        if sum(map(len, runs)) <= _READ_AGAIN:
            # Iterations of a run written out `_MANY` times: to llvm-mca the same instructions.
            written_out = [[*lines] * _MANY for lines in runs]
            both = self._run_mca([*runs, *written_out], few, audit=True)
            first, second = both[: len(runs)], both[len(runs) :]
        else:
            first = self._run_mca(runs, few, audit=True)
            second = self._run_mca(runs, _MANY * few, audit=False)
        more = _MANY * few - few
        return [
            BlockCost(max(0.0, (b.cycles - a.cycles) / more), a.throughput, a.outlying)
            for a, b in zip(first, second, strict=True)
        ]

    def _run_mca(
        self, runs: Sequence[Sequence[str]], iterations: int, *, audit: bool
    ) -> list[_Region]:
        text = "".join(
            f"# LLVM-MCA-BEGIN r{number}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n"
            for number, lines in enumerate(runs)
        )
        arguments = [*self._target, *self._dispatch, f"-iterations={iterations}",
                     "-resource-pressure=false",
                     f"-instruction-info={str(audit).lower()}"]  # fmt: skip
        regions = list(_read_regions(self._tools.run(self._tools.mca, arguments, text)))
        if len(regions) != len(runs):
            raise Failure("llvm-mca answered for another number of blocks")
        return regions


@dataclass(frozen=True)
class _Region:
    cycles: float
    throughput: float
    outlying: tuple[str, ...]


def _string_cost(lines: Iterable[str]) -> BlockCost:
    found = (_REPEATED.match(line) for line in lines)
    size = sum(_ELEMENT[match[1]] for match in found if match)
    return BlockCost(size / _STRING_BYTES_A_CYCLE, size / _STRING_BYTES_A_CYCLE)


def _read_regions(text: str) -> Iterator[_Region]:
    """Read llvm-mca's report, a region after the other.

    Raises
    ------
    Failure
        Where a figure is missing.
    """
    for part in re.split(r"(?m)^(?=\[\d+\] Code Region)", text)[1:]:
        cycles = re.search(r"^Total Cycles:\s+(\d+)$", part, re.MULTILINE)
        throughput = re.search(r"^Block RThroughput:\s+(\d+\.\d+)$", part, re.MULTILINE)
        if cycles is None or throughput is None:
            raise Failure("llvm-mca's report is of an unknown form")
        rows = (_INSTRUCTION.match(line) for line in part.splitlines())
        outlying = {row[2].split()[0] for row in rows if row and float(row[1]) > OUTLYING_CYCLES}
        yield _Region(float(cycles[1]), float(throughput[1]), tuple(sorted(outlying)))
