"""A tuner that is ended leaves no process and no folder, and loses at most a batch."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from stages import seeded
from torch import nn
from tuning_by_size import network_tasks, tune_by_size

from shuffledeploy.compiler.tuning.records.record_log import read_log
from shuffledeploy.compiler.tuning.search.trial_plan import BATCH

if TYPE_CHECKING:
    from tests.conftest import Leftovers

PROJECT = Path(__file__).resolve().parents[2]
WORKERS = """
import sys, time
from shuffledeploy.compiler.tuning.search.candidates import Workers
from shuffledeploy.model.scratch import scratch_folder
with Workers(2) as workers, scratch_folder("mine-") as folder:
    workers.warm_up()
    (folder / "file").touch()
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.5, 2.0])
def test_workers_of_a_killed_tuner_end_whatever_they_were_doing(
    leftovers: Leftovers, delay: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS], cwd=PROJECT, env=leftovers.environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    process.kill()
    process.wait()
    leftovers.assert_none_within(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_leaves_nothing_when_it_is_ended(
    leftovers: Leftovers, tmp_path: Path, number: signal.Signals
) -> None:
    program, log = tmp_path / "small.pt2", tmp_path / "logs"
    network = seeded(nn.Sequential(nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1)))
    torch.export.save(torch.export.export(network, (torch.zeros(1, 8, 6, 6),)), program)
    process = subprocess.Popen(
        [sys.executable, PROJECT / "compile" / "tune.py", "--target", "host", "--program", program,
         "--trials", "5000", "--logs", log, "--output", tmp_path / "bundle"],
        cwd=tmp_path, env=leftovers.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(log.glob("*/records.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -number
    assert "Traceback" not in told
    leftovers.assert_none_within(5)
    (path,) = log.glob("*/records.jsonl")
    assert read_log(path).rejected == ()
    assert {entry.name for entry in tmp_path.iterdir()} == {"small.pt2", "logs", "temporary"}


def tune_and_die(log: Path, times: int) -> None:
    """Tune again and again, killed at random moments; runs in a process without threads."""
    tasks, chance = network_tasks()[:3], random.Random(7)
    tune_by_size(tasks, log, len(tasks))
    known = {task.key: 1 for task in tasks}
    for _ in range(times):
        if (child := os.fork()) == 0:
            tune_by_size(tasks, log, 10_000)
            os._exit(0)
        time.sleep(chance.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = read_log(log)
        assert found.rejected == ()
        for key, trials in known.items():
            assert found.best[key].trials >= trials
            known[key] = found.best[key].trials
    states = tune_by_size(tasks, log, BATCH)
    assert all(state.start is None for state in states)  # no default is tried again
    assert sum(record.trials for record in read_log(log).best.values()) >= sum(known.values())


def tune_side_by_side(log: Path, seconds: float) -> None:
    """Let two tuners share a log; runs in a process without threads."""
    tasks = network_tasks()[:2]
    tune_by_size(tasks, log, len(tasks))
    before, children = read_log(log).best, []
    for seed in (1, 2):
        if (child := os.fork()) == 0:
            tune_by_size(tasks, log, 10_000, seed=seed, seconds=seconds)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    found = read_log(log)
    assert found.rejected == ()
    assert set(found.best) == set(before)
    assert all(found.best[key].score <= record.score for key, record in before.items())


@pytest.mark.parametrize("what", ["tune_and_die(log, 10)", "tune_side_by_side(log, 4.0)"])
def test_a_log_stays_whole(what: str, tmp_path: Path) -> None:
    """A tuner is killed ten times and goes on where it was; two tuners write at once."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from test_kills import *\n"
        f"log = Path(sys.argv[1]); {what}"
    )
    # A fork copies one thread, and waits for ever for what others held.
    alone = {"OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "log", Path(__file__).parent, PROJECT],
        env={**os.environ, **alone}, check=False, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
