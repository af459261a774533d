"""Candidates on a cluster of Dask's: the scores of one machine, whoever dies or joins meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from distributed import Client, LocalCluster
from tiny import lowered

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tune import main
from shuffledeploy.compiler.tuning.score import details_of
from shuffledeploy.compiler.tuning.search.build_ahead import evaluation_here
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.compiler.tuning.search.tasks import Progress, find_tasks
from shuffledeploy.compiler.tuning.search.tuner import tune
from shuffledeploy.deploy.board.guests import guest_of
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.scoring import cluster_evaluation, dask_cluster
from shuffledeploy.deploy.scoring.candidate_task import CandidateAnswer
from shuffledeploy.deploy.scoring.cluster_evaluation import ClusterEvaluation
from shuffledeploy.deploy.scoring.dask_cluster import connected
from shuffledeploy.deploy.scoring.scores import EstimatedCycles
from shuffledeploy.model.errors import Failure

pytestmark = pytest.mark.long

ARM = find_target("arm")
CORE = "cortex-a72"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Run a scheduler without workers; give its address."""
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "protocol": "tcp://"}
    with LocalCluster(n_workers=0, processes=False, silence_logs=50, **here) as cluster:
        yield cluster.scheduler_address


StartWorker = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(scheduler: str) -> Iterator[StartWorker]:
    """Start workers as the README says; they join within seconds."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        options = ["--no-nanny", "--nthreads", "1", "--host", "127.0.0.1"]
        command = [sys.executable, "-m", "dask", "worker", scheduler, *options]
        command += ["--dashboard-address", "127.0.0.1:0"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, **quiet))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    while _workers(scheduler):
        time.sleep(0.05)


def _workers(scheduler: str) -> int:
    with Client(scheduler, set_as_default=False) as client:
        return len(client.nthreads())


def _wait_for(worker: subprocess.Popen[bytes], scheduler: str) -> None:
    """Wait until the first worker has joined."""
    while not _workers(scheduler):
        assert worker.poll() is None
        time.sleep(0.05)


@pytest.mark.emulated
def test_scores_are_those_of_one_machine_whoever_dies_or_joins(
    emulator: Emulator, tools: LlvmTools, scheduler: str, start_worker: StartWorker,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # It imports while the first search goes on.
    first = start_worker()
    tasks, score = find_tasks(lowered("arm"), ARM), EstimatedCycles(guest_of(CORE), CORE, 1)

    def log(name: str, evaluation: Any, then: Callable[[], object] = lambda: None) -> str:
        def report(states: list[Progress], spent: int) -> None:
            then()

        settings: dict[str, Any] = {"trials": len(tasks) + 8, "seed": 5, "report": report}
        tune(tasks, {}, evaluation, ARM, tmp_path / name, **settings)
        return (tmp_path / name).read_text()

    with Workers(1) as workers, evaluation_here(score, ARM, workers) as here:
        alone = log("here", here)
    told: list[str] = []
    _wait_for(first, scheduler)
    with (
        connected(scheduler, told.append) as cluster,
        ClusterEvaluation(cluster, ARM, CORE, score) as there,
    ):
        cluster.require_like_this()
        # The second joins meanwhile. The first dies once the first batch has come back, with
        # candidates of the next on it.
        second = start_worker()
        assert log("cluster", there, first.kill) == alone
        assert first.wait() < 0
        assert (told, there.warnings) == ([], ())
        second.kill()
        monkeypatch.setattr(dask_cluster, "LOST_S", 0.5)
        monkeypatch.setattr(dask_cluster, "POLL_S", 0.1)
        lost = there.score(there.build([tasks[0].function]))
        with pytest.raises(Failure, match=r"all workers at .* are lost; what was found until then"):
            lost.result()


def test_workers_of_another_version_are_not_used(
    scheduler: str, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _wait_for(start_worker(), scheduler)
    mine = dask_cluster.facts_of_this_machine()
    other = msgspec.structs.replace(mine, packages={**mine.packages, "apache-tvm": "0.26.0"})
    monkeypatch.setattr(dask_cluster, "facts_of_this_machine", lambda: other)
    assert main(["--target", "arm", "--no-check", "--cluster", scheduler]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the worker at tcp://127.0.0.1:" in said
    assert f"it has apache-tvm {mine.packages['apache-tvm']}, here it is 0.26.0" in said
    # One that joins later says so itself, and gets nothing more.
    other = msgspec.structs.replace(mine, code="0" * 12)
    monkeypatch.setattr(cluster_evaluation, "facts_of_this_machine", lambda: other)
    told: list[str] = []
    with (
        connected(scheduler, told.append) as cluster,
        ClusterEvaluation(cluster, ARM, CORE, _Counted()) as there,
    ):
        kernel = find_tasks(lowered("arm"), ARM)[0].function
        with pytest.raises(Failure, match=r"no worker is left: .* is of other code"):
            there.score(there.build([kernel])).result()
        assert list(there.warnings) == told


class _Counted:
    source, unit = "counted: elsewhere", "instructions"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "tcp://127.0.0.1:9"], "no scheduler of Dask answers at tcp://127.0.0.1:9"),
        (["--cluster", "nonsense://x"], "no scheduler of Dask answers at nonsense://x"),
        (["--cluster", "tls://127.0.0.1:9"], "needs certificates"),
        (["--cluster", "SCHEDULER"], "has no workers: start one with dask worker tcp://127.0.0.1"),
        (["--cluster", "SCHEDULER", "--score", "latency"], "times nothing"),
        (["--cluster", "SCHEDULER", "--target", "host"], "there is none for host-"),
    ],
)
def test_what_is_no_cluster_is_refused_in_one_line(
    options: list[str], said: str, scheduler: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.3)
    arguments = [scheduler if option == "SCHEDULER" else option for option in options]
    assert main(["--target", "arm", "--no-check", *arguments]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "looking for" not in line]
    assert len(lines) == 1
    assert said in lines[0]


def test_an_answer_is_the_score_to_the_bit() -> None:
    sent = CandidateAnswer(0.1 + 0.2, {"instructions": 5, "stalls": 3.0})
    text = msgspec.json.encode(sent)
    result = msgspec.json.decode(text, type=CandidateAnswer).result
    assert result == 0.1 + 0.2
    assert isinstance(result, float)
    assert msgspec.json.encode(details_of(result)) == b'{"instructions":5,"stalls":3.0}'
    assert CandidateAnswer(reason="it crashed its process").result == "it crashed its process"
