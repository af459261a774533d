"""Bundles and files of other commands, for pages about them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
from tiny import SIDE

from shuffledeploy.compiler.bundle.folder import MANIFEST, Bundle, load_bundle, write_manifest

SHUFFLENET, ALEXNET = "shufflenet-g3-x0.5", "alexnet"
#: Resolution of the tiny bundles.
TINY = f"{SIDE}x{SIDE}"


def changed_bundle(bundle: Bundle, folder: Path, **fields: Any) -> Bundle:
    """Copy a bundle whose manifest says something else."""
    shutil.copytree(bundle.path, folder)
    (folder / MANIFEST).unlink()
    write_manifest(folder, msgspec.structs.replace(bundle.manifest, **fields))
    return load_bundle(folder)


def written(path: Path, document: dict[str, Any]) -> Path:
    """Write a JSON file."""
    path.write_text(json.dumps(document))
    return path


def peers_document(
    core: str = "cortex-a72", model: str = SHUFFLENET, resolution: str = TINY
) -> dict[str, Any]:
    """Give what `peers.py --board raspberry-pi-4` writes of one network."""
    counted = {"tuned": 10_900_000, "ncnn": 21_000_000, "newcomer": 12_000_000}
    rows = [
        {"model": model, "resolution": resolution, "engine": engine, "engine_version": "1.2",
         "instructions": 2 * cycles, "cycles": float(cycles), "max_abs_error": 1e-6,
         "on_board": {"board": "raspberry-pi-4", "clock_ghz": 1.8, "milliseconds": cycles / 1.8e6}}
        for engine, cycles in counted.items()
    ]  # fmt: skip
    return {"core": core, "source": "llvm-mca 19", "rows": rows, "failed": []}


def comparison_document(**row: Any) -> dict[str, Any]:
    """Give what `compare.py --board` writes of two networks; `row` changes the second."""
    common = {"resolution": "224x224", "kind": "estimated", "unit": "ms",
              "on_board": {"board": "raspberry-pi-4", "clock_ghz": 1.8, "code": 1.0}}  # fmt: skip
    rows = [
        {**common, "model": ALEXNET, "value": 125.0, "ratio_to_alexnet": 1.0,
         "paper_ms": 184.0, "paper_ratio": 1.0},
        {**common, "model": SHUFFLENET, "value": 7.67, "ratio_to_alexnet": 16.3,
         "paper_ms": 15.2, "paper_ratio": 12.1, **row},
    ]  # fmt: skip
    device = {"name": "emulated:cortex-a72", "cpu": "cortex-a72", "is_emulated": True}
    return {"target": "cortex-a72", "device": device, "paper": "Zhang et al.", "rows": rows}


def silicon_document() -> dict[str, Any]:
    """Give what `validate_silicon.py` writes of one board."""
    errors = {"networks": 25, "ratio_mean": 1.0, "median_error": 0.09, "largest_error": 0.2}
    return {"kind": "estimated", "boards": {"raspberry-pi-4": errors}}
