"""An engine counted as a whole process: its answers first, then instructions and cycles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bundle

from shuffledeploy.deploy.benchmark import counted_inference, counted_peers
from shuffledeploy.deploy.benchmark.answers import WrongAnswer, error_of, questions
from shuffledeploy.deploy.benchmark.board_python import is_python_built
from shuffledeploy.deploy.benchmark.counted_inference import count_inference
from shuffledeploy.deploy.benchmark.counted_peers import (
    COLUMNS,
    TUNED,
    UNTUNED,
    count_peers,
    plan_peers,
)
from shuffledeploy.deploy.benchmark.counted_process import part_blocks, read_mappings
from shuffledeploy.deploy.benchmark.counted_report import print_peers
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS, Engine
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.estimate.board_cycles import BoardCycles
from shuffledeploy.deploy.estimate.boards import find_board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.executed_blocks import Block
from shuffledeploy.deploy.estimate.memory_cycles import CyclesWithMemory
from shuffledeploy.deploy.peers import main
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import count_library
from shuffledeploy.model.errors import Failure, UsageError

CORE = "cortex-a72"


@pytest.mark.emulated
@pytest.mark.skipif(not is_python_built(), reason="`make peers` fetches the board's Python")
def test_our_whole_process_is_little_more_than_the_library(
    emulated_device: Device, tmp_path: Path
) -> None:
    bundle = tiny_bundle("arm")
    try:
        model = CycleModel("aarch64", CORE)
    except Failure as error:
        pytest.skip(f"no llvm-mca: {error}")
    asked = questions(bundle, tmp_path)
    files = {"library": str(bundle.library)}
    counted = count_inference(ENGINES[OURS], files, asked, CORE, model)
    network = start_network(bundle, emulated_device)
    network.set_inputs(bundle.reference_inputs()[0])
    network.invoke()
    library = count_library(network).total
    # TVM's virtual machine and the Python call come on top.
    assert library < counted.instructions < library + 300_000
    assert counted.max_abs_error < 1e-5
    assert 0 < counted.cycles < 4 * counted.instructions
    assert counted.on_board is None
    board = find_board("raspberry-pi-4")
    on_board = count_inference(ENGINES[OURS], files, asked, CORE, model, board=board).on_board
    assert on_board is not None and on_board.board == "raspberry-pi-4"
    # A tiny network fits the second level: what it takes from there is charged, and no memory.
    assert on_board.cycles.code == pytest.approx(counted.cycles, rel=0.01)
    assert on_board.cycles.first_level > 0
    assert on_board.cycles.memory < 0.05 * on_board.total
    wrong = [dataclasses.replace(asked[0], logits=asked[0].logits + 0.1), *asked[1:]]
    with pytest.raises(WrongAnswer, match=r"off by 0\.1"):
        count_inference(ENGINES[OURS], files, wrong, CORE, model)
    with pytest.raises(Failure, match="status 1, it said"):
        count_inference(ENGINES[OURS], {"library": "/none.so"}, asked, CORE, model)


@pytest.mark.smoke
def test_blocks_are_parted_where_code_was_not_executed(tmp_path: Path) -> None:
    library = tmp_path / "stripped.so"
    library.write_bytes(b"no symbols here")
    maps = (
        f"400000-401000 r--p 00000000 00:00 1 {library}\n"
        f"401000-402000 r-xp 00001000 00:00 1 {library}\n"
        "500000-501000 rw-p 00000000 00:00 0\n"
    )
    mappings = read_mappings(maps)
    assert [(m.low, m.base, m.is_code) for m in mappings] == [
        (0x400000, 0x400000, False), (0x401000, 0x400000, True),
    ]  # fmt: skip
    blocks = [Block(0x401000, 16, 4, 1), Block(0x401010, 8, 2, 9), Block(0x401100, 8, 2, 1),
              Block(0x500000, 8, 2, 1)]  # fmt: skip
    pieces, unknown = part_blocks(blocks, [m for m in mappings if m.is_code])
    assert sorted(len(piece) for piece in pieces) == [1, 2]
    assert [block.address for block in unknown] == [0x500000]


def test_a_wrong_request_is_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="unknown engine 'tflite'"):
        plan_peers(["alexnet"], ["tflite"], CORE)
    with pytest.raises(UsageError, match="unknown network"):
        plan_peers(["alexnut"], [], CORE)
    assert main(["--core", "pentium", "--model", "alexnet"]) == 2
    assert "no target is called 'pentium'" in capsys.readouterr().err
    assert main(["--core", "cortex-a53", "--board", "raspberry-pi-4"]) == 2
    assert "raspberry-pi-4 has a cortex-a72: leave out --core" in capsys.readouterr().err
    assert main(["--board", "raspberry-pie"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert set(COLUMNS.values()) <= set(ENGINES)


def test_numbers_that_are_none_are_wrong_answers(tmp_path: Path) -> None:
    bundle = tiny_bundle("host")
    asked = questions(bundle, tmp_path)
    for place, question in enumerate(asked):
        np.save(tmp_path / f"answer_{place}.npy", np.asarray(question.logits))
    np.save(tmp_path / "counted.npy", np.asarray(asked[0].logits))
    assert counted_inference._largest_error(tmp_path, asked) == 0.0
    np.save(tmp_path / "counted.npy", np.full_like(np.asarray(asked[0].logits), np.nan))
    for precision in ("float32", "float16"):
        with pytest.raises(WrongAnswer):
            counted_inference._largest_error(tmp_path, asked, precision)


def test_answers_in_half_may_be_off_by_a_part_of_their_spread(tmp_path: Path) -> None:
    question = questions(tiny_bundle("host"), tmp_path)[0]
    logits = np.asarray(question.logits)
    near, far = logits + 0.04 * logits.std(), logits + 0.06 * logits.std()
    assert 0 < error_of(near, question, "float16") < 0.05 * logits.std()
    for answer, precision in ((near, "float32"), (far, "float16")):
        with pytest.raises(WrongAnswer, match="off by"):
            error_of(answer, question, precision)


def test_what_has_no_half_precision_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"litert is not run in float16: take untuned, .*ncnn, mnn"
    ):
        plan_peers(["alexnet"], ["litert"], "cortex-a76", precision="float16")
    with pytest.raises(UsageError, match="cortex-a72 has no arithmetic for half precision"):
        plan_peers(["alexnet"], ["ncnn"], CORE, precision="float16")


def test_answers_in_int8_may_be_off_as_those_of_our_bundles(tmp_path: Path) -> None:
    question = questions(tiny_bundle("host"), tmp_path)[0]
    logits = np.asarray(question.logits)
    spread = float(np.std(logits.astype(np.float64)))
    near, far = logits + np.float32(0.28 * spread), logits + np.float32(0.32 * spread)
    assert 0 < error_of(near, question, "int8") < 0.3 * spread
    with pytest.raises(WrongAnswer, match="off by"):
        error_of(far, question, "int8")


def test_engines_in_int8_are_those_whose_tools_quantise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "version", "1.0")
    jobs = plan_peers(["alexnet"], [], "cortex-a76", precision="int8")
    assert [job.column for job in jobs] == [UNTUNED, TUNED, "onnxruntime", "litert", "executorch"]
    for job in jobs[2:]:
        plain = ENGINES[job.column]
        assert job.engine.model_format == f"{plain.model_format}-int8"
        assert (job.engine.package, job.engine.module) == (plain.package, plain.module)
    with pytest.raises(UsageError, match=r"ncnn is not run in int8: take untuned, .*onnxruntime"):
        plan_peers(["alexnet"], ["ncnn"], "cortex-a76", precision="int8")


def test_engines_in_half_are_others_of_the_same_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "version", "1.0")
    jobs = plan_peers(["alexnet"], [], "cortex-a76", precision="float16")
    assert [job.column for job in jobs] == [UNTUNED, TUNED, "ncnn", "mnn"]
    for job in jobs[2:]:
        plain = ENGINES[job.column]
        assert job.engine.module != plain.module and job.engine.how != plain.how
        assert (job.engine.package, job.engine.model_format) == (plain.package, plain.model_format)


def test_an_engine_whose_package_is_gone_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "network").write_bytes(bytes(3 * 2**20))

    def fetch(engine: Engine) -> list[Path]:
        if engine.name == "litert":
            raise Failure("cannot fetch the board's Python packages with pip: no such version")
        return [tmp_path]

    def count(*_: Any, **__: Any) -> counted_inference.CountedInference:
        on_board = BoardCycles("raspberry-pi-4", 1.8, CyclesWithMemory(18.9e6, 2e6, 0.0, 0.0, 4e6))
        return counted_inference.CountedInference(26_182_345, 18.9e6, 1e-6, on_board)

    for name, stand_in in (
        ("cached_bundle", lambda *_, **__: tiny_bundle("arm")),
        ("converted", lambda *_: {"model": str(tmp_path / "network")}),
        ("count_inference", count), ("_packages", fetch),
        ("compiled_runner", lambda *_: tmp_path / "network"), ("CycleModel", FakeModel),
    ):  # fmt: skip
        monkeypatch.setattr(counted_peers, name, stand_in)
    monkeypatch.setattr(Engine, "version", "1.0")
    sizes = [(224, 224), (480, 640)]
    jobs = plan_peers(["shufflenet-g3-x0.5"], [], CORE, sizes)
    board = find_board("raspberry-pi-4")
    document = count_peers(jobs, CORE, lambda _: None, board, tmp_path / "kept")
    for lost in document["failed"]:
        assert lost["engine"] == "litert" and "no such version" in lost["reason"]
    assert [(row["resolution"], row["engine"]) for row in document["rows"]] == [
        (size, name) for size in ("224x224", "480x640") for name in COLUMNS if name != "litert"
    ]  # fmt: skip
    assert document["rows"][0]["on_board"]["milliseconds"] == pytest.approx(24.9 / 1.8)
    print_peers(document)
    said = capsys.readouterr().out
    assert "480x640: cycles of a cortex-a72" in said
    assert "left out: shufflenet-g3-x0.5 480x640, litert: cannot fetch" in said
    assert max(map(len, said.splitlines())) <= 80 and "…" not in said
    monkeypatch.setattr(counted_peers, "count_peers", lambda *_: document)
    assert main(["--model", "shufflenet-g3-x0.5"]) == 1


class FakeModel:
    """Stands for a model of cycles."""

    def __init__(self, *_: Any) -> None:
        self.source = "a stand-in"
