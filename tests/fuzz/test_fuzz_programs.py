"""Programs and checkpoints with anything in them are read or refused, and nothing in them runs."""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.export import ExportedProgram

from shuffledeploy.compiler.frontend.program import import_program, load_program
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.weights import load_weights

#: Written by what must not run; the tests run in a folder of their own.
MARK = Path("mark")
CODE = "x=__import__('pathlib').Path('mark').touch()"

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


class _Held(nn.Module):
    """A graph within the graph, an operator of several results, a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.layers(x)
        return torch.cat(y.split([1, 3], 1)[::-1], 1) + torch.tensor([1.0])


def _saved_program() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(_Held().eval(), (torch.zeros(1, 3, 4, 4),)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def _saved_weights(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


MEMBERS = _saved_program()
CHECKPOINTS = (_saved_weights(True), _saved_weights(False))


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List where in the JSON something stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*at, key))


JSON = {name: json.loads(MEMBERS[name]) for name in (GRAPH, WEIGHTS)}
PLACES = {name: sorted(_places(value), key=str) for name, value in JSON.items()}

odd = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**40])
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [CODE, f"'+{CODE}+'", f'"]\n{CODE}\n', "torch.os.system", "x", "relu_", "../x", "Infinity"]
    )
    | st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    | st.dictionaries(st.sampled_from(["as_int", "as_name", "as_expr", "name"]), st.text())
)
names = st.text(st.characters(categories=["L", "N", "P", "M", "S", "Zs"]), max_size=12)


def _altered(draw: st.DrawFn, name: str) -> bytes:
    """Change a few places of a member's JSON: put odd things there, or others of its places."""
    value = copy.deepcopy(JSON[name])
    for _ in range(draw(st.integers(1, 3))):
        *way, key = draw(st.sampled_from(PLACES[name]))
        holder: Any = value
        try:
            for step in way:
                holder = holder[step]
            if draw(st.booleans()):
                holder[key] = draw(odd)
            elif draw(st.booleans()):
                holder.pop(key)
            else:
                other: Any = value
                for step in draw(st.sampled_from(PLACES[name])):
                    other = other[step]
                holder[key] = copy.deepcopy(other)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took the place away
    return json.dumps(value).encode()


@st.composite
def altered_programs(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from([GRAPH, GRAPH, WEIGHTS]))
    return _archive({**MEMBERS, name: _altered(draw, name)})


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, drop or insert a few runs of bytes, more of them where a zip has its directory."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        last = len(data)
        place = draw(st.integers(0, last) | st.integers(max(0, last - 2500), last))
        dropped = draw(st.integers(0, 8) | st.just(last))
        data[place : place + dropped] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not MARK.exists()


def _read(content: bytes) -> ExportedProgram | None:
    path = Path("program.pt2")
    path.write_bytes(content)
    return _accepted(lambda: load_program(path))


def _accepted(step: Callable[[], Any]) -> Any:
    """Take a step, which gives something, or refuses in one line."""
    try:
        return step()
    except UsageError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 600
        return None
    finally:
        assert not MARK.exists()


@given(content=altered_programs())
def test_programs_with_odd_json(content: bytes) -> None:
    exported = _read(content)
    if exported is not None:
        _accepted(lambda: import_program(exported))


@given(content=damaged(_archive(MEMBERS)))
def test_programs_with_damaged_bytes(content: bytes) -> None:
    _read(content)


@given(
    old=st.sampled_from(["x", "conv2d", "submod_1", "p_layers_0_weight", "layers.0.weight"]),
    name=names,
)
def test_programs_with_odd_names(old: str, name: str) -> None:
    graph = MEMBERS[GRAPH].decode()
    assert json.dumps(old) in graph
    altered = graph.replace(json.dumps(old), json.dumps(name)).encode()
    _read(_archive({**MEMBERS, GRAPH: altered}))


@given(name=st.text(max_size=30), content=st.binary(max_size=30))
def test_programs_with_odd_members(name: str, content: bytes) -> None:
    _read(_archive({**MEMBERS, name: content}))


@given(content=st.sampled_from(CHECKPOINTS).flatmap(damaged))
def test_checkpoints_with_damaged_bytes(content: bytes) -> None:
    path = Path("weights.pt")
    path.write_bytes(content)
    module = network()
    with warnings.catch_warnings(record=True) as warned:
        _accepted(lambda: load_weights(module, path))
    assert not warned
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
