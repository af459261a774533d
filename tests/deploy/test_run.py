"""The command that runs a bundle: what it prints, writes, and refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tiny import SIDE, tiny_bundle

from shuffledeploy.compiler.bundle.folder import LIBRARY, MANIFEST, file_hash, load_bundle
from shuffledeploy.deploy.devices.opening import Device, open_device
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runtime.device_fit import check_fits, default_device
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import count_instructions, measure_latency
from shuffledeploy.deploy.runtime.network_estimate import estimate_network
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.model.errors import Failure, UsageError


def copy(bundle_path: Path, to: Path) -> Path:
    return Path(shutil.copytree(bundle_path, to / "bundle"))


def edit(path: Path, **changes: object) -> None:
    manifest = path / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def pretend(path: Path, architecture: str, **changes: object) -> None:
    """Let a bundle be for another architecture, by its manifest and its library."""
    library = path / LIBRARY
    content = bytearray(library.read_bytes())
    content[18:20] = {"x86_64": 62, "aarch64": 183}[architecture].to_bytes(2, "little")
    library.write_bytes(content)
    files = json.loads((path / MANIFEST).read_text())["files"]
    edit(path, architecture=architecture, files={**files, LIBRARY: file_hash(library)}, **changes)


def refused(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command: it must end with this status and one line."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len([line for line in lines if line.startswith(("error:", "failed:"))]) == 1
    assert "Traceback" not in captured.err
    return lines[-1]


def test_a_run_prints_and_writes_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, report = tmp_path / "picture.png", tmp_path / "report.json"
    Image.new("RGB", (40, 30), (200, 100, 0)).save(picture)
    arguments = [str(tiny_bundle().path), "--input", str(picture), "--json", str(report)]
    assert main([*arguments, "--device", "local", "--runs", "3"]) == 0
    printed = capsys.readouterr().out
    assert "holds" in printed
    assert "measured" in printed
    assert max(map(len, printed.splitlines())) <= 80
    written = json.loads(report.read_text())
    assert written["parity"]["passed"] is True
    assert written["device"]["kind"] == "local"
    assert written["kernels"] == len(tiny_bundle().manifest.kernels)
    assert written["shuffle_kernels"] == 0
    assert written["latency"]["kind"] == "measured"
    assert written["latency"]["runs"] == 3
    assert len(written["top5"]) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picture.png", "report.json"]


def test_timing_leaves_this_process_on_all_of_its_cores() -> None:
    cores = os.sched_getaffinity(0)
    with open_device("local") as device:
        measure_latency(start_network(tiny_bundle(), device), runs=2)
    assert os.sched_getaffinity(0) == cores


def test_a_wrong_kernel_ends_in_a_failure_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle(broken=True)
    report = tmp_path / "report.json"
    line = refused([str(bundle.path), "--json", str(report)], 1, capsys)
    assert bundle.manifest.kernel_order[1] in line
    written = json.loads(report.read_text())
    assert written["parity"]["passed"] is False
    assert "latency" not in written


def test_changed_and_damaged_bundles_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not a bundle" in refused([str(tmp_path)], 2, capsys)
    path = copy(tiny_bundle().path, tmp_path)
    library = path / "network.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    assert "was changed" in refused([str(path)], 2, capsys)
    library.unlink()
    assert "network.so is missing" in refused([str(path)], 2, capsys)
    edit(path, kernels="none")
    assert "is damaged" in refused([str(path)], 2, capsys)
    (path / MANIFEST).write_text("{")
    assert "is damaged" in refused([str(path)], 2, capsys)


def test_a_bundle_for_another_machine_is_refused_before_loading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy(tiny_bundle().path, tmp_path)
    other = "x86_64" if tiny_bundle().manifest.architecture == "aarch64" else "aarch64"
    pretend(path, other)
    line = refused([str(path), "--device", "local"], 2, capsys)
    assert f"built for {other}" in line
    pretend(path, tiny_bundle().manifest.architecture, features=["avx9000"])
    assert "lacks avx9000" in refused([str(path), "--device", "local"], 2, capsys)
    edit(path, features=[], versions={"apache-tvm": "0.99.0"})
    assert "built with TVM 0.99.0" in refused([str(path), "--device", "local"], 2, capsys)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--device", "phone"], 2, "names no device"),
        (["--device", "rpc://127.0.0.1:1"], 1, "nothing listens"),
        (["--device", "local", "--count"], 2, "cannot count"),
        (["--device", "local", "--runs", "0"], 2, "at least 1"),
        (["--device", "local", "--json", "/nowhere/report.json"], 2, "there is no folder"),
        (["--device", "local", "--input", "/nowhere/cat.png"], 2, "there is no image"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], status: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint in refused([str(tiny_bundle().path), *arguments], status, capsys)


def test_the_default_device_is_where_the_library_fits() -> None:
    manifest = tiny_bundle().manifest
    assert default_device(manifest) == "local"
    arm = msgspec.structs.replace(
        manifest, architecture="aarch64", cpu="cortex-a53", features=("no-such-here",)
    )
    assert default_device(arm) == "emulated:cortex-a53"
    with pytest.raises(UsageError, match="cannot be emulated"):
        default_device(msgspec.structs.replace(arm, architecture="riscv64"))


def test_what_a_stock_board_does_not_tell_is_named() -> None:
    manifest = tiny_bundle().manifest
    with open_device("local") as device:
        information = dataclasses.replace(device.information, tvm_version=None, features=None)
        silent = dataclasses.replace(device, name="rpc://pi:9090", information=information)
        unchecked = check_fits(manifest, silent)
    assert any("TVM runtime" in text for text in unchecked)
    assert any(manifest.features[0] in text for text in unchecked)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with open_device("local") as device:
        network = start_network(tiny_bundle(), device)
        with pytest.raises(UsageError, match="it was given"):
            network.run([np.zeros((1, 3, SIDE, SIDE + 1), np.float32)])


@pytest.mark.emulated
def test_an_emulated_core_agrees_and_counts_but_is_never_timed(emulated_device: Device) -> None:
    bundle = tiny_bundle("cortex-a72")
    network = start_network(bundle, emulated_device)
    assert network.unchecked == ()
    assert check_parity(network, bundle).passed
    counted = count_instructions(network)
    assert counted.total == count_instructions(network).total
    assert counted.process > counted.total
    assert set(bundle.manifest.kernel_order) <= set(counted.kernels)
    with pytest.raises(UsageError, match="is emulated"):
        measure_latency(network)


@pytest.mark.emulated
def test_a_networks_cycles_are_the_sum_over_its_kernels(
    emulated_device: Device, tools: LlvmTools, tmp_path: Path
) -> None:
    bundle = tiny_bundle("cortex-a72")
    network = start_network(bundle, emulated_device)
    cycles = estimate_network(network)
    assert set(bundle.manifest.kernel_order) <= set(cycles.kernels)
    assert sum(cycles.kernels.values()) == pytest.approx(cycles.total)
    assert (cycles.iterations + cycles.throughput) / 2 == pytest.approx(cycles.total)
    # Three instructions a cycle are the most that the core decodes.
    assert cycles.total > count_instructions(network).total / 3
    assert cycles == estimate_network(network)
    assert "cortex-a72" in cycles.source
    assert cycles.milliseconds(1.5) == pytest.approx(cycles.total / 1.5e6)


@pytest.mark.emulated
def test_estimated_cycles_are_marked_and_want_a_stated_clock(
    board_built: None, tools: LlvmTools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    arguments = [str(tiny_bundle("cortex-a72").path), "--count", "--json", str(report)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "estimated" in printed
    assert " ms" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    written = json.loads(report.read_text())
    assert written["cycles"]["kind"] == "estimated"
    assert "milliseconds" not in written["cycles"]
    assert main([*arguments, "--clock-ghz", "1.5"]) == 0
    assert "(estimated)" in " ".join(capsys.readouterr().out.split())
    at_clock = json.loads(report.read_text())["cycles"]
    assert at_clock["milliseconds"] == pytest.approx(written["cycles"]["total"] / 1.5e6)
    assert at_clock["clock_ghz"] == 1.5


@pytest.mark.emulated
def test_without_llvm_mca_the_count_stands_alone_and_says_so(
    board_built: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> LlvmTools:
        raise Failure("there is no llvm-mca")

    monkeypatch.setattr("shuffledeploy.deploy.estimate.cycle_model.ensure_llvm_tools", missing)
    assert main([str(tiny_bundle("cortex-a72").path), "--count"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no cycles: there is no llvm-mca" in printed
    assert "counted" in printed


@pytest.mark.smoke
@pytest.mark.parametrize("clock", [["1.5"], ["0", "--count"], ["-1", "--count"]])
def test_a_clock_is_refused_without_cycles_or_sense(
    clock: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(["nowhere", "--clock-ghz", *clock], 2, capsys)
    assert "--clock-ghz takes a core's clock" in said


@pytest.mark.emulated
def test_a_library_for_newer_cores_is_refused_on_an_older_one(
    emulated_device: Device, tmp_path: Path
) -> None:
    path = copy(tiny_bundle("cortex-a72").path, tmp_path)
    edit(path, cpu="cortex-a76", features=["asimd", "asimddp"])
    with pytest.raises(UsageError, match="lacks asimddp"):
        start_network(load_bundle(path), emulated_device)


def test_a_library_that_no_emulated_core_runs_is_refused_before_a_board_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("a board was started")

    monkeypatch.setattr("shuffledeploy.deploy.devices.reached_devices.running_board", start)
    path = copy(tiny_bundle("cortex-a72").path, tmp_path)
    pretend(path, "x86_64", cpu="haswell")
    assert "built for x86_64" in refused([str(path), "--device", "emulated"], 2, capsys)
    pretend(path, "aarch64", cpu="cortex-a76", features=["asimd", "asimddp"])
    line = refused([str(path), "--device", "emulated:cortex-a53"], 2, capsys)
    assert "lacks asimddp" in line


@pytest.mark.emulated
def test_a_board_that_dies_in_the_middle_is_a_failure(board_built: None) -> None:
    bundle = tiny_bundle("cortex-a72")
    with pytest.raises(Failure, match="died"), open_device("emulated:cortex-a72") as device:
        network = start_network(bundle, device)
        network.run(bundle.reference_inputs()[0])
        assert device.board is not None
        os.kill(device.board.pid, signal.SIGKILL)
        check_parity(network, bundle)
