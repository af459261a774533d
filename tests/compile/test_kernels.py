"""Every form of every kernel, with drawn numbers, computes what PyTorch computes."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from stages import (
    QUICK,
    assert_same,
    draw,
    finished_module,
    imported,
    lowered,
    run,
    seeded,
    with_schedules,
)
from torch import nn
from torch.nn import functional
from tvm import tirx
from tvm.s_tir import Schedule

from shuffledeploy.compiler.ir.attributes import LANES
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.convolution_reads import loop_orders
from shuffledeploy.compiler.kernels.convolution_shape import Convolution, contiguous_run
from shuffledeploy.compiler.kernels.schedules import forms, scheduled
from shuffledeploy.compiler.kernels.tiling import Core, extents_of
from shuffledeploy.compiler.kernels.winograd import Winograd, transform_input, transform_output
from shuffledeploy.compiler.passes.graph.output_parts import in_parts
from shuffledeploy.compiler.passes.graph.sites import lanes_for
from shuffledeploy.compiler.passes.tir.tiles_in_registers import load_whole_vectors

pytestmark = pytest.mark.long

#: 512, 256 and 128 bits; the last two run on any machine that has the first.
CORES = [Core(16, 32), Core(8, 16), Core(4, 32)]


class _Kernels(nn.Module):
    """One answer a kernel, or a pair of kernels where one reads another's order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, 2, (1, 1))  # reads the network's input, channels first
        self.rows, self.mixed = nn.Conv2d(24, 30, 1, groups=3), nn.Conv2d(30, 36, 1, groups=3)
        self.table, self.chosen = nn.Conv2d(24, 20, 1, groups=2), nn.Conv2d(9, 6, 3, groups=3)
        self.runs = nn.Conv2d(24, 16, 3, padding=1, groups=2, bias=False)
        self.strided = nn.Conv2d(24, 40, (3, 2), (2, 1), (2, 0), (1, 2))
        self.depthwise = nn.Conv2d(24, 24, 3, 1, 1, groups=24)
        self.odd = nn.Conv2d(9, 9, (5, 3), 2, (2, 1), groups=9, bias=False)
        self.linear, self.wide = nn.Linear(24, 17), nn.Linear(24, 16, bias=False)
        self.many = nn.Conv2d(24, 12, 1, groups=12)
        # In parts where vectors have masks.
        self.parts, self.selected = nn.Conv2d(24, 116, 1), nn.Conv2d(9, 120, (2, 1))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = torch.relu(self.first(functional.pad(image, (0, 1, 1, 0))))
        shuffled = functional.channel_shuffle(x, 3)
        mean = x.mean((2, 3))
        depthwise = functional.relu6(self.depthwise(x) + x)
        some = x[:, [3, 0, 23, 7, 7, 1, 12, 20, 2]]
        answers = [
            self.mixed(functional.channel_shuffle(self.rows(shuffled), 3)),
            torch.relu(self.table(functional.channel_shuffle(x, 8))) - 0.5,
            self.chosen(some).clamp(-0.5, 0.5),
            torch.relu(self.runs(functional.channel_shuffle(depthwise, 2)) + 0.25),
            self.strided(functional.pad(x, (0, 1, 2, 0))),
            self.odd(self.rows(x)[:, 11:20]),
            self.many(shuffled),
            torch.relu(self.parts(x) + 0.25),
            self.selected(some),
            self.linear(mean),
            torch.relu(self.wide(mean)),
            functional.max_pool2d(x, (3, 2), (2, 1), (1, 0), dilation=(1, 2)),
            functional.max_pool2d(x, 2, 1, 1, dilation=2),
            functional.avg_pool2d(x, (3, 2), (1, 2), (1, 0), count_include_pad=False),
            functional.avg_pool2d(x, 3, 1, 1) + depthwise,
            torch.relu(torch.cat([depthwise, some, shuffled], 1)),
        ]
        # As the kernels write them: a transpose of each answer would take longer than they do.
        return [a.permute(0, 2, 3, 1) if a.dim() == 4 else a for a in answers]


