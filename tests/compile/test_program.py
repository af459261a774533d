"""Programs from a file: what is wrong with them is said in one line, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Small, rewritten, with_member
from torch import nn

from shuffledeploy import compiler
from shuffledeploy.compiler.frontend.program import import_program, load_program, trace
from shuffledeploy.model.errors import UsageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program that is in order."""
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    torch.export.save(trace(Small(), (1, 3, 4, 4)), path)
    return path


class _Touch:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.smoke
def test_a_saved_program_is_read_and_imported(saved: Path) -> None:
    program = import_program(load_program(saved))
    (spec,) = program.inputs
    assert (spec.shape, spec.dtype) == ((1, 3, 4, 4), "float32")
    assert "conv2d" in program.module.script()


def test_an_archive_written_anew_is_still_read(saved: Path, tmp_path: Path) -> None:
    # Else the tests of manipulated archives below would prove nothing.
    load_program(rewritten(saved, tmp_path / "copy.pt2", lambda name, data: data))


def test_pickled_inputs_are_not_opened(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(_Touch(mark))
    load_program(
        rewritten(
            saved,
            tmp_path / "evil.pt2",
            lambda name, data: trap if "sample_inputs" in name else data,
        )
    )
    assert not mark.exists()


def _pickled_weights(mark: Path) -> Callable[[str, bytes], bytes]:
    path = mark.parent / "weight.pt"
    torch.save(_Touch(mark), path)
    content = path.read_bytes()

    def change(name: str, data: bytes) -> bytes:
        if "data/weights/weight_" in name:
            return content
        if "weights_config" in name:
            config = json.loads(data)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config).encode()
        return data

    return change


def _pickled_constant(prefix: str, mark: Path) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if "constants_config" not in name:
            return data
        config = json.loads(data)
        for entry in config["config"].values():
            entry |= {"path_name": f"{prefix}0", "use_pickle": True}
        return json.dumps(config).encode()

    return change


def _expression(mark: Path) -> Callable[[str, bytes], bytes]:
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def change(name: str, data: bytes) -> bytes:
        if "models/" not in name:
            return data
        program = json.loads(data)
        text = json.dumps(program)
        replaced = text.replace(
            '{"as_int": 3}', json.dumps({"as_expr": {"expr_str": code, "hint": {"as_int": 3}}}), 1
        )
        assert replaced != text
        return replaced.encode()

    return change


@pytest.mark.parametrize("manipulate", [_pickled_weights, _expression])
def test_code_in_a_program_does_not_run(
    saved: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    manipulate: Callable[[Path], Callable[[str, bytes], bytes]],
) -> None:
    mark = tmp_path / "mark"
    path = rewritten(saved, tmp_path / "evil.pt2", manipulate(mark))
    with pytest.raises(UsageError) as raised:
        load_program(path)
    assert not mark.exists()
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    # PyTorch logs the stack traces of what it catches: a user gets one line.
    assert not caplog.records


