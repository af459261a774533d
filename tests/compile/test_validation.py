"""The proof of a score: its statistics, what is drawn, what is reported."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from stages import HOST, QUICK, finished
from tuning_by_size import InThisProcess, network_tasks
from tvm_ffi import structural_hash

from shuffledeploy.compiler import validate_score
from shuffledeploy.compiler.tuning.proof import rank_statistics, validation
from shuffledeploy.compiler.tuning.proof.rank_statistics import (
    choice_regret,
    kendall,
    rank_kernel,
    rank_pooled,
    ranks,
    regret,
    spearman,
)
from shuffledeploy.compiler.tuning.proof.validation import Drawn, Sample, typical
from shuffledeploy.compiler.tuning.search import interleaved_timing
from shuffledeploy.compiler.tuning.search.stock_space import stock_schedules
from shuffledeploy.deploy.actions.prove_score import holds, host_target, summarise
from shuffledeploy.deploy.presentation.validation_chart import draw_scatter

TIMES = np.array([10.0, 20.0, 30.0, 40.0])


@pytest.mark.smoke
def test_statistics_of_known_values() -> None:
    assert list(ranks(np.array([5.0, 1.0, 5.0, 9.0]))) == [1.5, 0.0, 1.5, 3.0]
    assert spearman(TIMES, TIMES**3) == pytest.approx(1.0)
    assert spearman(TIMES, -TIMES) == pytest.approx(-1.0)
    assert kendall(TIMES, np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(4 / 6)
    assert kendall(TIMES, np.array([1.0, 1.0, 4.0, 5.0])) == pytest.approx(5 / np.sqrt(6 * 5))
    wrong = np.array([3.0, 1.0, 2.0, 4.0])
    assert regret(TIMES, wrong, 1) == pytest.approx(100.0)
    assert regret(TIMES, wrong, 3) == 0.0
    # Subsets of all four are all there are. Within 5 % of the least estimate instructions decide.
    close, far = np.array([1.04, 1.0, 2.0, 4.0]), np.array([1.06, 1.0, 2.0, 4.0])
    instructions = np.array([5.0, 6.0, 1.0, 1.0])
    assert choice_regret(TIMES, close, instructions, 1) == 0.0
    assert choice_regret(TIMES, far, instructions, 1) == pytest.approx(100.0)
    assert rank_kernel(TIMES, wrong, 1).top1_regret_mean == pytest.approx(100.0)


@pytest.mark.smoke
def test_pooling_earns_nothing_by_ranking_large_kernels_behind_small_ones() -> None:
    times = {"small": TIMES, "large": TIMES * 1000}
    backwards = {"small": TIMES[::-1], "large": TIMES[::-1] * 1000}
    assert rank_pooled(times, backwards, 1).spearman == pytest.approx(-1.0)
    assert rank_pooled(times, times, 1).spearman == pytest.approx(1.0)
    assert rank_pooled(times, times, 1).top1_regret_mean == 0.0


def _samples() -> list[Sample]:
    generator = np.random.default_rng(0)
    samples = []
    for number in range(5):
        times = generator.uniform(1e4, 5e4, 64)
        scores = {name: times * 2 for name in ("estimate", "iterations", "throughput")}
        scores |= {"instructions": generator.uniform(1, 2, 64), "disagree": np.arange(64) % 2}
        is_stock = np.arange(64) % 2 == 1
        samples.append(Sample(f"conv{number}", "depthwise", times, times, scores, is_stock))
    return samples


def test_the_report_holds_what_the_bar_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_statistics, "DRAWS", 50)
    samples = _samples()
    document = summarise(samples, 1) | {"target": "here", "source": "estimated"}
    assert document["passed"] is True
    assert document["pooled"]["estimate"]["spearman"] == pytest.approx(1.0)
    assert document["pooled"]["instructions"]["top1_regret_mean"] > 20
    assert document["kernels"][0]["disagreeing"] == 32
    assert document["kernels"][0]["of_own_search"] == 32
    assert document["pooled_own_search"]["spearman"] == pytest.approx(1.0)
    fields = {"spearman", "kendall", "top1_regret_mean", "top3_regret_mean"}
    assert fields <= set(document["kernels"][0]["estimate"])
    assert fields <= set(document["pooled"]["instructions"])
    json.dumps(document, allow_nan=False)
    assert not holds(rank_kernel(TIMES, TIMES[::-1], 1))
    draw_scatter(samples, document, tmp_path / "plot.svg")
    # Each candidate of each panel is a mark.
    assert (tmp_path / "plot.svg").read_text().count("<use ") > 5 * 64


def test_candidates_are_of_both_spaces_and_no_two_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "CANDIDATES", 18)
    monkeypatch.setattr(validation, "SEARCHED", 6)
    monkeypatch.setattr(validation, "measure", lambda kernels, *_: np.ones((len(kernels), 2)))
    task = network_tasks()[0]
    candidates = validation.draw_candidates(
        Drawn("classifier", "tiny", task), QUICK, tmp_path, 1, InThisProcess(1), InThisProcess(1)
    )
    kernels = [candidate.kernel for candidate in candidates]
    assert len({kernel.path.read_bytes() for kernel in kernels}) == len(kernels) == 18
    assert all(kernel.path.with_suffix(".so").exists() for kernel in kernels)
    assert 1 <= sum(not candidate.is_stock for candidate in candidates) <= 6


def test_stock_schedules_repeat_with_their_seed_and_compute_the_kernel() -> None:
    function = network_tasks()[0].function

    def draw(seed: int) -> list[Any]:
        return list(itertools.islice(stock_schedules(function, HOST.tvm_target, seed), 4))

    drawn = draw(1)
    hashes = [structural_hash(schedule) for schedule in drawn]
    assert hashes == [structural_hash(schedule) for schedule in draw(1)]
    assert set(hashes) != {structural_hash(schedule) for schedule in draw(2)}
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal([int(e) for e in p.shape], np.float32) for p in function.params
    ]
    answers = []
    for one in (function, *drawn):
        module = tvm.IRModule({"main": finished(one).with_attr("global_symbol", "main")})
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        tvm.compile(module, HOST.tvm_target)["main"](*tensors)
        answers.append(tensors[-1].numpy())
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
def test_a_lucky_moment_makes_no_candidate_fast() -> None:
    generator = np.random.default_rng(0)
    # Rounds of a machine whose speed changes; the first kernel once had half of its time.
    speeds = generator.uniform(1, 2, 21)
    times = np.array([10.0, 10.0, 12.0])[:, None] * speeds
    times[0, 3] /= 2
    first, second, third = typical(times)
    assert first == pytest.approx(second, rel=1e-6)
    assert third == pytest.approx(1.2 * second, rel=1e-6)


def test_kernels_of_other_shapes_see_the_same_memory() -> None:
    calls = [(((2, 6), "float32"), ((5,), "int32")), (((3, 4), "float32"), ((5,), "int32"))]
    memory = interleaved_timing._memory(calls, np.random.default_rng(0))
    flat, folded = (interleaved_timing._tensors(call, memory) for call in calls)
    assert folded[0].shape == (3, 4)
    np.testing.assert_array_equal(flat[0].numpy().ravel(), folded[0].numpy().ravel())
    starts = [place.ctypes.data % interleaved_timing.PAGE for place in memory]
    assert len(set(starts)) == 2
    assert all(start % interleaved_timing.LINE == 0 for start in starts)


def test_this_machines_target_is_one_that_can_be_emulated() -> None:
    target = host_target()
    assert target.architecture == HOST.architecture
    assert "avx512f" not in target.features
    assert target.cpu == HOST.cpu


def test_what_cannot_be_written_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate_score.main(["--json", str(tmp_path / "nowhere" / "f.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
