"""The bench runner: it compares, times, works by hand, and prints no time of an emulator."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from standalone_bundles import CORE, LOCAL, compiled, for_arm, here
from tiny import tiny_bundle
from torch import nn

from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runner.bench_runner import build_runner, write_reference
from shuffledeploy.deploy.runner.runner_answer import RunnerAnswer, read_answer
from shuffledeploy.deploy.runner.running_runner import RunnerWishes, judge, run_runner
from shuffledeploy.deploy.runtime.parity import NOT_TOLD, check_parity
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.errors import Failure, UsageError

Refused = Callable[[list[str], int], str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    build_runner(here(), folder / "tiny-bench")
    write_reference(here(), folder / "reference.bin")
    return folder / "tiny-bench"


def printed(program: Path, *words: str) -> RunnerAnswer:
    command = [str(program), *words]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return read_answer(text, "here")


@pytest.mark.emulated
def test_a_static_program_of_it_runs_on_an_arm_core(emulator: Emulator, tmp_path: Path) -> None:
    build_runner(for_arm(), tmp_path / "tiny-bench")
    write_reference(for_arm(), tmp_path / "reference.bin")
    core, words = find_core(CORE), ["./tiny-bench", "--reference", "reference.bin"]
    command = guest_command(emulator, core, words, root=ensure_root(core))
    # Nobody tells it: it finds out.
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path,
        env=emulator.environment(),
    )  # fmt: skip
    answer = read_answer(done.stdout, CORE)
    assert answer.emulated
    assert answer.latency is None and not answer.kernels
    found = judge(for_arm(), answer, parse_device_name(f"emulated:{CORE}"))
    assert found.parity.passed and found.parity.cases == 5


def test_the_runner_compares_and_times_each_kernel() -> None:
    found = run_runner(here(), LOCAL, RunnerWishes(7, kernels=True))
    assert found.parity.passed and found.parity.cases == 5
    assert found.latency is not None and found.latency.runs == 7
    assert 0 < found.latency.p10_ms <= found.latency.median_ms <= found.latency.p90_ms
    assert [kernel.name for kernel in found.kernels] == list(here().standalone.calls)
    assert run_runner(here(), LOCAL, RunnerWishes(2, cold=True)).latency is not None


def test_the_runner_works_by_hand(program: Path) -> None:
    alone = printed(program, "--runs", "2", "--core", "any")
    assert alone.latency is not None and not alone.cases
    told = printed(program, "--emulated", "--reference", str(program.parent / "reference.bin"))
    assert told.latency is None and len(told.cases) == 5
    helped = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=True)
    assert "--cold" in helped.stdout and max(map(len, helped.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "0"], "no such number: 0"),
        (["--runs", "9" * 30], "no such number"),
        (["--core", "9999"], "may not run on such a core"),
        (["--reference", "/dev/null"], "no reference of this network: /dev/null"),
        (["--reference", "/nowhere"], "no reference of this network: /nowhere"),
        (["--nothing"], "--kernels"),
        (["more"], "no such option: more"),
    ],
)
def test_the_runner_says_what_is_wrong(program: Path, words: list[str], said: str) -> None:
    done = subprocess.run([str(program), *words], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2) and said in done.stderr and not done.stdout


def test_wrong_answers_do_not_pass(program: Path, tmp_path: Path) -> None:
    # An output of the last case, as a number that it is not, and as none: the last, and the first.
    for value, place in ((3e4, -1), (np.nan, -1), (np.nan, -10)):
        reference = np.fromfile(program.parent / "reference.bin", np.float32)
        reference[place] = value
        reference.tofile(tmp_path / "reference.bin")
        words = ["--reference", str(tmp_path / "reference.bin"), "--runs", "1"]
        found = judge(here(), printed(program, *words), LOCAL)
        assert not found.parity.passed
        assert found.parity.first_wrong_kernel == NOT_TOLD


def test_an_emulators_time_is_no_answer(program: Path) -> None:
    answer = printed(program, "--runs", "1", "--reference", str(program.parent / "reference.bin"))
    # Known to be emulated, whatever it says.
    found = judge(here(), answer, parse_device_name(f"emulated:{CORE}"))
    assert found.is_emulated and found.latency is None
    text = json.dumps({
        "network": "n", "emulated": True,
        "latency": {"median_ms": 1, "p10_ms": 1, "p90_ms": 1, "runs": 1, "cold": False},
    })  # fmt: skip
    with pytest.raises(Failure, match="it is emulated, and times mean nothing there"):
        read_answer(text, "a phone")


def test_answers_for_other_inputs_are_refused(program: Path) -> None:
    with pytest.raises(Failure, match="compared 0 of 5 inputs"):
        judge(here(), printed(program, "--runs", "1"), LOCAL)


def test_the_runner_is_written_to_be_run_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    path = str(here().path)
    assert main([path, "--write-runner", str(tmp_path / "bench")]) == 0
    first, command = capsys.readouterr().out.splitlines()
    assert "runs on any" in first
    done = subprocess.run(
        [*command.split(), "--runs", "2"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = judge(here(), read_answer(done.stdout, "here"), LOCAL)
    assert found.parity.passed and found.kernels
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench", "bench.reference"]
    assert "there is no folder" in refused([path, "--write-runner", "/nowhere/bench"], 2)


def test_a_runner_is_sent_to_no_device_that_lacks_what_it_needs(refused: Refused) -> None:
    newer = str(tiny_bundle("cortex-a76", standalone=True).path)
    older = ["--runner", "--device", "emulated:cortex-a53"]
    assert "emulated:cortex-a53 lacks" in refused([newer, *older], 2)
    if platform.machine() == "x86_64":
        assert "local is x86_64" in refused([newer, "--runner", "--device", "local"], 2)


def test_a_network_of_any_name_is_c_and_has_a_runner(tmp_path: Path) -> None:
    bundle = compiled(nn.Linear(8, 3), (1, 8), tmp_path, 'größe */ /* "a\\" ??/')
    build_runner(bundle, tmp_path / "bench")
    assert printed(tmp_path / "bench", "--runs", "1").network == "gr__e _/ /_ _a__ __/"


def test_outputs_that_it_cannot_compare_are_refused(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(torch.int32)

    bundle = compiled(Counts(), (1, 4), tmp_path)
    with open_standalone(bundle, "local") as network:
        assert check_parity(network, bundle).passed
    with pytest.raises(UsageError, match="the runner compares float32 outputs, not int32"):
        build_runner(bundle, tmp_path / "bench")
