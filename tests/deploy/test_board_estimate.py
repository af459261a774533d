"""Milliseconds on a board: caches simulated for a session, and what `run.py --board` tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from tiny import tiny_bundle

from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.deploy.devices.board_process import running_board
from shuffledeploy.deploy.devices.opening import Device, open_device
from shuffledeploy.deploy.devices.tvm_rpc_edges import CALL_C
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.estimate.caches import Cache, Caches
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import count_library
from shuffledeploy.deploy.runtime.network_estimate import estimate_network
from shuffledeploy.deploy.scoring.tuning_devices import TuningDevices
from shuffledeploy.model.errors import UsageError

LINES = 1024
READ_LINES = f"""
int read_lines(const volatile char *data) {{
  for (int line = 0; line < {LINES}; ++line) (void)data[64 * line];
  return 0;
}}
"""
KIB = 1024
#: Beyond what the caches miss of the loop's data: the server's own.
OTHERS = 300


@pytest.fixture(scope="module")
def lines_library(
    tmp_path_factory: pytest.TempPathFactory, link_shared: Callable[[Path], Path]
) -> Path:
    """Return a library that reads 64 KiB, one byte of each line."""
    source = tmp_path_factory.mktemp("lines") / "lines.c"
    source.write_text(READ_LINES)
    target = ("-c", "-fPIC", "-target", "aarch64-linux-musl")
    compile_c(source, source.with_suffix(".o"), ("-Wno-missing-prototypes", *target))
    return link_shared(source.with_suffix(".o"))


def reader(device: Device, library: Path) -> Callable[[], object]:
    """Give the call that reads all lines."""
    remote, call = device.upload(library), device.session.get_function(CALL_C)
    data = tvm.runtime.tensor(np.zeros(64 * LINES, np.uint8), device.session.cpu(0))
    return lambda: call(remote, "read_lines", data)


@pytest.mark.emulated
def test_a_session_simulates_the_caches_that_it_asks_for(
    board_built: None, lines_library: Path
) -> None:
    own = find_board("raspberry-pi-4").caches
    small, large = Cache(16 * KIB, 4), Cache(256 * KIB, 8)
    shapes: list[tuple[Caches, tuple[int, int, int]]] = [
        (dataclasses.replace(own, first=large, second=large), (0, 0, 0)),
        (dataclasses.replace(own, first=small, second=large), (LINES, 0, 0)),
        (dataclasses.replace(own, first=small, second=small), (LINES, LINES, 0)),
        (dataclasses.replace(own, first=small, second=small, third=large), (LINES, LINES, 0)),
    ]
    with open_device("emulated:cortex-a72") as device:
        read = reader(device, lines_library)
        read()
        plain = device.count(read, lines_library)
        assert plain.memory is None
        for caches, expected in shapes:
            device.simulate_caches(caches)
            read()
            counted = device.count(read, lines_library)
            # What executes is the same, down to the last block.
            assert (counted.total, counted.blocks) == (plain.total, plain.blocks)
            assert counted.memory is not None
            found = counted.memory
            for count, wanted in zip(
                (found.l1_misses, found.l2_misses, found.l3_misses), expected, strict=True
            ):
                assert wanted <= count < wanted + OTHERS


def test_a_device_that_counts_nothing_simulates_nothing() -> None:
    with open_device("local") as device, pytest.raises(UsageError, match="simulates no caches"):
        device.simulate_caches(find_board("raspberry-pi-4").caches)


@pytest.mark.emulated
def test_run_tells_milliseconds_on_a_board(
    board_built: None, tools: LlvmTools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, file = tiny_bundle("arm"), tmp_path / "run.json"
    arguments = [str(bundle.path), "--count", "--json", str(file)]
    assert main([*arguments, "--board", "raspberry-pi-4"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "ms estimated on raspberry-pi-4 at 1.8 GHz: code" in printed
    document = json.loads(file.read_text())
    found = document["on_board"]
    assert document["device"]["name"] == "emulated:cortex-a72"
    assert found["kind"] == "estimated"
    assert found["code"] == document["cycles"]["total"]
    parts = [found[part] for part in ("code", "first_level", "third_level", "stalls", "memory")]
    assert found["total"] == pytest.approx(sum(parts))
    assert found["milliseconds"] == pytest.approx(found["total"] / 1.8e6)
    assert "mispredicted branches" in found["leaves_out"]
    assert main(arguments) == 0
    assert "on_board" not in json.loads(file.read_text())


@pytest.mark.emulated
def test_tuning_for_a_board_ends_with_milliseconds(
    board_built: None, tools: LlvmTools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, report = tmp_path / "small.pt2", tmp_path / "report.json"
    exported = torch.export.export(torch.nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 9, 9),))
    torch.export.save(exported, program)
    arguments = ["--board", "raspberry-pi-4", "--program", str(program), "--output",
                 str(tmp_path / "bundle"), "--logs", str(tmp_path / "logs"), "--trials", "0",
                 "--json", str(report)]  # fmt: skip
    assert tune(arguments) == 0
    assert " ms estimated on raspberry-pi-4 at 1.8 GHz: " in capsys.readouterr().out
    told = json.loads(report.read_text())
    assert told["target"] == "cortex-a72"
    assert told["on_board"]["kind"] == "estimated"
    assert told["on_board"]["milliseconds"] == pytest.approx(told["on_board"]["total"] / 1.8e6)


@pytest.mark.emulated
def test_tuning_for_a_board_wants_a_device_with_its_core(board_built: None) -> None:
    devices = TuningDevices(board=find_board("jetson-nano"))
    with (
        running_board("cortex-a72") as started,
        pytest.raises(UsageError, match=r"jetson-nano has a cortex-a57, .* a cortex-a72"),
    ):
        devices.require(find_target("cortex-a57"), started.name, None)


@pytest.mark.emulated
def test_a_boards_estimate_wants_its_core(emulated_device: Device) -> None:
    network = start_network(tiny_bundle("arm"), emulated_device)
    with pytest.raises(UsageError, match=r"jetson-nano has a cortex-a57, .* a cortex-a72"):
        estimate_network(network, find_board("jetson-nano"))


@pytest.mark.emulated
def test_a_count_is_the_same_with_caches(board_built: None) -> None:
    with open_device("emulated:cortex-a72") as device:
        network = start_network(tiny_bundle("arm"), device)
        plain = count_library(network)
        simulated = count_library(network, find_board("raspberry-pi-4").caches)
    assert simulated.blocks == plain.blocks
    assert plain.memory is None
    assert simulated.memory is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--board", "raspberry-pi-4"], "--board goes with --count"),
        (["--board", "raspberry-pi-4", "--count", "--clock-ghz", "1"], "leave out --clock-ghz"),
        (["--board", "raspberry-pi-4", "--count", "--standalone"], "leave out --standalone"),
        (["--board", "raspberri-pi-4", "--count"], "did you mean raspberry-pi-4"),
        (["--board", "jetson-nano", "--count", "--device", "emulated:cortex-a72"],
         "jetson-nano has a cortex-a57"),
        (["--board", "jetson-nano", "--count", "--device", "local"], "cannot count"),
    ],
)  # fmt: skip
def test_a_board_that_does_not_fit_is_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_bundle("host").path), *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
