"""What each pass makes of a graph, to read: `golden/<pass>.txt` shows it before and after.

The graph before is what the pipeline gives to the pass for a Cortex-A72. Where a text is meant to
change, ``pytest --update-golden`` writes the files anew.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tvm
from golden_files import FOLDER, GoldenFiles
from graph_text import graph_text
from lesson_networks import (
    AdaptivePools,
    ChannelsAsPixels,
    ConvolutionAndSum,
    Covariance,
    DenseBlock,
    EnlargedAnswer,
    Flattened,
    Gated,
    GatedAtTheEnd,
    Joined,
    LargeImage,
    LayersInInt8,
    LayerTwice,
    LinearOverTokens,
    MoreBehind,
    NormedTokens,
    Norms,
    Passed,
    PixelsAsChannels,
    PoolBetween,
    Residual,
    SharesOfTokens,
    ShuffledAnswer,
    ShuffledUnit,
    ThreeKernels,
    TwoHeads,
    TwoPaths,
    TwoProducts,
    UnitReadInRuns,
)
from stages import imported, seeded
from strip_networks import SMALL
from torch import nn

from shuffledeploy.compiler.ir.attributes import INT8_MEANS, INT8_SCALES, INT8_ZEROS
from shuffledeploy.compiler.ir.graph import ENTRY
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.passes.memory.constants_in_place import constants_in_place
from shuffledeploy.compiler.passes.memory.expose_intermediates import INTERMEDIATES
from shuffledeploy.compiler.passes.memory.launch_once import launch_once
from shuffledeploy.compiler.passes.memory.one_function import (
    COMPUTE,
    COMPUTE_TIMED,
    one_function,
)
from shuffledeploy.compiler.passes.memory.thread_share import COMPUTE_SHARE
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget, find_target

ARM: CompileTarget = find_target("cortex-a72")
#: The same with so little cache that small tensors go by strips.
LITTLE_CACHE = dataclasses.replace(ARM, cache=SMALL)
#: A core that computes in half precision, and is to.
HALF_ARM = find_target("cortex-a76").computing_in("float16")
#: One that has dot products of int8.
INT8_ARM = find_target("cortex-a76").computing_in("int8")


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A network that shows what a pass does; the docstring of its class says where to look.

    Attributes
    ----------
    network : nn.Module
        With weights.
    shape : tuple of int
        Of its input.
    target : CompileTarget
        What it is compiled for.
    functions : tuple of str
        Relax functions to show of the module after the pass.
    attributes : mapping
        Of the imported module: what is known of its numbers.
    """

    network: nn.Module
    shape: tuple[int, ...]
    target: CompileTarget = ARM
    functions: tuple[str, ...] = (ENTRY,)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


#: The first tensor is never negative, the second is; the means of their channels are zero.
TWO_IN_INT8 = {
    INT8_SCALES: [0.5, 0.25], INT8_ZEROS: [-128, 0],
    INT8_MEANS: tvm.runtime.tensor(np.zeros(16, np.float32)),
}  # fmt: skip
TWO_PARTED = (ENTRY, "conv1x1_8x32_4x5", "conv1x1_32x16_4x5")

