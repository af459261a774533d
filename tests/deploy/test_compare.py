"""The comparison: rows, table, chart, and the cache of bundles."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image
from reported import peers_document, written
from tiny import SIDE, tiny_bundle

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy.actions import compare_networks
from shuffledeploy.deploy.compare import main
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.presentation.best_other_engine import best_others
from shuffledeploy.deploy.presentation.foreign_figures import PeersFile, read_figures
from shuffledeploy.deploy.runtime import comparison
from shuffledeploy.deploy.runtime.comparison import PAPER_MS, cached_bundle, compare
from shuffledeploy.deploy.runtime.defaults import MODELS
from shuffledeploy.model.errors import UsageError

HERE = f"{SIDE}x{SIDE}"


@pytest.fixture
def tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network be compiled as the tiny one, and be measured only briefly."""

    def bundle(name: str, *_: Any, **__: Any) -> Bundle:
        return tiny_bundle("host", name)

    def briefly(networks: Any) -> Any:
        return measure(networks, runs=4)

    measure = comparison.measure_interleaved
    monkeypatch.setattr(compare_networks, "cached_bundle", bundle)
    monkeypatch.setattr(comparison, "measure_interleaved", briefly)


@pytest.mark.usefixtures("tiny_zoo")
def test_the_table_the_file_and_the_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PAPER_MS["alexnet"], HERE, 100.0)
    monkeypatch.setitem(PAPER_MS["shufflenet-g3-x0.5"], HERE, 8.0)
    report, chart = tmp_path / "c.json", tmp_path / "c.png"
    models = ["shufflenet-g3-x0.5", "alexnet"]
    arguments = ["--target", "host", "--device", "local", "--models", *models]
    assert main([*arguments, "--json", str(report), "--chart", str(chart)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    assert "12.5x" in printed
    written = json.loads(report.read_text())
    assert written["device"]["kind"] == "local"
    assert [row["model"] for row in written["rows"]] == models
    for row in written["rows"]:
        assert (row["kind"], row["unit"], row["resolution"]) == ("measured", "ms", HERE)
        assert row["spread"]["p10"] <= row["value"] <= row["spread"]["p90"]
        assert row["spread"]["runs"] == 4
        assert row["parity"]["passed"] is True
    small, alexnet = written["rows"]
    assert alexnet["ratio_to_alexnet"] == 1.0
    assert small["ratio_to_alexnet"] == pytest.approx(alexnet["value"] / small["value"])
    assert small["paper_ratio"] == 12.5
    # 8x8 pixels of 3x3x3 to 8 and of 8 to 8 channels, and 8 to 10 classes.
    assert small["multiply_adds"] == 64 * (27 * 8 + 8 * 8) + 80
    with Image.open(chart) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


@pytest.mark.usefixtures("tiny_zoo")
def test_without_alexnet_there_is_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--target", "host", "--device", "local", "--models", "shufflenet-g3-x1"]
    assert main(arguments) == 0
    assert "alexnet is not compared" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--target", "cortex-m4"], "no target"),
        ([], "with --target, or a --board"),
        (["--board", "raspberry-pi-44"], "did you mean raspberry-pi-4"),
        (["--board", "raspberry-pi-4", "--target", "cortex-a76"], "leave out --target cortex-a76"),
        (["--target", "host", "--device", "phone"], "names no device"),
        (["--target", "host", "--resolution", "large"], "HEIGHTxWIDTH"),
        (["--target", "host", "--resolution", "9999x9999"], "pixels a side"),
        (["--target", "host", "--models", "alexnit"], "did you mean alexnet"),
        (["--target", "host", "--models", "alexnet", "alexnet"], "twice"),
        (["--target", "host", "--chart", "/nowhere/c.png"], "no folder"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error
    assert len(error.splitlines()) == 1


def test_the_papers_ratios_are_the_papers() -> None:
    ratios = {
        size: round(PAPER_MS["alexnet"][size] / ms, 1)
        for size, ms in PAPER_MS["shufflenet-g3-x0.5"].items()
    }
    assert ratios == {"224x224": 12.1, "480x640": 13.2, "720x1280": 14.0}
    assert set(MODELS) <= set(PAPER_MS)


def test_a_cached_bundle_is_built_again_only_when_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def compile_network(name: str, target: object, output: Path, **_: Any) -> Bundle:
        built.append(output)
        source = tiny_bundle().path
        output.mkdir(exist_ok=True)
        for file in source.iterdir():
            (output / file.name).write_bytes(file.read_bytes())
        return dataclasses.replace(tiny_bundle(), path=output)

    monkeypatch.setattr(comparison, "compile_network", compile_network)
    target = find_target("host")

    def get() -> Bundle:
        return cached_bundle("alexnet", None, target, folder=tmp_path)

    path = get().path
    assert path.name == f"alexnet-224x224-{target.name}"
    get()
    assert len(built) == 1
    os.utime(path / "network.so", (0, 0))  # older than the compiler
    get()
    assert len(built) == 2
    (path / "network.so").write_bytes(b"cut")
    get()
    assert len(built) == 3


@pytest.mark.emulated
def test_an_emulated_core_counts(
    emulated_device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = [tiny_bundle("cortex-a72", name) for name in ("shufflenet-g3-x1", "alexnet")]
    rows = compare(bundles, emulated_device)
    assert [(row.kind, row.unit, row.spread) for row in rows] == [
        ("counted", "instructions", None)
    ] * 2
    assert rows[0].value == rows[1].value
    assert rows[0].ratio_to_alexnet == 1.0
    compare_networks.print_table(rows, "counted", {})
    assert "not a time" in " ".join(capsys.readouterr().out.split())


@pytest.mark.emulated
def test_milliseconds_are_estimated_on_a_board(
    emulated_device: Device, capsys: pytest.CaptureFixture[str], tools: LlvmTools, tmp_path: Path
) -> None:
    bundles = [tiny_bundle("cortex-a72", name) for name in ("shufflenet-g3-x1", "alexnet")]
    board = find_board("raspberry-pi-4")
    rows = compare(bundles, emulated_device, board=board)
    for row in rows:
        assert (row.kind, row.unit, row.spread) == ("estimated", "ms", None)
        assert row.on_board is not None
        assert row.value == row.on_board.total / board.clock_ghz / 1e6 > 0
        assert row.to_json()["on_board"]["board"] == "raspberry-pi-4"
    # The same code; how many of its few lines follow others depends on where its tensors lie.
    first, second = (row.on_board.cycles for row in rows if row.on_board)
    assert first.code == second.code
    assert min(first.first_level, second.first_level) > 0
    assert rows[0].ratio_to_alexnet == pytest.approx(rows[1].value / rows[0].value)
    small = peers_document(model="shufflenet-g3-x1")
    large = peers_document(model="alexnet")
    small["rows"] += large["rows"]
    file = read_figures(written(tmp_path / "p.json", small), PeersFile, "--peers", "peers.py")
    others = best_others(file, "raspberry-pi-4")
    compare_networks.print_table(rows, "estimated", others)
    printed = capsys.readouterr().out
    # 12 million cycles of the quickest that is not ours, at 1.8 GHz.
    assert {other.engine for other in others.values()} == {"newcomer"}
    assert printed.count(" 6.67 ") == 2
    assert "newcomer 1.2 of alexnet" in " ".join(printed.split())
    ratio = f"{12e6 / 1.8e6 / rows[0].value:.1f} of shufflenet-g3-x1"
    assert f"Its AlexNet over ours: {ratio}" in " ".join(printed.split())
    said = " ".join(printed.split())
    assert "ms: estimated" in said and "of times published for this board" in said
    assert max(map(len, printed.splitlines())) <= 80
    with pytest.raises(UsageError, match=r"raspberry-pi-3b\+ has a cortex-a53"):
        compare(bundles, emulated_device, board=find_board("raspberry-pi-3b+"))


def test_other_engines_are_those_of_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = str(written(tmp_path / "p.json", peers_document()))
    assert main(["--target", "arm", "--peers", peers]) == 2
    assert "name one with --board" in capsys.readouterr().err
    file = read_figures(Path(peers), PeersFile, "--peers", "peers.py")
    with pytest.raises(UsageError, match=r"no milliseconds of other engines on jetson-nano"):
        best_others(file, "jetson-nano")
    with pytest.raises(UsageError, match="engines in float16, not in float32"):
        best_others(msgspec.structs.replace(file, precision="float16"), "raspberry-pi-4")
