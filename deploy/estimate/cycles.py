"""An estimate of cycles: how often each region of code was executed, times what it costs.

Nothing here was measured. The kind of these figures is: estimated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shuffledeploy.deploy.estimate.block_costs import BlockCost
from shuffledeploy.deploy.estimate.code_images import Image
from shuffledeploy.deploy.estimate.executed_blocks import Block

# To be raised with whatever changes an estimate: scores of other versions are not compared. What
# differs for x86 cores alone has a number of its own, so that records of ARM's keep their worth.
ESTIMATOR_VERSION = 4
X86_ESTIMATOR_VERSION = 5
# Bytes of code: some times what any core has under way at once.
LONGEST_REGION = 8000


@dataclass(frozen=True)
class BlockRun:
    """A straight run of instructions and how often it was executed."""

    address: int
    size: int
    executions: int


@dataclass(frozen=True)
class CycleEstimate:
    """Cycles of what was executed, in two forms: see `BlockCost`.

    Attributes
    ----------
    iterations, throughput : float
        By what one more iteration of each block adds, and by reciprocal throughput.
    outlying : tuple of str
        Instructions of a suspicious cost in blocks that make up more than a hundredth.
    """

    iterations: float
    throughput: float
    outlying: tuple[str, ...]

    @property
    def cycles(self) -> float:
        """The estimate: the mean of both forms."""
        return (self.iterations + self.throughput) / 2


def straight_runs(blocks: Sequence[Block]) -> list[BlockRun]:
    """Turn translation blocks into the longest runs that were always executed as a whole.

    Translation blocks overlap where code jumps into the middle of one, and end at pages and after
    some hundred instructions. What was executed equally often and lies together is joined: a
    branch in it was never taken.
    """
    changes: Counter[int] = Counter()
    for block in blocks:
        changes[block.address] += block.executions
        changes[block.address + block.size] -= block.executions
    runs: list[BlockRun] = []
    executions = 0
    for place, following in itertools.pairwise(sorted(changes)):
        executions += changes[place]
        last = runs[-1] if runs else None
        if last and last.executions == executions and last.address + last.size == place:
            runs[-1] = BlockRun(last.address, following - last.address, executions)
        elif executions:
            runs.append(BlockRun(place, following - place, executions))
    return runs


@dataclass(frozen=True)
class Region:
    """Code that is costed as a whole, and how often it was executed (on average)."""

    code: bytes
    executions: float


def regions_of(blocks: Sequence[Block], image: Image) -> list[Region]:
    """Turn translation blocks into the regions that are costed."""
    runs = straight_runs(blocks)
    return fold_loops([(image.code(run.address, run.size), run.executions) for run in runs])


def fold_loops(runs: Sequence[tuple[bytes, int]]) -> list[Region]:
    """Write short inner loops out into what surrounds them.

    A core that executes out of order starts on what follows a loop before its last rounds are
    done: where the loop is short, its latencies are hidden, and costing it as if it never ended
    would charge them. Counts tell the nest: what lies between two runs that were executed c times,
    and was executed n times c itself, is a loop of n rounds.

    Parameters
    ----------
    runs : sequence of tuple
        Code and executions of each run, by address.

    Returns
    -------
    list of Region
        Together they are what the runs were.
    """
    if len(runs) <= 1:
        return [Region(code, executions) for code, executions in runs]
    least = min(executions for _, executions in runs)
    regions: list[Region] = []
    written_out = b""
    inner: list[tuple[bytes, int]] = []
    for code, executions in [*runs, (b"", least)]:
        if executions > least:
            inner.append((code, executions))
            continue
        folded = fold_loops(inner)
        inner = []
        rounds = folded[0].executions / least if len(folded) == 1 else 0.5
        whole = len(folded) == 1 and abs(rounds - round(rounds)) < 0.02 * rounds
        loop = b""
        if whole and len(folded[0].code) * rounds <= LONGEST_REGION:
            loop = folded[0].code * round(rounds)
        else:
            regions += folded
        if len(written_out) + len(loop) + len(code) > LONGEST_REGION:
            regions += [Region(written_out, least)] if written_out else []
            written_out = b""
        written_out += loop + code
    if written_out:
        regions.append(Region(written_out, least))
    return regions


def sum_cycles(
    regions: Sequence[Region], costs: Mapping[bytes, BlockCost | str]
) -> CycleEstimate | str:
    """Add up what regions cost.

    Parameters
    ----------
    regions : sequence of Region
        What was executed.
    costs : mapping
        Cost of each by its code.

    Returns
    -------
    CycleEstimate or str
        Or why there is none.
    """
    iterations = throughput = 0.0
    suspicious: dict[str, float] = {}
    for region in regions:
        cost = costs[region.code]
        if isinstance(cost, str):
            return cost
        iterations += region.executions * cost.iterations
        throughput += region.executions * cost.throughput
        for name in cost.outlying:
            suspicious[name] = suspicious.get(name, 0.0) + region.executions * cost.throughput
    outlying = tuple(sorted(n for n, cycles in suspicious.items() if cycles > throughput / 100))
    return CycleEstimate(iterations, throughput, outlying)
