"""The table of networks in Markdown, from what was found of each on each target."""

from __future__ import annotations

from collections.abc import Sequence

from checked_program import OUTCOMES, STEPS, CheckedProgram

_INTRODUCTION = """\
# Networks that nobody here wrote

`make networks` wrote this file: networks of pytorchcv and timm and odd programs, compiled from the
default numbers and the records at hand, and compared with PyTorch on each target's device. An error
is the largest of an answer over PyTorch's largest answer, of five inputs (measured); parity allows
1e-04. Calls are those of kernels in one inference (counted)."""
_TIMES = """\
## Where the time goes

Seconds of wall time, on a machine that may have done other things as well: all networks, and the
one that took longest."""


def networks_table(rows: Sequence[CheckedProgram]) -> str:
    """Write counts, failures, a table of networks by targets, and where the time went.

    Parameters
    ----------
    rows : sequence of CheckedProgram
        One for each network and target, in any order.

    Returns
    -------
    str
        A document in Markdown.
    """
    of_target: dict[str, list[CheckedProgram]] = {}
    for row in rows:
        of_target.setdefault(row.target, []).append(row)
    parts = [
        _INTRODUCTION,
        _table(
            ["target", "run", *OUTCOMES, "not run"],
            [_counts(*item, len({row.network for row in rows})) for item in of_target.items()],
        ),
        _failures(rows),
        _table(*_networks(rows, list(of_target))),
        _TIMES,
        _table(["target", *STEPS, "longest"], [_times(*item) for item in of_target.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(target: str, rows: Sequence[CheckedProgram], networks: int) -> list[str]:
    found = [sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES]
    right = f"{found[0]} ({100 * found[0] / len(rows):.0f} %)"
    return [target, str(len(rows)), right, *map(str, found[1:]), str(networks - len(rows))]


def _failures(rows: Sequence[CheckedProgram]) -> str:
    return "\n".join(
        f"- {row.network}, {row.target}: {row.outcome}: {row.detail}"
        for row in rows
        if row.outcome != "right"
    )


def _networks(
    rows: Sequence[CheckedProgram], targets: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Give the head and the lines of the table of networks."""
    found = {(row.network, row.target): row for row in rows}
    columns = ("error", "calls", "shuffles")
    head = ["network", *(f"{target}: {what}" for target in targets for what in columns)]
    names = sorted({row.network for row in rows})
    lines = [
        [name, *(cell for target in targets for cell in _cells(found.get((name, target))))]
        for name in names
    ]
    return head, lines


def _cells(row: CheckedProgram | None) -> list[str]:
    if row is None:
        return ["not run", "", ""]
    if row.outcome != "right":
        return [row.outcome, "", ""]
    return [f"{row.max_rel_error:.1e}", str(row.kernel_calls), str(row.shuffle_kernels)]


def _times(target: str, rows: Sequence[CheckedProgram]) -> list[str]:
    sums = [sum(row.seconds.get(step, 0.0) for row in rows) for step in STEPS]
    longest = max(rows, key=lambda row: sum(row.seconds.values()))
    seconds = sum(longest.seconds.values())
    return [target, *(f"{value:.0f}" for value in sums), f"{longest.network}, {seconds:.0f}"]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
