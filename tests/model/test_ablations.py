"""The ablations: equal complexity, and trainings that are not run twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from shuffledeploy.model.ablation_networks import ABLATIONS
from shuffledeploy.model.ablation_runs import (
    COMMITTED_RUNS,
    Run,
    Training,
    append_run,
    board_milliseconds,
    missing_trainings,
    read_runs,
)
from shuffledeploy.model.ablations import main
from shuffledeploy.model.complexity_report import network_complexity
from shuffledeploy.model.errors import UsageError


def test_complexity_is_equal() -> None:
    counts = {one.name: network_complexity(one.name) for one in ABLATIONS}
    alexnet = counts.pop("fashion-alexnet").convolution_multiply_adds
    assert all(0.72e6 <= c.convolution_multiply_adds <= 0.82e6 for c in counts.values())
    grouped = [counts[f"fashion-g{g}"].convolution_multiply_adds for g in (1, 2, 3, 4, 8)]
    assert max(grouped) < 1.05 * min(grouped)
    assert alexnet > 8e6


def test_only_what_is_missing_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert len(missing_trainings(ABLATIONS, 2, 1, 128, path)) == 2 * len(ABLATIONS)
    append_run(path, Run(Training(ABLATIONS[0].name, 1, 1, 128), 0.5, 1.0))
    left = [training for _, training in missing_trainings(ABLATIONS, 2, 1, 128, path)]
    assert len(left) == 2 * len(ABLATIONS) - 1
    assert read_runs(path)[Training(ABLATIONS[0].name, 1, 1, 128)].accuracy == 0.5


@pytest.mark.parametrize(
    "text", ["", "a,b\n", "network,seed,epochs,images,accuracy,cpu_seconds\nx"]
)
def test_what_is_no_table_of_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(UsageError, match=r"runs.csv"):
        read_runs(tmp_path / "runs.csv")


def test_the_committed_runs_are_whole_and_in_the_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not missing_trainings(ABLATIONS, 3, 2, 30_000, COMMITTED_RUNS)
    assert board_milliseconds().keys() == {one.name for one in ABLATIONS}
    assert main(["--chart", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    readme = (COMMITTED_RUNS.parent / "README.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in readme
