"""Register tiles on ARM: few instructions beside multiply-adds, and no more sums than registers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from shuffledeploy.compiler.cores import ARM
from shuffledeploy.compiler.ir.attributes import CONVOLUTION, KIND
from shuffledeploy.compiler.ir.memory_layout import HALF
from shuffledeploy.compiler.ir.tvm_edges import module_from_json
from shuffledeploy.compiler.kernels.blocks import EpilogueStep
from shuffledeploy.compiler.kernels.convolution import primitive_function
from shuffledeploy.compiler.kernels.convolution_shape import Convolution, attributes
from shuffledeploy.compiler.kernels.register_tiles import HALF_CROWDED, tile_costs
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.library import build_object
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject
from shuffledeploy.compiler.tuning.search.candidates import build_calls
from shuffledeploy.deploy.board.guests import guest_of
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.scoring.count_kernels import KernelCount, count_kernels
from shuffledeploy.deploy.scoring.scores import EstimatedCycles

TARGET = find_target(ARM)
# Channels read and written, groups, and instructions for each multiply-add of a vector at most.
LAYERS = [(256, 64, 1, 1.20), (240, 60, 3, 1.24)]


@pytest.mark.emulated
@pytest.mark.parametrize(("inputs", "outputs", "groups", "most"), LAYERS)
def test_a_pointwise_layer_loads_little(
    emulator: Emulator, tmp_path: Path, inputs: int, outputs: int, groups: int, most: float
) -> None:
    layer = _pointwise(inputs, outputs, groups)
    assert _instructions(layer, tmp_path) < most * layer.multiply_adds / TARGET.core.lanes


@pytest.mark.emulated
@pytest.mark.parametrize(("core", "most"), [("cortex-a53", 1.60), ("cortex-a55", 1.45)])
def test_loads_start_beside_multiply_adds_where_a_core_issues_in_order(
    emulator: Emulator, tools: LlvmTools, tmp_path: Path, core: str, most: float
) -> None:
    target = find_target(core)
    layer = _pointwise(256, 256, 1)
    kernel = _built(layer, tmp_path, target)
    (cycles,) = EstimatedCycles(guest_of(core), core, 1)([kernel])
    assert isinstance(cycles, DetailedScore), cycles
    # Of the code alone: what memory adds depends on the caches.
    ours = cycles.details["code"] / (layer.multiply_adds / target.core.lanes)
    assert ours < most
    other = dataclasses.replace(target, core=dataclasses.replace(target.core, in_order=False))
    (cycles,) = EstimatedCycles(guest_of(core), core, 1)([_built(layer, tmp_path, other)])
    assert isinstance(cycles, DetailedScore), cycles
    assert ours < 0.97 * cycles.details["code"] / (layer.multiply_adds / target.core.lanes)


@pytest.mark.emulated
@pytest.mark.parametrize(("outputs", "most"), [(12, 1.45), (24, 1.45)])
def test_a_first_convolution_loads_neighbouring_columns_together(
    emulator: Emulator, tmp_path: Path, outputs: int, most: float
) -> None:
    """Each multiply-add is of a lane of a vector of columns; the tile's own work is a tenth."""
    layer = Convolution(
        height=16, width=224, channels=3, stored_channels=3, groups=1, group_outputs=outputs,
        kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), dilation=(1, 1), run=3,
        scattered=False, channels_first=True, lanes=4,
        epilogue=(EpilogueStep("bias"), EpilogueStep("relu")),
    )  # fmt: skip
    assert _instructions(layer, tmp_path) < most * layer.multiply_adds / TARGET.core.lanes


def _pointwise(inputs: int, outputs: int, groups: int) -> Convolution:
    """Give a pointwise layer of 72 pixels."""
    return Convolution(
        height=8, width=9, channels=inputs, stored_channels=inputs, groups=groups,
        group_outputs=outputs // groups, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), run=inputs // groups, scattered=False, channels_first=False, lanes=4,
        epilogue=(EpilogueStep("bias"), EpilogueStep("relu")),
    )  # fmt: skip


def _built(layer: Convolution, folder: Path, target: CompileTarget) -> KernelObject:
    """Build a layer with its default numbers."""
    kernel = primitive_function(layer).with_attrs({KIND: CONVOLUTION, **attributes(layer)})
    [(text, *_)], [built] = build_calls([scheduled(kernel, target.core)], target, folder)
    build_object(module_from_json(text), target, built.path)
    return built


def _instructions(layer: Convolution, folder: Path) -> int:
    """Count what one call of a layer executes with its default numbers."""
    (count,) = count_kernels([_built(layer, folder, TARGET)], "cortex-a72", warm=False)
    assert isinstance(count, KernelCount), count
    return count.total


def test_tiles_of_halves_leave_inputs_the_registers_that_lanes_are_picked_of() -> None:
    """LLVM copies registers where 24 sums stand beside inputs."""
    costs = tile_costs(196, False, 4, Core(8, 32, element=HALF), 8, None)
    best = min(costs, key=lambda pixels: costs[pixels])
    assert 16 <= 4 * best < HALF_CROWDED


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 8])
def test_tiles_of_a_core_that_picks_lanes_fill_its_registers(vectors: int) -> None:
    costs = tile_costs(1000, False, vectors, Core(4, 32), 4, None)
    largest = max(costs)
    # Inputs of each pixel, and weights that are used up before the next are loaded.
    assert largest * (vectors + 1) + min(vectors, 2 + vectors % 2) <= 32
    assert min(costs, key=lambda pixels: costs[pixels]) == largest
