"""Reading weights from a file that a user names: nothing is trusted, and every fault is named."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.pickled_tuples import check_tuples
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.stored_archive import check_torch_saved

#: How many faulty tensors a message names before it says "and N more".
NAMED_FAULTS = 3
#: A file that is no zip archive, as PyTorch wrote before 1.6, begins with so many pickles.
OLD_PICKLES = 5

#: Under these names training programs keep the state dict in what they save.
HOLDERS = ("state_dict", "model", "model_state_dict")
#: What stands before every name where a network was wrapped: DataParallel, torch.compile, others.
WRAPPERS = ("module.", "_orig_mod.", "model.")

State = dict[str, torch.Tensor]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def weight_fault(name: str, tensor: torch.Tensor, *, may_be_infinite: bool = False) -> str | None:
    """Say what keeps a tensor from being deployed as a weight.

    Parameters
    ----------
    name : str
        Of the tensor; variances of batch norms end in ``running_var``.
    tensor : torch.Tensor
        Of any kind.
    may_be_infinite : bool
        Whether infinity is a value like others, as in the masks of attention.

    Returns
    -------
    str or None
        For instance ``"conv.weight is sparse"``; None where nothing is wrong.
    """
    fault = _fault_of_kind(tensor)
    if fault is None and bool(torch.isnan(tensor).any()):
        fault = "holds NaN"
    if fault is None and not may_be_infinite and bool(torch.isinf(tensor).any()):
        fault = "holds infinity"
    if fault is None and name.endswith("running_var") and bool((tensor < 0).any()):
        fault = "holds negative variances"
    return None if fault is None else f"{name} {fault}"


def _fault_of_kind(tensor: torch.Tensor) -> str | None:
    """Say what is wrong with a tensor whatever its values, which it may not have."""
    if tensor.is_quantized:
        return "is quantised"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is sparse"
    if tensor.device.type != "cpu" or type(tensor) not in (torch.Tensor, nn.Parameter):
        return f"has no values here ({type(tensor).__name__} on {tensor.device})"
    return None if tensor.dtype in _FLOATS + _WHOLE else f"is {_kind(tensor)}"


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Load a checkpoint into a module, or leave the module as it was.

    Parameters
    ----------
    module : nn.Module
        The network; changed in place.
    path : Path or str
        A file that ``torch.save`` wrote: a state dict, or a dict that holds one under a name of
        `HOLDERS`. It is read with ``weights_only=True``: no code in it runs.

    Raises
    ------
    UsageError
        The file is missing, unreadable or no checkpoint; keys, shapes or kinds are not the
        network's; a tensor is no weight (see :func:`weight_fault`). The message names the file and
        the first few tensors.
    """
    path = Path(path)
    put_state(module, read_state(path), path)


def put_state(module: nn.Module, state: State, path: Path) -> None:
    """Put a state dict into a module that has its names, or leave the module as it was.

    Raises
    ------
    UsageError
        As of :func:`load_weights`.
    """
    wanted = module.state_dict()
    # Checkpoints of before PyTorch 0.4 have no batch counter, and inference has no use for it.
    missing = [key for key in wanted if key not in state and not is_counter(key)]
    unexpected = [key for key in state if key not in wanted]
    if missing or unexpected:
        faults = [f"{key} is missing" for key in missing]
        faults += [f"{printable_line(key)} is not the network's" for key in unexpected]
        raise UsageError(f"{path} holds weights of another network: {first_few(faults)}")
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the network wants {tuple(wanted[key].shape)}"
        for key in state
        if state[key].shape != wanted[key].shape
    ]
    if shapes:
        raise UsageError(f"{path} holds weights of other shapes: {first_few(shapes)}")
    faults = [fault for key in state if (fault := weight_fault(key, state[key]))]
    faults = faults or [
        f"{key} is {_kind(state[key])}, the network wants {_kind(wanted[key])}"
        for key in state
        if (state[key].dtype in _FLOATS) != (wanted[key].dtype in _FLOATS)
    ]
    if faults:
        raise UsageError(f"{path} holds what cannot be weights: {first_few(faults)}")
    module.load_state_dict(state, strict=False)


def is_counter(key: str) -> bool:
    """Tell a batch norm's count of batches, which inference has no use for."""
    return key.endswith("num_batches_tracked")


def read_state(path: Path) -> State:
    """Read a file that ``torch.save`` wrote, and find the state dict in it.

    Returns
    -------
    dict
        Tensors by name, none of them checked; without what wrappers write before every name.

    Raises
    ------
    UsageError
        The file is missing, unreadable or no checkpoint.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not a file of weights")
    if not path.exists():
        raise UsageError(f"there is no file of weights at {path}")
    if not path.is_file():
        raise UsageError(f"{path} is a pipe or a device, not a file of weights")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            # Of what is odd in a pickle; what is wrong with it is raised.
            warnings.simplefilter("ignore")
            _check_file(path)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        # On damaged files torch.load raises whatever its parts do: UnpicklingError, RuntimeError,
        # EOFError, struct.error, IndexError, BadZipFile, AssertionError...
        foreign = isinstance(error, pickle.UnpicklingError)
        fault = "holds things other than weights" if foreign else "is damaged or cut short"
        reason = printable_line(str(error)) or type(error).__name__
        raise UsageError(f"{path} is no checkpoint of PyTorch, or {fault} ({reason})") from None
    if isinstance(loaded, dict):
        held = [loaded[key] for key in HOLDERS if isinstance(loaded.get(key), dict)]
        loaded = held[0] if held else loaded
    is_state = isinstance(loaded, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    )
    if not is_state or not loaded:
        raise UsageError(f"{path} holds no state dict: a dict of tensors by name")
    return _unwrapped(loaded)


def _unwrapped(state: State) -> State:
    """Take away what wrappers write before every name."""
    for wrapper in WRAPPERS:
        while all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): tensor for key, tensor in state.items()}
    return dict(state)


def _check_file(path: Path) -> None:
    """Check that to read the file takes no more memory and time than its size accounts for."""
    with path.open("rb") as file:
        # PyTorch, too, goes by what stands first.
        if file.peek(4).startswith(b"PK\x03\x04"):
            check_torch_saved(file, path.stat().st_size)
            return
        for _ in range(OLD_PICKLES):
            if file.peek(1):
                check_tuples(file)


def first_few(faults: list[str]) -> str:
    """Join the first few, and count the rest."""
    shown = "; ".join(faults[:NAMED_FAULTS])
    rest = len(faults) - NAMED_FAULTS
    return shown if rest <= 0 else f"{shown}; and {rest} more"
