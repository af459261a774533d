"""Arrays in the files of a bundle: nothing is read that is not what the manifest says."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from shuffledeploy.model.errors import UsageError

Array = np.ndarray[Any, Any]
#: Shape and type of an array; of one without a shape only the most elements are known.
Expected = tuple[tuple[int, ...] | int, str]
#: In place of a type: any number.
NUMBER = "a number"
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONGEST_HEADER = 4096
# What a damaged archive makes `zipfile` and NumPy raise.
_DAMAGED = (
    OSError, ValueError, TypeError, EOFError, RuntimeError, struct.error, zlib.error,
    zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip


def check_arrays(path: Path, expected: Mapping[str, Expected]) -> None:
    """Read the headers of a file of arrays, and refuse what is not as expected.

    Raises
    ------
    UsageError
        If it is no such file, lacks an array, or has one of another shape or type, or a pickle.
    """
    with _opened(path) as archive:
        for name, wanted in expected.items():
            with _member(path, archive, name) as stream:
                _check_header(path, name, stream, wanted)


def read_arrays(path: Path, expected: Mapping[str, Expected]) -> dict[str, Array]:
    """Read arrays, each only after its header was found to be as expected.

    Raises
    ------
    UsageError
        As :func:`check_arrays`.
    """
    found = {}
    with _opened(path) as archive:
        for name, wanted in expected.items():
            with _member(path, archive, name) as stream:
                shape, dtype = _check_header(path, name, stream, wanted)
                found[name] = _values(path, name, stream, shape, dtype)
    return found


def read_rows(path: Path, inside: tuple[int, ...], dtype: str, most: int) -> Array:
    """Read the first rows of the only array of a user's file, as many as are wanted.

    Parameters
    ----------
    path : Path
        An ``.npz`` of one array.
    inside : tuple of int
        Shape of a row.
    dtype : str
        Type of the array.
    most : int
        Rows to read; what else the file holds is not unpacked.

    Returns
    -------
    array of shape [rows, *inside]
        At least one row.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds anything else; says in one line what.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise ValueError(f"it has {len(members)} arrays, and needs one")
            if members[0].compress_type not in _PLAIN or members[0].flag_bits & 1:
                raise ValueError("it is packed in an odd way")
            with archive.open(members[0]) as stream:
                shape, columns_first, found = _header(stream)
                if not shape or not shape[0] or shape[1:] != inside or str(found) != dtype:
                    wanted = ", ".join(map(str, inside))
                    raise ValueError(f"it holds {found} {shape}, and takes {dtype} (N, {wanted})")
                if columns_first:
                    raise ValueError("its array lies column by column")
                rows = min(shape[0], most)
                size = rows * math.prod(inside) * found.itemsize
                content = stream.read(size)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "it is damaged") from error
    if len(content) != size:
        raise ValueError("it is cut short")
    return np.frombuffer(bytearray(content), found).reshape(rows, *inside)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise UsageError(f"{path} is no file of arrays: {error}; make the bundle again") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type not in _PLAIN or member.flag_bits & 1:
            raise ValueError("it is packed in an odd way")
        return archive.open(member)
    except KeyError:
        raise UsageError(f"{path} lacks the array {name}; make the bundle again") from None
    except _DAMAGED as error:
        raise UsageError(f"{path}: {name} cannot be read: {error}") from error


def _check_header(
    path: Path, name: str, stream: IO[bytes], wanted: Expected
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        shape, columns_first, dtype = _header(stream)
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else "its header is none"
        raise UsageError(f"{path}: {name} is no array: {reason}") from error
    shape_wanted, dtype_wanted = wanted
    fits = (
        shape == shape_wanted
        if isinstance(shape_wanted, tuple)
        else len(shape) == 1 and math.prod(shape) <= shape_wanted
    )
    number = dtype.kind in "fiub" and dtype_wanted == NUMBER
    if not fits or columns_first or not (number or str(dtype) == dtype_wanted):
        raise UsageError(
            f"{path}: {name} is {dtype} {shape}, its manifest says {dtype_wanted} {shape_wanted}"
        )
    return shape, dtype


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of an array; one of `_DAMAGED` where there is none."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("its format is odd")
    return np.lib.format.read_array_header_1_0(stream, max_header_size=_LONGEST_HEADER)


def _values(
    path: Path, name: str, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    size = math.prod(shape) * dtype.itemsize
    try:
        content = stream.read(size + 1)
    except _DAMAGED as error:
        raise UsageError(f"{path}: {name} cannot be read: {error}") from error
    if len(content) != size:
        raise UsageError(f"{path}: {name} is cut short, or longer than it says")
    return np.frombuffer(bytearray(content), dtype).reshape(shape)