class _Added(nn.Module):
    """A pointwise layer that a tensor is added to."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x) + functional.max_pool2d(x.repeat(1, 4, 1, 1), 1))


@functools.cache
def _lowered(core: Core) -> tuple[nn.Module, tvm.IRModule]:
    network = seeded(_Kernels())
    return network, lowered(imported(network, 1, 3, 9, 12).module, core)


def _with_form(number: int, rng: random.Random) -> Any:
    """Schedule with the form of a number, its free numbers drawn."""

    def choose(options: Sequence[int], default: int) -> int:
        return default if number == 0 else rng.choice(list(options))

    def schedule(function: Any, core: Core) -> Any:
        found = forms(function, core)
        if number >= len(found):
            return function  # seen already: plain loops build fastest
        state = Schedule(tvm.IRModule({"main": function}), debug_mask="all")
        found[number](state, choose)
        return state.mod["main"]

    return schedule


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"{core.lanes}-lanes")
def test_every_form_computes_the_same(core: Core) -> None:
    network, module = _lowered(core)
    value = draw(1, 3, 9, 12)
    most = max(len(forms(f, core)) for f in kernel_functions(module).values())
    assert most > 1
    for number in range(most):
        scheduled = with_schedules(module, core, _with_form(number, random.Random(number)))
        assert_same(run(scheduled, value.numpy()), network, value, what=f"form {number}, ")


def test_outputs_beside_whole_vectors_are_taken_from_one() -> None:
    """LLVM kept sums that are read in part as single numbers: the kernel took twice as long."""
    tile, out = tirx.decl_buffer((48,), "float32", "tile"), tirx.decl_buffer((24,), "float32", "o")
    places = [tirx.Ramp(start, 1, lanes) for start, lanes in ((0, 16), (16, 8))]
    stores = [tirx.BufferStore(out, tirx.BufferLoad(tile, [at]), [at]) for at in places]
    function = tirx.PrimFunc([out], tirx.SeqStmt([tirx.AllocBuffer(tile), *stores]))
    text = load_whole_vectors(function.with_attr(LANES, 16)).script()
    assert "= tile[T.Ramp(0, 1, 16)]" in text
    assert "T.Shuffle([tile[T.Ramp(16, 1, 16)]], [0, 1, 2, 3, 4, 5, 6, 7])" in text


def test_no_kernel_reads_outside_its_buffers(tmp_path: Path) -> None:
    """Elements of a window outside the image are not read, whatever stands there in memory."""
    core = CORES[1]
    kernels = {
        name: with_global_symbol(scheduled(function, core), name)
        for name, function in kernel_functions(_lowered(core)[1]).items()
        if "kernel" in (function.attrs or {})
    }
    layer = Winograd(13, 11, 32, 40, 3, (1, 1, 1, 1), core.lanes, ())
    kernels["into"] = with_global_symbol(transform_input(layer), "into")
    kernels["from"] = with_global_symbol(transform_output(layer), "from")
    (tmp_path / "module.json").write_text(
        tvm.ir.save_json(finished_module(tvm.IRModule(kernels))), encoding="utf-8"
    )
    (tmp_path / "target.json").write_text(json.dumps(QUICK.options), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).parent / "guarded_memory.py")]
    done = subprocess.run(
        [*command, str(tmp_path / "module.json"), str(tmp_path / "target.json")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-200:]}{done.stderr[-500:]}"
    assert done.stdout.count("\n") == 2 * len(kernels)


def with_global_symbol(function: Any, name: str) -> Any:
    return function.with_attr("global_symbol", name)


@pytest.mark.parametrize("channels", [40, 88])
def test_sums_over_long_windows_stand_in_one_register(channels: int) -> None:
    """A depthwise layer of 7x7 windows and 40 channels took nine times as long by vectors of 40."""
    core = CORES[0]
    network = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
    module = lowered(imported(network, 1, channels, 9, 8).module, core)
    (function,) = (f for n, f in kernel_functions(module).items() if n.startswith("depthwise"))
    state = Schedule(tvm.IRModule({"main": function}))
    forms(function, core)[0](state, lambda options, default: default)
    *_, lanes = extents_of(state, state.get_sblock("accumulate_update"))
    assert lanes <= core.lanes


@pytest.mark.smoke
def test_the_network_above_has_every_kind_of_kernel() -> None:
    _, module = _lowered(CORES[0])
    functions = kernel_functions(module)
    kinds = {str(f.attrs["kernel"]) for f in functions.values() if "kernel" in (f.attrs or {})}
    assert kinds == {"convolution", "window", "joined"}
    tables = [n for n, f in functions.items() if any(str(p.dtype) == "int32" for p in f.params)]
    assert any(name.startswith("conv") for name in tables)
    assert any(name.startswith("concat") for name in tables)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("groups_of_shuffle", "channels", "groups", "run"),
    [(1, 12, 3, 4), (3, 30, 3, 0), (3, 36, 3, 4), (2, 24, 2, 6), (4, 24, 2, 3), (2, 12, 3, 2)],
)
def test_runs_are_found_where_they_are(
    groups_of_shuffle: int, channels: int, groups: int, run: int
) -> None:
    order = np.arange(channels).reshape(groups_of_shuffle, -1).T.reshape(-1)
    # What a group reads, ascending, as the pass leaves it.
    ascending = np.sort(order.reshape(groups, -1), axis=1).reshape(-1)
    found = contiguous_run(ascending, groups)
    assert found == run
    if found:
        # By its definition: group q reads i * pitch + q * run + t.
        pieces = np.arange(channels // groups // found) * (found * groups)
        starts = pieces[None, :, None] + np.arange(groups)[:, None, None] * found
        assert ascending.tolist() == (starts + np.arange(found)).reshape(-1).tolist()


def _dense(outputs: int, groups: int = 1, depth: int = 32) -> Convolution:
    channels = depth * groups
    return Convolution(
        14, 14, channels, channels, groups, outputs, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1),
        depth, scattered=False, channels_first=False, lanes=4, epilogue=(),
    )  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("outputs", "parts"), [(116, 2), (232, 4), (200, 2), (184, 2), (72, 1), (100, 1)]
)
def test_outputs_are_cut_into_parts_of_few_vectors(outputs: int, parts: int) -> None:
    cut = in_parts(_dense(outputs), Core(16, 32))
    assert (cut.groups, cut.group_outputs, cut.lanes) == (parts, outputs // parts, 16)
    assert cut.group_inputs == 32
    assert cut.multiply_adds == _dense(outputs).multiply_adds


@pytest.mark.smoke
def test_parts_are_smaller_where_weights_come_from_afar() -> None:
    """Tiles of two pixels would read the weights of 125 outputs 85 times."""
    assert in_parts(_dense(1000), Core(16, 32)).group_outputs == 125
    assert in_parts(_dense(1000, depth=512), Core(16, 32)).group_outputs == 40


@pytest.mark.smoke
def test_other_outputs_are_not_cut() -> None:
    masks = Core(16, 32)
    for whole in (_dense(128), _dense(60), _dense(116, groups=2)):
        assert in_parts(whole, masks) is whole
    assert in_parts(_dense(116), Core(4, 32)) == _dense(116)


@pytest.mark.smoke
@pytest.mark.parametrize(("outputs", "parts"), [(60, 4), (116, 4), (20, 1), (128, 1)])
def test_parts_fit_the_few_registers_of_avx2(outputs: int, parts: int) -> None:
    """Of 60 outputs in 8 vectors no tile has room, and vectors of 4 lanes took twice as long."""
    cut = in_parts(_dense(outputs), Core(8, 16))
    assert (cut.groups, cut.group_outputs) == (parts, outputs // parts)
    assert cut.lanes == (8 if parts > 1 else 4)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("layer", "order"),
    [
        # 1.6 MB of pixels, of which every fourth is read, and 2.1 MB of weights.
        (nn.Conv2d(512, 1024, 1, stride=2), "qop"),
        (nn.Conv2d(512, 1024, 1), "pqo"),
        # 470 kB are read and written, and 376 kB more where a tensor is added.
        (nn.Conv2d(30, 120, 1), "qop"),
        (_Added(30, 120), "pqo"),
    ],
    ids=["strided", "whole", "alone", "added"],
)
def test_groups_come_first_where_pixels_stay_in_the_cache(layer: nn.Module, order: str) -> None:
    channels = next(layer.parameters()).shape[1]
    module = lowered(imported(nn.Sequential(nn.MaxPool2d(1), layer), 1, channels, 28, 28).module,
                     Core(8, 16))  # fmt: skip
    (function,) = (f for n, f in kernel_functions(module).items() if n.startswith("conv1x1"))
    assert loop_orders(function, Core(8, 16))[0] == order


@pytest.mark.smoke
def test_lanes_leave_no_remainder_in_long_rows() -> None:
    assert lanes_for(64, Core(16, 32)) == 16
    assert lanes_for(40, Core(8, 16)) == 8
    # Five vectors fit a tile; of 8 not even a pixel's do.
    assert lanes_for(36, Core(8, 16)) == 8
    assert lanes_for(60, Core(8, 16)) == 4
    for outputs in range(1, 200):
        for core in CORES:
            lanes = lanes_for(outputs, core)
            assert lanes in (4, 8, 16)
            assert lanes <= core.lanes
            fitting = 7 if core == Core(8, 16) else 4
            assert outputs % lanes == 0 or lanes == 4 or outputs <= fitting * lanes
