"""The precision that the allowed drop of accuracy gives: tried in order, told, refused early."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from int8_networks import SHAPE, Units
from stages import AVX512, avx512, seeded
from torch.export import ExportedProgram

from shuffledeploy.compiler import chosen_precision
from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.chosen_precision import TriedPrecision, choose_precision
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.memory_cycles import CyclesWithMemory
from shuffledeploy.deploy.runtime import network_estimate
from shuffledeploy.model.errors import UsageError

INPUTS = 50


@functools.cache
def _inputs() -> list[list[Array]]:
    drawn = np.random.default_rng(4).normal(size=(INPUTS, *SHAPE)).astype(np.float32)
    return [[values] for values in drawn]


@functools.cache
def _network(one_class: bool = False) -> ExportedProgram:
    """Trace a network whose classes are about as likely as each other, or of which one wins."""
    network = seeded(Units())
    given = torch.from_numpy(np.concatenate([values for (values,) in _inputs()]))
    with torch.no_grad():
        network.classifier.bias -= network(given).mean(0)
        network.classifier.bias[3] += 100.0 * one_class
    return trace(network, SHAPE)


@pytest.mark.parametrize(
    ("core", "drop", "expected"),
    [
        ("cortex-a76", 6.0, (INT8, ())),
        ("cortex-a76", 4.0, (INT8, ("worst", "bad"))),
        ("cortex-a76", 2.0, (HALF, ())),
        ("cortex-a76", 0.0, (FLOAT, ())),
        ("cortex-a72", 2.0, (FLOAT, ())),
        # No kernel reads int8 there.
        (AVX512, 6.0, (FLOAT, ())),
    ],
)
def test_the_first_that_answers_as_float32_is_taken(
    core: str, drop: float, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = avx512() if core == AVX512 else find_target(core)
    layers = ["worst", "bad", *"abcdefgh"]

    def tried(_: object, target: CompileTarget, __: object, kept: Any, wanted: Any) -> Any:
        differ = 1 if target.precision == HALF else 3 - len(kept) // 2
        return TriedPrecision(target.precision, kept, differ, len(wanted))

    monkeypatch.setattr(chosen_precision, "_tried", tried)
    monkeypatch.setattr(chosen_precision, "_noisiest", lambda *_: layers)
    monkeypatch.setattr(chosen_precision, "lower", lambda *_: None)
    told: list[str] = []
    chosen = choose_precision(_network(), target, _inputs(), drop, told.append)
    assert (chosen.precision, chosen.kept) == expected
    if core == AVX512:
        assert told == []
    else:
        assert told[0] == "int8: 3 of 50 answers differ (6 %)"
    # At most a quarter of the layers is kept.
    assert not any("bad, a" in line for line in told)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({INT8: 3.0, HALF: 2.0, FLOAT: 5.0}, HALF),
        ({INT8: 3.0, HALF: 4.0, FLOAT: 2.0}, FLOAT),
        ({INT8: 1.0, HALF: 2.0, FLOAT: 5.0}, INT8),
    ],
)
def test_the_fastest_is_taken_where_time_can_be_estimated(
    times: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(_: object, target: CompileTarget, __: object, kept: Any, wanted: Any) -> Any:
        return TriedPrecision(target.precision, kept, 2 - len(kept), len(wanted))

    monkeypatch.setattr(chosen_precision, "_tried", tried)
    monkeypatch.setattr(chosen_precision, "_noisiest", lambda *_: list("abcdefgh"))
    monkeypatch.setattr(chosen_precision, "lower", lambda *_: None)
    estimated: list[tuple[str, tuple[str, ...]]] = []
    told: list[str] = []

    def estimate(one: TriedPrecision) -> float:
        estimated.append((one.precision, one.kept))
        return times[one.precision]

    target = find_target("cortex-a76")
    chosen = choose_precision(_network(), target, _inputs(), 4.0, told.append, estimate)
    assert chosen.precision == expected
    # One of each precision: int8 with more layers in float32 would only take longer.
    assert estimated == [(INT8, ()), (HALF, ()), (FLOAT, ())]
    assert f"float16: {times[HALF]:g} ms (estimated)" in told
    chosen = choose_precision(_network(), target, _inputs(), 2.0, told.append, estimate)
    assert estimated[3:] == [(INT8, ("a",)), (FLOAT, ())]
    assert chosen.precision == (FLOAT if times[FLOAT] < times[INT8] else INT8)


def test_a_network_is_compiled_in_the_precision_that_is_fastest_on_a_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, inputs, output = tmp_path / "a.pt2", tmp_path / "inputs.npz", tmp_path / "bundle"
    torch.export.save(_network(), program)
    np.savez(inputs, np.concatenate([values for (values,) in _inputs()]))
    times = {INT8: 3.0, FLOAT: 2.0}

    def estimate(bundle: Bundle, board: Board) -> BoardCycles:
        cycles = times[bundle.manifest.precision] * board.clock_ghz * 1e6
        return BoardCycles(board.name, board.clock_ghz, CyclesWithMemory(cycles, 0, 0, 0, 0))

    monkeypatch.setattr(network_estimate, "estimate_bundle", estimate)
    # All are within the drop; that is not what is asked here.
    monkeypatch.setattr(
        chosen_precision, "_tried",
        lambda _, target, *__: TriedPrecision(target.precision, (), 0, INPUTS),
    )  # fmt: skip
    asked = ["--board", "raspberry-pi-4", "--precision", "auto", "--accuracy-drop", "20"]
    files = ["--program", str(program), "--calibrate", str(inputs), "--output", str(output)]
    assert tune([*asked, *files, "--trials", "0", "--no-check"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "int8: 3 ms (estimated)" in told
    assert "float32: 2 ms (estimated)" in told
    assert load_bundle(output).manifest.precision == FLOAT


def test_a_network_is_compiled_in_the_precision_that_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, inputs, bundle = tmp_path / "a.pt2", tmp_path / "inputs.npz", tmp_path / "bundle"
    torch.export.save(_network(), program)
    np.savez(inputs, np.concatenate([values for (values,) in _inputs()]))
    asked = ["--target", "arm", "--precision", "auto", "--accuracy-drop", "20", "--no-check"]
    files = ["--program", str(program), "--calibrate", str(inputs), "--output", str(bundle)]
    assert tune([*asked, *files, "--trials", "0"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "chosen for a drop of at most 20 %: int8: " in told
    manifest = load_bundle(bundle).manifest
    assert (manifest.precision, manifest.kept_float32) == (INT8, ())
    assert manifest.options["accuracy_drop"] == 20


def test_noise_is_told_of_the_layers_that_add_it() -> None:
    host = find_target("host").computing_in(INT8)
    lowered = lower(_network(), host, None, _inputs()[:4])
    noisiest = chosen_precision._noisiest(lowered, _inputs()[0])
    assert {"stem", "compress", "expand", "whole", "classifier"} <= set(noisiest)
    # The first layer reads and computes float32.
    assert noisiest.index("stem") > noisiest.index("classifier")


def test_inputs_of_one_class_tell_nothing() -> None:
    with pytest.raises(UsageError, match="all 50 inputs have one class"):
        choose_precision(_network(one_class=True), find_target("arm"), _inputs(), 1.0)


def test_what_goes_with_auto_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(["--precision", "auto"]) == 2
    assert "compares answers on inputs like those" in capsys.readouterr().err.replace("\n", " ")
    assert tune(["--accuracy-drop", "1"]) == 2
    assert "--accuracy-drop goes with --precision auto" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tune(["--precision", "auto", "--accuracy-drop", "-1"])
    assert "must be a percentage" in capsys.readouterr().err
