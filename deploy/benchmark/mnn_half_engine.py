"""MNN in half precision, in the counted process."""

from __future__ import annotations

from shuffledeploy.deploy.benchmark.mnn_engine import MnnNetwork


def load(files: dict[str, str], threads: int) -> MnnNetwork:
    """Load a file of MNN's converter."""
    return MnnNetwork(files["model"], threads, "low")
