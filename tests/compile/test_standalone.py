"""A network without a runtime: its answers to the bit, its memory, what is refused."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stages import HOST, draw, seeded
from standalone_networks import (
    Loaded,
    SeveralOfEach,
    aligned_bytes,
    aligned_copy,
    standalone,
    undefined,
)
from torch import Tensor, nn
from tvm import relax

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.passes.memory.planned_calls import planned_program
from shuffledeploy.model.errors import UsageError


class Shares(nn.Module):
    """TVM's own rules compile it, with tensors between its loops that no stack holds."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, 1)


class Attended(nn.Module):
    """Four heads attend to themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(2, 3), -1) @ x


def bundle_answers(bundle: Bundle, inputs: list[Array]) -> list[Array]:
    from shuffledeploy.deploy.runtime.execution import open_network

    with open_network(bundle, "local") as network:
        return network.run(inputs)


def test_answers_are_the_bundles_to_the_bit(units: Bundle) -> None:
    assert units.manifest.strips and units.manifest.joined_in_place
    loaded = Loaded(units)
    for inputs, expected in zip(units.reference_inputs(), units.reference_outputs(), strict=True):
        answers = loaded.run(inputs)
        for ours, bundles, torchs in zip(
            answers, bundle_answers(units, inputs), expected, strict=True
        ):
            np.testing.assert_array_equal(ours, bundles)
            np.testing.assert_allclose(ours, torchs, atol=1e-5)


def test_every_tensor_is_where_its_caller_wants_it(tmp_path: Path) -> None:
    bundle = standalone(tmp_path, SeveralOfEach(), draw(1, 6), draw(1, 6))
    for inputs, expected in zip(bundle.reference_inputs(), bundle.reference_outputs(), strict=True):
        answers = Loaded(bundle).run(inputs)
        for ours, torchs in zip(answers, expected, strict=True):
            np.testing.assert_allclose(ours, torchs, atol=1e-6)


def test_large_buffers_of_other_kernels_stand_in_the_workspace(tmp_path: Path) -> None:
    bundle = standalone(tmp_path, Shares(), draw(1, 4, 9_000))
    assert bundle.standalone.workspace >= 2 * 9_000 * 4
    assert not {name for name in undefined(bundle.path / bundle.standalone.object) if "TVM" in name}
    inputs, expected = bundle.reference_inputs()[0], bundle.reference_outputs()[0]
    np.testing.assert_allclose(Loaded(bundle).run(inputs)[0], expected[0], atol=1e-5)


def test_buffers_of_an_attention_stand_in_the_workspace(tmp_path: Path) -> None:
    """Keys, values and scores of one head, however many there are."""
    bundle = standalone(tmp_path, Attended(), draw(1, 4, 90, 32))
    once = 4 * (2 * 32 * 90 + 3 * 30 * 90)
    assert once < bundle.standalone.workspace < 2 * once
    assert not {name for name in undefined(bundle.path / bundle.standalone.object) if "TVM" in name}
    inputs, expected = bundle.reference_inputs()[0], bundle.reference_outputs()[0]
    np.testing.assert_allclose(Loaded(bundle).run(inputs)[0], expected[0], atol=1e-5)


def test_nothing_is_touched_where_a_pointer_or_size_is_wrong(units: Bundle) -> None:
    loaded = Loaded(units)
    image = aligned_copy(units.reference_inputs()[0][0])
    answer = aligned_bytes(96)
    right = [image.ctypes.data, answer.ctypes.data, loaded.workspace.ctypes.data]
    run, within = loaded.function("run"), loaded.function("run_within")
    for place in range(3):
        for wrong in (0, right[place] + 2):
            given = [*right[:place], wrong, *right[place + 1 :]]
            assert run(*map(ctypes.c_void_p, given)) == 1
    pointers = [ctypes.c_void_p(value) for value in right]
    assert within(*pointers, ctypes.c_size_t(units.standalone.workspace - 1)) == 2
    assert loaded.function("run_timed")(*pointers, None) == 1
    assert (answer == 255).all() and (loaded.workspace == 255).all()
    assert within(*pointers, ctypes.c_size_t(units.standalone.workspace)) == 0
    loaded.library[f"{units.standalone.name}_workspace_bytes"].restype = ctypes.c_size_t
    assert loaded.function("workspace_bytes")() == units.standalone.workspace


def test_the_timed_run_reads_the_counter_around_each_kernel(units: Bundle) -> None:
    loaded = Loaded(units)
    ticks = np.zeros(len(units.standalone.calls) + 1, np.int64)
    image = aligned_copy(units.reference_inputs()[0][0])
    answer = aligned_bytes(96)
    pointers = [image, answer, loaded.workspace, ticks]
    assert loaded.function("run_timed")(*(ctypes.c_void_p(p.ctypes.data) for p in pointers)) == 0
    np.testing.assert_array_equal(
        answer.view(np.float32), loaded.run(units.reference_inputs()[0])[0][0]
    )
    assert (np.diff(ticks) > 0).all()


def test_a_bundle_without_it_says_so(tmp_path: Path) -> None:
    lowered = lower(trace(seeded(nn.Linear(3, 2)), (1, 3)), HOST)
    bundle = write_bundle(
        tmp_path / "b", lowered, choose_schedules(lowered, HOST, {}), HOST, network="n",
        normalisation=None, options={},
    )  # fmt: skip
    assert bundle.manifest.standalone is None
    with pytest.raises(UsageError, match="has no standalone network: make it with"):
        _ = bundle.standalone_library


def test_what_only_the_runtime_has_is_refused_by_name() -> None:
    given = relax.Var("x", relax.TensorType((1, 4), "float32"))
    for call, name in (
        (relax.Call(relax.ExternFunc("vm.builtin.sort"), [given], ty_args=[given.ty]), "sort"),
        (relax.op.shape_of(given), "shape_of"),
    ):
        builder = relax.BlockBuilder()
        with builder.function("main", [given]):
            builder.emit_func_output(builder.emit(call))
        with pytest.raises(UsageError, match=f"cannot call .*{name}.*without --standalone"):
            planned_program(builder.get())


def test_a_changed_header_is_refused(units: Bundle, tmp_path: Path) -> None:
    shutil.copytree(units.path, tmp_path / "copy")
    header = tmp_path / "copy" / "net.h"
    header.write_text(header.read_text().replace("4800", "4801"))
    with pytest.raises(UsageError, match=r"net\.h was changed after it was built"):
        load_bundle(tmp_path / "copy")
