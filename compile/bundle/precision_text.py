"""What a bundle's network computes in, in words."""

from __future__ import annotations

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.ir.memory_layout import FLOAT


def precision_text(manifest: Manifest) -> str:
    """Say what a network computes in, what stays float32, and what its tensors hold."""
    if manifest.precision == FLOAT:
        return FLOAT
    plain = sum(kernel.element == FLOAT for kernel in manifest.kernels)
    text = f"{manifest.precision} ({plain} of {len(manifest.kernels)} kernels write {FLOAT})"
    if manifest.half_scale != 1:
        text += f"; tensors hold 1/{1 / manifest.half_scale:.0f} of what they stand for"
    if manifest.kept_float32:
        text += f"; as was asked for in {FLOAT}: {', '.join(manifest.kept_float32)}"
    return text
