"""A network without a runtime: its functions, what it links with, its answers to the bit."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stages import HOST, draw, seeded
from strip_networks import SMALL, Units
from torch import Tensor, nn
from tvm import relax

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.frontend.program import trace, trace_module
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.native_tools import compile_c, zig
from shuffledeploy.compiler.network import choose_schedules, lower, write_bundle
from shuffledeploy.compiler.passes.memory.planned_calls import planned_program
from shuffledeploy.compiler.standalone.c_interface import c_identifier, parameters
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.registry import build, input_shape

NORMALISATION = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
MUSL = "-target", "x86_64-linux-musl" if HOST.architecture == "x86_64" else "aarch64-linux-musl"


class SeveralOfEach(nn.Module):
    """Two inputs; an output that is an input, one that is returned twice, one that is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("fixed", torch.arange(5.0))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(left + right)
        return y, right, y, self.fixed * 2


class Shares(nn.Module):
    """TVM's own rules compile it, with tensors between its loops that no stack holds."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, 1)


def standalone(
    folder: Path, module: nn.Module, *inputs: Tensor, name: str = "net",
    target: CompileTarget = HOST, normalisation: dict[str, list[float]] | None = None,
) -> Bundle:  # fmt: skip
    """Compile a module with default schedules, as a bundle and without a runtime."""
    exported = trace_module(seeded(module), inputs)
    lowered = lower(exported, target)
    write_bundle(
        folder / name, lowered, choose_schedules(lowered, target, {}), target, network=name,
        normalisation=normalisation, options={}, standalone=name,
    )  # fmt: skip
    return load_bundle(folder / name)


class Loaded:
    """The shared library of a bundle, in this process."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.made = bundle, bundle.standalone
        self.library = ctypes.CDLL(str(bundle.standalone_library))
        self.workspace = aligned_bytes(self.made.workspace)

    def function(self, suffix: str) -> Callable[..., int]:
        found: Callable[..., int] = self.library[f"{self.made.name}_{suffix}"]
        return found

    def run(self, inputs: list[Array]) -> list[Array]:
        given = [aligned_copy(value) for value in inputs]
        answers = [np.zeros(t.shape, t.dtype) for t in self.bundle.manifest.outputs]
        places = [aligned_copy(answer) for answer in answers]
        pointers = [place.ctypes.data for place in (*given, *places, self.workspace)]
        assert self.function("run")(*map(ctypes.c_void_p, pointers)) == 0
        return [place.view(a.dtype).reshape(a.shape) for place, a in zip(places, answers)]


