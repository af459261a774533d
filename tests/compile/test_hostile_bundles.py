"""Bundles whose sender wrote manifest and hashes anew: what cannot be is refused, in a line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shuffledeploy.compiler.bundle.folder import (
    INTERMEDIATES,
    LIBRARY,
    MANIFEST,
    REFERENCE,
    Bundle,
    file_hash,
    load_bundle,
    written_beside,
)
from shuffledeploy.compiler.bundle.manifest import FORMAT
from shuffledeploy.model.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]
Fields = dict[str, Any]


def _first(listed: str, /, **changes: Any) -> Callable[[Fields], None]:
    return lambda fields: fields[listed][0].update(changes)


def _set(**changes: Any) -> Callable[[Fields], None]:
    return lambda fields: fields.update(changes)


def _vouching_for(name: str) -> Callable[[Fields], None]:
    return lambda fields: fields["files"].update({name: "0" * 64})


def _listing_kernels_twice(fields: Fields) -> None:
    fields["kernels"] += fields["kernels"]


def _listing_a_call_more(fields: Fields) -> None:
    fields["kernel_order"] += fields["kernel_order"][:1]


MANIFESTS: dict[str, tuple[Callable[[Fields], Any], str]] = {
    "another format": (_set(format=FORMAT + 1), f"format is {FORMAT + 1}, this program reads"),
    "no format": (lambda f: f.pop("format"), "format is None"),
    "an unknown field": (_set(colour="red"), "unknown field `colour`"),
    "a missing field": (lambda f: f.pop("tolerance"), "missing required field `tolerance`"),
    "an object for a list": (_set(kernels={}), "$.kernels"),
    "text for a list": (_set(kernel_order="conv"), "$.kernel_order"),
    "text for a number": (_set(tolerance="small"), "$.tolerance"),
    "text for an object": (_set(normalisation="none"), "$.normalisation"),
    "a tolerance that excuses all": (_set(tolerance=1e300), "$.tolerance"),
    "a tolerance of nothing": (_set(tolerance=0), "$.tolerance"),
    "truth for a number": (_first("kernels", multiply_adds=True), "$.kernels"),
    "text for a seed": (_set(seeds=["a"]), "$.seeds"),
    "a negative seed": (_set(seeds=[-1]), "$.seeds"),
    "a million seeds": (_set(seeds=[1] * 1_000_000), "$.seeds"),
    "a layer of no call": (
        _set(layers=[{"call": 99, "name": "a", "operator": "relu"}]), "layers names a call twice"
    ),
    "a layer that steers a terminal": (
        _set(layers=[{"call": 0, "name": "\x1b[2J", "operator": "relu"}]), "$.layers"
    ),
    "a number for a feature": (_set(features=[1]), "$.features"),
    "no inputs": (_set(inputs=[]), "$.inputs"),
    "no outputs": (_set(outputs=[]), "$.outputs"),
    "text for an input": (_set(inputs=["x"]), "$.inputs"),
    "a negative extent": (_first("inputs", shape=[1, -6, 4, 5]), "$.inputs"),
    "a huge extent": (_first("inputs", shape=[1 << 62]), "$.inputs"),
    "a huge tensor": (_first("inputs", shape=[1 << 20, 1 << 20]), "more than 1024 MiB"),
    "many axes": (_first("inputs", shape=[1] * 100), "$.inputs"),
    "an odd type": (_first("inputs", dtype="floaty"), "$.inputs"),
    "a type that numpy knows": (_first("inputs", dtype="U9999999"), "$.inputs"),
    "objects": (_first("outputs", dtype="object"), "$.outputs"),
    "an input without a shape": (lambda f: f["inputs"][0].pop("shape"), "field `shape`"),
    "two inputs of a name": (lambda f: f["inputs"].append(f["inputs"][0]), "a name twice"),
    "an escape in a name": (_set(network="\x1b[2Jall is well"), "$.network"),
    "lines in a name": (_set(target="a\nb"), "$.target"),
    "a long name": (_set(network="x" * 10_000), "$.network"),
    "a kernel of an odd name": (_first("kernels", name="a b"), "$.kernels"),
    "a kernel with more": (_first("kernels", colour="red"), "unknown field `colour`"),
    "a share beyond all": (_first("kernels", share=7.0), "$.kernels"),
    "a share that is none": (_first("kernels", share=-0.5), "$.kernels"),
    "no calls": (_first("kernels", calls=0), "$.kernels"),
    "kernels twice": (_listing_kernels_twice, "a name twice"),
    "a call too many": (_listing_a_call_more, "do not tell of the same calls"),
    "strips of what is not there": (
        _set(strips=[{"name": "s", "kernels": ["gone"]}]), "strips names a kernel"),
    "strips of nothing": (_set(strips=[{"name": "s", "kernels": []}]), "$.strips"),
    "strips without kernels": (_set(strips=[{"name": "s"}]), "field `kernels`"),
    "joins of what is not there": (_set(joined_in_place=["gone"]), "joined_in_place names"),
    "symbols of what is not there": (_set(symbols={"a": "gone"}), "symbols names a kernel"),
    "a number for a join": (_set(joined_in_place=[1]), "$.joined_in_place"),
    "statistics of nothing": (_set(normalisation={"mean": [], "std": []}), "$.normalisation"),
    "a deviation of nothing": (
        _set(normalisation={"mean": [0.0], "std": [0.0]}), "$.normalisation"),
    "no hash": (lambda f: f["files"].update({LIBRARY: "abc"}), "$.files"),
    "a file outside": (_vouching_for("../outside"), "outside the bundle: '../outside'"),
    "a file anywhere": (_vouching_for("/etc/passwd"), "outside the bundle"),
    "the folder above": (_vouching_for(".."), "outside the bundle"),
    "no library": (lambda f: f["files"].pop(LIBRARY), f"does not vouch for {LIBRARY}"),
    "no files": (_set(files={}), "does not vouch for"),
}  # fmt: skip


def _edit(folder: Path, change: Callable[[Fields], Any] = lambda _: None) -> None:
    """Change a manifest, and let it vouch for the files as they are."""
    fields = json.loads((folder / MANIFEST).read_text())
    fields["files"] = {
        p.name: file_hash(p) for p in folder.iterdir() if p.name != MANIFEST and p.is_file()
    }
    change(fields)
    (folder / MANIFEST).write_text(json.dumps(fields))


def _refused(folder: Path) -> str:
    with pytest.raises(UsageError) as refused:
        load_bundle(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.smoke
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be(copy: Path, name: str) -> None:
    change, message = MANIFESTS[name]
    _edit(copy, change)
    assert message in _refused(copy)


@pytest.mark.smoke
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none(copy: Path, number: str) -> None:
    text = (copy / MANIFEST).read_text()
    assert '"tolerance": 0.0001' in text
    (copy / MANIFEST).write_text(text.replace('"tolerance": 0.0001', f'"tolerance": {number}'))
    assert "is damaged" in _refused(copy)


def _npy(header: str, content: bytes = b"") -> bytes:
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + content


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"any": "object"}], dtype=object), allow_pickle=True)
    return stream.getvalue()


ARRAYS: dict[str, tuple[bytes, str]] = {
    "a pickle": (_pickled(), "object"),
    "160 GB": (
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (200000, 200000), }"), "says"),
    "another shape": (
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", b"1234"), "says"),
    "another type": (
        _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 6, 4, 5), }"), "float64"),
    "another order": (
        _npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 6, 4, 5), }"), "says"),
    "code for a header": (_npy("__import__('os').system('touch marker')"), "is no array"),
    "no header": (b"\x93NUMPY\x01\x00", "is no array"),
    "nothing": (b"", "is no array"),
}  # fmt: skip


def _with_array(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for member, value in members.items():
            archive.writestr(member, value)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("file", "array"), [(REFERENCE, "input_0"), (INTERMEDIATES, "call_0")])
def test_an_array_that_the_manifest_does_not_know(
    copy: Path, name: str, file: str, array: str
) -> None:
    content, message = ARRAYS[name]
    _with_array(copy / file, array, content)
    _edit(copy)
    said = _refused(copy)
    assert array in said
    assert message in said or file == INTERMEDIATES


@pytest.mark.smoke
def test_an_array_that_is_cut_short_or_missing(copy: Path) -> None:
    header = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 6, 4, 5), }")
    for content in (b"\0" * 40, b"\0" * 4000):
        _with_array(copy / REFERENCE, "input_0", header + content)
        _edit(copy)
        with pytest.raises(UsageError, match="input_0 is cut short"):
            load_bundle(copy).reference_inputs()
    for content in (b"", b"no archive", (copy / REFERENCE).read_bytes()[:-50]):
        (copy / REFERENCE).write_bytes(content)
        _edit(copy)
        assert "is no file of arrays" in _refused(copy)
    with zipfile.ZipFile(copy / REFERENCE, "w") as archive:
        archive.writestr("other.npy", b"")
    _edit(copy)
    assert "lacks the array input_0" in _refused(copy)


LOADED = """
import sys
from pathlib import Path
from shuffledeploy.compiler.bundle.folder import load_bundle
from shuffledeploy.model.errors import UsageError
library, length = Path(sys.argv[1]) / "network.so", None
for length in map(int, sys.argv[2:]):
    library.write_bytes(library.read_bytes()[:length])
    import json; from shuffledeploy.compiler.bundle.folder import file_hash
    manifest = Path(sys.argv[1]) / "manifest.json"
    fields = json.loads(manifest.read_text()); fields["files"]["network.so"] = file_hash(library)
    manifest.write_text(json.dumps(fields))
    try:
        bundle = load_bundle(Path(sys.argv[1]))
    except UsageError as error:
        print("refused", error)
        continue
    import tvm
    tvm.runtime.load_module(str(bundle.library))
    print("loaded")
