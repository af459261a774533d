"""What stands on a page: bars and their places, kinds of shares, figures of others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from reported import (
    ALEXNET,
    SHUFFLENET,
    comparison_document,
    peers_document,
    silicon_document,
    written,
)
from tiny import SIDE, tiny_bundle

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.estimate.memory_cycles import CyclesWithMemory
from shuffledeploy.deploy.presentation.foreign_figures import (
    Comparison,
    PeersFile,
    SiliconFile,
    read_figures,
)
from shuffledeploy.deploy.report_page.chapters import comparison_chapter
from shuffledeploy.deploy.report_page.engine_facts import engine_section
from shuffledeploy.deploy.report_page.figures import Bar, BarPicture
from shuffledeploy.deploy.report_page.network_facts import kernel_section
from shuffledeploy.deploy.report_page.side_by_side import compare_runs
from shuffledeploy.deploy.report_page.speed_facts import headline, speed_section
from shuffledeploy.deploy.runtime.comparison import PAPER_MS
from shuffledeploy.deploy.runtime.latency import Instructions
from shuffledeploy.deploy.runtime.observed_run import BoardEstimate, ObservedRun
from shuffledeploy.deploy.runtime.parity import Parity

HERE = f"{SIDE}x{SIDE}"
PARITY = Parity(1e-6, 1e-6, 1.0, 1.0, 5, 1e-4, True)
PI = find_board("raspberry-pi-4")
# 18 million cycles at 1.8 GHz.
TEN_MS = BoardCycles(PI.name, PI.clock_ghz, CyclesWithMemory(12e6, 2e6, 0.0, 0.0, 4e6))


def shufflenet(name: str = SHUFFLENET) -> Manifest:
    """Describe the tiny network as if it were one of the zoo."""
    fields = {"network": name, "options": {"model": name}, "cpu": PI.core, "target": PI.core}
    return msgspec.structs.replace(tiny_bundle("host").manifest, **fields)


def on_the_pi(cycles: BoardCycles | None = TEN_MS, reason: str = "") -> ObservedRun:
    """Make what came of a network on an emulated core."""
    counted = Instructions(16_000_000, 17_000_000, {}, PI.core)
    boards = (BoardEstimate(PI, cycles, reason),)
    return ObservedRun("emulated:cortex-a72", PI.core, PARITY, counted, None, boards)


def test_the_longest_bar_or_error_takes_the_whole_width() -> None:
    bars = (Bar("a", 10, "10", "estimated", ends=(5, 20)), Bar("b", 5, "5", "measured"))
    picture = BarPicture("t", bars)
    first, second = picture.placed
    assert (first.length, first.low, first.high) == pytest.approx((48, 24, 96))
    assert (second.length, second.low, second.high) == (24, None, None)
    assert picture.kind is None
    assert BarPicture("t", bars[:1]).kind == "estimated"
    (empty,) = BarPicture("t", (Bar("n", 0, "0", "counted"),)).placed
    assert empty.length == 0
    assert BarPicture("t", ()).placed == ()


def test_long_labels_are_cut_where_a_phone_ends() -> None:
    assert Bar("k" * 300, 1, "1", "counted").short_label == "k" * 35 + "…"
    assert Bar("k" * 36, 1, "1", "counted").short_label == "k" * 36


def test_an_estimate_stands_beside_the_paper_and_has_its_boards_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(PAPER_MS[SHUFFLENET], HERE, 15.2)
    path = written(tmp_path / "s.json", silicon_document())
    errors = read_figures(path, SiliconFile, "--silicon", "validate_silicon.py").boards
    section = speed_section(shufflenet(), on_the_pi(), (), errors.get)
    assert section.picture is not None
    ours, papers = section.picture.bars
    assert (ours.value, ours.kind, ours.series) == (10.0, "estimated", "ours")
    # 20 % too short, 20 % too long.
    assert ours.ends == pytest.approx((10 / 1.2, 10 / 0.8))
    assert (papers.value, papers.kind, papers.series) == (15.2, "measured", "paper")
    assert any("code 67%, first level 11%, memory 22%" in fact.note for fact in section.facts)
    unknown = speed_section(shufflenet(), on_the_pi(), (), {}.get)
    assert unknown.picture is not None
    assert unknown.picture.bars[0].ends is None
    assert any("error there is not known" in fact.note for fact in unknown.facts)


def test_an_error_without_end_is_told_but_not_drawn(tmp_path: Path) -> None:
    document = silicon_document()
    document["boards"]["raspberry-pi-4"] |= {"largest_error": 1.3, "blind": True}
    path = written(tmp_path / "s.json", document)
    errors = read_figures(path, SiliconFile, "--silicon", "validate_silicon.py").boards
    section = speed_section(shufflenet(), on_the_pi(), (), errors.get)
    assert section.picture is not None
    assert section.picture.bars[0].ends is None
    told = "largest 130%, beside 25 published times (a blind test)"
    assert any(told in fact.note for fact in section.facts)


def test_a_program_that_only_has_the_name_of_a_network_has_no_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PAPER_MS[SHUFFLENET], HERE, 15.2)
    other = msgspec.structs.replace(shufflenet(), options={"model": None, "program": "x.pt2"})
    section = speed_section(other, on_the_pi(), (), {}.get)
    assert section.picture is not None
    assert [bar.series for bar in section.picture.bars] == ["ours"]


def test_what_cannot_be_estimated_says_why() -> None:
    run = on_the_pi(None, "there is no llvm-mca")
    section = speed_section(shufflenet(), run, (), {}.get)
    assert section.picture is None
    fact = next(fact for fact in section.facts if PI.name in fact.label)
    assert (fact.text, fact.kind, fact.note) == ("not estimated", None, "there is no llvm-mca")
    first = headline(run)
    assert first is not None
    assert (first.label, first.text, first.kind) == ("instructions", "16 M", "counted")


def test_shares_have_the_kind_of_what_they_are_shares_of() -> None:
    manifest = tiny_bundle("host").manifest
    section = kernel_section(manifest, None)
    assert section.picture is not None
    assert section.picture.kind == "counted"
    for unit, kind in (("ns", "measured"), ("estimated cycles", "estimated")):
        kernels = tuple(msgspec.structs.replace(k, score=1.0) for k in manifest.kernels)
        scored = msgspec.structs.replace(manifest, kernels=kernels, score_unit=unit)
        section = kernel_section(scored, None)
        assert section.picture is not None
        assert section.picture.kind == kind


def test_other_engines_stand_beside_a_network_on_their_core_only(tmp_path: Path) -> None:
    path = written(tmp_path / "p.json", peers_document())
    peers = read_figures(path, PeersFile, "--peers", "peers.py")
    section = engine_section(shufflenet(), peers)
    assert section is not None
    assert section.picture is not None
    assert [bar.series for bar in section.picture.bars] == ["ours", "peer", "peer"]
    assert engine_section(msgspec.structs.replace(shufflenet(), cpu="cortex-a53"), peers) is None
    assert engine_section(tiny_bundle("host").manifest, peers) is None
    assert engine_section(shufflenet(), None) is None
    in_half = msgspec.structs.replace(peers, precision="float16")
    assert engine_section(shufflenet(), in_half) is None


def test_engines_are_drawn_by_their_milliseconds_where_a_board_was_named(tmp_path: Path) -> None:
    document = peers_document()
    for row in document["rows"]:
        row |= {"model_mb": 2.8, "how": "fused, NHWC"}
    peers = read_figures(written(tmp_path / "p.json", document), PeersFile, "--peers", "peers.py")
    section = engine_section(shufflenet(), peers)
    assert section is not None
    assert section.picture is not None
    assert section.picture.title == "Milliseconds of one inference on a raspberry-pi-4 at 1.8 GHz"
    assert [bar.text for bar in section.picture.bars] == ["6.06 ms", "11.7 ms", "6.67 ms"]
    assert section.columns[3] == "raspberry-pi-4 at 1.8 GHz, estimated"
    assert section.rows[1] == ("ncnn 1.2", "42 M", "21 M", "11.7 ms", "2.8 MiB")
    assert "ncnn 1.2: fused, NHWC." in section.notes
    document["rows"][1]["on_board"] = None
    peers = read_figures(written(tmp_path / "q.json", document), PeersFile, "--peers", "peers.py")
    section = engine_section(shufflenet(), peers)
    assert section is not None
    assert section.picture is not None
    assert section.picture.title == "Cycles of one inference on a cortex-a72"


def test_a_comparison_sets_ratios_beside_the_papers(tmp_path: Path) -> None:
    path = written(tmp_path / "c.json", comparison_document())
    chapter = comparison_chapter(read_figures(path, Comparison, "--compare", "compare.py"))
    assert chapter.subtitle == "raspberry-pi-4 at 1.8 GHz, compiled for cortex-a72"
    (section,) = chapter.sections
    assert section.picture is not None
    assert [(bar.text, bar.kind) for bar in section.picture.bars] == [
        ("16.3x", "estimated"), ("12.1x", "measured"),
    ]  # fmt: skip
    assert section.rows[1] == (SHUFFLENET, "7.67 ms", "16.3x", "15.2 ms", "12.1x")


def test_networks_of_one_report_are_set_beside_alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPER_MS[SHUFFLENET], HERE, 15.2)
    monkeypatch.setitem(PAPER_MS[ALEXNET], HERE, 190.0)
    slow = BoardCycles(PI.name, PI.clock_ghz, CyclesWithMemory(180e6, 0.0, 0.0, 0.0, 0.0))
    both = [shufflenet(), shufflenet(ALEXNET)]
    (found,) = compare_runs(both, [on_the_pi(), on_the_pi(slow)])
    assert found.place(found.rows[0]) == "raspberry-pi-4 at 1.8 GHz"
    small, alexnet = found.rows
    assert (small.value, small.kind, small.unit) == (10.0, "estimated", "ms")
    assert small.ratio_to_alexnet == pytest.approx(10)
    assert small.paper_ratio == pytest.approx(12.5)
    assert alexnet.ratio_to_alexnet == 1
    # One alone, or one that was not estimated, is beside nothing.
    assert compare_runs(both[:1], [on_the_pi()]) == []
    assert compare_runs(both, [on_the_pi(), on_the_pi(None, "no")]) == []
    # A program that is only called alexnet is not the paper's.
    program = msgspec.structs.replace(both[1], options={})
    (found,) = compare_runs([both[0], program], [on_the_pi(), on_the_pi(slow)])
    assert found.rows[1].model == "alexnet (a program)"
    assert found.rows[0].ratio_to_alexnet is None
