"""What a bundle tells of its network: size, what was fused, kernels by their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shuffledeploy.compiler.bundle.folder import Bundle, size_text
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import Tensor
from shuffledeploy.compiler.bundle.precision_text import precision_text
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT
from shuffledeploy.deploy.report_page.figures import Bar, BarPicture, Fact, Kind, Section
from shuffledeploy.deploy.runtime.network_estimate import Cycles
from shuffledeploy.model.command_output import three_digits

_SHOWN_KERNELS = 12


def millions(count: float) -> str:
    """Write a count in millions."""
    return f"{three_digits(count / 1e6)} M"


def tensor_text(tensors: tuple[Tensor, ...]) -> str:
    """Name tensors with their shapes and types."""
    shapes = ("x".join(map(str, tensor.shape)) for tensor in tensors)
    return ", ".join(
        f"{tensor.name} {shape} {tensor.dtype}"
        for tensor, shape in zip(tensors, shapes, strict=True)
    )


def library_size(bundle: Bundle) -> Fact:
    """Tell how large the library is."""
    text = size_text(bundle.library.stat().st_size)
    return Fact("library, with its weights", text, "counted")


def size_section(bundle: Bundle) -> Section:
    """Tell how large a network is, and what goes in and out."""
    manifest = bundle.manifest
    facts = [
        Fact("takes", tensor_text(manifest.inputs)),
        Fact("gives", tensor_text(manifest.outputs)),
        Fact("computes in", precision_text(manifest)),
        Fact(
            "multiply-adds of one inference", millions(manifest.multiply_adds), "counted",
            "from the shapes of the kernels: fewer than the layers' where a kernel goes"
            " Winograd's or Strassen's way",
        ),
        Fact("weights that one inference reads", size_text(manifest.constant_bytes), "counted"),
        library_size(bundle),
    ]  # fmt: skip
    if manifest.standalone is not None:
        memory = size_text(manifest.standalone.workspace)
        facts += [
            Fact("the same without a runtime, for an app", bundle.app_files, "counted"),
            Fact("memory that it needs beside its weights", memory, "counted"),
        ]
    return Section("Size", tuple(facts))


def fusion_section(manifest: Manifest) -> Section:
    """Tell which calls are left of a network, and where shuffles and concatenations went."""
    joined = Counter(manifest.joined_in_place)
    moves = sum(k.calls - joined[k.name] for k in manifest.kernels if k.moves_only)
    facts = [
        *_program_shuffles(manifest),
        Fact(
            "kernel calls of one inference", str(manifest.kernel_calls), "counted",
            f"of {len(manifest.kernels)} different kernels; a kernel computes its layer's bias and"
            " activation too, and batch norms are folded into weights",
        ),
        Fact(
            "calls that only shuffle channels", str(manifest.shuffle_kernels), "counted",
            "" if manifest.shuffle_kernels or manifest.program_shuffles == 0
            else "where the program shuffles channels, a neighbouring layer reads or writes them"
            " in that order, or its weights stand in it",
        ),
        Fact("calls that only move data", str(moves), "counted"),
        Fact(
            "concatenations that are not called", str(len(manifest.joined_in_place)), "counted",
            "their parts are written where they belong" if joined else "",
        ),
        Fact(
            "calls strip by strip", str(manifest.calls_by_strips), "counted",
            "layers that follow each other are computed some rows at a time, while these rows"
            " are in the cache" if manifest.strips else "",
        ),
    ]  # fmt: skip
    rows = [
        (call.name, str(len(call.kernels)), ", then ".join(call.kernels))
        for call in manifest.strips
    ]
    return Section(
        "What was fused", tuple(facts), columns=("function", "layers", "which") if rows else (),
        rows=rows, table_title="The layers that are computed strip by strip",
    )  # fmt: skip


def _program_shuffles(manifest: Manifest) -> list[Fact]:
    """Tell how often the program shuffles, where the bundle tells that."""
    if manifest.program_shuffles is None:
        return []
    return [Fact("channel shuffles of the program", str(manifest.program_shuffles), "counted")]


def kernel_section(manifest: Manifest, cycles: Cycles | None) -> Section:
    """Draw kernels by their shares: of estimated cycles, of scores, or of multiply-adds."""
    shares, kind, of, source = _shares(manifest, cycles)
    heaviest = sorted(shares.items(), key=lambda share: -share[1])
    shown, rest = heaviest[:_SHOWN_KERNELS], heaviest[_SHOWN_KERNELS:]
    calls = {kernel.name: kernel.calls for kernel in manifest.kernels}
    bars = [
        Bar(f"{calls[name]} × {name}" if name in calls else name, share, f"{share:.1%}", kind)
        for name, share in shown
    ]
    if rest:
        left = sum(share for _, share in rest)
        bars.append(Bar(f"{len(rest)} more", left, f"{left:.1%}", kind))
    rows = [
        (
            kernel.name, str(kernel.calls), f"{shares.get(kernel.name, 0.0):.1%}",
            millions(kernel.multiply_adds * kernel.calls), "yes" if kernel.record else "no",
        )
        for kernel in sorted(manifest.kernels, key=lambda k: -shares.get(k.name, 0.0))
    ]  # fmt: skip
    tuned = Fact(
        "kernels with a tuning record",
        f"{manifest.kernels_with_record} of {len(manifest.kernels)}", "counted",
    )  # fmt: skip
    return Section(
        "Kernels by their share", (tuned,), BarPicture(f"Shares of {of}", tuple(bars)),
        ("kernel", "calls", f"share, {kind}", "multiply-adds, counted", "record"), rows,
        "All kernels", (f"The shares are {source}.",) if source else (),
    )  # fmt: skip


def _shares(
    manifest: Manifest, cycles: Cycles | None
) -> tuple[Mapping[str, float], Kind, str, str]:
    """Give each kernel's share of the network, the share's kind, of what it is, and its source."""
    if cycles is not None:
        total = sum(cycles.kernels.values()) or 1.0
        shares = {name: taken / total for name, taken in cycles.kernels.items()}
        return shares, "estimated", "the cycles in the library", cycles.source
    shares = {kernel.name: kernel.share for kernel in manifest.kernels}
    if not all(kernel.score is not None for kernel in manifest.kernels):
        return shares, "counted", "the multiply-adds, from the kernels' shapes", ""
    kind: Kind = "measured" if manifest.score_unit == MEASURED_UNIT else "estimated"
    return shares, kind, "the scores in the tuning records", manifest.score_source or ""
