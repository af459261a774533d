"""The chapters of a page: one for each network, one for each comparison of several."""

from __future__ import annotations

from collections.abc import Sequence

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.presentation.foreign_figures import (
    ComparedRow,
    Comparison,
    PeersFile,
)
from shuffledeploy.deploy.report_page.engine_facts import engine_section
from shuffledeploy.deploy.report_page.figures import Bar, BarPicture, Chapter, Fact, Section
from shuffledeploy.deploy.report_page.network_facts import (
    fusion_section,
    kernel_section,
    library_size,
    millions,
    size_section,
)
from shuffledeploy.deploy.report_page.speed_facts import (
    KnownError,
    headline,
    parity_fact,
    parity_section,
    resolution_of,
    speed_section,
)
from shuffledeploy.deploy.runtime.defaults import ALEXNET
from shuffledeploy.deploy.runtime.observed_run import ObservedRun
from shuffledeploy.model.command_output import three_digits


def network_chapter(
    bundle: Bundle,
    run: ObservedRun,
    peers: PeersFile | None,
    compared: Sequence[Comparison],
    known: KnownError,
) -> Chapter:
    """Tell all about one network.

    Parameters
    ----------
    bundle, run : Bundle, ObservedRun
        The network, and what came of it on a device.
    peers, compared : PeersFile or None, sequence of Comparison
        What other commands found.
    known : Callable
        Gives how far estimates for a board are from published times.
    """
    manifest = bundle.manifest
    first = (
        headline(run), parity_fact(run.parity), library_size(bundle),
        Fact("kernel calls", str(manifest.kernel_calls), "counted", _shuffles(manifest)),
    )  # fmt: skip
    sections = (
        speed_section(manifest, run, compared, known),
        engine_section(manifest, peers),
        kernel_section(manifest, run.cycles),
        fusion_section(manifest),
        size_section(bundle),
        parity_section(run),
    )
    return Chapter(
        manifest.network, subtitle(manifest),
        tuple(fact for fact in first if fact is not None),
        tuple(section for section in sections if section is not None),
    )  # fmt: skip


def _shuffles(manifest: Manifest) -> str:
    left = manifest.shuffle_kernels or "none"
    if not manifest.program_shuffles:
        return f"{left} only shuffles channels"
    return f"{left} of them for the program's {manifest.program_shuffles} channel shuffles"


def subtitle(manifest: Manifest) -> str:
    """Name the image size and the target of a network."""
    size = resolution_of(manifest)
    built = f"built for {manifest.target} ({manifest.architecture})"
    return f"{size}, {built}" if size else built


def comparison_chapter(file: Comparison, notes: tuple[str, ...] = ()) -> Chapter:
    """Set networks beside each other and beside the paper; say how below each picture."""
    sections = tuple(
        _comparison_section(file, [r for r in file.rows if r.resolution == resolution], notes)
        for resolution in dict.fromkeys(row.resolution for row in file.rows)
    )
    return Chapter(
        "Networks side by side", f"{file.place(file.rows[0])}, compiled for {file.target}", (),
        sections,
    )  # fmt: skip


def _comparison_section(
    file: Comparison, rows: Sequence[ComparedRow], notes: tuple[str, ...]
) -> Section:
    """Draw one resolution's ratios; list its figures."""
    bars: list[Bar] = []
    for row in rows:
        if row.ratio_to_alexnet is not None and row.model != ALEXNET:
            text = f"{row.ratio_to_alexnet:.1f}x"
            bars.append(Bar(row.model, row.ratio_to_alexnet, text, row.kind))
            if row.paper_ratio is not None:
                label = f"{row.model}, the paper's"
                text = f"{row.paper_ratio:.1f}x"
                bars.append(Bar(label, row.paper_ratio, text, "measured", "paper"))
    cells = [
        (row.model, _value(row), _times(row.ratio_to_alexnet),
         f"{row.paper_ms:.1f} ms" if row.paper_ms else "-", _times(row.paper_ratio))
        for row in rows
    ]  # fmt: skip
    what = "AlexNet's instructions" if rows[0].unit == "instructions" else "AlexNet's time"
    return Section(
        rows[0].resolution, (),
        BarPicture(f"{what} over the network's", tuple(bars)) if bars else None,
        ("network", rows[0].kind, "AlexNet over it", "paper, measured", "paper's ratio"), cells,
        notes=(*notes, f"The paper: {file.paper}."),
    )  # fmt: skip


def _value(row: ComparedRow) -> str:
    return f"{three_digits(row.value)} ms" if row.unit == "ms" else millions(row.value)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}x"
