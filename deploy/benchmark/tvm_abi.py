"""TVM's runtime through its C ABI: two shared libraries, and none of TVM's Python.

What an application on a board would link. ``import tvm`` loads the compiler too (260 MB), ``import
tvm_ffi`` 120 modules, and PyTorch where it finds it. Layouts and calls are those of
``tvm/ffi/c_api.h`` and ``dlpack.h``, which the pinned packages bring.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Kinds of a value; from _OBJECT on it is a reference.
_NONE, _INTEGER, _BOOLEAN, _C_STRING, _SMALL_STRING = 0, 1, 2, 8, 11
_OBJECT, _STRING, _TENSOR = 64, 65, 70
_FLOAT32 = (2, 32, 1)
# Mode of the runtime's pool: a core of a list for each thread.
_ONE_CORE_EACH = -2


class _Value(ctypes.Structure):
    """TVMFFIAny."""

    _fields_ = (
        ("kind", ctypes.c_int32), ("length", ctypes.c_uint32), ("value", ctypes.c_int64),
    )  # fmt: skip


class _Header(ctypes.Structure):
    """TVMFFIObject: what every object begins with."""

    _fields_ = (
        ("references", ctypes.c_uint64), ("kind", ctypes.c_int32), ("padding", ctypes.c_uint32),
        ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class _Text(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))

    def __str__(self) -> str:
        return ctypes.string_at(self.data, self.size).decode(errors="replace")


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p),
        ("offset", ctypes.c_uint64),
    )  # fmt: skip


_Values = ctypes.POINTER(_Value)
_SafeCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, _Values, ctypes.c_int32, _Values)


class Reference:
    """An object of the runtime: a module, a function or a tensor.

    Parameters
    ----------
    handle : int
        Its address; one reference to it is given up with this.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._release = _runtime().TVMFFIObjectDecRef

    def __del__(self) -> None:
        self._release(ctypes.c_void_p(self.handle))

    def __getitem__(self, name: str) -> Reference:
        """Find a function of a module.

        Raises
        ------
        RuntimeError
            There is none of that name.
        """
        found = _global_function("ffi.ModuleGetFunction")(self, name.encode(), 0)
        if not isinstance(found, Reference):
            raise RuntimeError(f"the module has no function {name!r}")
        return found

    def __call__(self, *arguments: Any) -> Any:
        """Call a function; see :meth:`bound`."""
        return self.bound(*arguments)()

    def bound(self, *arguments: int | bytes | Reference | None) -> Callable[[], Any]:
        """Give a function with its arguments in their places, quick to call again and again.

        Its call raises a RuntimeError with the words of what went wrong.
        """
        places = (_Value * len(arguments))(*map(_value, arguments))
        result = _Value()
        call = functools.partial(
            _runtime().TVMFFIFunctionCall, self.handle, places, len(arguments), ctypes.byref(result)
        )

        def called(_keep: Any = (self, arguments)) -> Any:
            result.kind = _NONE
            _check(call())
            return _python(result)

        return called

    def array(self) -> np.ndarray[Any, Any]:
        """Copy a float32 tensor without gaps.

        Raises
        ------
        TypeError
            It has another type.
        """
        found = _Tensor.from_address(self.handle + ctypes.sizeof(_Header))
        if (found.code, found.bits, found.lanes) != _FLOAT32:
            raise TypeError(f"type {found.code} of {found.bits} bits is not float32")
        shape = _shape(self.handle)
        data, size = found.data + found.offset, 4 * int(np.prod(shape))
        return np.frombuffer(ctypes.string_at(data, size), np.float32).reshape(shape)


def use_threads_on(cores: Sequence[int]) -> None:
    """Let the runtime compute with a thread on each of some cores; the caller's may be on any."""
    names = _global_function("ffi.Array")(*(str(core).encode() for core in cores))
    _global_function("runtime.config_threadpool")(_ONE_CORE_EACH, len(cores), names)


def load_module(path: str) -> Reference:
    """Load a library that TVM has compiled, or one that has functions of its convention."""
    module = _global_function("ffi.ModuleLoadFromFile")(os.fsencode(path))
    assert isinstance(module, Reference)
    return module


