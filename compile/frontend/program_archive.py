"""Read a saved program and write it anew from what was checked: PyTorch sees nothing else.

A ``.pt2`` file is a zip archive: a graph in JSON, weights and constants as plain bytes, and what
PyTorch would open though nothing here needs it: pickles, compiled libraries, sample inputs.
Writing the archive anew leaves no room for two readers (of zip, of JSON) to differ over one file.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shuffledeploy.compiler.frontend.plain_names import (
    check_argument_name,
    check_name,
    check_operator,
    check_path,
)
from shuffledeploy.compiler.frontend.program_schema import SavedProgram
from shuffledeploy.compiler.frontend.program_tensors import (
    MOST_ELEMENTS,
    ArgumentName,
    DottedName,
    Name,
    Operator,
    Payload,
    Payloads,
    Tree,
)
from shuffledeploy.model.stored_archive import check_stored, check_torch_saved

#: Bytes of JSON, of the graph or of a list of weights. A node takes one or two thousand.
LARGEST_GRAPH = 64 * 2**20

#: The graph of PyTorch before 2.8, whose archive has no folder.
OLD_GRAPH = "serialized_exported_program.json"

_GRAPH = re.compile(rf"models/model\.json|{re.escape(OLD_GRAPH)}")
_CONFIG = re.compile(r"data/(weights/model_weights|constants/model_constants)_config\.json")
_COPIED = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|version"
    r"|data/weights/weight_[0-9]+|data/constants/tensor_[0-9]+"
)
_TORCH_SAVED = re.compile(
    r"data/(weights|constants)/model\.pt|serialized_(state_dict|constants)\.pt"
)
#: Inputs that the program was traced with, which an empty member stands for.
_SAMPLES = re.compile(r"data/sample_inputs/model\.pt|serialized_example_inputs\.pt")
_LEFT_OUT = re.compile(r"extra(_files)?/.*")
_FOREIGN = (
    ("data/aotinductor/", "a compiled library"),
    ("data/constants/custom_obj_", "a pickled object"),
    ("data/constants/opaque_obj_", "a pickled object"),
    ("models/", "a second program"),
)

_Kind = TypeVar("_Kind")


def checked_copy(path: Path) -> io.BytesIO:
    """Read a saved program and write what is needed of it into memory.

    Raises
    ------
    ValueError
        Something in it is not plain: the message says what and where.
    zipfile.BadZipFile, OSError
        It is damaged or cannot be read.
    """
    copy = io.BytesIO()
    with path.open("rb") as file, zipfile.ZipFile(file) as old, zipfile.ZipFile(copy, "w") as new:
        check_stored(old, file.seek(0, io.SEEK_END))
        names = old.namelist()
        folder = "" if OLD_GRAPH in names or not names else names[0].split("/")[0] + "/"
        for name in names:
            if not name.startswith(folder):
                raise ValueError(f"its member {name[:80]!r} lies outside of the folder {folder!r}")
            member = name[len(folder) :]
            if not _LEFT_OUT.fullmatch(member):
                new.writestr(name, _checked(member, old, name))
    copy.seek(0)
    return copy


def _checked(member: str, archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member and give what PyTorch may see of it."""
    if _SAMPLES.fullmatch(member):
        return b""
    if _GRAPH.fullmatch(member):
        return _encode(_decode_member(archive, name, SavedProgram, "its graph"))
    if _CONFIG.fullmatch(member):
        return _checked_weights(archive, name)
    if _TORCH_SAVED.fullmatch(member):
        content = archive.read(name)
        check_torch_saved(io.BytesIO(content), len(content))
        return content
    if _COPIED.fullmatch(member):
        return archive.read(name)
    for start, what in _FOREIGN:
        if member.startswith(start):
            raise ValueError(f"it holds {what}, which is not run ({member[:80]!r})")
    raise ValueError(f"its member {member[:80]!r} is no part of a program")


def _checked_weights(archive: zipfile.ZipFile, name: str) -> bytes:
    """Check what is said of weights or constants against the bytes that are there."""
    kind = dict[str, dict[str, msgspec.Raw]]
    parts = _decode_member(archive, name, kind, "its list of weights")
    payloads, elements = {}, 0
    for weight, raw in parts.get("config", {}).items():
        check_path(weight)
        payload = payloads[weight] = _decode(raw, Payload, f"its weight {weight!r}")
        elements += payload.tensor_meta.elements()
        size = archive.getinfo(name.rsplit("/", 1)[0] + "/" + payload.path_name).file_size
        if size == 0 and payload.tensor_meta.elements() > 0:
            raise ValueError(f"its weight {weight!r} has no values")
    if elements > MOST_ELEMENTS:
        raise ValueError(f"its weights have {elements} elements, more than {MOST_ELEMENTS}")
    return _encode(Payloads(payloads))


def _encode(record: SavedProgram | Payloads) -> bytes:
    return msgspec.json.encode(record, enc_hook=str)


def _decode_member(archive: zipfile.ZipFile, name: str, kind: type[_Kind], what: str) -> _Kind:
    if archive.getinfo(name).file_size > LARGEST_GRAPH:
        raise ValueError(f"{what} takes more than {LARGEST_GRAPH >> 20} MiB")
    return _decode(archive.read(name), kind, what)


def _decode(content: bytes | msgspec.Raw, kind: type[_Kind], what: str) -> _Kind:
    try:
        return msgspec.json.decode(content, type=kind, dec_hook=_text)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except (ValueError, KeyError) as error:
        raise ValueError(f"{what} cannot be taken: {error}") from None


def _text(kind: type, value: Any) -> Any:
    """Check the strings that become code, for msgspec."""
    if not isinstance(value, str):
        raise ValueError(f"a name is expected, not {value!r:.40}")
    if kind is Tree:
        return Tree(_checked_tree(value))
    _CHECKS[kind](value)
    return kind(value)


_CHECKS: dict[type, Callable[[str], None]] = {
    Name: check_name,
    ArgumentName: check_argument_name,
    DottedName: check_path,
    Operator: check_operator,
}


class _Tree(msgspec.Struct):
    """How a value is nested; a leaf has no type."""

    type: str | None
    context: str | None
    children_spec: list[_Tree]

    def __post_init__(self) -> None:
        if self.type in (None, "builtins.tuple", "builtins.list"):
            plain = self.context in (None, "null")
        elif self.type in ("builtins.dict", "collections.OrderedDict"):
            for key in msgspec.json.decode(self.context or "[]", type=list[str | int]):
                # The code takes the keys of the outermost dict as names of arguments.
                check_path(str(key))
            plain = True
        else:
            raise ValueError(f"inputs and outputs of type {self.type[:80]!r} are not taken")
        if not plain:
            raise ValueError(f"{self.type} comes with {str(self.context)[:40]!r}")


def _checked_tree(text: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(text, type=tuple[int, _Tree])).decode()
    except msgspec.ValidationError as error:
        # As it is, msgspec would give the place within the tree for that of the tree.
        raise ValueError(str(error)) from None
