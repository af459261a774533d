"""Bundles and pictures with anything in them: accepted or refused in a line, never more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shuffledeploy.compiler.bundle.arrays import NUMBER, read_arrays
from shuffledeploy.compiler.bundle.elf import check_library
from shuffledeploy.compiler.bundle.manifest import FORMAT, parse_manifest
from shuffledeploy.deploy.estimate.elf_symbols import read_functions
from shuffledeploy.deploy.runtime.pictures import FORMATS, image_input
from shuffledeploy.model.errors import UsageError

HASH = "0" * 64
MANIFEST: dict[str, Any] = {
    "network": "n", "target": "t", "architecture": "aarch64", "cpu": "cortex-a72",
    "inputs": [{"name": "x", "shape": [1, 3, 8, 8], "dtype": "float32"}],
    "outputs": [{"name": "y", "shape": [1, 10], "dtype": "float32"}],
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    "features": ["asimd"], "versions": {"torch": "2"}, "options": {},
    "kernels": [{"name": "k", "calls": 1, "multiply_adds": 7, "share": 1.0, "record": True,
                 "score": 3.0, "moves_only": False, "constant_bytes": 0}],
    "kernel_order": ["k"], "strips": [], "joined_in_place": [], "symbols": {},
    "shuffle_kernels": 0, "score_source": None, "score_unit": None, "seeds": [1, 2],
    "tolerance": 1e-4, "files": {"network.so": HASH}, "format": FORMAT,
}  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, -1, "\x1b[2J", "[/x]", "../x", "U9999999", 1e300, 2**63])
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def edited(draw: st.DrawFn) -> dict[str, Any]:
    """Change a manifest at some places."""
    fields: dict[str, Any] = json.loads(json.dumps(MANIFEST))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = fields
        key: Any = draw(st.sampled_from(sorted(fields)))
        while isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
        if draw(st.booleans()):
            place[key] = draw(ANYTHING)
        elif isinstance(place, dict):
            del place[key]
            break
    return fields


def test_the_manifest_that_is_changed_is_in_order() -> None:
    assert parse_manifest(json.dumps(MANIFEST).encode()).kernels[0].name == "k"


@given(edited() | ANYTHING)
def test_manifests(fields: Any) -> None:
    try:
        content = json.dumps(fields).encode()
        found = parse_manifest(content)
    except ValueError:
        return
    assert all(extent > 0 for tensor in found.inputs for extent in tensor.shape)
    assert found.network.isprintable() or "\x1b" not in found.network


@given(st.binary(max_size=300))
def test_manifests_of_bytes(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_manifest(content)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Change, cut or lengthen a file."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(content), 4096) - 1)))
        content[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(data=st.data())
def test_arrays(folder: Path, data: st.DataObject) -> None:
    import numpy as np

    path = folder / "arrays.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32), y=np.arange(5))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        found = read_arrays(path, {"x": ((2, 3), "float32"), "y": (10, NUMBER)})
    except UsageError:
        return
    assert found["x"].shape == (2, 3)


@given(data=st.data())
def test_libraries(folder: Path, data: st.DataObject) -> None:
    import struct

    header = struct.Struct("<16sHHIQQQIHHHHHH")
    names = b"\0one\0"
    symbol = struct.pack("<IBBHQQ", 1, 2, 0, 1, 64, 8)
    sections = [
        struct.pack("<IIQQQQIIQQ", 0, kind, 4, 0, at, size, link, 0, 8, 24)
        for kind, at, size, link in ((0, 0, 0, 0), (2, 64, len(symbol), 2), (3, 88, 5, 0))
    ]
    whole = (
        header.pack(b"\x7fELF\x02\x01\x01", 3, 183, 1, 0, 0, 96, 0, 64, 56, 0, 64, 3, 2)
        + symbol + names.ljust(8, b"\0") + b"".join(sections)
    )  # fmt: skip
    path = folder / "library.so"
    path.write_bytes(data.draw(damaged(whole)))
    for read in (lambda: check_library(path, "aarch64"), lambda: read_functions(path)):
        try:
            read()
        except UsageError as error:
            assert "\n" not in str(error)


@given(data=st.data())
def test_pictures(folder: Path, data: st.DataObject) -> None:
    path = folder / "picture"
    Image.new("RGB", (9, 7), (9, 8, 7)).save(path, format=data.draw(st.sampled_from(FORMATS)))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        values = image_input(path, parse_manifest(json.dumps(MANIFEST).encode()))
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert values.shape == (1, 3, 8, 8)