def tensor(values: np.ndarray[Any, Any]) -> Reference:
    """Lend an array without a copy."""
    capsule = values.__dlpack__()
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    handle = ctypes.c_void_p()
    managed = ctypes.c_void_p(pointer_of(capsule, b"dltensor"))
    _check(_runtime().TVMFFITensorFromDLPack(managed, 0, 1, ctypes.byref(handle)))
    # Whoever takes what is in a capsule says so by its name.
    used = ctypes.pythonapi.PyCapsule_SetName
    used.argtypes = (ctypes.py_object, ctypes.c_char_p)
    used(capsule, _USED)
    return Reference(handle.value or 0)


_USED = b"used_dltensor"  # must outlive the capsules


def function(told: Callable[..., None]) -> Reference:
    """Make a function of one in Python, which answers nothing.

    Its arguments are numbers, texts, shapes of tensors (tuples), and None for anything else.
    """

    def called(_: Any, arguments: Any, count: int, result: Any) -> int:
        result[0].kind = _NONE
        told(*(_seen(arguments[place]) for place in range(count)))
        return 0

    entry, handle = _SafeCall(called), ctypes.c_void_p()
    key = ctypes.cast(entry, ctypes.c_void_p)
    _lent[key.value] = entry
    _check(_runtime().TVMFFIFunctionCreate(key, entry, _give_back, ctypes.byref(handle)))
    return Reference(handle.value or 0)


#: Entries of Python's functions, by address, until the runtime needs them no more.
_lent: dict[int | None, Any] = {}


_give_back = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_lent.pop)


@functools.cache
def _runtime() -> ctypes.CDLL:
    """Load `libtvm_ffi.so` and `libtvm_runtime.so`, which registers the virtual machine there."""
    loaded = [
        ctypes.CDLL(str(_package(package) / "lib" / name), ctypes.RTLD_GLOBAL)
        for package, name in (("tvm_ffi", "libtvm_ffi.so"), ("tvm", "libtvm_runtime.so"))
    ]
    loaded[0].TVMFFIFunctionCall.argtypes = (
        ctypes.c_void_p, _Values, ctypes.c_int32, ctypes.c_void_p,
    )  # fmt: skip
    return loaded[0]


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ImportError(f"{name} is not installed")
    return Path(found.origin).parent


@functools.cache
def _global_function(name: str) -> Reference:
    data = ctypes.create_string_buffer(name.encode())
    text = _Text(ctypes.addressof(data), len(name))
    handle = ctypes.c_void_p()
    _check(_runtime().TVMFFIFunctionGetGlobal(ctypes.byref(text), ctypes.byref(handle)))
    if not handle.value:
        raise ImportError(f"the runtime has no function {name}")
    return Reference(handle.value)


def _check(status: int) -> None:
    """Raise what the runtime has noted if a call failed."""
    if status:
        handle = ctypes.c_void_p()
        _runtime().TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
        error = Reference(handle.value or 0)
        kind, message = (_Text * 2).from_address(error.handle + ctypes.sizeof(_Header))
        raise RuntimeError(f"{kind}: {message}")


def _value(argument: int | bytes | Reference | None) -> _Value:
    if isinstance(argument, Reference):
        return _Value(_Header.from_address(argument.handle).kind, 0, argument.handle)
    if isinstance(argument, bytes):
        return _Value(_C_STRING, 0, ctypes.cast(ctypes.c_char_p(argument), ctypes.c_void_p).value)
    return _Value(_NONE) if argument is None else _Value(_INTEGER, 0, argument)


def _python(value: _Value) -> int | Reference | None:
    """Give what a call answered."""
    if value.kind >= _OBJECT:
        return Reference(value.value)
    return None if value.kind == _NONE else int(value.value)


def _seen(value: _Value) -> int | str | tuple[int, ...] | None:
    """Give what can be read of an argument that belongs to the caller."""
    if value.kind == _TENSOR:
        return _shape(value.value)
    if value.kind == _STRING:
        return str(_Text.from_address(value.value + ctypes.sizeof(_Header)))
    if value.kind == _C_STRING:
        return ctypes.string_at(value.value).decode()
    if value.kind == _SMALL_STRING:
        return value.value.to_bytes(8, "little", signed=True)[: value.length].decode()
    return int(value.value) if value.kind in (_INTEGER, _BOOLEAN) else None


def _shape(handle: int) -> tuple[int, ...]:
    found = _Tensor.from_address(handle + ctypes.sizeof(_Header))
    return tuple(found.shape[: found.rank])
