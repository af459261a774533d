"""The way from an imported network to object code: every step, in order, in one list.

A step takes a module and gives a module. What it found out stands in attributes of the functions
that it is about (:mod:`compiler.ir.attributes`).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import LANES, SHARED, WORDS, attribute, kind_of
from shuffledeploy.compiler.ir.memory_layout import HALF, INT8
from shuffledeploy.compiler.ir.tvm_edges import default_lowering
from shuffledeploy.compiler.kernels.tiling import MASKED_LANES
from shuffledeploy.compiler.passes.graph.absorb_flatten import absorb_flatten
from shuffledeploy.compiler.passes.graph.batched_products import lower_batched_products
from shuffledeploy.compiler.passes.graph.choose_layouts import choose_layouts
from shuffledeploy.compiler.passes.graph.compute_in_half import compute_in_half
from shuffledeploy.compiler.passes.graph.compute_in_int8 import compute_in_int8
from shuffledeploy.compiler.passes.graph.eliminate_channel_shuffle import eliminate_channel_shuffle
from shuffledeploy.compiler.passes.graph.flatten_concatenations import flatten_concatenations
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.graph.fuse_attention import fuse_attention
from shuffledeploy.compiler.passes.graph.fuse_rest import fuse_rest
from shuffledeploy.compiler.passes.graph.layer_norms import lower_layer_norms
from shuffledeploy.compiler.passes.graph.lower_to_kernels import lower_to_kernels
from shuffledeploy.compiler.passes.graph.merge_branches import merge_branches
from shuffledeploy.compiler.passes.graph.own_answers import own_answers
from shuffledeploy.compiler.passes.graph.pads_in_windows import pads_in_windows
from shuffledeploy.compiler.passes.graph.pixel_moves import move_pixels
from shuffledeploy.compiler.passes.graph.pixel_shuffles import pixel_shuffles
from shuffledeploy.compiler.passes.graph.products_of_rows import products_of_rows
from shuffledeploy.compiler.passes.graph.shuffles_in_transposes import shuffles_in_transposes
from shuffledeploy.compiler.passes.graph.simplify_pools import simplify_pools
from shuffledeploy.compiler.passes.graph.softmaxes import lower_softmaxes
from shuffledeploy.compiler.passes.graph.unshuffles_in_windows import unshuffles_in_windows
from shuffledeploy.compiler.passes.graph.write_in_read_order import write_in_read_order
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.compute_on_threads import LEAST_WORK, compute_on_threads
from shuffledeploy.compiler.passes.memory.constants_in_place import constants_in_place
from shuffledeploy.compiler.passes.memory.expose_intermediates import expose_intermediates
from shuffledeploy.compiler.passes.memory.join_in_place import join_in_place
from shuffledeploy.compiler.passes.memory.launch_once import launch_once
from shuffledeploy.compiler.passes.memory.one_function import one_function
from shuffledeploy.compiler.passes.memory.replace_kernels import replace_kernels
from shuffledeploy.compiler.passes.memory.residual_in_place import residual_in_place
from shuffledeploy.compiler.passes.tir.dot_products import write_dot_products
from shuffledeploy.compiler.passes.tir.elementary_functions import compute_functions
from shuffledeploy.compiler.passes.tir.fetch_weights import fetch_next_weights
from shuffledeploy.compiler.passes.tir.joined_stores import join_stores
from shuffledeploy.compiler.passes.tir.last_tile import part_last_tile
from shuffledeploy.compiler.passes.tir.masked_vectors import has_masks, mask_odd_vectors
from shuffledeploy.compiler.passes.tir.maximum_instructions import write_maximums
from shuffledeploy.compiler.passes.tir.neighbour_loads import load_neighbours, reads_one_by_one
from shuffledeploy.compiler.passes.tir.odd_vectors import cut_odd_vectors
from shuffledeploy.compiler.passes.tir.one_step_buffers import hold_one_step
from shuffledeploy.compiler.passes.tir.shared_vectors import mark_shared, share_vectors
from shuffledeploy.compiler.passes.tir.start_from_residual import start_from_residual
from shuffledeploy.compiler.passes.tir.tiles_in_registers import keep_on_stack, load_whole_vectors
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.printable import printable_line

Pass = Callable[[tvm.IRModule], tvm.IRModule]
FunctionPass = Callable[[tirx.PrimFunc], tirx.PrimFunc]


class Phase(enum.Enum):
    """What a step works on; a kernel that is tuned alone goes through ``KERNEL`` and ``CODE``."""

    #: The network's graph: afterwards every computation is a call of an unscheduled kernel.
    GRAPH = enum.auto()
    #: Each kernel gets its schedule: that of a tuning record, or its form's default numbers.
    SCHEDULE = enum.auto()
    #: Calls of scheduled kernels: what is written where, and layers that are computed together.
    MEMORY = enum.auto()
    #: Each scheduled kernel: what TVM's schedule primitives cannot say.
    KERNEL = enum.auto()
    #: The entry function: weights in place, TVM's plan of the memory, calls without dataflow.
    PLAN = enum.auto()
    #: Of a bundle's library: the entry function becomes the virtual machine's program.
    MACHINE = enum.auto()
    #: Of a standalone network: the entry function becomes a function of pointers.
    FUNCTION = enum.auto()
    #: Each kernel: TVM lowers it to loops over memory, and what it leaves undone is done.
    CODE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Step:
    """A named pass over a module, in its phase."""

    phase: Phase
    name: str
    run: Pass


def pipeline(
    target: CompileTarget,
    unscheduled: Mapping[str, tirx.PrimFunc] = MappingProxyType({}),
    scheduled: Mapping[str, tirx.PrimFunc] = MappingProxyType({}),
) -> tuple[Step, ...]:
    """List every step in order.

    Parameters
    ----------
    target : CompileTarget
        What to compile for.
    unscheduled, scheduled : mapping
        The kernels by name, as ``GRAPH`` leaves them and as the tuner chose their schedules: what
        the phases between ``GRAPH`` and ``KERNEL`` need to know.
    """
    core = target.core
    # Groups of layers go by strips of a single thread.
    cache = target.cache if target.threads == 1 else target.with_whole_layers.cache
    passes: dict[Phase, dict[str, Pass]] = {
        Phase.GRAPH: {
            # What windows pad themselves.
            "pads_in_windows": pads_in_windows,
            # Pixels that became channels are read as pixels.
            "unshuffles_in_windows": unshuffles_in_windows,
            # Arithmetic that constants can carry.
            "fold_batch_norm": fold_batch_norm,
            # Branches that are one grouped convolution.
            "merge_branches": merge_branches,
            # Shuffles become the order in which a neighbour reads or writes.
            "pixel_shuffles": pixel_shuffles,
            "eliminate_channel_shuffle": eliminate_channel_shuffle,
            "write_in_read_order": partial(write_in_read_order, core=core),
            # Where channels stand.
            "choose_layouts": choose_layouts,
            "absorb_flatten": absorb_flatten,
            # Layers over tokens.
            "products_of_rows": products_of_rows,
            "simplify_pools": simplify_pools,
            "flatten_concatenations": flatten_concatenations,
            # Of float32, whatever is computed around them.
            "fuse_attention": partial(fuse_attention, core=core),
            **({"compute_in_half": compute_in_half} if target.precision == HALF else {}),
            **({"compute_in_int8": compute_in_int8} if target.precision == INT8 else {}),
            # Kernels, each with its neighbours inside; then whatever no kernel of ours covers.
            "lower_to_kernels": partial(lower_to_kernels, core=core),
            "move_pixels": partial(move_pixels, core=core),
            "lower_batched_products": partial(lower_batched_products, core=core),
            "lower_layer_norms": partial(lower_layer_norms, core=core),
            "lower_softmaxes": partial(lower_softmaxes, core=core),
            "shuffles_in_transposes": shuffles_in_transposes,
            "fuse_rest": fuse_rest,
            # An input that is an answer is copied.
            "own_answers": own_answers,
        },
        Phase.SCHEDULE: {"replace_kernels": partial(replace_kernels, functions=scheduled)},
        Phase.MEMORY: {
            "expose_intermediates": expose_intermediates,
            "join_in_place": partial(join_in_place, unscheduled=unscheduled),
            "compute_in_strips": partial(
                compute_in_strips,
                unscheduled=unscheduled,
                cache=cache,
                small_indices=target.architecture == "x86_64",
            ),
            "residual_in_place": residual_in_place,
            "compute_on_threads": partial(
                compute_on_threads,
                threads=target.threads,
                fetches=target.fetches,
                least_work=LEAST_WORK,
            ),
        },
        Phase.KERNEL: {
            "mark_shared": each(mark_shared, kind_of),
            **(
                {"start_from_residual": each(start_from_residual, kind_of)}
                if core.multiplies_by_lane
                else {}
            ),
            "cut_odd_vectors": each(cut_odd_vectors, kind_of),
            **({"fetch_next_weights": each(fetch_next_weights, kind_of)} if target.fetches else {}),
            "part_last_tile": each(part_last_tile, kind_of),
            "hold_one_step": each(hold_one_step, kind_of),
        },
        Phase.PLAN: {
            "constants_in_place": constants_in_place,
            "to_non_dataflow": relax.transform.ToNonDataflow(),
            "remove_purity_checking": relax.transform.RemovePurityChecking(),
            "call_tir_rewrite": relax.transform.CallTIRRewrite(),
            "static_plan_block_memory": relax.transform.StaticPlanBlockMemory(),
        },
        Phase.MACHINE: {
            "launch_once": launch_once,
            "lower_alloc_tensor": relax.transform.LowerAllocTensor(),
            "kill_after_last_use": relax.transform.KillAfterLastUse(),
            "lower_runtime_builtin": relax.transform.LowerRuntimeBuiltin(),
            "compute_prim_value": relax.transform.ComputePrimValue(),
            "vm_shape_lower": relax.transform.VMShapeLower(),
            "attach_global_symbol": relax.transform.AttachGlobalSymbol(),
        },
        Phase.FUNCTION: {
            "one_function": partial(
                one_function, architecture=target.architecture, threads=target.threads
            )
        },
        Phase.CODE: {
            "lower_tir": _lower_tir,
            "write_dot_products": each(partial(write_dot_products, core=core), _reads_words),
            **({"join_stores": each(join_stores)} if target.precision == INT8 else {}),
            "share_vectors": each(share_vectors, _shares),
            **(
                {"load_neighbours": each(load_neighbours, reads_one_by_one)}
                if core.multiplies_by_lane
                else {}
            ),
            "load_whole_vectors": each(load_whole_vectors),
            "mask_odd_vectors": each(mask_odd_vectors, has_masks),
            "compute_functions": each(compute_functions),
            **({"write_maximums": each(write_maximums)} if core.multiplies_by_lane else {}),
            "keep_on_stack": each(keep_on_stack),
        },
    }
    return tuple(
        Step(phase, name, run) for phase, named in passes.items() for name, run in named.items()
    )


def steps_of(steps: Sequence[Step], *phases: Phase) -> tuple[Step, ...]:
    """Pick the steps of some phases."""
    return tuple(step for step in steps if step.phase in phases)


def each(change: FunctionPass, where: Callable[[tirx.PrimFunc], Any] = lambda _: True) -> Pass:
    """Make a pass over a module of one over a function, for functions of which `where` holds."""

    def run(module: tvm.IRModule) -> tvm.IRModule:
        functions = {
            variable: change(function)
            if isinstance(function, tirx.PrimFunc) and where(function)
            else function
            for variable, function in module.functions.items()
        }
        return tvm.IRModule(functions, attrs=module.attrs)

    return run


@dataclasses.dataclass(frozen=True)
class Dump:
    """Writes the module after each step, ``NN_name.py``; nothing where no folder was asked for.

    Attributes
    ----------
    folder : Path or None
        Where to.
    numbers : mapping
        Of each step in the whole list.
    """

    folder: Path | None = None
    numbers: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(folder: Path | None, steps: Iterable[Step]) -> Dump:
        """Make one that numbers the steps of a whole list."""
        return Dump(folder, {step.name: number for number, step in enumerate(steps, start=1)})

    def __call__(self, module: tvm.IRModule, name: str) -> None:
        """Write a module as it is after a step.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        if self.folder is None:
            return
        path = self.folder / f"{self.numbers.get(name, 0):02d}_{name}.py"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(module.script(), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error


def run_steps(module: tvm.IRModule, steps: Iterable[Step], dump: Dump = Dump()) -> tvm.IRModule:
    """Run steps one after the other, and show the module after each where that was asked for.

    Raises
    ------
    Failure
        If a step fails in a way of its own: names it.
    """
    for step in steps:
        try:
            module = step.run(module)
        except (UsageError, Failure):
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = printable_line(lines[-1])
            raise Failure(f"the pass {step.name} cannot take this network: {reason}") from error
        dump(module, step.name)
    return module


def _lower_tir(module: tvm.IRModule) -> tvm.IRModule:
    lower, *_ = default_lowering()
    return lower(module)


def _reads_words(function: tirx.PrimFunc) -> bool:
    return attribute(function, WORDS) is not None


def _shares(function: tirx.PrimFunc) -> bool:
    masked = attribute(function, LANES) == MASKED_LANES
    return attribute(function, SHARED) is not None and (has_masks(function) or not masked)
