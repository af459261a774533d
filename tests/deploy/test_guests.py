"""What an emulated board shows of its core: caches and /proc/cpuinfo, never this machine's."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.benchmark.board_python import (
    ensure_python,
    is_python_built,
    python_command,
)
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.board.sysroot import ensure_root

CACHE = "sys/devices/system/cpu/cpu0/cache"
# As ncnn looks for a level: from the first index on, until one cannot be opened.
GUEST = """\
import json, os, sys
found, place = [], 0
while True:
    folder = f"/sys/devices/system/cpu/cpu{sys.argv[1]}/cache/index{place}/"
    try:
        found.append([open(folder + name).read().strip() for name in ("level", "type", "size")])
    except OSError:
        break
    place += 1
# glibc's numbers of _SC_NPROCESSORS_CONF, then of the first level's size, its line and the third's.
names = (83, 188, 190, 194)
part = [line for line in open("/proc/cpuinfo") if line.startswith("CPU part")]
print(json.dumps({"levels": found, "sysconf": [os.sysconf(n) for n in names], "part": part}))
"""


@pytest.mark.smoke
@pytest.mark.parametrize("name", CORES)
def test_a_root_has_the_caches_of_its_core(name: str) -> None:
    core = CORES[name]
    root = ensure_root(core)

    def told(index: int, fact: str) -> str:
        return (root / CACHE / f"index{index}/{fact}").read_text().strip()

    for index, (kib, ways) in enumerate((core.first, core.instructions, core.second)):
        assert told(index, "size") == f"{kib}K"
        sets = int(told(index, "number_of_sets"))
        assert sets * int(told(index, "ways_of_associativity")) * 64 == kib * 1024
    assert [told(index, "level") for index in range(3)] == ["1", "1", "2"]
    assert (root / "proc/cpuinfo").read_text().count(f"0x{core.part:03x}") == core.sharing
    # Engines take their part of a level that cores share.
    assert [int(told(index, "shared_cpu_map"), 16).bit_count() for index in range(3)] == [
        1, 1, core.sharing,
    ]  # fmt: skip


@pytest.mark.emulated
@pytest.mark.skipif(not is_python_built(), reason="`make peers` fetches the board's Python")
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a76"])
def test_a_guest_is_told_its_cores_caches_and_no_others(name: str, emulator: Emulator) -> None:
    core = CORES[name]
    # The kernel tells a guest which of this machine's processors it runs on.
    last = os.sysconf("SC_NPROCESSORS_CONF") - 1
    done = subprocess.run(
        python_command(emulator, ensure_python(), core, ["-c", GUEST, str(last)]),
        check=True, capture_output=True, text=True, env=emulator.environment(),
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["levels"] == [
        ["1", "Data", f"{core.first[0]}K"], ["1", "Instruction", f"{core.instructions[0]}K"],
        ["2", "Unified", f"{core.second[0]}K"],
    ]  # fmt: skip
    # As on any ARM board: glibc tells no sizes there, and of a line what the core tells.
    assert told["sysconf"] == [core.sharing, 0, 64, 0]
    assert told["part"] == [f"CPU part\t: 0x{core.part:03x}\n"] * core.sharing


def test_a_third_level_of_this_machine_is_hidden() -> None:
    hidden = ensure_root(CORES["cortex-a72"]) / CACHE / "index3"
    for fact in hidden.iterdir():
        assert fact.is_socket()
    shown = hidden.with_name("index2")
    assert {fact.name for fact in hidden.iterdir()} == {fact.name for fact in shown.iterdir()}
