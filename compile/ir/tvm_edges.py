"""All that the compiler takes from TVM beside its public API, each behind a name.

What stands here may change with any release of TVM: `tests/compile/test_tvm_edges.py` has a canary
for each, which says what to look at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import tvm
from tvm import tirx

#: Entry of a kernel that was compiled alone, under the name ``main``.
ENTRY_SYMBOL = "__tvm_ffi_main"
_ENTRY = "__tvm_ffi_"
_COMPUTES = re.compile(r"_compute_(\.\d+)?$")
#: Attribute: an internal function's arguments are pointers, which TVM is to leave alone.
PLAIN_CALLS = {"calling_conv": 1}
#: Attribute: no two buffers of a kernel overlap.
NO_ALIAS = "tirx.noalias"
#: Statement: LLVM's code that is linked into the function.
IMPORT_LLVM = "pragma_import_llvm"
#: Annotation of an allocation: it stands on the stack, however large it is.
ON_STACK = "disable_lower_builtin"
#: Statements: each thread of TVM's pool runs what is inside; in it, loops are parted, and threads
#: wait for each other behind one.
_LAUNCH, _PARTED, _MEET = (
    f"pragma_parallel_{what}" for what in ("launch_point", "stride_pattern", "barrier_when_finish")
)
# What an operator does beside its result: nothing.
_PURE = 1
#: Passes of TVM's lowering that change nothing that LLVM would not: one removes statements without
#: an effect, one writes `(a * 4 + b) // 4` in another way.
IDLE_PASSES = ("tirx.RemoveNoOp", "s_tir.RenormalizeSplitPattern")
#: Attribute: whether `FuseOps` may fuse a kernel, and with what.
FUSION = "op_pattern"


def function_of(symbol: str) -> str:
    """Name the function of a module that a symbol of its library belongs to.

    TVM splits a function: its entry, which checks arguments, and local functions that compute.
    """
    return _COMPUTES.sub("", symbol.removeprefix(_ENTRY))


def argument_checks(wanted: bool) -> dict[str, bool]:
    """Give the setting of a `PassContext` under which kernels check their arguments, or do not."""
    return {"tirx.disable_assert": not wanted}


def in_each_thread(body: Any) -> Any:
    """Run a statement in each thread of the runtime's pool; in it are loops in parallel.

    Each of these loops needs :func:`then_meet` around it, but for the last.
    """
    return _marked(_LAUNCH, body)


def then_meet(loop: tirx.For) -> Any:
    """Let the threads that share out a loop's steps wait for each other behind it."""
    return _marked(_MEET, _marked(_PARTED, loop))


def _marked(key: str, body: Any) -> Any:
    zero = tirx.IntImm("int32", 0)
    return tirx.AttrStmt(zero, key, zero, body)


def system_cpu() -> str:
    """Name the core of this machine as LLVM does."""
    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def known_cpus(target: tvm.target.Target) -> frozenset[str]:
    """List the cores that LLVM knows for a target's architecture."""
    return frozenset(map(str, tvm.get_global_func("target.llvm_get_cpu_archlist")(target)))


def has_feature(name: str, target: tvm.target.Target) -> bool:
    """Whether LLVM takes a feature for granted on a target."""
    return bool(tvm.get_global_func("target.target_has_feature")(name, target))


def default_lowering() -> tuple[Callable[[tvm.IRModule], tvm.IRModule], Any, Any]:
    """Give TVM's own lowering of scheduled TIR, and its last passes for host and device.

    Two of its passes are left out. They take a quarter of what compiling large kernels takes, and
    LLVM makes the same code without them.
    """
    from tvm.s_tir.pipeline import default_s_tir_pipeline

    lower, finish_host, finish_device = default_s_tir_pipeline()

    def lower_with_few_passes(module: tvm.IRModule) -> tvm.IRModule:
        around = tvm.transform.PassContext.current()
        with tvm.transform.PassContext(
            opt_level=around.opt_level, disabled_pass=[*IDLE_PASSES], config=dict(around.config)
        ):
            return lower(module)

    return lower_with_few_passes, finish_host, finish_device


def let_vectorize(intrinsic: str) -> None:
    """Let TVM make vectors of calls of an intrinsic; of those unknown to it it makes loops."""
    tvm.ir.register_op_attr(intrinsic, "TVectorizable", True)


def pure_operator(name: str) -> str:
    """Register an operator of ours that computes numbers of numbers, lane by lane; give its name.

    A pass has to write it out before code is made of it.
    """
    if name not in tvm.ir._ffi_api.ListOpNames():
        tvm.ir._ffi_api.RegisterOp(name, "")
        tvm.ir.register_op_attr(name, "TCallEffectKind", _PURE)
        # Else TVM warns wherever it writes the operator as text, as for a kernel's key.
        tvm.ir.register_op_attr(name, "TScriptPrinterName", name)
        let_vectorize(name)
    return name


def register_lowering(name: str, lowering: Callable[[], tuple[Any, Any, Any]]) -> None:
    """Register a lowering by a name: `tvm.compile` asks for it by that alone."""
    from tvm.tirx.compilation_pipeline import register_tir_pipeline

    register_tir_pipeline(name, lowering)


def pack_imports(module: Any, _: bool, prefix: str, folder: str) -> str:
    """Write what a library imports into an object, as `export_library` asks for it.

    TVM takes code that was compiled without optimisation for a system library, and would have the
    library register itself when it is loaded. The object is data: no instruction is in it.
    """
    from tvm.runtime import _ffi_api

    path = f"{folder}/imports.o"
    target = next(m for m in module.imports if m.kind == "llvm")["_get_target_string"]()
    _ffi_api.ModulePackImportsToLLVM(module, False, target, prefix).write_to_file(path)
    return path


def module_from_json(text: str) -> tvm.IRModule:
    """Read a module that `tvm.ir.save_json` of this very version wrote.

    What `tvm.ir.load_json` does to texts of older versions costs a tenth of a kernel's build.
    """
    from tvm_ffi.serialization import from_json_graph_str

    return from_json_graph_str(text)


def without_gpu_intrinsics() -> None:
    """Let MetaSchedule find an empty module in place of its tensor intrinsics.

    To import them parses some hundreds for GPUs and DSPs, 35 s of CPU, and `TuneContext` does so
    whether or not anything is tensorized.
    """
    name = "tvm.s_tir.tensor_intrin"
    sys.modules.setdefault(name, ModuleType(name))
