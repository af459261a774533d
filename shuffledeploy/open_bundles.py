"""A bundle that is loaded on a device, to be called like a function."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shuffledeploy.compiler.bundle.arrays import Array
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.model.errors import UsageError

if TYPE_CHECKING:
    import torch

    from shuffledeploy.deploy.runtime.execution import RunningNetwork

    Values: TypeAlias = Array | torch.Tensor


class OpenBundle:
    """A network that is loaded on a device.

    Attributes
    ----------
    bundle : Bundle
        What was loaded.
    inputs, outputs : tuple of str
        Their names, in order.
    """

    def __init__(self, bundle: Bundle, device: str, core: str | None = None) -> None:
        from shuffledeploy.deploy.runtime.execution import open_network

        self.bundle = bundle
        self.inputs = tuple(tensor.name for tensor in bundle.manifest.inputs)
        self.outputs = tuple(tensor.name for tensor in bundle.manifest.outputs)
        self._opened = ExitStack()
        self._network: RunningNetwork | None = self._opened.enter_context(
            open_network(bundle, device, core)
        )

    def __call__(self, *values: Values, **named: Values) -> Any:
        """Run the network.

        Parameters
        ----------
        values, named
            Its inputs in order, or by name; NumPy arrays or torch tensors of the bundle's shapes.

        Returns
        -------
        Array, torch.Tensor or list of them
            The output, or a list where there are several; tensors where a tensor was given.

        Raises
        ------
        UsageError
            If inputs are missing, unknown or of another shape, or the bundle is closed.
        Failure
            If the device fails.
        """
        if self._network is None:
            raise UsageError("the bundle is closed: open it again")
        given = dict(zip(self.inputs, values, strict=False)) | named
        if len(values) + len(named) != len(self.inputs) or set(given) != set(self.inputs):
            raise UsageError(f"the network takes {', '.join(self.inputs)}, each once")
        ordered = [given[name] for name in self.inputs]
        answers = self._network.run([np.asarray(value) for value in ordered])
        if any(not isinstance(value, np.ndarray) for value in ordered):
            import torch

            tensors = [torch.from_numpy(answer.copy()) for answer in answers]
            return tensors[0] if len(tensors) == 1 else tensors
        return answers[0] if len(answers) == 1 else answers

    def close(self) -> None:
        """End the session; an emulated board that was started for it ends, too."""
        self._network = None
        self._opened.close()

    def __enter__(self) -> OpenBundle:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close it."""
        self.close()