LESSONS = {
    "pads_in_windows": Lesson(MoreBehind(), (1, 3, 5, 6)),
    "unshuffles_in_windows": Lesson(PixelsAsChannels(), (1, 3, 6, 8)),
    "fold_batch_norm": Lesson(Norms(), (1, 3, 5, 6)),
    "merge_branches": Lesson(TwoPaths(), (1, 3, 4, 5)),
    "pixel_shuffles": Lesson(ChannelsAsPixels(), (1, 3, 4, 5)),
    "eliminate_channel_shuffle": Lesson(ShuffledUnit(), (1, 12, 4, 5)),
    "write_in_read_order": Lesson(UnitReadInRuns(), (1, 12, 4, 5)),
    "choose_layouts": Lesson(PoolBetween(), (1, 3, 8, 10)),
    "absorb_flatten": Lesson(Flattened(), (1, 3, 4, 3)),
    "products_of_rows": Lesson(LinearOverTokens(), (2, 5, 8)),
    "simplify_pools": Lesson(AdaptivePools(), (1, 2, 6, 8)),
    "flatten_concatenations": Lesson(DenseBlock(), (1, 2, 4, 5)),
    "compute_in_half": Lesson(GatedAtTheEnd(), (1, 3, 6, 5), target=HALF_ARM),
    "compute_in_int8": Lesson(
        LayersInInt8(), (1, 3, 6, 5), target=INT8_ARM, attributes=TWO_IN_INT8
    ),
    "lower_to_kernels": Lesson(ConvolutionAndSum(), (1, 3, 8, 10)),
    "fuse_attention": Lesson(TwoHeads(), (1, 5, 8)),
    "move_pixels": Lesson(EnlargedAnswer(), (1, 3, 4, 5)),
    "lower_batched_products": Lesson(Covariance(), (2, 5, 8)),
    "lower_layer_norms": Lesson(NormedTokens(), (2, 5, 8)),
    "lower_softmaxes": Lesson(SharesOfTokens(), (2, 5, 8)),
    "shuffles_in_transposes": Lesson(ShuffledAnswer(), (1, 6, 4, 5)),
    "fuse_rest": Lesson(Gated(), (1, 3, 4, 5)),
    "own_answers": Lesson(Passed(), (1, 3, 2, 4)),
    "replace_kernels": Lesson(TwoProducts(), (1, 8, 4, 5)),
    "expose_intermediates": Lesson(ThreeKernels(), (1, 8, 4, 5), functions=(ENTRY, INTERMEDIATES)),
    "join_in_place": Lesson(Joined(), (1, 8, 6, 5)),
    "compute_in_strips": Lesson(LargeImage(), (1, 3, 56, 44), target=LITTLE_CACHE),
    "residual_in_place": Lesson(Residual(), (1, 3, 6, 5)),
    "compute_on_threads": Lesson(
        TwoProducts(), (1, 8, 4, 5), target=ARM.on_threads(2), functions=TWO_PARTED
    ),
    "constants_in_place": Lesson(LayerTwice(), (1, 8)),
    "launch_once": Lesson(
        TwoProducts(), (1, 8, 4, 5), target=ARM.on_threads(2), functions=(ENTRY, "launch_of_3")
    ),
    "one_function": Lesson(
        LayerTwice(),
        (1, 8),
        target=ARM.on_threads(2),
        functions=(COMPUTE, COMPUTE_TIMED, COMPUTE_SHARE),
    ),
}


def around(name: str, module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, ...]:
    """Run the pipeline on an imported module up to a pass; give the module before and after it."""
    steps = steps_of(pipeline(target), Phase.GRAPH)
    if name not in [step.name for step in steps]:
        module = run_steps(module, steps)
        kernels = kernel_functions(module)
        chosen = {kernel: scheduled(f, target.core) for kernel, f in kernels.items()}
        way = Phase.MACHINE if name == launch_once.__name__ else Phase.FUNCTION
        phases = (Phase.SCHEDULE, Phase.MEMORY, Phase.PLAN, way)
        steps = steps_of(pipeline(target, kernels, chosen), *phases)
    earlier = tuple(itertools.takewhile(lambda step: step.name != name, steps))
    before = run_steps(module, earlier)
    return before, steps[len(earlier)].run(before)


@pytest.mark.parametrize("name", LESSONS)
def test_a_pass_makes_of_its_graph_what_is_written(name: str, golden: GoldenFiles) -> None:
    lesson = LESSONS[name]
    module = imported(seeded(lesson.network), *lesson.shape).module
    module = module.with_attrs(dict(lesson.attributes))
    before, after = around(name, module, lesson.target)
    texts = graph_text(before), graph_text(after, *lesson.functions)
    assert texts[0] != texts[1]
    golden.check(name, *texts)


def test_each_pass_over_calls_and_layers_has_its_text() -> None:
    phases = (Phase.GRAPH, Phase.SCHEDULE, Phase.MEMORY)
    targets = (HALF_ARM, INT8_ARM)
    passes = {step.name for target in targets for step in steps_of(pipeline(target), *phases)}
    others = {f.__name__ for f in (constants_in_place, launch_once, one_function)}
    assert passes | others == set(LESSONS)
    assert {path.stem for path in FOLDER.iterdir()} == set(LESSONS)
