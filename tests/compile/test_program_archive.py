"""Archives that are no program's, or that would cost memory or time without end."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Small, edited, rewritten, with_member
from torch import nn
from torch._export.serde.serialize import serialize

from shuffledeploy.compiler.frontend import program_archive
from shuffledeploy.compiler.frontend.program import import_program, load_program, trace
from shuffledeploy.model import stored_archive
from shuffledeploy.model.errors import UsageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    torch.export.save(trace(Small(), (1, 3, 4, 4)), path)
    return path


def old_archive(path: Path) -> Path:
    """Save a program as PyTorch did before 2.8."""
    artifact = serialize(trace(Small(), (1, 3, 4, 4)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.1")
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", artifact.state_dict)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
    return path


def test_an_archive_of_an_older_pytorch_is_read(tmp_path: Path) -> None:
    import_program(load_program(old_archive(tmp_path / "old.pt2")))


class _Named(nn.Module):
    """Names that are no identifiers, and a dict that is no keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict([("conv-1", nn.Conv2d(3, 3, 1))]))
        self.layers.add_module("batch norm", nn.BatchNorm2d(3))

    def forward(self, given: dict[Any, torch.Tensor], *, scale: torch.Tensor) -> Any:
        return {"out.0": self.layers(given["an image"]) * scale, 1: [given[1], (scale,)]}


def test_nested_inputs_and_names_with_dashes_and_spaces_are_read(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 4, 4)
    inputs, keywords = ({"an image": x, 1: x + 1},), {"scale": x + 2}
    exported = torch.export.export(_Named().eval(), inputs, keywords)
    torch.export.save(exported, tmp_path / "named.pt2")
    answer = load_program(tmp_path / "named.pt2").module()(*inputs, **keywords)
    assert torch.equal(answer["out.0"], exported.module()(*inputs, **keywords)["out.0"])
    assert torch.equal(answer[1][1][0], keywords["scale"])


def test_an_archive_within_an_older_archive_is_not_packed(tmp_path: Path) -> None:
    def pack(name: str, data: bytes) -> bytes:
        if name != "serialized_state_dict.pt":
            return data
        inner = tmp_path / "inner.zip"
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", bytes(2**20))
        return inner.read_bytes()

    path = rewritten(old_archive(tmp_path / "old.pt2"), tmp_path / "bomb.pt2", pack)
    with pytest.raises(UsageError, match=r"bomb\.pt2 .*'data\.pkl' is compressed"):
        load_program(path)


def test_a_program_answers_as_pytorch_reads_it(saved: Path) -> None:
    x = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        answer = load_program(saved).module()(x)
        assert torch.equal(answer, torch.export.load(saved).module()(x))


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/null", "folder", "dangling"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "a.pt2"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no program at"):
        load_program(path)


def test_a_packed_archive_is_refused_unread(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            with new.open(name, "w") as member:
                for _ in range(64 if name.endswith("weight_0") else 1):
                    member.write(bytes(2**20))
    with pytest.raises(UsageError, match=r"bomb\.pt2 .*is compressed"):
        load_program(path)


def test_members_that_share_their_bytes_are_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "quine.pt2", lambda name, data: data)
    content = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo(archive.namelist()[0])
        for i in range(2000):
            copy = zipfile.ZipInfo(f"{first.filename}{i}")
            copy.file_size = copy.compress_size = 2**20
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            archive.filelist.append(copy)
        archive._didModify = True  # type: ignore[attr-defined]
    assert path.stat().st_size < len(content) + 2**20
    with pytest.raises(UsageError, match="claim more bytes than the file has"):
        load_program(path)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../../escaped", "leads out of the archive"),
        ("data/weights/../../../escaped", "leads out of the archive"),
        ("data/aotinductor/model/model.so", "a compiled library"),
        ("data/aotinductor/model/model.wrapper.cpp", "a compiled library"),
        ("data/constants/custom_obj_0", "a pickled object"),
        ("data/constants/opaque_obj_0", "a pickled object"),
        ("models/other.json", "a second program"),
        ("executorch/program.pte", "no part of a program"),
        ("data/weights/model.pt", "File is not a zip file"),
    ],
)
def test_members_that_are_no_part_of_a_program_are_named(
    saved: Path, tmp_path: Path, member: str, message: str
) -> None:
    path = with_member(saved, tmp_path / "more.pt2", member, b"content")
    with pytest.raises(UsageError, match=message) as raised:
        load_program(path)
    assert "\n" not in str(raised.value)


