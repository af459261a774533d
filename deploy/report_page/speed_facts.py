"""How fast a network is: measured, counted, estimated, beside the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.tolerances import tolerance_text
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT
from shuffledeploy.deploy.presentation.foreign_figures import (
    BoardErrors,
    Comparison,
)
from shuffledeploy.deploy.presentation.run_report import parts_line
from shuffledeploy.deploy.report_page.figures import Bar, BarPicture, Fact, Section
from shuffledeploy.deploy.report_page.network_facts import millions
from shuffledeploy.deploy.runtime.comparison import PAPER, PAPER_MS
from shuffledeploy.deploy.runtime.latency import Instructions, Latency
from shuffledeploy.deploy.runtime.observed_run import BoardEstimate, ObservedRun
from shuffledeploy.deploy.runtime.parity import Parity
from shuffledeploy.model.command_output import counted, three_digits
from shuffledeploy.model.resolution import write_resolution

#: Gives how far estimates for a board are from published times; None where that is not known.
KnownError = Callable[[str], BoardErrors | None]


def zoo_name(manifest: Manifest) -> str | None:
    """Name the network of the zoo that a bundle was made of; None for another program."""
    name = manifest.options.get("model")
    return name if isinstance(name, str) and name == manifest.network else None


def resolution_of(manifest: Manifest) -> str | None:
    """Write the height and width of the image that a network takes; None for another input."""
    shape = manifest.inputs[0].shape
    return write_resolution(shape[2:]) if len(shape) == 4 else None


def parity_fact(parity: Parity) -> Fact:
    """Tell in a line how far a device's answers are from PyTorch's."""
    text = "holds" if parity.passed else "does not hold"
    note = f"largest error {parity.max_abs_error:.1e}"
    return Fact("parity with PyTorch", text, "measured", note)


def parity_section(run: ObservedRun) -> Section:
    """Tell how far a device's answers are from PyTorch's."""
    parity = run.parity
    by_spread = parity.precision != FLOAT
    of = f"spread of the logits ({parity.precision})" if by_spread else "largest logit"
    relative = (
        f"{parity.max_rel_error:.1e} of the {of}; tolerance {tolerance_text(parity.tolerance)}"
    )
    facts = (
        Fact("device", f"{run.device} ({run.core})"),
        Fact("inputs that were compared", str(parity.cases), "counted"),
        Fact("largest error of a logit", f"{parity.max_abs_error:.1e}", "measured", relative),
        Fact("first class agrees", f"{parity.top1_agreement:.0%}", "measured"),
        Fact("first five classes agree", f"{parity.top5_agreement:.0%}", "measured"),
    )
    return Section("Parity with PyTorch", facts)


def headline(run: ObservedRun) -> Fact | None:
    """Give the figure of speed that comes first: a time, an estimate, a count."""
    if isinstance(run.figure, Latency):
        return Fact("latency", f"{three_digits(run.figure.median_ms)} ms", "measured", run.core)
    for estimate in run.boards:
        if estimate.cycles is not None:
            took = f"{three_digits(estimate.cycles.milliseconds)} ms"
            return Fact("latency", took, "estimated", estimate.board.name)
    if isinstance(run.figure, Instructions):
        return Fact("instructions", millions(run.figure.total), "counted", run.core)
    return None


def speed_section(
    manifest: Manifest, run: ObservedRun, compared: Sequence[Comparison], known: KnownError
) -> Section:
    """Set a network's milliseconds beside the paper's, and tell what they are made of."""
    facts: list[Fact] = []
    bars: list[Bar] = []
    if isinstance(run.figure, Latency):
        bars.append(_measured_bar(run.figure, run.device))
        text = f"{three_digits(run.figure.median_ms)} ms on {run.figure.place}"
        facts.append(Fact("latency", text, "measured", f"median of {run.figure.runs} runs,"
                          f" {counted(run.figure.threads, 'thread')}"))  # fmt: skip
    elif isinstance(run.figure, Instructions):
        facts.append(_count_fact(run.figure))
    if run.cycles is not None:
        facts.append(
            Fact(f"cycles of a {run.cycles.core}", millions(run.cycles.total), "estimated",
                 f"in the library, caches hit, branches predicted; {run.cycles.source}")
        )  # fmt: skip
    for estimate in run.boards:
        facts.append(_board_fact(estimate, known))
        bars += _board_bar(estimate, known)
    bars += _compared_bars(manifest, compared, {bar.label for bar in bars})
    bars += _paper_bar(manifest)
    return Section(
        "Speed", tuple(facts),
        BarPicture("Milliseconds of one inference", tuple(bars)) if bars else None,
        notes=_speed_notes(run, bars),
    )  # fmt: skip


def _measured_bar(latency: Latency, device: str) -> Bar:
    text = f"{three_digits(latency.median_ms)} ms"
    ends = (latency.p10_ms, latency.p90_ms)
    return Bar(f"{device} ({latency.core})", latency.median_ms, text, "measured", ends=ends)


def _count_fact(count: Instructions) -> Fact:
    note = (
        f"in the library, on an emulated {count.core}; {millions(count.process)} in the whole"
        " process. A count is no time"
    )
    return Fact("instructions of one inference", millions(count.total), "counted", note)


def _place(estimate: BoardEstimate) -> str:
    return f"{estimate.board.name} at {estimate.board.clock_ghz:g} GHz"


def _board_fact(estimate: BoardEstimate, known: KnownError) -> Fact:
    if estimate.cycles is None:
        return Fact(_place(estimate), "not estimated", note=estimate.reason)
    errors = known(estimate.board.name)
    note = f"{parts_line(estimate.cycles)}; {errors or 'its error there is not known'}"
    text = f"{three_digits(estimate.cycles.milliseconds)} ms"
    return Fact(_place(estimate), text, "estimated", note)


def _board_bar(estimate: BoardEstimate, known: KnownError) -> list[Bar]:
    if estimate.cycles is None:
        return []
    took, errors = estimate.cycles.milliseconds, known(estimate.board.name)
    ends = errors.ends(took) if errors else None
    return [Bar(_place(estimate), took, f"{three_digits(took)} ms", "estimated", ends=ends)]


def _compared_bars(
    manifest: Manifest, compared: Sequence[Comparison], shown: set[str]
) -> list[Bar]:
    """Add what `compare.py` found of the same network at the same size elsewhere."""
    wanted = (zoo_name(manifest), resolution_of(manifest))
    return [
        Bar(file.place(row), row.value, f"{three_digits(row.value)} ms", row.kind)
        for file in compared
        for row in file.rows
        if file.target == manifest.target
        and (row.model, row.resolution) == wanted and row.unit == "ms"
        and file.place(row) not in shown
    ]  # fmt: skip


def paper_ms(manifest: Manifest) -> float | None:
    """Give what the paper measured of a network of the zoo, in milliseconds."""
    return PAPER_MS.get(zoo_name(manifest) or "", {}).get(resolution_of(manifest) or "")


def _paper_bar(manifest: Manifest) -> list[Bar]:
    took = paper_ms(manifest)
    if took is None:
        return []
    return [Bar("the paper's, Snapdragon 820", took, f"{took:.1f} ms", "measured", "paper")]


def _speed_notes(run: ObservedRun, bars: Sequence[Bar]) -> tuple[str, ...]:
    """Say what a reader of the picture has to know."""
    notes = []
    if any(bar.kind == "estimated" for bar in bars):
        notes.append(
            "Milliseconds on boards are estimated from what one warmed inference executes and"
            f" misses on an emulated core. Left out: {LEFT_OUT}."
        )
    if any(bar.kind == "estimated" and bar.ends for bar in bars):
        notes.append(
            "A thin line around an estimate spans the largest error that such estimates have"
            " beside times that others measured on that board."
        )
    if isinstance(run.figure, Latency):
        notes.append("A thin line around a measured time spans 10 % to 90 % of all runs.")
    if any(bar.series == "paper" for bar in bars):
        notes.append(f"The paper: {PAPER}.")
    if not bars:
        notes.append("No time is shown: what an emulator takes says nothing of a core.")
    return tuple(notes)