@pytest.mark.parametrize("prefix", ["custom_obj_", "opaque_obj_"])
def test_a_pickled_constant_does_not_run(saved: Path, tmp_path: Path, prefix: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt2"
    rewritten(saved, tmp_path / "constant.pt2", _pickled_constant(prefix, mark))
    with_member(
        tmp_path / "constant.pt2", path, f"data/constants/{prefix}0", pickle.dumps(_Touch(mark))
    )
    with pytest.raises(UsageError, match=r"evil\.pt2"):
        load_program(path)
    assert not mark.exists()


def test_compiled_code_in_a_program_is_not_loaded(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.export.pt2_archive import _package

    opened: list[Any] = []
    monkeypatch.setattr(_package, "_load_aoti", lambda *arguments: opened.append(arguments))
    path = with_member(saved, tmp_path / "evil.pt2", "data/aotinductor/model/model.so", b"\x7fELF")
    with pytest.raises(UsageError, match=r"evil\.pt2 .*a compiled library, which is not run"):
        load_program(path)
    assert not opened


def test_a_pickle_called_pt2_does_not_run(tmp_path: Path) -> None:
    mark, plain, zipped = tmp_path / "mark", tmp_path / "plain.pt2", tmp_path / "zipped.pt2"
    plain.write_bytes(pickle.dumps(_Touch(mark)))
    torch.save(_Touch(mark), zipped)
    for path in (plain, zipped):
        with pytest.raises(UsageError, match=path.name):
            load_program(path)
    assert not mark.exists()


@pytest.mark.smoke
def test_a_file_that_is_not_a_program(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no program at .*missing\.pt2"):
        load_program(tmp_path / "missing.pt2")
    with pytest.raises(UsageError, match="no program at"):
        load_program(tmp_path)
    text, empty, archive = tmp_path / "t.pt2", tmp_path / "e.pt2", tmp_path / "a.pt2"
    text.write_text("not a program")
    empty.touch()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("hello.txt", "hello")
    for path in (text, empty, archive):
        with pytest.raises(UsageError, match=path.name):
            load_program(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_program_that_is_cut_short(saved: Path, tmp_path: Path, part: float) -> None:
    content = saved.read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UsageError, match=r"cut\.pt2"):
        load_program(path)


@pytest.mark.parametrize("member", ["models/", "weights_config", "archive_version"])
def test_a_program_with_a_damaged_member(saved: Path, tmp_path: Path, member: str) -> None:
    def halve(name: str, data: bytes) -> bytes:
        return data[: len(data) // 2] if member in name else data

    path = rewritten(saved, tmp_path / "bad.pt2", halve)
    with pytest.raises(UsageError, match=r"bad\.pt2"):
        load_program(path)


def test_dynamic_shapes_are_refused(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=2, max=8)
    exported = torch.export.export(
        Small().eval(), (torch.zeros(4, 3, 4, 4),), dynamic_shapes={"x": {0: batch}}
    )
    with pytest.raises(UsageError, match=r"dynamic extents.*fixed shapes"):
        import_program(exported)
    path = tmp_path / "dynamic.pt2"
    torch.export.save(exported, path)
    with pytest.raises(UsageError, match=r"dynamic\.pt2 .*dynamic shapes.*fixed shapes"):
        load_program(path)


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_are_not_finite_are_refused(value: float, word: str) -> None:
    module = Small()
    with torch.no_grad():
        module.conv.weight[1, 2] = value
    with pytest.raises(UsageError, match=rf"conv\.weight holds {word}"):
        import_program(trace(module, (1, 3, 4, 4)))


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.register_buffer("mask", torch.tensor([0.0, value]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([1.0, self.value]) + self.mask


def test_nan_is_refused_in_constants_and_buffers_but_a_mask_may_be_infinite() -> None:
    with pytest.raises(UsageError, match="holds NaN"):
        import_program(trace(_Constant(float("nan")), (1, 2)))
    import_program(trace(_Constant(float("-inf")), (1, 2)))


def test_an_operator_that_tvm_cannot_import_is_named() -> None:
    class Determinant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(x)

    with pytest.raises(UsageError, match="det"):
        import_program(trace(Determinant(), (2, 3, 3)))


def test_checks_of_values_leave_no_call() -> None:
    """A device's runtime has no function for them, and indices are brought into range."""

    class Chosen(nn.Module):
        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(i, 5)

    module = import_program(torch.export.export(Chosen(), (torch.zeros(1, 4, dtype=torch.int64),)))
    assert "assert" not in module.module.script()


def test_an_input_that_is_not_a_tensor_is_refused() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, factor: int) -> torch.Tensor:
            return x * factor

    exported = torch.export.export(Scaled(), (torch.zeros(2), 3))
    with pytest.raises(UsageError, match="not a tensor"):
        import_program(exported)


def test_a_shape_that_the_network_cannot_take() -> None:
    with pytest.raises(UsageError, match=r"cannot be traced with an input of shape \(1, 5, 4, 4\)"):
        trace(Small(), (1, 5, 4, 4))


@pytest.mark.smoke
def test_the_pair_of_tvm_and_its_ffi_is_checked() -> None:
    compiler.check_tvm_pair("0.27.0.post1", "0.1.14.post0")
    for tvm_version, ffi_version in (
        ("0.27.0.post1", "0.1.15"), ("0.26.0", "0.1.14.post1"), (None, "0.1.14.post1"),
        ("0.27.0.post1", None),
    ):  # fmt: skip
        with pytest.raises(ImportError) as raised:
            compiler.check_tvm_pair(tvm_version, ffi_version)
        text = str(raised.value)
        assert "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1" in text
        assert "missing" in text if None in (tvm_version, ffi_version) else str(ffi_version) in text
