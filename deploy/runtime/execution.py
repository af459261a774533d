"""Loads a bundle on a device, having checked first that it can run there, and runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.bundle.folder import Bundle, joined
from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.ir.graph import ENTRY, Array
from shuffledeploy.compiler.passes.memory.expose_intermediates import INTERMEDIATES
from shuffledeploy.deploy.devices.opening import Device, open_named
from shuffledeploy.deploy.runtime.device_fit import check_fits, fitting_device
from shuffledeploy.deploy.runtime.thread_pool import use_threads
from shuffledeploy.model.errors import Failure, UsageError


@dataclass(frozen=True)
class LoadedNetwork(ABC):
    """A network that is loaded on a device.

    Attributes
    ----------
    bundle : Bundle
        What it is, or is part of.
    device : Device
        Where.
    unchecked : tuple of str
        What of the device could not be compared with what the library needs.
    """

    bundle: Bundle
    device: Device
    unchecked: tuple[str, ...]

    @property
    @abstractmethod
    def library(self) -> Path:
        """The library that was loaded."""

    @abstractmethod
    def set_inputs(self, inputs: Sequence[Array]) -> None:
        """Send inputs to the device.

        Raises
        ------
        UsageError
            If their number, shapes or types are not the network's.
        """

    @abstractmethod
    def invoke(self) -> None:
        """Run on the inputs that were set."""

    @abstractmethod
    def outputs(self) -> list[Array]:
        """Bring back what the last run wrote."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Send inputs, run, bring back the outputs.

        Parameters
        ----------
        inputs : sequence of numpy.ndarray
            Shapes and types of ``bundle.manifest.inputs``.
        """
        self.set_inputs(inputs)
        self.invoke()
        return self.outputs()


@dataclass(frozen=True)
class RunningNetwork(LoadedNetwork):
    """A bundle's library in TVM's virtual machine."""

    _place: tvm.runtime.Device
    _machine: relax.VirtualMachine

    @property
    def library(self) -> Path:
        """The library that was loaded."""
        return self.bundle.library

    def set_inputs(self, inputs: Sequence[Array], function: str = ENTRY) -> None:
        """Send inputs to the device.

        Raises
        ------
        UsageError
            If their number, shapes or types are not the network's.
        """
        check_inputs(self.bundle.manifest, inputs)
        tensors = [tvm.runtime.tensor(np.asarray(x, order="C"), self._place) for x in inputs]
        self._machine.set_input(function, *tensors)

    def invoke(self, function: str = ENTRY) -> None:
        """Run on the inputs that were set."""
        self._machine.invoke_stateful(function)

    def outputs(self) -> list[Array]:
        """Bring back what the last run wrote."""
        return [tensor.numpy() for tensor in _tensors(self._machine.get_outputs(ENTRY))]

    def intermediates(self, inputs: Sequence[Array]) -> Iterator[Array]:
        """Run the library's second entry; give what each kernel call wrote, in call order."""
        self.set_inputs(inputs, INTERMEDIATES)
        self.invoke(INTERMEDIATES)
        for written in self._machine.get_outputs(INTERMEDIATES):
            yield joined([tensor.numpy() for tensor in _tensors(written)])

    def times(self, runs: int) -> list[float]:
        """Time single runs on the inputs that were set, by the device's own clock; in seconds.

        TVM runs once more before the first, so that caches are warm.
        """
        evaluator = self._machine.time_evaluator(
            "invoke_stateful", self._place, number=1, repeat=runs
        )
        return [float(seconds) for seconds in evaluator(ENTRY).results]


def _tensors(value: object) -> list[Any]:
    """Flatten what a virtual machine gives: a tensor, or tuples of them."""
    if isinstance(value, list | tuple | tvm.ir.Array):
        return [tensor for part in value for tensor in _tensors(part)]
    return [value]


def check_inputs(manifest: Manifest, inputs: Sequence[Array]) -> None:
    """Refuse inputs that are not a network's.

    Raises
    ------
    UsageError
        If their number, shapes or types are not.
    """
    shapes = [(value.shape, str(value.dtype)) for value in inputs]
    if shapes != [(spec.shape, spec.dtype) for spec in manifest.inputs]:
        takes = ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in manifest.inputs)
        raise UsageError(f"{manifest.network} takes {takes}; it was given {shapes}")


def start_network(bundle: Bundle, device: Device) -> RunningNetwork:
    """Check that a bundle fits a device, send its library there and load it.

    Raises
    ------
    UsageError
        If it does not fit.
    Failure
        If the device refuses the library.
    """
    unchecked = check_fits(bundle.manifest, device)
    module = device.upload_and_load(bundle.library)
    place = device.session.cpu()
    if bundle.manifest.threads > 1:
        use_threads(device, bundle.manifest.threads)
    try:
        machine = relax.VirtualMachine(module, place)
    except AttributeError as error:
        raise Failure(f"{device.name}: {bundle.library} holds no Relax program") from error
    return RunningNetwork(bundle, device, unchecked, place, machine)


@contextmanager
def open_for(
    bundle: Bundle, device: str | None = None, pinned_to: str | None = None
) -> Iterator[Device]:
    """Open a device for a bundle, the default one where none is named.

    Raises
    ------
    UsageError
        If what its name tells does not fit the bundle.
    """
    name = fitting_device(bundle.manifest, device)
    with open_named(name, pinned_to=pinned_to) as opened:
        yield opened


@contextmanager
def open_network(
    bundle: Bundle, device: str | None = None, pinned_to: str | None = None
) -> Iterator[RunningNetwork]:
    """Open a device (the default one where none is named) and load a bundle there.

    Parameters
    ----------
    bundle : Bundle
        What to load.
    device, pinned_to : str, optional
        See :func:`deploy.devices.opening.open_device`.
    """
    with open_for(bundle, device, pinned_to) as opened:
        yield start_network(bundle, opened)
