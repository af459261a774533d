"""Canaries: what the compiler takes from TVM beside its public API is still as it was found.

Where one fails after an upgrade, `compile/ir/tvm_edges.py` names the place, and the message what to
look at.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import tvm
from stages import HOST, QUICK, imported, lowered, seeded
from torch import nn
from tvm import relax, tirx, topi
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.pipeline import default_s_tir_pipeline

from shuffledeploy.compiler.ir import tvm_edges
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.library import build_library, build_object


def test_llvm_answers_for_cores_and_features() -> None:
    arm = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"})
    assert {"cortex-a72", "neoverse-n1"} <= tvm_edges.known_cpus(arm), (
        "target.llvm_get_cpu_archlist"
    )
    newer = tvm.target.Target(
        {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}
    )
    assert tvm_edges.has_feature("dotprod", newer), "target.target_has_feature"
    assert tvm_edges.system_cpu(), "target.llvm_get_system_cpu"


def test_a_lowering_is_three_passes_and_can_be_registered() -> None:
    lower, finish_host, finish_device = tvm_edges.default_lowering()
    assert callable(lower), "tvm.s_tir.pipeline.default_s_tir_pipeline"
    assert all(callable(finish) for finish in (finish_host, finish_device))
    tvm_edges.register_lowering("canary", tvm_edges.default_lowering)
    assert tirx.get_tir_pipeline("canary"), "tvm.tirx.compilation_pipeline.register_tir_pipeline"


def test_passes_that_are_left_out_change_no_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = inspect.getsource(default_s_tir_pipeline)
    assert all(f"{name.split('.')[1]}()" in source for name in tvm_edges.IDLE_PASSES)
    network = seeded(nn.Sequential(nn.Conv2d(6, 20, 3, 2, 1), nn.Conv2d(20, 20, 3, groups=20)))
    kernels = kernel_functions(lowered(imported(network, 1, 6, 13, 11).module))
    code = []
    for passes in (tvm_edges.IDLE_PASSES, ()):
        monkeypatch.setattr(tvm_edges, "IDLE_PASSES", passes)
        for name, kernel in kernels.items():
            function = scheduled(kernel, HOST.core).with_attr("global_symbol", name)
            build_object(tvm.IRModule({name: function}), HOST, tmp_path / f"{name}.o")
        code.append([(tmp_path / f"{name}.o").read_bytes() for name in kernels])
    assert len(kernels) >= 2
    assert code[0] == code[1]


def test_tvm_takes_the_error_function_for_one_that_has_no_vectors() -> None:
    from shuffledeploy.compiler.passes.tir import elementary_functions

    assert elementary_functions.compute_functions
    for name in ("exp", "sigmoid", "tanh", "erf", "sqrt", "fabs"):
        assert tvm.ir.Op.get(f"tirx.{name}").get_attr("TVectorizable"), f"let_vectorize: {name}"


def test_operators_of_ours_are_computed_lane_by_lane() -> None:
    """`tvm.ir._ffi_api.RegisterOp` and the attributes that TVM's vectorizer and simplifier read."""
    name = tvm_edges.pure_operator("shuffledeploy.canary")
    assert tvm_edges.pure_operator(name) == name
    operator = tvm.ir.Op.get(name)
    assert operator.get_attr("TVectorizable")
    pure = tvm.ir.Op.get("tirx.exp").get_attr("TCallEffectKind")
    assert operator.get_attr("TCallEffectKind") == pure


def test_modules_come_back_from_json() -> None:
    module = tvm.IRModule({"main": tirx.PrimFunc([], tirx.Evaluate(0))})
    again = tvm_edges.module_from_json(tvm.ir.save_json(module))
    tvm.ir.assert_structural_equal(again, module)


def test_a_kernel_has_an_entry_and_a_part_that_computes() -> None:
    assert tvm_edges.ENTRY_SYMBOL == "__tvm_ffi_main"
    for symbol in ("__tvm_ffi_conv", "conv", "conv_compute_", "conv_compute_.7"):
        assert tvm_edges.function_of(symbol) == "conv"
    buffer = tirx.decl_buffer((4,), "float32", "x")
    body = tirx.BufferStore(buffer, tirx.FloatImm("float32", 1.0), [tirx.IntImm("int32", 0)])
    function = tirx.PrimFunc([buffer], body).with_attr({"global_symbol": "one", "s_tir": True})
    text = tvm.compile(tvm.IRModule({"one": function}), QUICK.tvm_target).mod.inspect_source()
    assert "__tvm_ffi_one" in text, "the names that TVM's LLVM code generator gives"


def test_a_library_of_any_level_registers_no_symbols_of_its_own(tmp_path: Path) -> None:
    values = relax.Var("values", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [values]):
        builder.emit_func_output(builder.emit_te(topi.nn.relu, values))
    build_library(builder.get(), QUICK, tmp_path / "plain.so")
    assert b"RegisterSystemLibSymbol" not in (tmp_path / "plain.so").read_bytes(), (
        "Module.export_library: `fpack_imports`"
    )


def test_meta_schedule_imports_intrinsics_that_take_half_a_minute() -> None:
    source = inspect.getsource(ms.tune_context)
    assert "tensor_intrin" in source, "TuneContext imports them no more: without_gpu_intrinsics"


@pytest.mark.parametrize(
    "name",
    [
        "disable_lower_builtin", "pragma_import_llvm", "calling_conv",
        "pragma_parallel_launch_point", "pragma_parallel_stride_pattern",
        "pragma_parallel_barrier_when_finish",
    ],
)  # fmt: skip
def test_words_of_tvms_that_code_generation_obeys(name: str) -> None:
    """They stand in the compiler's library: where one is gone, LLVM's code changes in silence."""
    from pathlib import Path

    folder = Path(tvm.__file__).parent
    libraries = list(folder.rglob("libtvm_compiler.so")) or list(folder.rglob("libtvm.so"))
    assert any(name.encode() in library.read_bytes() for library in libraries), name


def test_tvm_imports_without_pytorch() -> None:
    code = "import sys; sys.modules['torch'] = None; import tvm; tvm.target.Target('llvm')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_traces_name_the_line_that_raised_though_few_symbols_are_known() -> None:
    code = (
        "import ctypes, shuffledeploy.compiler as compiler; compiler.know_few_symbols()\n"
        "import tvm, tvm_ffi.libinfo as libinfo\n"
        "library = ctypes.CDLL(libinfo.find_libtvm_ffi())\n"
        "assert hasattr(library, 'TVMFFIBacktrace'), 'know_few_symbols: import tvm takes longer'\n"
        "tvm.ir.Op.get('nothing')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert "op.cc" in done.stderr
    assert "Operator nothing is not registered" in done.stderr