"""


def test_a_library_cut_anywhere_is_refused_before_it_is_mapped(copy: Path) -> None:
    """To map one that is cut short is a SIGBUS: in a process of its own, so that it is seen."""
    size = (copy / LIBRARY).stat().st_size
    lengths = sorted({*range(0, size, size // 40), 1, 3, 63, 64, size - 1}, reverse=True)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, copy, *map(str, lengths)], cwd=PROJECT, check=False,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-300:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused"] * len(lengths)


@pytest.mark.smoke
def test_a_library_for_another_machine_than_its_manifest_says(copy: Path) -> None:
    library = copy / LIBRARY
    content = bytearray(library.read_bytes())
    content[18:20] = (40).to_bytes(2, "little")
    library.write_bytes(content)
    _edit(copy)
    assert "it is for arm" in _refused(copy)
    content[16:18] = (2).to_bytes(2, "little")
    library.write_bytes(content)
    _edit(copy)
    assert "no shared library" in _refused(copy)


@pytest.mark.smoke
@pytest.mark.parametrize("name", [MANIFEST, LIBRARY, REFERENCE, INTERMEDIATES])
def test_what_is_no_file_is_refused_at_once(copy: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(copy / name, outside)
    (copy / name).symlink_to(outside)
    assert "not a bundle" in (said := _refused(copy)) or "has no links" in said
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert "not a bundle" in (said := _refused(copy)) or "has no links" in said
    (copy / name).unlink()
    (copy / name).mkdir()
    assert "not a bundle" in (said := _refused(copy)) or "has no links" in said


@pytest.mark.smoke
def test_hard_links_are_read_and_never_written_through(
    copy: Path, made: Bundle, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in copy.iterdir():
        os.link(file, linked / file.name)
    assert load_bundle(linked).manifest == made.manifest
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    with written_beside(linked) as folder:
        (folder / LIBRARY).write_text("another")
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
