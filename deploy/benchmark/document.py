"""The JSON document: finished parts, kept from run to run, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shuffledeploy.compiler.bundle.folder import LIBRARY, Bundle
from shuffledeploy.compiler.library_facts import versions
from shuffledeploy.deploy.benchmark.benchmark_plan import ALEXNET, OWN, SHUFFLENET, SubjectGroup
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS, STANDALONE
from shuffledeploy.deploy.benchmark.processor import cpu_model
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.benchmark.summaries import LEAST_SAMPLES
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.resolution import write_resolution

#: Changed whenever what is measured, or how, changes: older parts are then measured again.
FORMAT = 1

_OWN_TEXT = write_resolution(OWN)


def part_key(group: SubjectGroup, bundles: Mapping[str, Bundle], settings: Settings) -> str:
    """Hash what a part's figures depend on: libraries, engines, the processor, the settings."""
    told = {
        "format": FORMAT,
        "group": asdict(group),
        "libraries": {model: b.manifest.files[LIBRARY] for model, b in sorted(bundles.items())},
        "engines": {name: ENGINES[name].version for name in group.engines},
        "versions": versions(),
        "cpu": cpu_model(),
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_parts(path: Path) -> dict[str, dict[str, Any]]:
    """Read the finished parts of an earlier run, by key; none where there is no such file.

    Raises
    ------
    UsageError
        The file is not a benchmark's: it is not overwritten.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as an earlier result ({error}): remove it, or name another"
            " with --json"
        ) from error
    parts = document.get("parts") if isinstance(document, dict) else None
    if not isinstance(parts, dict):
        raise UsageError(f"{path} is no result of this benchmark: name another file with --json")
    return {str(key): part for key, part in parts.items() if isinstance(part, dict)}


def merged(
    kept: Mapping[str, dict[str, Any]], key: str, part: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Add a part; what was measured before of the same group by the same name goes."""
    others = {
        other: old
        for other, old in kept.items()
        if (old.get("name"), old.get("engines")) != (part.get("name"), part.get("engines"))
    }
    return {**others, key: part}


def to_document(
    current: Sequence[Mapping[str, Any]], kept: Mapping[str, Any], engines: Sequence[str]
) -> dict[str, Any]:
    """Give the whole document.

    Parameters
    ----------
    current : sequence of dict
        The parts of this run, measured now or found finished.
    kept : dict
        All finished parts by key, for the next run.
    engines : sequence of str
        Of this run.
    """
    rows = _all(current, "rows")
    ratios, by_engine = peer_ratios(rows), alexnet_ratios(rows)
    ours = by_engine.get(OURS, {})
    return {
        "format": FORMAT,
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "versions": versions(),
            "engines": {name: ENGINES[name].version for name in engines},
            "how": {name: ENGINES[name].how for name in engines},
        },
        "rows": rows,
        "best_peer_over_ours": ratios.get(_OWN_TEXT, {}),
        "best_peer_over_ours_at": ratios,
        "alexnet_over_shufflenet": ours,
        "alexnet_over_shufflenet_by_engine": by_engine,
        "best_peer_alexnet_over_shufflenet": {
            resolution: ratio * ratios[resolution][ALEXNET]
            for resolution, ratio in ours.items()
            if ALEXNET in ratios.get(resolution, {})
        },
        "alexnet_over_shufflenet_at_peak": ratios_at_peak(current, ours),
        "shuffle_cost": _joined(current, "shuffle_cost"),
        "share_of_peak": {
            model: share
            for part in current
            if part["resolution"] == _OWN_TEXT
            for model, share in part["share_of_peak"].items()
        },
        "ceilings": {part["name"]: part["ceilings"] for part in current},
        "kernels": _all(current, "kernels"),
        "virtual_machine": _all(current, "virtual_machine"),
        "memory": _all(current, "memory"),
        "records": _all(current, "records"),
        "excluded": _all(current, "excluded"),
        "noise": {part["name"]: part["noise"] for part in current},
        "noisy": any(part["noise"]["noisy"] for part in current),
        "enough_samples": all(row["samples"] >= LEAST_SAMPLES for row in rows),
        "parts": dict(kept),
    }


def _all(parts: Sequence[Mapping[str, Any]], field: str) -> list[Any]:
    return [item for part in parts for item in part[field]]


def _joined(parts: Sequence[Mapping[str, Any]], field: str) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part[field].items()}


def peer_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Divide the best peer's median by ours, one thread, by resolution and network."""
    ours: dict[tuple[str, str], float] = {}
    peers: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["threads"] == 1:
            place = (row["resolution"], row["model"])
            if row["engine"] == OURS:
                ours[place] = row["median_ms"]
            elif row["engine"] != STANDALONE:
                peers[place] = min(row["median_ms"], peers.get(place, row["median_ms"]))
    found: dict[str, dict[str, float]] = {}
    for place, best in peers.items():
        if place in ours:
            found.setdefault(place[0], {})[place[1]] = best / ours[place]
    return found


def alexnet_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Divide AlexNet's median by ShuffleNet 0.5x's, one thread, by engine and resolution."""
    took = {
        (row["engine"], row["resolution"], row["model"]): row["median_ms"]
        for row in rows
        if row["threads"] == 1
    }
    found: dict[str, dict[str, float]] = {}
    for (engine, resolution, model), milliseconds in took.items():
        less = took.get((engine, resolution, SHUFFLENET))
        if model == ALEXNET and less:
            found.setdefault(engine, {})[resolution] = milliseconds / less
    return found


def ratios_at_peak(
    parts: Sequence[Mapping[str, Any]], ratios: Mapping[str, float]
) -> dict[str, float]:
    """Tell what AlexNet over ShuffleNet would be if that took every multiply-add at the peak.

    Parameters
    ----------
    parts : sequence of dict
        Of the run; each has its own share of the peak.
    ratios : dict
        Of our engine, what :func:`alexnet_ratios` gives.

    Returns
    -------
    dict
        By resolution: no ShuffleNet can be further ahead of our AlexNet on this core.
    """
    return {
        part["resolution"]: ratios[part["resolution"]] / part["share_of_peak"][SHUFFLENET]
        for part in parts
        if part["threads"] == 1
        and part["resolution"] in ratios
        and SHUFFLENET in part["share_of_peak"]
    }


def noisy_places(document: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    """List network, resolution and threads of what was measured on too noisy a machine."""
    return {
        (model, noise["resolution"], noise["threads"])
        for noise in document["noise"].values()
        if noise["noisy"]
        for model in noise["models"]
    }
