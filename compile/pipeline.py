"""The way from a Relax module to a module of scheduled kernels: read it from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import tvm

from compile.kernels.tiling import Core
from compile.passes.absorb_flatten import absorb_flatten
from compile.passes.choose_layouts import choose_layouts
from compile.passes.eliminate_channel_shuffle import eliminate_channel_shuffle
from compile.passes.fold_batch_norm import fold_batch_norm
from compile.passes.fuse_rest import fuse_rest
from compile.passes.lower_to_kernels import lower_to_kernels
from compile.passes.simplify_pools import simplify_pools
from compile.passes.write_in_read_order import write_in_read_order
from model.errors import UsageError

Pass = Callable[[tvm.IRModule], tvm.IRModule]


def graph_passes(core: Core) -> list[tuple[str, Pass]]:
    """List the graph passes in order, each with its name.

    After the last one every computation is a call of an unscheduled TIR kernel. What follows is
    `compile.tuning` (find or apply schedules), `compile.network.link_kernels` (scheduled kernels in
    their places, parts of concatenations in theirs, layers with large tensors by strips, sums over
    their residuals) and
    `compile.library` (build and link).
    """
    return [
        # Phase 1: arithmetic that constants can carry.
        ("fold_batch_norm", fold_batch_norm),
        # Phase 2: shuffles become the order in which a neighbour reads or writes.
        ("eliminate_channel_shuffle", eliminate_channel_shuffle),
        ("write_in_read_order", partial(write_in_read_order, core=core)),
        # Phase 3: where channels stand.
        ("choose_layouts", choose_layouts),
        ("absorb_flatten", absorb_flatten),
        ("simplify_pools", simplify_pools),
        # Phase 4: kernels, each with its neighbours inside.
        ("lower_to_kernels", partial(lower_to_kernels, core=core)),
        # Phase 5: whatever no kernel of ours covers.
        ("fuse_rest", fuse_rest),
    ]


def run_graph_passes(
    module: tvm.IRModule, core: Core, dump_folder: Path | None = None
) -> tvm.IRModule:
    """Run the passes of :func:`graph_passes`.

    Parameters
    ----------
    module : tvm.IRModule
        As `compile.program.import_program` gives it.
    core : Core
        What the kernels' forms need to know of the target.
    dump_folder : Path, optional
        Where the module is written after each pass, ``NN_name.py``.
    """
    _dump(module, dump_folder, 0, "import")
    for number, (name, transform) in enumerate(graph_passes(core), start=1):
        module = transform(module)
        _dump(module, dump_folder, number, name)
    return module


def _dump(module: tvm.IRModule, folder: Path | None, number: int, name: str) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}_{name}.py").write_text(module.script(), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
