"""A bar that knows how much work is left: groups differ by a factor of a hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

from shuffledeploy.deploy.benchmark.benchmark_plan import SubjectGroup
from shuffledeploy.model.command_output import CONSOLE, shares

#: Millions of multiply-adds at 224x224, about: for the bar alone.
_WORK = {"alexnet": 724, "resnext50-32x4d": 4200, "mobilenet-x1.0": 569, "shufflenet-g3-x1": 138}
_OTHER_WORK, _MILLIONS_A_SECOND, _PREPARING_S = 50, 20_000, 15.0

Report = Callable[[int, str | None, float], None]


@contextmanager
def progress(groups: Sequence[SubjectGroup], runs: int) -> Iterator[Report]:
    """Show a bar on standard error.

    Parameters
    ----------
    groups : sequence of SubjectGroup
        What is to be done.
    runs : int
        Inferences of each subject.

    Yields
    ------
    Callable
        Takes a group's place, what is being done (or None), and the share of it that is done.
    """
    weights = [_weight(group, runs) for group in groups]
    if not CONSOLE.is_terminal:
        with shares("starting") as say:
            yield lambda place, what, share: say(
                what, (sum(weights[:place]) + share * weights[place]) / sum(weights)
            )
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description:<44.44}"), BarColumn(12),
        TimeElapsedColumn(), TextColumn("left"), TimeLeftColumn(),
    )  # fmt: skip
    with Progress(*columns, console=CONSOLE, transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("starting", total=sum(weights))

        def report(place: int, what: str | None, share: float) -> None:
            bar.update(task, completed=sum(weights[:place]) + share * weights[place])
            if what is not None:
                bar.update(task, description=what)

        yield report


def _weight(group: SubjectGroup, runs: int) -> float:
    area = group.size[0] * group.size[1] / 224**2
    millions = sum(_WORK.get(model, _OTHER_WORK) for model in group.models) * area
    return _PREPARING_S + millions / _MILLIONS_A_SECOND * runs * len(group.engines)
