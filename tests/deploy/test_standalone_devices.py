"""A network without a runtime on devices: parity by what ships, counted, timed by the runner."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_bundle
from torch import nn

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import MANIFEST, Bundle, load_bundle
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runner.bench_runner import build_runner, write_reference
from shuffledeploy.deploy.runner.runner_answer import RunnerAnswer, read_answer
from shuffledeploy.deploy.runner.running_runner import RunnerWishes, judge, run_runner
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_instructions
from shuffledeploy.deploy.runtime.parity import NOT_TOLD, check_parity
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.errors import Failure, UsageError

CORE = "cortex-a72"
LOCAL = parse_device_name("local")
Refused = Callable[[list[str], int], str]


def here() -> Bundle:
    return tiny_bundle(standalone=True)


def for_arm() -> Bundle:
    return tiny_bundle(CORE, standalone=True)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    def run(arguments: list[str], status: int) -> str:
        assert main(arguments) == status
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    build_runner(here(), folder / "tiny-bench")
    write_reference(here(), folder / "reference.bin")
    return folder / "tiny-bench"


def compiled(
    module: nn.Module, shape: tuple[int, ...], folder: Path, name: str | None = None
) -> Bundle:
    inputs = (torch.zeros(shape),)
    return shuffledeploy.compile(
        module.eval(), inputs, "host", output=folder / "b", name=name, standalone="net"
    )


def printed(program: Path, *words: str) -> RunnerAnswer:
    command = [str(program), *words]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return read_answer(text, "here")


@pytest.mark.emulated
def test_what_ships_answers_as_pytorch_does_and_costs_no_more(board_built: None) -> None:
    with open_network(for_arm()) as network, open_standalone(for_arm()) as alone:
        inputs = for_arm().reference_inputs()[1]
        np.testing.assert_array_equal(alone.run(inputs)[0], network.run(inputs)[0])
        assert check_parity(alone, for_arm()).passed
        ours, bundles = count_instructions(alone), count_instructions(network)
    assert 0 < ours.total <= ours.process < bundles.process


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


def test_commands_prove_what_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, path = tmp_path / "report.json", str(here().path)
    assert main([path, "--standalone", "--device", "local", "--runs", "3"]) == 0
    text = capsys.readouterr().out
    assert "the standalone network" in text and "libtiny.a (" in text and "measured" in text
    assert main([path, "--runner", "--kernels", "--runs", "3", "--json", str(report)]) == 0
    text = capsys.readouterr().out
    assert "the bench runner" in text and "ms, measured" in text
    assert max(map(len, text.splitlines())) <= 80
    written = json.loads(report.read_text())
    assert written["device"]["ran"] == "the bench runner"
    assert written["latency"]["kind"] == written["kernel_times"]["kind"] == "measured"


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


@pytest.mark.emulated
def test_commands_never_show_an_emulators_time(
    board_built: None, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(for_arm().path)
    assert main([path, "--runner"]) == 0
    text = capsys.readouterr().out
    assert "none: an emulator's times say nothing of the core" in text and "measured" not in text
    for words in (["--runner", "--latency"], ["--runner", "--kernels"], ["--kernels"]):
        assert "is emulated and its times say nothing" in refused([path, *words], 2)


def test_what_cannot_be_is_refused(refused: Refused) -> None:
    path, without = str(here().path), str(tiny_bundle().path)
    for way in ("--standalone", "--runner", "--kernels", "--cold", "--write-runner=bench"):
        assert "make it with compile/tune.py --standalone" in refused([without, way], 2)
    assert "leave out --input and --count" in refused([path, "--runner", "--count"], 2)
    nowhere = ["--runner", "--device", "rpc://127.0.0.1:9"]
    assert "takes no programs" in refused([path, *nowhere], 2)


def test_a_runner_is_sent_to_no_device_that_lacks_what_it_needs(refused: Refused) -> None:
    newer = str(tiny_bundle("cortex-a76", standalone=True).path)
    older = ["--runner", "--device", "emulated:cortex-a53"]
    assert "emulated:cortex-a53 lacks" in refused([newer, *older], 2)
    if platform.machine() == "x86_64":
        assert "local is x86_64" in refused([newer, "--runner", "--device", "local"], 2)


def test_a_network_that_is_made_anew_in_its_place_is_the_one_that_answers(tmp_path: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        bundle = compiled(nn.Linear(8, 3), (1, 8), tmp_path)
        with open_standalone(bundle, "local") as network:
            assert check_parity(network, bundle).passed


@pytest.fixture
def board() -> Iterator[str]:
    """Run our server here, as a board that nothing is sent to but by TVM's RPC."""
    server = ensure_server(platform.machine())
    with tempfile.TemporaryDirectory() as work:
        process = subprocess.Popen(
            [*server.command, "--watch", "--work", work], cwd=server.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout
            yield f"rpc://127.0.0.1:{process.stdout.readline().split()[1]}"
        finally:
            process.communicate()


def test_by_rpc_alone_what_ships_is_proven_and_not_timed(
    board: str, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(here().path), "--standalone", "--device", board]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "parity        holds" in text and "a standalone network is not timed" in text
    assert "takes no programs" in refused([*words, "--latency"], 2)


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


def test_a_workspace_that_the_manifest_makes_smaller_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(here().path, path)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["standalone"]["workspace"] = 0
    (path / MANIFEST).write_text(json.dumps(manifest))
    with (
        pytest.raises(UsageError, match="bytes of workspace, its manifest says 0"),
        open_standalone(load_bundle(path), "local"),
    ):
        pass
    # The runner goes by the header, which has a hash.
    assert run_runner(load_bundle(path), LOCAL, RunnerWishes(1)).parity.passed


class Whole(nn.Module):
    """Answers with a number that has no axes, and with one that is none of float32."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.sum(), (x > 0).to(torch.int64)


def test_outputs_without_axes_and_of_other_types_are_proven_and_not_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b"
    shuffledeploy.compile(Whole().eval(), (torch.ones(1, 4),), "host", output=path, standalone="")
    assert main([str(path), "--device", "local", "--standalone"]) == 0
    text = capsys.readouterr().out
    assert "holds" in text and "measured" not in text
    assert main([str(path), "--device", "local", "--runs", "2"]) == 0
    assert "measured" in capsys.readouterr().out
