"""The document as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from shuffledeploy.deploy.benchmark.benchmark_plan import OWN
from shuffledeploy.deploy.benchmark.document import noisy_places, peer_ratios
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS
from shuffledeploy.deploy.benchmark.summaries import LEAST_SAMPLES
from shuffledeploy.model.command_output import three_digits
from shuffledeploy.model.plain_console import plain_console
from shuffledeploy.model.registry import UNSHUFFLED
from shuffledeploy.model.resolution import write_resolution

KERNEL_ROWS = 10
# So that a row of the kernels fits 80 columns.
KERNEL_WIDTH = 30


def print_document(document: Mapping[str, Any], console: Console | None = None) -> None:
    """Print all tables, and what must not be overlooked last."""
    out = console or plain_console()
    for table in [
        _latency(document), _ratios(document), *_kernels(document), _memory(document)
    ]:  # fmt: skip
        out.print(table)
        out.print()
    for sentence in warnings(document):
        out.print(sentence, style="bold red")


def warnings(document: Mapping[str, Any]) -> list[str]:
    """Say what makes the figures worth less."""
    said = [
        f"EXCLUDED: {ENGINES[lost['engine']].label} on {lost['model']} at {lost['resolution']}:"
        f" {lost['reason']}"
        for lost in document["excluded"]
    ]
    for name, noise in document["noise"].items():
        if noise["noisy"]:
            said.append(f"TOO NOISY to tell, {name}: {'; '.join(noise['reasons'])}")
    if not document["enough_samples"]:
        said.append(f"TOO FEW SAMPLES: fewer than {LEAST_SAMPLES} an engine")
    return said


def _table(title: str, caption: str, *headings: str) -> Table:
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _latency(document: Mapping[str, Any]) -> Table:
    engines = list(document["machine"]["engines"])
    rows = [row for row in document["rows"] if not row["model"].endswith(UNSHUFFLED)]
    counts = [row["samples"] for row in rows] or [0]
    versions = ", ".join(
        f"{ENGINES[name].label} {version}"
        for name, version in document["machine"]["engines"].items()
        if name != OURS
    )
    table = _table(
        f"Latency, ms: measured, float32, batch 1, {document['machine']['cpu']}",
        f"Median, p10 and p90 of at least {min(counts)} inferences of each engine, engines in"
        f" turns, each in its own process. {versions}. Answers of all agree with PyTorch's."
        " *: too noisy to tell.",
        "network", *(ENGINES[name].heading for name in engines), "best/\nours",
    )  # fmt: skip
    ratios = peer_ratios(rows)
    noisy = noisy_places(document)
    for place in dict.fromkeys((r["model"], r["resolution"], r["threads"]) for r in rows):
        model, resolution, threads = place
        found = {r["engine"]: r for r in rows if _place(r) == place}
        where = resolution if threads == 1 else f"{resolution}, {threads} threads"
        ratio = ratios.get(resolution, {}).get(model) if threads == 1 else None
        table.add_row(
            f"{model}\n  {where}",
            *(_cell(found.get(name)) for name in engines),
            ("-" if ratio is None else f"{ratio:.2f}") + ("*" if place in noisy else ""),
        )
    return table


def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["resolution"], row["threads"]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return "\n".join(three_digits(row[key]) for key in ("median_ms", "p10_ms", "p90_ms"))


def _ratios(document: Mapping[str, Any]) -> Table:
    table = _table(
        "What follows from it",
        "AlexNet over ShuffleNet: how many times as long; below it, with the fastest AlexNet of"
        " another engine over our ShuffleNet, and what our AlexNet would have over a ShuffleNet"
        " that took its multiply-adds at the core's peak. Shuffle: the network's time over that of"
        " its twin without shuffles, median over rounds of the two alone. Peak: multiply-adds"
        " counted from shapes, over what a loop of them reached in the same rounds.",
        "ratio", "of", "ours",
    )  # fmt: skip
    for resolution, ratio in document["alexnet_over_shufflenet"].items():
        table.add_row("AlexNet / ShuffleNet 0.5x", resolution, f"{ratio:.1f}")
        for row, field in (
            ("  AlexNet of best peer", "best_peer_alexnet_over_shufflenet"),
            ("  ShuffleNet at the peak", "alexnet_over_shufflenet_at_peak"),
        ):
            if resolution in document[field]:
                table.add_row(row, resolution, f"{document[field][resolution]:.1f}")
    for model, cost in document["shuffle_cost"].items():
        table.add_row("with shuffle / without", model, f"{cost:.3f}")
    for model, share in document["share_of_peak"].items():
        table.add_row("share of the core's peak", model, f"{share:.0%}")
    for name, ceilings in document["ceilings"].items():
        if ceilings:
            rate = f"{ceilings['multiply_adds_per_s'] / 1e9:.1f} G/s"
            table.add_row("  multiply-adds", name, rate)
            table.add_row("  reads from memory", name, f"{ceilings['bytes_per_s'] / 1e9:.1f} GB/s")
    return table


def _kernels(document: Mapping[str, Any]) -> list[Table]:
    tables = []
    places = [(one["model"], one["resolution"], one) for one in document["virtual_machine"]]
    own = write_resolution(OWN)
    # Larger images would fill the screen: their kernels are in the file.
    places = [place for place in places if place[1] == own] or places
    for model, resolution, machine in places:
        rows = [r for r in document["kernels"] if (r["model"], r["resolution"])
                == (model, resolution)]  # fmt: skip
        tuned = sum(row["record"] for row in rows)
        table = _table(
            f"Kernels of {model} at {resolution}",
            "us: measured while the network ran, all calls of one inference. Bytes: of its tensors;"
            " over 100 % of what memory streams, they come from caches."
            f" {tuned} of {len(rows)} kernels with a record. Beside kernels: an inference less its"
            f" kernels; {machine['own_calls_microseconds']:.0f} us of it are"
            f" {machine['other_calls']} calls of the virtual machine's own functions.",
            "kernel", "calls", "us", "time", "M mult-\nadds", "of\npeak", "of\nmemory", "rec.",
        )  # fmt: skip
        for row in rows[:KERNEL_ROWS]:
            table.add_row(
                row["kernel"][:KERNEL_WIDTH], str(row["calls"]), f"{row['microseconds']:.0f}",
                f"{row['share_of_time']:.0%}", f"{row['multiply_adds'] / 1e6:.1f}",
                _percent(row["share_of_peak"]), _percent(row["share_of_bandwidth"]),
                "yes" if row["record"] else "no",
            )  # fmt: skip
        if rest := rows[KERNEL_ROWS:]:
            table.add_row(*_rest(rest))
        over = machine["overhead_microseconds"]
        whole = machine["whole_microseconds"]
        table.add_row(
            "beside kernels", "", f"{over:.0f}", f"{over / whole:.0%}".replace("-0%", "0%")
        )
        tables.append(table)
    return tables


def _rest(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{len(rows)} more",
        str(sum(row["calls"] for row in rows)),
        f"{sum(row['microseconds'] for row in rows):.0f}",
        f"{sum(row['share_of_time'] for row in rows):.0%}",
        f"{sum(row['multiply_adds'] for row in rows) / 1e6:.1f}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _memory(document: Mapping[str, Any]) -> Table:
    table = _table(
        "Memory and size, MiB",
        "Running, peak: resident memory of the worker's process beyond that of Python and NumPy"
        " before the engine was imported; largest while it infers, and with loading. Library: the"
        " engine's shared objects that the process has loaded. Model: its files on disk (ours: the"
        " compiled library, weights in it). Ours runs without PyTorch and TVM's compiler.",
        "network", "engine", "running", "peak", "library", "model",
    )  # fmt: skip
    last = ""
    for row in document["memory"]:
        if row["model"].endswith(UNSHUFFLED) or row["threads"] > 1:
            continue
        name = f"{row['model']} {row['resolution']}"
        table.add_row(
            "" if name == last else name, ENGINES[row["engine"]].label,
            *(f"{row[key]:.1f}"
              for key in ("running_mb", "peak_mb", "engine_library_mb", "model_mb")),
        )  # fmt: skip
        last = name
    return table