def aligned_bytes(size: int) -> Array:
    """Give memory from a multiple of 64 bytes on, filled with what is no number."""
    memory = np.full(size + 64, 255, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def aligned_copy(value: Array) -> Array:
    memory = aligned_bytes(value.nbytes)
    memory[:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return memory


def bundle_answers(bundle: Bundle, inputs: list[Array]) -> list[Array]:
    from shuffledeploy.deploy.runtime.execution import open_network

    with open_network(bundle, "local") as network:
        return network.run(inputs)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("units")
    little_cache = dataclasses.replace(HOST, cache=SMALL)
    image = draw(1, 3, 40, 40)
    return standalone(
        folder, Units(), image, target=little_cache, normalisation=NORMALISATION
    )  # fmt: skip


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


def undefined(path: Path, *options: str) -> set[str]:
    """List what a file needs from others."""
    return symbols(path, "--undefined-only", *options)


def symbols(path: Path, *options: str) -> set[str]:
    nm = shutil.which("nm") or pytest.skip("this machine has no nm")
    command = [nm, "--format=posix", *options, str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in lines}


def test_it_needs_memcpy_and_the_shared_library_nothing(units: Bundle) -> None:
    made = units.standalone
    public = {f"net_{name}" for name in ("run", "run_timed", "run_within", "workspace_bytes")}
    assert undefined(units.path / made.object) <= {"memcpy"}
    assert undefined(units.standalone_library, "--dynamic") == set()
    assert symbols(units.standalone_library, "--dynamic", "--defined-only") == public
    assert symbols(units.path / made.object, "--extern-only", "--defined-only") == public | {
        "net_compute", "net_compute_timed",
    }  # fmt: skip


def test_two_networks_link_into_one_program(units: Bundle, tmp_path: Path) -> None:
    other = standalone(tmp_path, nn.Linear(3, 2), draw(1, 3), name="other")
    program = tmp_path / "both.c"
    program.write_text(
        '#include "net.h"\n#include "other.h"\n'
        "int main(void) {\n"
        "  return net_workspace_bytes() == NET_WORKSPACE_BYTES &&\n"
        "         other_workspace_bytes() == OTHER_WORKSPACE_BYTES &&\n"
        "         net_run(0, 0, 0) == NET_MISALIGNED && other_run(0, 0, 0) == OTHER_MISALIGNED\n"
        "             ? 0 : 1;\n}\n"
    )
    archives = [str(b.path / b.standalone.archive) for b in (units, other)]
    includes = [f"-I{b.path}" for b in (units, other)]
    compile_c(program, tmp_path / "both", [*MUSL, "-static", "-std=c99", *includes, *archives])
    assert subprocess.run([str(tmp_path / "both")], check=False).returncode == 0


def test_the_header_is_c_and_cpp_and_tells_the_tensors(units: Bundle, tmp_path: Path) -> None:
    text = (units.path / "net.h").read_text()
    for said in (
        "Input x: float32 [1, 3, 40, 40]", "3 planes of 40 rows of 40 pixels",
        "#define NET_X_ELEMENTS 4800", "#define NET_OUTPUT_0_ELEMENTS 24",
        "#define NET_MEAN {0.5f, 0.4f, 0.3f}",
        "int net_run(const float *x, float *output_0, void *workspace);",
    ):  # fmt: skip
        assert said in text
    assert max(map(len, text.splitlines())) <= 100
    for language in ("-xc", "-xc++"):
        flags = ["-c", "-Wall", "-Wextra", "-Werror", "-DNET_WITH_KERNEL_NAMES"]
        tool = "cc" if language == "-xc" else "c++"
        source = '#include "net.h"\nint main() { return sizeof net_kernel_names == 0; }\n'
        done = subprocess.run(
            [str(zig()), tool, *flags, language, f"-I{units.path}", "-", "-o",
             str(tmp_path / tool)], input=source, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_the_example_classifies_a_picture(units: Bundle, tmp_path: Path) -> None:
    example = units.path / "example.c"
    archive = str(units.path / units.standalone.archive)
    compile_c(example, tmp_path / "classify", [*MUSL, "-static", f"-I{units.path}", archive])
    pixels = np.random.default_rng(5).integers(0, 256, (40, 40, 3), np.uint8)
    picture = tmp_path / "picture.ppm"
    picture.write_bytes(b"P6\n40 40\n255\n" + pixels.tobytes())
    command = [str(tmp_path / "classify"), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    mean, std = (np.array(NORMALISATION[key], np.float32) for key in ("mean", "std"))
    image = ((pixels / np.float32(255) - mean) / std).astype(np.float32)
    (answer,) = Loaded(units).run([image.transpose(2, 0, 1)[None]])
    assert done.stdout.startswith(f"class {answer.argmax()}, logit {answer.max():.3f}")
    picture.write_bytes(b"P6\n40 41\n255\n" + pixels.tobytes())
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "40 x 40 pixels" in refused.stderr


def test_a_network_without_a_picture_has_an_example_too(tmp_path: Path) -> None:
    bundle = standalone(tmp_path, SeveralOfEach(), draw(1, 6), draw(1, 6))
    flags = [*MUSL, "-static", f"-I{bundle.path}", str(bundle.path / bundle.standalone.archive)]
    compile_c(bundle.path / "example.c", tmp_path / "example", flags)
    done = subprocess.run([str(tmp_path / "example")], capture_output=True, text=True, check=True)
    bias = seeded(SeveralOfEach()).layer.bias
    assert done.stdout == f"output_0[0] = {bias[0].item():g}\n"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("shufflenet-g3-x0.5", "shufflenet_g3_x0_5"), ("Net", "net"), ("3d net!", "net_3d_net"),
        ("int", "int_net"), ("math", "math_net"),
        ("stdint", "stdint_net"), ("network", "network_net"),
        ("größe", "gr_e"), ("x" * 100, "x" * 60),
    ],
)  # fmt: skip
def test_a_c_identifier_is_made_of_every_name(name: str, made: str) -> None:
    assert c_identifier(name) == made


def test_a_name_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no C identifier can be made of '\?\?'"):
        c_identifier("??")


def test_tensors_have_names_of_their_own_in_c(units: Bundle) -> None:
    (tensor,) = units.manifest.inputs
    named = [
        tensor.__class__(name, (1,), "float32")
        for name in ("a.b", "a_b", "A-B", "int", "7", "workspace", "ü", "NULL", "linux", "printf")
    ]
    names = [parameter.name for parameter in parameters(named)]
    assert names == [
        "a_b",
        "a_b_2",
        "A_B_3",
        "tensor_int",
        "tensor_7",
        "workspace_2",
        "tensor_6",
        "tensor_NULL",
        "tensor_linux",
        "tensor_printf",
    ]


def test_an_arm_object_is_for_every_c_library(tmp_path: Path) -> None:
    target = find_target("cortex-a72")
    exported = trace(build("shufflenet-fashion"), input_shape("shufflenet-fashion", None))
    lowered = lower(exported, target)
    write_bundle(
        tmp_path / "arm", lowered, choose_schedules(lowered, target, {}), target, network="fashion",
        normalisation=None, options={}, standalone="fashion",
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "arm")
    made = bundle.standalone
    program = tmp_path / "main.c"
    program.write_text('#include "fashion.h"\nint main(void) { return fashion_run(0, 0, 0); }\n')
    for library in ("gnu.2.28", "musl"):
        flags = ["-target", f"aarch64-linux-{library}", f"-I{bundle.path}"]
        compile_c(program, tmp_path / library, [*flags, str(bundle.path / made.object)])
    assert undefined(bundle.path / made.object) <= {"memcpy"}
    # Android's loader (bionic) wants segments aligned to pages of 16 KiB and no text relocations.
    readelf = shutil.which("readelf") or pytest.skip("this machine has no readelf")
    command = [readelf, "-dlW", str(bundle.standalone_library)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in told and "TEXTREL" not in told
    loads = [line.split() for line in told.splitlines() if line.strip().startswith("LOAD")]
    assert {line[-1] for line in loads} == {"0x4000"}


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
