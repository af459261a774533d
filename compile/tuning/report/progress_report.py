"""Progress of a search for a person: a line a task on a terminal, else a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shuffledeploy.compiler.tuning.report.history import TaskResult, gain, task_results
from shuffledeploy.compiler.tuning.search.tasks import Progress
from shuffledeploy.model.progress import LINE_EVERY_S, clock, seconds_left

_REFRESH_HZ = 4
_ROWS_KEPT_FREE = 5
NAME_WIDTH = 27


class ProgressReport:
    """Shows how far a search is; a context manager.

    Parameters
    ----------
    console : Console
        Where it is shown. On a terminal a table of the tasks is drawn again and again; elsewhere a
        plain line is printed at most every `LINE_EVERY_S`.
    what : str
        What is being done, such as ``tuning``.
    total : int or None
        Trials to come, if their number is known.
    seconds : float
        After which no batch starts.
    """

    def __init__(
        self, console: Console, what: str, total: int | None, seconds: float = math.inf
    ) -> None:
        self._console = console
        self._what, self._total, self._seconds = what, total, seconds
        self._began = time.monotonic()
        self._said = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> ProgressReport:
        """Start the clock."""
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, refresh_per_second=_REFRESH_HZ, transient=True
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Take the table away; what is left of it is printed when all is over."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, states: Sequence[Progress], spent: int) -> None:
        """Show the tasks after a batch."""
        tasks = task_results(states)
        line = self.line(tasks, spent)
        last = max(states, key=lambda state: state.updated).task.name
        if self._live is not None:
            self._live.update(self._table(tasks, line, last))
            return
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            self._console.print(f"{line}; {last}", markup=False, highlight=False, soft_wrap=True)

    def line(self, tasks: Sequence[TaskResult], spent: int) -> str:
        """Say in a line how far the search is, what it gained and how long it will go on."""
        elapsed = time.monotonic() - self._began
        of = "" if self._total is None else f" of {self._total}"
        parts = [f"{self._what}: {spent}{of} trials in {clock(elapsed)}"]
        if elapsed > 0 and spent:
            parts.append(f"{spent / elapsed:.1f}/s")
        if (better := gain(tasks)) is not None:
            parts.append(f"{better:.2f}x better")
        left = seconds_left(spent, self._total, elapsed, self._seconds)
        if left is not None:
            parts.append(f"at most {clock(left)} left")
        return ", ".join(parts)

    def _table(self, tasks: Sequence[TaskResult], line: str, last: str) -> Table:
        table = Table(
            "", "kernel", "share", "start", "best", "gain", "trials", box=None, pad_edge=False,
            title=Text(line), title_justify="left",
        )  # fmt: skip
        rows = max(1, self._console.size.height - _ROWS_KEPT_FREE)
        for task in tasks[:rows]:
            mark = ">" if task.kernel == last else " "
            table.add_row(mark, *cells(task), style="bold" if task.kernel == last else None)
        if len(tasks) > rows:
            table.add_row("", f"{len(tasks) - rows} more")
        return table


def cells(task: TaskResult) -> tuple[str, str, str, str, str, str]:
    """Write a task's row: kernel, share, before, after, gain, trials; at most 80 characters."""
    after = _number(task.after) if task.after is not None else "failed" if task.trials else "-"
    better = f"{task.before / task.after:.2f}x" if task.before and task.after else ""
    name = task.kernel if len(task.kernel) <= NAME_WIDTH else task.kernel[: NAME_WIDTH - 1] + "…"
    return name, f"{task.share:.1%}", _number(task.before), after, better, str(task.trials)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
