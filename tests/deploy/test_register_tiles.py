"""Register tiles on ARM: few instructions beside multiply-adds, and no more sums than registers."""

from __future__ import annotations

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
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.search.candidates import build_calls
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.scoring.count_kernels import KernelCount, count_kernels

TARGET = find_target(ARM)
# Channels read and written, groups, and instructions for each multiply-add of a vector at most.
LAYERS = [(256, 64, 1, 1.20), (240, 60, 3, 1.24)]


@pytest.mark.emulated
@pytest.mark.parametrize(("inputs", "outputs", "groups", "most"), LAYERS)
def test_a_pointwise_layer_loads_little(
    emulator: Emulator, tmp_path: Path, inputs: int, outputs: int, groups: int, most: float
) -> None:
    layer = Convolution(
        height=8, width=9, channels=inputs, stored_channels=inputs, groups=groups,
        group_outputs=outputs // groups, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), run=inputs // groups, scattered=False, channels_first=False, lanes=4,
        epilogue=(EpilogueStep("bias"), EpilogueStep("relu")),
    )  # fmt: skip
    assert _instructions(layer, tmp_path) < most * layer.multiply_adds / TARGET.core.lanes


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


def _instructions(layer: Convolution, folder: Path) -> int:
    """Count what one call of a layer executes with its default numbers."""
    kernel = primitive_function(layer).with_attrs({KIND: CONVOLUTION, **attributes(layer)})
    [(text, *_)], objects = build_calls([scheduled(kernel, TARGET.core)], TARGET, folder)
    build_object(module_from_json(text), TARGET, objects[0].path)
    (count,) = count_kernels(objects, "cortex-a72", warm=False)
    assert isinstance(count, KernelCount), count
    return count.total


def test_tiles_of_halves_leave_inputs_the_registers_that_lanes_are_picked_of() -> None:
    """LLVM copies registers where 24 sums stand beside inputs."""
    costs = tile_costs(196, False, 4, Core(8, 32, element=HALF), 8, 0)
    best = min(costs, key=lambda pixels: costs[pixels])
    assert 16 <= 4 * best < HALF_CROWDED


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 8])
def test_tiles_of_a_core_that_picks_lanes_fill_its_registers(vectors: int) -> None:
    costs = tile_costs(1000, False, vectors, Core(4, 32), 4, 0)
    largest = max(costs)
    # Inputs of each pixel, and weights that are used up before the next are loaded.
    assert largest * (vectors + 1) + min(vectors, 2 + vectors % 2) <= 32
    assert min(costs, key=lambda pixels: costs[pixels]) == largest
