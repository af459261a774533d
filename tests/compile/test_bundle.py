"""Bundles: what was changed is not opened, what failed leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import tvm
from shuffled_bundle import write_shuffled
from tvm import relax

from shuffledeploy.compiler.bundle import folder as bundles
from shuffledeploy.compiler.bundle.folder import (
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
from shuffledeploy.compiler.bundle.manifest_entries import Tensor
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.program_values import tensors_of_calls
from shuffledeploy.compiler.proof_arrays import reference
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.model.errors import Failure, UsageError


@pytest.mark.smoke
def test_what_is_written_is_read_again(made: Bundle) -> None:
    manifest = load_bundle(made.path).manifest
    assert manifest == made.manifest
    assert set(manifest.files) == {LIBRARY, REFERENCE, INTERMEDIATES}
    assert {path.name for path in made.path.iterdir()} == {*manifest.files, MANIFEST}
    assert manifest.inputs == (Tensor("x", (1, 6, 4, 5), "float32"),)
    assert [output.shape for output in manifest.outputs] == [(1, 12), (1, 12)]
    assert (manifest.program_shuffles, manifest.shuffle_kernels) == (1, 0)
    assert manifest.kernel_calls == len(manifest.kernel_order)
    assert sum(kernel.share for kernel in manifest.kernels) == pytest.approx(1.0)
    assert manifest.score_source is None
    assert (made.path.stat().st_mode & 0o777) == 0o755


def test_the_library_gives_the_answers_in_the_bundle(made: Bundle) -> None:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(made.library)), tvm.cpu())
    inputs, outputs = made.reference_inputs(), made.reference_outputs()
    assert len(inputs) == len(outputs) == made.manifest.cases
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
    manifest = write_shuffled(tmp_path / "arm", find_target("cortex-a53")).manifest
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
        write_manifest(folder, msgspec.structs.replace(made.manifest, network="other"))
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
def test_pytorch_answers_in_one_thread_and_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    exported = trace(torch.nn.ReLU(), (1, 3))
    monkeypatch.setattr(
        exported, "module", lambda: lambda x: torch.full_like(x, torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        arrays, _ = reference(exported, (Tensor("x", (1, 3), "float32"),))
        assert (arrays["output_0_0"] == 1).all()
        assert tensors_of_calls(exported, [np.ones((1, 3), np.float32)], _threads) == [1]
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def _threads(_: Array) -> int:
    return torch.get_num_threads()


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
