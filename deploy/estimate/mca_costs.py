"""Costs of runs of instructions on cores that execute out of order, by llvm-mca."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.estimate.block_costs import BlockCost, ModelledCore
from shuffledeploy.deploy.estimate.disassembly import disassemble
from shuffledeploy.deploy.estimate.llvm_tools import GOOD_RELEASE
from shuffledeploy.model.errors import Failure

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

# Atomic additions and their kin, of which LLVM 19's model of the Neoverse N1 knows nothing: taken
# for the pair that does the same on older cores.
_ATOMIC = re.compile(
    r"^(?:ld(?:add|clr|eor|set|[su]max|[su]min)|swp)[abhl]*\t\w+, (\w+), \[(\w+)\]$"
)

# Instructions that clear a register do not wait for what it held, and cost no more than a move
# (Intel's Optimization Reference Manual, "Dependency Breaking Idioms"). LLVM's model of Golden Cove
# and what follows it knows nothing of that (llvm/llvm-project issue 61003): each sum would seem to
# wait for the one before.
_CLEARING_UNKNOWN = frozenset((
    "alderlake", "raptorlake", "meteorlake", "arrowlake", "arrowlake-s", "lunarlake", "pantherlake",
    "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d",
))  # fmt: skip
_CLEARS_VECTOR = re.compile(r"^v?p?xor(?:ps|pd)?\t%[xy](mm\d+), %[xy]\1, %[xy](mm\d+)$")
_CLEARS_INTEGER = re.compile(r"^xor([lq])\t(%\w+), \2$")
# A register that no code for AVX2 writes, and what lets llvm-mca know it.
_NEVER_WRITTEN, _WITH_AVX512 = "%xmm31", "-mattr=+avx512f,+avx512vl"

_INSTRUCTION = re.compile(r"^\s*\d+\s+\d+\s+(\d+\.\d+)\s+[*U\s]*?\s*([a-z].*)$")


def cost_by_mca(core: ModelledCore, codes: Sequence[bytes]) -> list[BlockCost]:
    """Cost runs of instructions by llvm-mca.

    Raises
    ------
    Failure
        One of them cannot be read.
    """
    texts = disassemble(core, codes)
    costs = [_string_cost(lines) for lines in texts]
    plain = [[known for line in lines if not _REPEATED.match(line)
              for known in _known_as(line, core.name)] for lines in texts]  # fmt: skip
    least = 0
    for most, iterations in _ITERATIONS:
        members = [i for i, lines in enumerate(plain) if least < len(lines) <= most]
        least = most
        if members:
            found = _model(core, [plain[i] for i in members], iterations)
            for index, cost in zip(members, found, strict=True):
                extra = costs[index].iterations
                costs[index] = BlockCost(
                    cost.iterations + extra, cost.throughput + extra, cost.outlying
                )
    return costs


def _model(core: ModelledCore, runs: Sequence[Sequence[str]], few: int) -> list[BlockCost]:
    if sum(map(len, runs)) <= _READ_AGAIN:
        # Iterations of a run written out `_MANY` times: to llvm-mca the same instructions.
        written_out = [[*lines] * _MANY for lines in runs]
        both = _run_mca(core, [*runs, *written_out], few, audit=True)
        first, second = both[: len(runs)], both[len(runs) :]
    else:
        first = _run_mca(core, runs, few, audit=True)
        second = _run_mca(core, runs, _MANY * few, audit=False)
    more = _MANY * few - few
    return [
        BlockCost(max(0.0, (b.cycles - a.cycles) / more), a.throughput, a.outlying)
        for a, b in zip(first, second, strict=True)
    ]


def _run_mca(
    core: ModelledCore, runs: Sequence[Sequence[str]], iterations: int, *, audit: bool
) -> list[_Region]:
    text = "".join(
        f"# LLVM-MCA-BEGIN r{number}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n"
        for number, lines in enumerate(runs)
    )
    width = _dispatched_by(core.name)
    dispatch = [f"-dispatch={width}"] if width else []
    # Of a few instructions, such as other atomic ones, some of LLVM's models know no cost.
    lacking = ["-skip-unsupported-instructions=lack-sched"]
    skipped = lacking if core.tools.release >= GOOD_RELEASE else []
    wider = [_WITH_AVX512] if core.name in _CLEARING_UNKNOWN else []
    arguments = [f"-mtriple={core.architecture}-linux-gnu", f"-mcpu={_modelled_as(core.name)}",
                 *dispatch, *skipped, *wider, f"-iterations={iterations}",
                 "-resource-pressure=false", f"-instruction-info={str(audit).lower()}"]  # fmt: skip
    regions = list(_read_regions(core.tools.run(core.tools.mca, arguments, text)))
    if len(regions) != len(runs):
        raise Failure("llvm-mca answered for another number of blocks")
    return regions


@dataclass(frozen=True)
class _Region:
    cycles: float
    throughput: float
    outlying: tuple[str, ...]


def _known_as(line: str, core: str) -> tuple[str, ...]:
    """Give the instructions by which llvm-mca costs one for a core."""
    if core in _CLEARING_UNKNOWN:
        if vector := _CLEARS_VECTOR.match(line):
            return (f"vmovaps\t{_NEVER_WRITTEN}, %x{vector[2]}",)
        if integer := _CLEARS_INTEGER.match(line):
            return (f"mov{integer[1]}\t$0, {integer[2]}",)
        return (line,)
    found = _ATOMIC.match(line)
    if found is None:
        return (line,)
    value, address = found.groups()
    value = value.replace("xzr", "x17").replace("wzr", "w17")
    return f"ldaxr\t{value}, [{address}]", f"stlxr\tw16, {value}, [{address}]"


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


def _dispatched_by(core: str) -> int | None:
    """Give what a core takes up a cycle, where that is not what its model in LLVM says."""
    return CORES[core].scheduling.decoded if core in CORES else _DISPATCH.get(core)


def _modelled_as(core: str) -> str:
    """Name the core whose model llvm-mca takes for a core."""
    return CORES[core].scheduling.made_for if core in CORES else core
