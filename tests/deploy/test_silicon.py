"""The estimate against published times: rows, statistics, one tiny network from end to end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from shuffledeploy.compiler.validate_silicon import main
from shuffledeploy.deploy.actions.prove_silicon import (
    LOOKED_AT,
    choose_rows,
    estimate_rows,
    summarise,
)
from shuffledeploy.deploy.benchmark import ncnn_networks
from shuffledeploy.deploy.benchmark.board_python import is_python_built
from shuffledeploy.deploy.benchmark.ncnn_networks import INPUTS, RELEASES, release_of
from shuffledeploy.deploy.estimate.boards import BOARDS
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.estimate.published_times import PublishedTime, published_times
from shuffledeploy.deploy.estimate.silicon_errors import (
    KnownErrors,
    SiliconErrors,
    keep_errors,
    known_errors,
    silicon_errors,
)
from shuffledeploy.model.errors import UsageError

README = Path(__file__).resolve().parents[2] / "deploy" / "README.md"
TINY = """\
7767517
3 3
Input            data             0 1 data
Convolution      conv             1 1 data conv 0=8 1=3 3=2 5=1 6=216
InnerProduct     answer           1 1 conv answer 0=10 1=1 2=985680
"""
# A detector whose scores of 0.5 are below what it asks for: its answer is empty.
DETECTOR = """\
7767517
3 3
Input                 data      0 1 data
Convolution           conv      1 1 data conv 0=6 1=1 3=8 5=1 6=18
Yolov3DetectionOutput answer    1 1 conv answer 0=1 1=1 2=0.9 -23304=2,8.,8. -23305=1,0. -23306=1,8.
"""


def row(
    network: str, board: str = "raspberry-pi-4", why: str = "", ms: float = 2.0
) -> PublishedTime:
    return PublishedTime(board, network, ms, "2023-06-15", "abc", 7, why)


def told_nothing(_: str | None) -> None:
    pass


@pytest.mark.smoke
def test_the_published_rows_are_of_boards_and_networks_that_are_known() -> None:
    rows = published_times()
    assert {one.board for one in rows} == set(BOARDS)
    assert {one.network for one in rows} == set(INPUTS)
    assert len({(one.board, one.network) for one in rows}) == len(rows)
    assert all(one.least_ms > 0 and one.source_line > 0 and one.commit for one in rows)
    (known,) = [r for r in rows if (r.board, r.network) == ("raspberry-pi-4", "shufflenet")]
    assert (known.least_ms, known.date, known.left_out) == (47.17, "2023-06-15", "")


@pytest.mark.smoke
def test_boards_of_the_blind_test_have_rows_that_estimates_are_held_against() -> None:
    held = {one.board for one in published_times() if not one.left_out} - set(LOOKED_AT)
    assert held == {
        "khadas-vim3", "jetson-nano", "ax630c", "arduino-uno-q", "oneplus-7t", "rk3566",
    }  # fmt: skip


@pytest.mark.smoke
def test_the_release_of_a_row_is_the_nearest_in_time() -> None:
    assert release_of("2022-01-03") == f"ncnn=={RELEASES[0]}"
    assert release_of("2023-12-12") == "ncnn==1.0.20240102"
    assert release_of("2030-01-01") == f"ncnn=={RELEASES[-1]}"


@pytest.mark.smoke
def test_errors_that_were_kept_come_back_for_this_estimator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = SiliconErrors(25, 1.01, 0.034, 0.17, 1.06, 0.995)
    table = tmp_path / "errors.csv"
    keep_errors({"raspberry-pi-4": KnownErrors(errors, blind=False)}, table)
    known = known_errors("raspberry-pi-4", table)
    assert known == KnownErrors(errors, blind=False)
    assert "within 3% (median) and 17% (largest error)" in known.verdict
    assert known_errors("khadas-vim3", table) is None
    keep_errors({"khadas-vim3": KnownErrors(errors, blind=True)}, table)
    assert known_errors("raspberry-pi-4", table) == known
    monkeypatch.setattr("shuffledeploy.deploy.estimate.silicon_errors.ESTIMATOR_VERSION", 99)
    assert known_errors("raspberry-pi-4", table) is None


@pytest.mark.smoke
def test_the_kept_errors_are_of_this_estimator_and_hold_what_the_readme_says() -> None:
    """The bars of the boards that were looked at, and of the blind ones."""
    bars = {
        "cortex-a72": (0.08, 0.20, 0.985), "cortex-a53": (0.10, 0.25, 0.98),
        "cortex-a76": (0.08, 0.25, 0.98),
    }  # fmt: skip
    for board in ("raspberry-pi-4", "rk3399-big", "raspberry-pi-3b+", "raspberry-pi-5"):
        known = known_errors(board)
        assert known is not None
        median, largest, rank = bars[BOARDS[board].core]
        assert known.errors.median_error <= median
        assert known.errors.largest_error <= largest
        assert known.errors.rank_correlation >= rank
    held = {one.board for one in published_times() if not one.left_out}
    for board in sorted(held - set(LOOKED_AT)):
        known = known_errors(board)
        assert known is not None
        assert known.errors.median_error <= 0.15, board


@pytest.mark.smoke
def test_the_readme_has_the_errors_that_are_kept() -> None:
    table = re.findall(
        r"^\| (\S+) \(([^)]*)\) \| (\d+) \| ([\d.]+) \| ([\d.]+) % \| (\d+) %"
        r" \| ([\d.]+) \| ([\d.]+) \|$",
        README.read_text(encoding="utf-8"), re.MULTILINE,
    )  # fmt: skip
    kept = {board: known for board in BOARDS if (known := known_errors(board)) is not None}
    assert sorted(board for board, *_ in table) == sorted(kept)
    for board, label, networks, ratio, median, largest, spread, rank in table:
        known = kept[board]
        assert ("blind" in label) == known.blind
        assert int(networks) == known.errors.networks
        assert float(ratio) == pytest.approx(known.errors.ratio_mean, abs=0.0051)
        digits = 0.051 if "." in median else 0.51
        assert float(median) == pytest.approx(100 * known.errors.median_error, abs=digits)
        assert float(largest) == pytest.approx(100 * known.errors.largest_error, abs=0.51)
        assert float(spread) == pytest.approx(known.errors.spread, abs=0.00051)
        assert float(rank) == pytest.approx(known.errors.rank_correlation, abs=0.00051)


@pytest.mark.smoke
def test_errors_of_made_up_rows() -> None:
    errors = silicon_errors([1.1, 1.8, 4.4], [1.0, 2.0, 4.0])
    assert errors is not None
    assert errors.networks == 3
    assert errors.ratio_mean == pytest.approx((1.1 * 0.9 * 1.1) ** (1 / 3))
    assert errors.median_error == pytest.approx(0.1)
    assert errors.largest_error == pytest.approx(0.1)
    step = math.log(1.1 / 0.9)
    assert errors.spread == pytest.approx(math.exp(step / math.sqrt(3)))
    assert errors.rank_correlation == pytest.approx(1)
    turned = silicon_errors([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])
    assert turned is not None
    assert turned.rank_correlation == pytest.approx(-1)
    assert silicon_errors([1.0], [1.0]) is None


@pytest.mark.smoke
def test_boards_from_which_no_constant_may_come_are_marked() -> None:
    rows = [{"board": board, "estimated_ms": ms, "measured_ms": 2 * ms}
            for board in ("raspberry-pi-4", "jetson-nano") for ms in (1.0, 3.0)]  # fmt: skip
    boards = summarise(rows)
    assert [(name, found["blind"]) for name, found in boards.items()] == [
        ("raspberry-pi-4", False), ("jetson-nano", True),
    ]  # fmt: skip
    assert boards["jetson-nano"]["ratio_mean"] == pytest.approx(0.5)


@pytest.mark.smoke
def test_rows_are_chosen_by_board_and_network() -> None:
    rows = [row("alexnet"), row("vgg16"), row("vgg16", "jetson-nano")]
    assert choose_rows(rows, [], []) == rows
    assert choose_rows(rows, ["jetson-nano"], ["vgg16"]) == rows[2:]
    with pytest.raises(UsageError, match="did you mean jetson-nano"):
        choose_rows(rows, ["jetson-nan"], [])
    with pytest.raises(UsageError, match="has no 'vgg61'"):
        choose_rows(rows, [], ["vgg61"])


@pytest.mark.smoke
def test_errors_of_a_part_of_the_networks_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--params", "x", "--keep", "--network", "alexnet"]) == 2
    assert "leave out --network" in capsys.readouterr().err


def test_a_folder_without_networks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--params", str(tmp_path)]) == 2
    assert "holds no .param file" in capsys.readouterr().err


@pytest.mark.emulated
@pytest.mark.skipif(not is_python_built(), reason="`make peers` fetches the board's Python")
def test_a_tiny_network_from_end_to_end(
    tools: LlvmTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncnn_networks, "cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet.param").write_text(TINY)
    (tmp_path / "models" / "blazeface.param").write_text(DETECTOR)
    (tmp_path / "models" / "vgg16.param").write_text("7767517\n1 1\nNone none 0 1 none\n")
    rows = [row("mobilenet"), row("alexnet"), row("shufflenet", why="not alike"), row("vgg16"),
            row("blazeface", ms=1.0)]  # fmt: skip
    document = estimate_rows(rows, tmp_path, told_nothing)
    if any("pip" in failure["reason"] for failure in document["failed"]):
        pytest.skip("no registry of packages")
    assert document["rows"][0]["wheel"] == release_of("2023-06-15") == "ncnn==1.0.20230517"
    found, detector = document["rows"]
    assert 0 < detector["instructions"] < found["instructions"]
    # 111 x 111 x 8 outputs of 27 products, then 10 sums over them; four lanes.
    assert found["instructions"] > 111 * 111 * 8 * (27 + 10) / 4
    parts = [found[p] for p in ("code", "first_level", "third_level", "stalls", "memory")]
    assert found["estimated_ms"] == pytest.approx(sum(parts) / 1.8e6)
    assert found["ratio"] == pytest.approx(found["estimated_ms"] / 2)
    # Weights of 2 MB as fp16 are more than the second level holds.
    assert found["memory"] > 0
    assert [(one["network"], one["reason"]) for one in document["left_out"]] == [
        ("alexnet", f"{tmp_path} has no alexnet.param"), ("shufflenet", "not alike"),
    ]  # fmt: skip
    assert [one["network"] for one in document["failed"]] == ["vgg16"]
    json.dumps(document, allow_nan=False)
    # Counted once: the second time the file answers.
    monkeypatch.setattr(ncnn_networks, "count_process", None)
    assert estimate_rows(rows[:1], tmp_path, told_nothing)["rows"] == [found]
