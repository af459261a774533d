"""ncnn in half precision, its default on cores that compute in it, in the counted process."""

from __future__ import annotations

from shuffledeploy.deploy.benchmark.ncnn_engine import NcnnNetwork


def load(files: dict[str, str], threads: int) -> NcnnNetwork:
    """Load what pnnx wrote."""
    return NcnnNetwork(files["parameters"], files["weights"], threads, in_half=True)
