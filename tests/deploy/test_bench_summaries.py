"""Statistics of rounds, and the worker's side of the protocol with an engine that is no engine."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bundle

from shuffledeploy.compiler.bundle.folder import MANIFEST
from shuffledeploy.deploy.benchmark import standalone_engine
from shuffledeploy.deploy.benchmark.benchmark_plan import Subject
from shuffledeploy.deploy.benchmark.document import peer_ratios
from shuffledeploy.deploy.benchmark.engines import OURS, STANDALONE
from shuffledeploy.deploy.benchmark.rounds import measure
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.deploy.benchmark.summaries import (
    change_between_halves,
    judge_noise,
    ratio_by_rounds,
    summarise,
)
from shuffledeploy.deploy.benchmark.worker_process import WorkerProcess
from shuffledeploy.model.errors import Failure


def test_a_summary_is_in_milliseconds() -> None:
    summary = summarise(
        [[0.001 * value for value in range(1, 6)], [0.001 * v for v in range(6, 12)]]
    )
    assert summary.median_ms == pytest.approx(6)
    assert (summary.p10_ms, summary.p90_ms) == pytest.approx((2, 10))
    assert summary.samples == 11


def test_a_ratio_by_rounds_outlives_a_slow_phase() -> None:
    factors = [1.0] * 4 + [3.0] * 3
    ours = [[1.02 * factor] * 3 for factor in factors]
    twins = [[1.0 * factor] * 3 for factor in factors]
    assert ratio_by_rounds(ours, twins) == pytest.approx(1.02)


def test_a_machine_that_changes_is_found_out() -> None:
    steady = [[1.0, 1.01, 0.99]] * 10
    slower = [[1.0]] * 5 + [[1.2]] * 5
    assert change_between_halves(steady) == 0
    assert change_between_halves(slower) == pytest.approx(0.2)
    assert not judge_noise({"a": steady}, [1e10] * 10, 0.0).reasons
    noise = judge_noise({"a": steady, "b": slower}, [1e10, 2e10] * 5, 0.2)
    assert noise.halves_of == "b" and noise.to_json()["noisy"]
    assert [word in " ".join(noise.reasons) for word in ("b changed", "loop", "hypervisor")]
    assert len(noise.reasons) == 3
    assert judge_noise({}, [], None).to_json()["noisy"] is False


def test_every_round_asks_everyone_in_an_order_that_changes() -> None:
    asked: list[str] = []

    class Worker:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, command: str, **fields: Any) -> dict[str, Any]:
            asked.append(self.name)
            return {"seconds": [1.0] * fields["count"]}

        def close(self) -> None:
            """End."""

    subjects = {Subject(OURS, name, (8, 8)): Worker(name) for name in "abcd"}
    shares: list[float] = []
    samples = measure(subjects, {}, None, Settings(rounds=5, runs=2), shares.append)
    rounds = [asked[i : i + 4] for i in range(0, 20, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert all(values == [[1.0] * 2] * 5 for values in samples.seconds.values())
    assert shares == sorted(shares) and shares[-1] == 1.0
    again = random.Random(0).sample("abcd", 4)
    assert rounds[0] == again, "the order is seeded"
    first, second = list(subjects)[:2]
    asked.clear()
    settings = Settings(rounds=3, runs=2, pair_rounds=31)
    samples = measure(subjects, {}, None, settings, pairs=[(first, second)])
    starts = [0, 4 + 2 * 10, 8 + 2 * 20]
    assert all(sorted(asked[start : start + 4]) == list("abcd") for start in starts)
    ends = [*starts[1:], len(asked)]
    alone = [
        tuple(asked[i : i + 2])
        for start, end in zip(starts, ends, strict=True)
        for i in range(start + 4, end, 2)
    ]
    assert set(alone) == {("a", "b"), ("b", "a")} and len(alone) == 31
    assert samples.pairs == {(first, second): ([[1.0] * 2] * 31, [[1.0] * 2] * 31)}
    assert all(values == [[1.0] * 2] * 3 for values in samples.seconds.values())


ENGINE = """
import numpy as np
print("engines print what they like")
class Network:
    def set_input(self, values): self.values = values
    def prepare(self): self.copy = self.values.copy()
    def run(self): self.answer = self.copy.sum(axis=(2, 3)); self.copy += 1
    def output(self): return self.answer
    def fail(self): raise ValueError("no such thing\\nat all")
    def die(self): import os; print("last words", flush=True); os._exit(3)
def load(files, threads): return Network()
"""


def test_a_worker_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_engine.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    image = tmp_path / "image.npy"
    np.save(image, np.ones((1, 3, 4, 4), np.float32))
    worker = WorkerProcess("fake", [0], 1)
    try:
        worker.ask("load", module="fake_engine", files={}, image=str(image), threads=1)
        answer = worker.ask("answer", image=str(image), times=3)
        assert answer == {"shape": [1, 3], "logits": [16.0] * 3}
        assert len(worker.ask("time", warm=1, count=4)["seconds"]) == 4
        told = worker.ask("memory")
        assert told["peak_kb"] >= told["running_kb"] and told["bare_kb"] > 1000
        with pytest.raises(Failure, match=r"fake: ValueError: no such thing$"):
            worker.ask("ask", method="fail")
        with pytest.raises(Failure, match=r"died \(status 3\); it said last: last words"):
            worker.ask("ask", method="die")
    finally:
        worker.close()


def test_a_network_without_a_runtime_is_no_peer() -> None:
    row = {"threads": 1, "resolution": "224x224", "model": "n"}
    times = {OURS: 2.0, STANDALONE: 1.0, "ncnn": 3.0}
    rows = [{**row, "engine": engine, "median_ms": ms} for engine, ms in times.items()]
    assert peer_ratios(rows) == {"224x224": {"n": 1.5}}


def test_the_engine_without_a_runtime_answers() -> None:
    bundle = tiny_bundle(standalone=True)
    files = {"library": str(bundle.standalone_library), "manifest": str(bundle.path / MANIFEST)}
    network = standalone_engine.load(files, 1)
    for (image,), (logits,) in zip(
        bundle.reference_inputs(), bundle.reference_outputs(), strict=True
    ):
        network.set_input(image)
        network.prepare()
        network.run()
        np.testing.assert_allclose(network.output(), logits, atol=1e-5)