def test_files_that_a_user_added_are_left_out(saved: Path, tmp_path: Path) -> None:
    load_program(with_member(saved, tmp_path / "extra.pt2", "extra/notes.txt", b"\xff"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(saved: Path, tmp_path: Path) -> None:
    path = with_member(saved, tmp_path / "twice.pt2", "models/model.json", b"{}")
    with pytest.raises(UsageError, match=r"'small/models/model\.json' is there twice"):
        load_program(path)


def test_an_archive_behind_other_bytes_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "behind.pt2"
    path.write_bytes(b"#!/bin/sh\n" + saved.read_bytes())
    with pytest.raises(UsageError, match="something before its first member"):
        load_program(path)


def test_too_many_members_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_archive, "MOST_MEMBERS", 3)
    with pytest.raises(UsageError, match="members, more than 3"):
        load_program(saved)


def test_a_graph_of_too_many_bytes_is_refused_unread(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_archive, "LARGEST_GRAPH", 2**10)
    with pytest.raises(UsageError, match="takes more than"):
        load_program(saved)


def chained(nodes: int) -> Callable[[Any], Any]:
    """Make a graph of many calls, one after the other."""

    def edit(program: Any) -> Any:
        graph = program["graph_module"]["graph"]
        (relu,) = graph["nodes"]
        for i in range(nodes - 1):
            name = f"r{i}"
            source = f"r{i - 1}" if i else "relu"
            graph["nodes"].append(
                {
                    **relu,
                    "name": name,
                    "outputs": [{"as_tensor": {"name": name}}],
                    "inputs": [{"name": "self", "arg": {"as_tensor": {"name": source}}, "kind": 1}],
                }
            )
            graph["tensor_values"][name] = graph["tensor_values"]["relu"]
        return program

    return edit


@pytest.mark.parametrize(
    ("nodes", "refusal"),
    [
        (500, None),
        (20_000, "has 20000 nodes, more than the 10000"),
        (100_000, "graph takes more than 64 MiB"),
    ],
)
def test_a_long_program_is_taken_or_refused_in_seconds(
    tmp_path: Path, nodes: int, refusal: str | None
) -> None:
    torch.export.save(trace(nn.ReLU(), (1, 4)), tmp_path / "relu.pt2")
    path = edited(tmp_path / "relu.pt2", tmp_path / "long.pt2", chained(nodes))
    start = time.monotonic()
    if refusal is None:
        import_program(load_program(path))
    else:
        with pytest.raises(UsageError, match=refusal):
            load_program(path)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("opening", [b"[", b'{"graph_module":', b'{"a":'])
def test_json_that_is_nested_without_end(saved: Path, tmp_path: Path, opening: bytes) -> None:
    path = rewritten(
        saved,
        tmp_path / "deep.pt2",
        lambda name, data: opening * 100_000 if name.endswith("model.json") else data,
    )
    with pytest.raises(UsageError, match=r"deep\.pt2"):
        load_program(path)


def weight(program: Any) -> Any:
    return program["config"]["conv.weight"]["tensor_meta"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: weight(p)["sizes"][0].update(as_int=2**40), "conv.weight.*elements"),
        (lambda p: weight(p)["sizes"][0].update(as_int=-1), "conv.weight.*sizes"),
        (lambda p: weight(p)["storage_offset"].update(as_int=10**6), "it is damaged"),
        (lambda p: weight(p)["device"].update(type="cuda"), "conv.weight.*device"),
        (lambda p: weight(p)["device"].update(type="meta"), "conv.weight.*device"),
        (lambda p: weight(p).update(layout=1), "conv.weight.*layout"),
        (lambda p: p["config"]["conv.weight"].update(path_name="../x"), "conv.weight.*path_name"),
        (lambda p: p["config"]["conv.weight"].update(path_name="weight_99"), "weight_99"),
        (lambda p: p["config"]["conv.weight"].update(use_pickle=True), "conv.weight.*use_pickle"),
        (lambda p: p["config"].pop("conv.weight") and p, "conv.weight"),
    ],
)
def test_weights_that_are_not_what_is_said_of_them(
    saved: Path, tmp_path: Path, edit: Callable[[Any], Any], message: str
) -> None:
    path = edited(saved, tmp_path / "bad.pt2", edit, "weights_config.json")
    with pytest.raises(UsageError, match=message):
        load_program(path)


def test_many_weights_of_few_bytes_are_refused(saved: Path, tmp_path: Path) -> None:
    def expand(config: Any) -> None:
        for i in range(40):
            entry = json.loads(json.dumps(config["config"]["conv.weight"]))
            entry["tensor_meta"]["sizes"] = [{"as_int": 2**27}]
            entry["tensor_meta"]["strides"] = [{"as_int": 0}]
            config["config"][f"w{i}"] = entry

    path = edited(saved, tmp_path / "wide.pt2", expand, "weights_config.json")
    with pytest.raises(UsageError, match=r"wide\.pt2 .*elements"):
        load_program(path)


def test_a_weight_without_bytes_is_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(
        saved, tmp_path / "no.pt2", lambda name, data: b"" if "weight_0" in name else data
    )
    with pytest.raises(UsageError, match=r"'conv\.weight' has no values"):
        load_program(path)
