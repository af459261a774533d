"""Parity by layer: what each kernel writes on a device, held against PyTorch's tensor in float32.

A network is right or wrong by its answers; this says where its errors come from. A bundle keeps
samples of PyTorch's tensors for one input, of each layer that a kernel stands for after fusion
(:mod:`compiler.layer_values`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.layer_samples import layer_rows, layer_sample
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import Layer
from shuffledeploy.compiler.bundle.tolerances import allowed_error, error_unit, spread
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import HALF
from shuffledeploy.deploy.runtime.execution import RunningNetwork
from shuffledeploy.model.errors import UsageError

#: A thousand errors that are drawn from a normal distribution reach about this many times their
#: root mean square: tolerances are of the largest error, shares of the mean square.
LARGEST_OVER_RMS = 4.0
#: The largest int8.
MOST = 127
#: How many layers are told as the worst.
WORST = 3
#: Half precision rounds a number by this part of it, root mean square.
HALF_ROUNDING = 2.0**-12
# Digits that are lost where the last of float32's are: no more decibels are told.
_EXACT_DB = 200.0


@dataclasses.dataclass(frozen=True)
class LayerError:
    """How far one layer's tensor is from PyTorch's.

    Attributes
    ----------
    name, operator, kernel : str
        The module of the program that sums up or joins, the last operator that is fused into the
        kernel, and the kernel.
    signal_to_noise : float
        In decibels: spread (standard deviation) of PyTorch's numbers over the root mean square of
        the errors. NaN where a number is none.
    allowed : float
        What it would be with the layer's share of the noise that the answer may have: each layer
        may add as much as any other.
    largest_error : float
        Of the samples, in parts of the spread.
    saturated : float
        Share of all elements that are the largest of their type, or no numbers.
    rounding_alone : bool
        Whether the layer's own rounding to half precision explains its noise.
    """

    name: str
    operator: str
    kernel: str
    signal_to_noise: float
    allowed: float
    largest_error: float
    saturated: float
    rounding_alone: bool

    @property
    def is_beyond(self) -> bool:
        """Whether it has more noise than its share; NaN has."""
        return not self.signal_to_noise >= self.allowed

    @property
    def noise(self) -> float:
        """Energy of the errors in parts of the signal's; infinite where a number is none."""
        if math.isnan(self.signal_to_noise):
            return math.inf
        return float(10 ** (-self.signal_to_noise / 10))


@dataclasses.dataclass(frozen=True)
class LayerParity:
    """All layers of a network on a device.

    Attributes
    ----------
    layers : tuple of LayerError
        In the order of the kernel calls.
    precision : str
        What the network computes in.
    """

    layers: tuple[LayerError, ...]
    precision: str

    @property
    def first_beyond(self) -> LayerError | None:
        """The first layer that has more noise than its share."""
        return next((layer for layer in self.layers if layer.is_beyond), None)

    @property
    def worst(self) -> tuple[LayerError, ...]:
        """The layers that add the most noise to that of the layer before, the worst first."""
        before = (0.0, *(layer.noise for layer in self.layers))
        added = {
            place: math.inf if math.isinf(layer.noise) else layer.noise - before[place]
            for place, layer in enumerate(self.layers)
        }
        places = sorted(added, key=lambda place: -added[place])[:WORST]
        return tuple(self.layers[place] for place in places if added[place] > 0)

    def to_json(self) -> list[dict[str, Any]]:
        """Give the layers for a JSON file, where numbers that are not finite become null."""
        return [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in dataclasses.asdict(layer).items()
            }
            for layer in self.layers
        ]


def require_layers(bundle: Bundle) -> None:
    """Refuse a bundle that says nothing of its layers.

    Raises
    ------
    UsageError
        If it was made without samples of PyTorch's tensors.
    """
    if not bundle.manifest.layers:
        raise UsageError(
            f"{bundle.path} has no samples of PyTorch's layers: make it again with compile/tune.py"
        )


def check_layers(network: RunningNetwork, bundle: Bundle) -> LayerParity:
    """Run the stored reference input on the device; compare what each layer's kernel wrote.

    Parameters
    ----------
    network : RunningNetwork
        The bundle, loaded.
    bundle : Bundle
        Where the samples of PyTorch's tensors are.

    Raises
    ------
    UsageError
        As :func:`require_layers` and :func:`layer_error`.
    """
    require_layers(bundle)
    manifest = bundle.manifest
    told = dict(zip(manifest.layers, bundle.layer_samples(), strict=True))
    by_call = {layer.call: (layer, values) for layer, values in told.items()}
    found: list[LayerError] = []
    for call, written in enumerate(network.intermediates(bundle.reference_inputs()[0])):
        if call in by_call:
            layer, expected = by_call[call]
            share = (len(found) + 1) / len(told)
            found.append(layer_error(layer, written, expected, share, manifest))
    return LayerParity(tuple(found), manifest.precision)


def layer_error(
    layer: Layer, written: Array, expected: Array, share: float, manifest: Manifest
) -> LayerError:
    """Compare what a kernel wrote with samples of PyTorch's tensor.

    Parameters
    ----------
    layer : Layer
        Which.
    written : Array
        The whole tensor, as the device gives it.
    expected : Array
        Samples, float32 (`compiler.bundle.layer_samples`).
    share : float
        Of the layers, those up to this one.
    manifest : Manifest
        Of the bundle.

    Raises
    ------
    UsageError
        If the samples are of another tensor.
    """
    in_half = str(written.dtype) == HALF
    sampled = layer_sample(layer_rows(written)).astype(np.float64)
    wanted = expected.astype(np.float64)
    if sampled.shape != wanted.shape:
        raise UsageError(
            f"the bundle's samples of layer {layer.name} are not of its tensor: make it again"
        )
    with np.errstate(invalid="ignore"):
        errors = (sampled - layer.zero) * layer.scale - wanted
        noise = math.sqrt(float(np.mean(errors**2)))
        largest = float(np.max(np.abs(errors)))
    signal, unit = spread(expected), error_unit(expected, manifest.precision)
    allowed = allowed_error(unit, float(manifest.tolerance), manifest.precision)
    rounding = HALF_ROUNDING * math.sqrt(float(np.mean(wanted**2)))
    return LayerError(
        layer.name, layer.operator, manifest.kernel_order[layer.call],
        signal_to_noise=_decibels(signal, noise),
        allowed=_decibels(signal, allowed / LARGEST_OVER_RMS * math.sqrt(share)),
        largest_error=largest / signal if signal else largest,
        saturated=_saturated(written, layer),
        rounding_alone=in_half and noise <= 2 * rounding,
    )  # fmt: skip


def _saturated(written: Array, layer: Layer) -> float:
    """Give the share of numbers that are the largest of their type, or none.

    Of int8 that are never negative the least stands for zero.
    """
    if written.dtype == np.int8:
        cut = (written == MOST) | ((written <= -MOST) & (layer.zero == 0))
        return float(np.mean(cut))
    return float(np.mean(~(np.abs(written) < np.finfo(written.dtype).max)))


def _decibels(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return math.nan
    if noise == 0:
        return _EXACT_DB
    return min(_EXACT_DB, 20 * math.log10(signal / noise)) if signal else -_EXACT_DB
