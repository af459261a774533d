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
from standalone_bundles import LOCAL, compiled, for_arm, here
from tiny import tiny_bundle
from torch import nn

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import MANIFEST, load_bundle
from shuffledeploy.deploy.on_device.native_server import ensure_server
from shuffledeploy.deploy.run import main
from shuffledeploy.deploy.runner.running_runner import RunnerWishes, run_runner
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_instructions
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.errors import UsageError

Refused = Callable[[list[str], int], str]


@pytest.mark.emulated
def test_what_ships_answers_as_pytorch_does_and_costs_no_more(board_built: None) -> None:
    with open_network(for_arm()) as network, open_standalone(for_arm()) as alone:
        inputs = for_arm().reference_inputs()[1]
        np.testing.assert_array_equal(alone.run(inputs)[0], network.run(inputs)[0])
        assert check_parity(alone, for_arm()).passed
        ours, bundles = count_instructions(alone), count_instructions(network)
    assert 0 < ours.total <= ours.process < bundles.process


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
