"""How `tune.py` searches: its options, and which of them contradict each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from shuffledeploy.compiler.tuning.number_options import number_option
from shuffledeploy.compiler.tuning.request import LOG_FOLDER
from shuffledeploy.compiler.tuning.score import KINDS
from shuffledeploy.model.errors import UsageError

_COUNT = number_option(int, lambda count: count >= 0, "must be a whole number, 0 or more")
_MINUTES = number_option(float, lambda minutes: 0 < minutes < 1e6, "must be a number above 0")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options of a command line that say how long and by what is searched."""
    add = parser.add_argument
    add(
        "--trials",
        type=_COUNT,
        metavar="N",
        help="candidates to try in all, earlier runs' included "
        "(default: 32 for each kernel without a record; 0: none)",
    )
    add("--minutes", type=_MINUTES, metavar="M",
        help="stop tuning after so long; on this machine the whole network is then timed with what"
        " was found and with what it had, which takes about a minute more")  # fmt: skip
    add(
        "--score",
        choices=KINDS,
        help="what candidates are ranked by (default: latency on a real device, "
        "estimate on an emulated one)",
    )
    add(
        "--measure-shortlist",
        action="store_true",
        help="tune nothing: time the best few of each kernel on a real --device, in turns "
        "where it is this machine, again where they were timed before",
    )
    add("--cluster", metavar="ADDRESS",
        help="build and estimate candidates on the machines of a Dask scheduler, such as"
        " tcp://127.0.0.1:8786 (default: on this machine)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the search (default: 0)")
    add(
        "--logs",
        type=Path,
        default=LOG_FOLDER,
        metavar="DIR",
        help="tuning records, a folder a target (default: tuning_logs)",
    )


def require_search_agrees(options: argparse.Namespace) -> None:
    """Refuse options of a search that contradict each other.

    Raises
    ------
    UsageError
        Says which, and what to leave out.
    """
    if options.measure_shortlist and (options.score or options.trials or options.minutes):
        raise UsageError(
            "--measure-shortlist tunes nothing: leave out --score, --trials, --minutes"
        )
    if options.cluster and (options.measure_shortlist or options.score == "latency"):
        raise UsageError(
            "--cluster estimates and counts, and times nothing: leave out --measure-shortlist and"
            " --score latency"
        )
