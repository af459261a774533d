"""The guide for app developers, run as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.native_tools import compile_c, zig
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.zoo import compile_network
from shuffledeploy.deploy.runtime.standalone_network import open_standalone

GUIDE = Path(__file__).parents[2] / "deploy" / "APPS.md"
NAME = "shufflenet_g3_x0_5"


def block(language: str, holding: str = "") -> str:
    """Give the only block of a language that holds a text."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (text,) = (block for block in found if holding in block)
    return text


def tool(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"this machine has no {name}")


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("app") / "bundle"
    target = find_target("host").on_threads(2)
    return compile_network("shufflenet-g3-x0.5", target, folder, standalone=True)


class Small(nn.Module):
    """Takes the guide's picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.classifier = nn.Conv2d(3, 8, 5, stride=4), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.conv(x)).mean((2, 3)))


def test_the_quick_start_classifies_a_picture(tmp_path: Path) -> None:
    network = Small().eval()
    exported = torch.export.export(network, (torch.zeros(1, 3, 224, 224),))
    torch.export.save(exported, tmp_path / "mine.pt2")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    commands = block("sh").replace("cortex-a72", "host")
    # What stands on a developer's machine: the commands of the virtual environment, a C compiler.
    programs = tmp_path / "programs"
    programs.mkdir()
    words = {"shuffledeploy": f"{sys.executable} -m shuffledeploy", "python": sys.executable,
             "cc": f"{zig()} cc"}  # fmt: skip
    for name, command in words.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(GUIDE.parents[1]),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "-e"], input=commands, cwd=tmp_path, env=environment, text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0]
    said, logit = done.stdout.splitlines()[-1].rsplit(maxsplit=1)
    assert said == f"class {int(logits.argmax())}, logit"
    assert float(logit) == pytest.approx(float(logits.max()), abs=1e-4)


def test_the_demo_ends_with_what_an_app_needs_and_a_line_a_precision() -> None:
    command = [tool("make"), "--dry-run", "--no-print-directory", "demo"]
    told = subprocess.run(command, cwd=GUIDE.parents[1], text=True, check=True, capture_output=True)
    # Of that command `test_standalone_devices` tests that it names the files and their sizes.
    ends = r"deploy/run\.py \S+ --standalone\n\S+ deploy/precisions\.py --board \S+$"
    assert re.search(ends, told.stdout.strip())


def test_cmake_builds_the_example(shufflenet: Bundle, tmp_path: Path) -> None:
    cmake = tool("cmake")
    tool("make")
    for name in (f"{NAME}.h", f"lib{NAME}.a", "example.c"):
        shutil.copy(shufflenet.path / name, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(block("cmake"))
    for step in (["-S", ".", "-B", "built"], ["--build", "built"]):
        subprocess.run([cmake, *step], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([str(tmp_path / "built" / "classify")], check=False, capture_output=True)
    assert done.returncode == 2 and b"224 x 224 pixels" in done.stderr


def test_two_threads_of_a_program_run_the_network(shufflenet: Bundle, tmp_path: Path) -> None:
    program = f"""\
#include <pthread.h>
#include <string.h>
#include "{NAME}.h"
static _Alignas(64) float input[1 * 3 * 224 * 224], output[1000], alone[1000];
static _Alignas(64) unsigned char workspace[{NAME.upper()}_WORKSPACE_BYTES];
{block("c", "run_share")}
int main(void) {{
  for (int i = 0; i < 1 * 3 * 224 * 224; ++i) input[i] = (float)(i % 17) / 17.0f;
  if (run_on_two_threads() || {NAME}_run(input, alone, workspace)) return 2;
  return memcmp(output, alone, sizeof alone) != 0;
}}
"""
    (tmp_path / "threads.c").write_text(program)
    flags = ["-pthread", f"-I{shufflenet.path}", str(shufflenet.path / f"lib{NAME}.a")]
    compile_c(tmp_path / "threads.c", tmp_path / "threads", flags)
    assert subprocess.run([str(tmp_path / "threads")], check=False, timeout=60).returncode == 0


def test_the_java_interface_compiles(shufflenet: Bundle, tmp_path: Path) -> None:
    headers = sorted(Path("/usr/lib/jvm").glob("*/include/jni.h"))
    if not headers:
        pytest.skip("this machine has no jni.h")
    source = tmp_path / "network.c"
    source.write_text(block("c", "JNIEXPORT"))
    includes = [f"-I{place}" for place in (shufflenet.path, headers[0].parent)]
    includes.append(f"-I{headers[0].parent / 'linux'}")
    archive = str(shufflenet.path / f"lib{NAME}.a")
    compile_c(source, tmp_path / "libnetwork.so", ["-shared", "-fPIC", *includes, archive])


def test_rust_calls_the_network(shufflenet: Bundle, tmp_path: Path) -> None:
    rustc = tool("rustc")
    if subprocess.run([rustc, "--version"], check=False, capture_output=True).returncode:
        # As rustup's is where a user has chosen no version.
        pytest.skip("this machine's rustc does not run")
    (tmp_path / "main.rs").write_text(block("rust"))
    command = [rustc, "-L", str(shufflenet.path), "main.rs", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    program = str(tmp_path / "main")
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    with open_standalone(shufflenet, "local") as network:
        (scores,) = network.run([np.full((1, 3, 224, 224), 0.5, np.float32)])
    assert said.startswith("status 0, first score ")
    assert float(said.split()[-1]) == pytest.approx(float(scores[0, 0]), abs=1e-6)
