"""Runs a network without a runtime on a device: what ships is what is proven."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.manifest_entries import Standalone
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.devices.tvm_rpc_edges import CALL_C
from shuffledeploy.deploy.runtime.device_fit import check_fits
from shuffledeploy.deploy.runtime.execution import LoadedNetwork, check_inputs, open_for
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.scratch import scratch_folder

#: What comes back of a number that a function of C gives.
_LOW_BITS = 0x7FFFFFFF


@dataclass(frozen=True)
class StandaloneNetwork(LoadedNetwork):
    """A network without a runtime: its shared library, called as C."""

    _made: Standalone
    _call: Callable[..., int]
    _inputs: tuple[Any, ...]
    _outputs: tuple[Any, ...]
    _workspace: Any

    @property
    def library(self) -> Path:
        """The library that was loaded."""
        return self.bundle.standalone_library

    def set_inputs(self, inputs: Sequence[Array]) -> None:
        """Send inputs to the device.

        Raises
        ------
        UsageError
            If their number, shapes or types are not the network's.
        """
        check_inputs(self.bundle.manifest, inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copyfrom(np.ascontiguousarray(value))

    def invoke(self) -> None:
        """Run on the inputs that were set.

        Raises
        ------
        Failure
            If it refuses the memory that it was given.
        """
        symbol = f"{self._made.name}_run"
        status = int(self._call(symbol, *self._inputs, *self._outputs, self._workspace))
        if status:
            raise Failure(f"{self.device.name}: {symbol} returned {status}")

    def outputs(self) -> list[Array]:
        """Bring back what the last run wrote."""
        return [np.asarray(place.numpy()) for place in self._outputs]


@contextmanager
def open_standalone(
    bundle: Bundle, device: str | None = None, pinned_to: str | None = None
) -> Iterator[StandaloneNetwork]:
    """Open a device and load a bundle's standalone network there.

    Parameters
    ----------
    bundle : Bundle
        What to load.
    device, pinned_to : str, optional
        See :func:`deploy.devices.opening.open_device`.

    Raises
    ------
    UsageError
        If the bundle was made without it, or does not fit the device.
    Failure
        If the device is not there, or its server cannot call C functions.
    """
    made, library = bundle.standalone, bundle.standalone_library
    with ExitStack() as stack:
        opened = stack.enter_context(open_for(bundle, device, pinned_to))
        unchecked = check_fits(bundle.manifest, opened)
        call = stack.enter_context(_calling(opened, library))
        # Else a manifest that lies lets the network write beyond its memory.
        wanted = int(call(f"{made.name}_workspace_bytes")) & _LOW_BITS
        if wanted != made.workspace & _LOW_BITS:
            raise UsageError(
                f"{library} wants {wanted} bytes of workspace, its manifest says"
                f" {made.workspace}: make the bundle again"
            )
        place = tvm.cpu() if opened.is_local else opened.session.cpu()

        def tensors(specs: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(tvm.runtime.empty(s.shape, s.dtype, place) for s in specs)

        yield StandaloneNetwork(
            bundle, opened, unchecked, made, call,
            tensors(bundle.manifest.inputs), tensors(bundle.manifest.outputs),
            tvm.runtime.empty((made.workspace,), "uint8", place),
        )  # fmt: skip


@contextmanager
def _calling(device: Device, library: Path) -> Iterator[Callable[..., int]]:
    """Give what calls a function of a library by its name, with the addresses of tensors."""
    if device.is_local:
        # Under a path of its own: one that was loaded from this path would be taken for it.
        with scratch_folder("shuffledeploy-run-") as folder:
            loaded = ctypes.CDLL(str(shutil.copyfile(library, folder / library.name)))

            def call_here(symbol: str, *tensors: Any) -> int:
                addresses = [np.from_dlpack(tensor).ctypes.data for tensor in tensors]
                return int(loaded[symbol](*map(ctypes.c_void_p, addresses)))

            yield call_here
    else:
        yield _remote_caller(device, library)


def _remote_caller(device: Device, library: Path) -> Callable[..., int]:
    try:
        call_c = device.session.get_function(CALL_C)
    except AttributeError as error:
        raise Failure(
            f"{device.name} runs a server that cannot call C functions: name a device of kind"
            " local, emulated, adb or ssh, on which our own server runs"
        ) from error
    remote = device.upload(library)
    return lambda symbol, *tensors: int(call_c(remote, symbol, *tensors))
