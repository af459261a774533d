"""A network without a runtime as C sees it: what it links with, its header, its example, names."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stages import HOST, draw, seeded
from standalone_networks import (
    NORMALISATION,
    Loaded,
    SeveralOfEach,
    standalone,
    symbols,
    undefined,
)
from torch import nn

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.native_tools import compile_c, run_tool, zig
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.standalone import objects
from shuffledeploy.compiler.standalone.c_interface import c_identifier, parameters
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.deploy.runner.bench_runner import program_flags
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.registry import build, input_shape

pytestmark = pytest.mark.long

#: A C library is built for each set of flags: these are the bench runner's, so that it is there.
MUSL = program_flags(HOST.architecture)


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
    compile_c(program, tmp_path / "both", [*MUSL, "-std=c99", *includes, *archives])
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
    compile_c(example, tmp_path / "classify", [*MUSL, f"-I{units.path}", archive])
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
    flags = [*MUSL, f"-I{bundle.path}", str(bundle.path / bundle.standalone.archive)]
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


@pytest.fixture(scope="module")
def assembly() -> list[str]:
    """Collect what LLVM made of the kernels of `arm`, for each of its formats."""
    return []


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory, assembly: list[str]) -> Iterator[Bundle]:
    target = find_target("cortex-a72")
    exported = trace(build("shufflenet-fashion"), input_shape("shufflenet-fashion", None))
    lowered = lower(exported, target)
    compiled_kernels = objects.compiled_kernels

    def shown(*arguments: Any) -> Any:
        made = compiled_kernels(*arguments)
        assembly.append(made.mod.inspect_source("asm"))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "compiled_kernels", shown)
        yield write_bundle(
            tmp_path_factory.mktemp("arm") / "b", lowered, choose_schedules(lowered, target, {}),
            target, network="fashion", normalisation=None, options={}, standalone="fashion",
            apple=True,
        )  # fmt: skip


def _mach_o_symbols(path: Path) -> dict[str, tuple[bool, bool]]:
    """List the symbols of an object of Mach-O: whether it defines each, and whether weakly.

    See Apple's <mach-o/loader.h> and <mach-o/nlist.h>; those that only this object knows are left
    out.
    """
    content, found, place = path.read_bytes(), {}, 32
    magic, cpu = struct.unpack_from("<II", content)
    assert (magic, cpu) == (0xFEEDFACF, 0x100000C)
    (commands,) = struct.unpack_from("<I", content, 16)
    for _ in range(commands):
        command, size = struct.unpack_from("<II", content, place)
        # No object may name its system: the linker of each takes it.
        assert command not in (0x24, 0x25, 0x32)
        if command == 2:
            table, count, texts = struct.unpack_from("<III", content, place + 8)
            for number in range(count):
                text, kind, _, described = struct.unpack_from("<IBBH", content, table + 16 * number)
                name = content[texts + text : content.index(0, texts + text)].decode()
                if kind & 1:
                    found[name] = (kind & 0xE != 0, described & 0x80 != 0)
        place += size
    return found


def test_the_register_that_some_systems_keep_is_left_alone(
    arm: Bundle, assembly: list[str]
) -> None:
    assert len(assembly) == 2
    for code in assembly:
        assert re.search(r"\b[xw]17\b", code) and not re.search(r"\b[xw]18\b", code)


def test_a_library_for_apples_systems_is_mach_o_and_links(arm: Bundle, tmp_path: Path) -> None:
    archive = arm.path / arm.standalone.apple_archive
    subprocess.run([zig(), "ar", "x", archive], cwd=tmp_path, check=True)
    kernels, entries = (_mach_o_symbols(tmp_path / f"{name}.o") for name in ("kernels", "entries"))
    assert {name for name, (defined, _) in kernels.items() if not defined} <= {"_memcpy"}
    strong = {name for name, (defined, is_weak) in kernels.items() if defined and not is_weak}
    assert strong == {"_fashion_compute", "_fashion_compute_timed"}
    assert {name for name, (defined, _) in entries.items() if defined} == {
        f"_fashion_{name}" for name in ("run", "run_timed", "run_within", "workspace_bytes")
    }
    program, system = tmp_path / "program", ("-target", "aarch64-macos")
    flags = ("-c", *system, f"-I{arm.path}")
    compile_c(arm.path / "example.c", tmp_path / "example.o", flags)
    link = [str(zig()), "build-exe", str(tmp_path / "example.o"), str(archive), *system, "-lc"]
    run_tool([*link, "-fno-compiler-rt", "-fno-ubsan-rt", f"-femit-bin={program}"], "link for it")
    # An executable of Mach-O.
    assert struct.unpack_from("<IIII", program.read_bytes())[::3] == (0xFEEDFACF, 2)


def test_code_for_other_processors_is_none_of_apples(capsys: pytest.CaptureFixture[str]) -> None:
    if HOST.architecture != "aarch64":
        assert tune(["--target", "host", "--standalone", "--apple"]) == 2
        assert "--apple goes with a 64-bit ARM --target" in capsys.readouterr().err
    assert tune(["--target", "arm", "--apple"]) == 2
    assert "--apple goes with --standalone" in capsys.readouterr().err


def test_an_arm_object_is_for_every_c_library(arm: Bundle, tmp_path: Path) -> None:
    made = arm.standalone
    program = tmp_path / "main.c"
    program.write_text('#include "fashion.h"\nint main(void) { return fashion_run(0, 0, 0); }\n')
    flags = program_flags("aarch64")
    compile_c(program, tmp_path / "main", [*flags, f"-I{arm.path}", str(arm.path / made.object)])
    # Every C library has it, and nothing else is asked of one.
    assert undefined(arm.path / made.object) <= {"memcpy"}
    # Android's loader (bionic) wants segments aligned to pages of 16 KiB and no text relocations.
    readelf = shutil.which("readelf") or pytest.skip("this machine has no readelf")
    command = [readelf, "-dlW", str(arm.standalone_library)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in told and "TEXTREL" not in told
    loads = [line.split() for line in told.splitlines() if line.strip().startswith("LOAD")]
    assert {line[-1] for line in loads} == {"0x4000"}
