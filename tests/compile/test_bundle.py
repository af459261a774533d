"""Bundles: what was changed is not opened, what failed leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from stages import HOST, seeded
from torch import nn
from tvm import relax

from compile import bundle as bundles
from compile.bundle import (
    INTERMEDIATES,
    LIBRARY,
    MANIFEST,
    REFERENCE,
    Bundle,
    check_output,
    load_bundle,
    sample,
    seeded_inputs,
    write_manifest,
    written_beside,
)
from compile.manifest import FORMAT, Tensor
from compile.network import choose_schedules, lower, write_bundle
from compile.program import trace
from compile.targets import CompileTarget, find_target
from model.errors import Failure, UsageError


class _Shuffled(nn.Module):
    """A shuffle between two grouped convolutions, and two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.b(nn.functional.channel_shuffle(self.a(x), 3)))
        return x.mean((2, 3)), torch.sigmoid(x.mean((2, 3)))


def _write(output: Path, target: CompileTarget = HOST) -> Bundle:
    lowered = lower(trace(seeded(_Shuffled()), (1, 6, 4, 5)), target)
    return write_bundle(
        output, lowered, choose_schedules(lowered, target, {}), target, network="shuffled",
        normalisation=None, options={"seed": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle that is in order; copy it to change it."""
    return _write(tmp_path_factory.mktemp("bundles") / "made")


@pytest.fixture
def copy(made: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


@pytest.mark.smoke
def test_what_is_written_is_read_again(made: Bundle) -> None:
    manifest = load_bundle(made.path).manifest
    assert manifest == made.manifest
    assert set(manifest.files) == {LIBRARY, REFERENCE, INTERMEDIATES}
    assert {path.name for path in made.path.iterdir()} == {*manifest.files, MANIFEST}
    assert manifest.inputs == (Tensor("x", (1, 6, 4, 5), "float32"),)
    assert [output.shape for output in manifest.outputs] == [(1, 12), (1, 12)]
    assert manifest.shuffle_kernels == 0
    assert manifest.kernel_calls == len(manifest.kernel_order)
    assert sum(kernel.share for kernel in manifest.kernels) == pytest.approx(1.0)
    assert manifest.score_source is None
    assert (made.path.stat().st_mode & 0o777) == 0o755


def test_the_library_gives_the_answers_in_the_bundle(made: Bundle) -> None:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(made.library)), tvm.cpu())
    inputs, outputs = made.reference_inputs(), made.reference_outputs()
    assert len(inputs) == len(outputs) == 1 + len(made.manifest.seeds)
    for values, expected in zip(inputs, outputs, strict=True):
        answers = machine["main"](*(tvm.runtime.tensor(value) for value in values))
        for ours, theirs in zip(answers, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    # Different inputs have different answers, or the check above would prove little.
    assert len({expected[0].tobytes() for expected in outputs}) == len(outputs)
    written = machine["intermediates"](*(tvm.runtime.tensor(value) for value in inputs[0]))
    samples = made.intermediate_samples()
    assert len(written) == len(samples) == len(made.manifest.kernel_order)
    for ours, theirs in zip(written, samples, strict=True):
        np.testing.assert_allclose(sample(ours.numpy()), theirs, atol=1e-5)


def test_a_bundle_for_another_architecture_says_so(tmp_path: Path) -> None:
    manifest = _write(tmp_path / "arm", find_target("cortex-a53")).manifest
    assert (manifest.architecture, manifest.cpu) == ("aarch64", "cortex-a53")
    header = (tmp_path / "arm" / LIBRARY).read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert header[18] == 183  # EM_AARCH64


@pytest.mark.smoke
@pytest.mark.parametrize("name", [LIBRARY, REFERENCE, INTERMEDIATES])
def test_a_changed_byte_and_a_missing_file(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} was changed after it was built"):
        load_bundle(copy)
    (copy / name).unlink()
    with pytest.raises(UsageError, match=rf"incomplete: {name} is missing"):
        load_bundle(copy)


def _tensor_without_shape(fields: dict[str, Any]) -> None:
    del fields["inputs"][0]["shape"]


def _odd_kernel(fields: dict[str, Any]) -> None:
    fields["kernels"][0]["colour"] = "red"


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda f: f.update(format=FORMAT + 1), f"format is {FORMAT + 1}, this program reads {FORMAT}"),
    (lambda f: f.pop("format"), "its format is None"),
    (lambda f: f.update(colour="red"), "missing or unknown: colour"),
    (lambda f: f.pop("tolerance"), "missing or unknown: tolerance"),
    (lambda f: f.update(kernels={}), "kernels is not of the right type"),
    (lambda f: f.update(tolerance="small"), "tolerance is not of the right type"),
    (lambda f: f.update(tolerance=float("nan")), "tolerance is not of the right type"),
    (lambda f: f.update(seeds=["a"]), "seeds is not of the right type"),
    (lambda f: f.update(features=[1]), "features is not of the right type"),
    (lambda f: f.update(normalisation="none"), "normalisation is not of the right type"),
    (lambda f: f.update(inputs=["x"]), "damaged"),
    (
        lambda f: f.update(strips=[{"name": "s", "kernels": ["gone"]}]),
        "strips names a kernel that is not listed",
    ),
    (lambda f: f.update(strips=[{"name": "s"}]), "damaged"),
    (
        lambda f: f.update(joined_in_place=["gone"]),
        "joined_in_place names a kernel that is not listed",
    ),
    (lambda f: f.update(joined_in_place=[1]), "joined_in_place is not of the right type"),
    (lambda f: f["inputs"][0].update(dtype="floaty"), "damaged"),
    (_tensor_without_shape, "damaged"),
    (_odd_kernel, "damaged"),
    (lambda f: f["files"].update({"../outside": "0" * 64}), "outside the bundle: '../outside'"),
    (lambda f: f["files"].update({"/etc/passwd": "0" * 64}), "outside the bundle"),
    (lambda f: f["files"].update({"..": "0" * 64}), "outside the bundle"),
    (lambda f: f["files"].pop(LIBRARY), f"does not vouch for {LIBRARY}"),
    (lambda f: f.update(files={}), "does not vouch for"),
]


@pytest.mark.smoke
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_manifest_that_is_not_in_order(
    copy: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    fields = json.loads((copy / MANIFEST).read_text())
    change(fields)
    (copy / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(UsageError) as raised:
        load_bundle(copy)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.smoke
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(UsageError, match=r"manifest\.json is damaged"):
        load_bundle(copy)


@pytest.mark.smoke
def test_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is not a bundle"):
            load_bundle(path)


@pytest.mark.smoke
def test_a_failure_leaves_nothing_and_the_old_bundle_whole(copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for error, told in (
        (Failure("no"), Failure),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), UsageError),
    ):
        for output in (copy, copy.with_name("new")):
            with pytest.raises(told, match=r"^$|no|No space"), written_beside(output) as folder:
                (folder / LIBRARY).write_text("half")
                raise error
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.smoke
def test_a_bundle_is_replaced_as_a_whole(copy: Path, made: Bundle) -> None:
    (copy / "of_the_old_one").touch()
    with written_beside(copy) as folder:
        assert (copy / "of_the_old_one").exists()
        (folder / "file").write_text("new")
        write_manifest(folder, dataclasses.replace(made.manifest, network="other"))
    assert {path.name for path in copy.iterdir()} == {"file", MANIFEST}
    assert json.loads((copy / MANIFEST).read_text())["network"] == "other"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.smoke
def test_what_is_not_a_bundle_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, empty = tmp_path / "photos", tmp_path / "file", tmp_path / "empty"
    folder.mkdir()
    (folder / "holiday.png").touch()
    file.write_text("text")
    empty.mkdir()
    for path in (folder, file):
        with pytest.raises(UsageError, match="exists and is not a bundle"), written_beside(path):
            pytest.fail("the block must not run")
        with pytest.raises(UsageError, match="exists and is not a bundle"):
            check_output(path)
    check_output(tmp_path / "new" / "bundle")
    assert not any((tmp_path / "new").iterdir())
    assert (folder / "holiday.png").exists()
    assert file.read_text() == "text"
    monkeypatch.chdir(empty)
    with written_beside(Path()) as scratch:
        (scratch / MANIFEST).touch()
    assert (empty / MANIFEST).exists()


@pytest.mark.smoke
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), written_beside(tmp_path / "file" / "b"):
        pytest.fail("the block must not run")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="cannot write"), written_beside(tmp_path / "closed/b"):
            pytest.fail("the block must not run")


@pytest.mark.smoke
def test_inputs_and_samples_depend_on_nothing_but_their_seed() -> None:
    specs = (Tensor("x", (2, 300), "float32"), Tensor("y", (5,), "int64"))
    first, again, other = (seeded_inputs(specs, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert [value.dtype for value in first] == [np.float32, np.int64]
    assert set(first[1].tolist()) <= {0, 1}
    assert 0.8 < float(first[0].std()) < 1.2
    for size in (1, 255, 256, 257, 1000, 100_000):
        values = np.arange(size)
        picked = sample(values)
        assert 0 < len(picked) <= bundles.SAMPLES
        assert size > bundles.SAMPLES or np.array_equal(picked, values)
