"""The benchmark without engines or clocks: workers are fakes that answer what a test tells them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import tiny_bundle
from torch import nn
from torch.nn import functional

from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy import bench as command
from shuffledeploy.deploy.benchmark import measurement, subject_networks
from shuffledeploy.deploy.benchmark.answers import Question, questions
from shuffledeploy.deploy.benchmark.benchmark_plan import Subject, SubjectGroup, plan
from shuffledeploy.deploy.benchmark.benchmark_report import print_document, warnings
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS, USUAL_ENGINES
from shuffledeploy.deploy.benchmark.measurement import Prepared
from shuffledeploy.deploy.benchmark.run_benchmark import run_groups
from shuffledeploy.deploy.benchmark.settings import Settings
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.registry import twin

ALL = tuple(engine.name for engine in USUAL_ENGINES)
NAME = "shufflenet-g3-x0.5"
SETTINGS = Settings(rounds=13, runs=4)
CEILINGS = {"multiply_adds_per_s": 1e10, "bytes_per_s": 1e10, "loop": [8, 12], "streams": 1}
LOGITS = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 10)

#: Seconds of a fake engine's inference.
SPEED = {
    OURS: 1e-3, "onnxruntime": 2e-3, "openvino": 3e-3, "ncnn": 1.5e-3, "mnn": 4e-3,
    "litert": 5e-3, "executorch": 6e-3,
}  # fmt: skip


class _Classifier(nn.Module):
    """Logits of another order than one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 100 * functional.silu(self.conv(x)).mean((2, 3))


def _saved(path: Path, network: nn.Module, *inputs: torch.Tensor) -> str:
    torch.export.save(torch.export.export(network.eval(), inputs), path)
    return str(path)


class FakeWorker:
    """Answers like an engine that takes `SPEED`."""

    def __init__(self, name: str, wrong: float = 0.0, dies: str = "") -> None:
        self.name, self.wrong, self.dies = name, wrong, dies
        self.engine = name.partition(" on ")[2].partition(",")[0]

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        if command == self.dies:
            raise Failure(f"{self.name}: its process died (status -11)")
        return dict(getattr(self, f"_{command}")(**fields))

    def close(self) -> None:
        """End."""

    def _load(self, **_: Any) -> dict[str, Any]:
        return {}

    def _answer(self, **_: Any) -> dict[str, Any]:
        logits = LOGITS + self.wrong
        return {"shape": list(logits.shape), "logits": logits.reshape(-1).tolist()}

    def _time(self, warm: int, count: int) -> dict[str, Any]:
        assert warm >= 1
        slower = 1.1 if twin(self.name.split()[0]) else 1.0
        return {"seconds": [SPEED[self.engine] * slower] * count}

    def _memory(self) -> dict[str, Any]:
        sizes = {"running_kb": 2048, "peak_kb": 4096, "bare_kb": 1024}
        return {**sizes, "libraries": {"/x/engine.so": 2**20}}

    def _ask(self, method: str, **_: Any) -> dict[str, Any]:
        if method == "ceilings":
            return CEILINGS
        order = tiny_bundle("host", NAME).manifest.kernel_order
        if method == "calls":
            return {"names": ["vm.nothing", *order], "bytes": [0] + [4096] * len(order)}
        return {"calls": [[100] + [100_100] * len(order)] * 2, "whole": [350_000] * 2}


Starter = Callable[..., Callable[[str, Sequence[int], int], FakeWorker]]


@pytest.fixture
def fakes() -> Starter:
    """Give workers; those of the engines that are named answer wrongly or die."""

    def make(**odd: dict[str, Any]) -> Callable[[str, Sequence[int], int], FakeWorker]:
        def start(name: str, cores: Sequence[int], threads: int) -> FakeWorker:
            assert len(cores) == threads
            engine = name.partition(" on ")[2].partition(",")[0]
            return FakeWorker(name, **odd.get(engine, {}))

        return start

    return make


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(measurement, "benchmark_cores", lambda threads: list(range(threads)))
    monkeypatch.setattr(measurement, "stolen_share", lambda *_: 0.0)
    yield tmp_path / "bench.json"


def prepared(group: SubjectGroup, _: Any = None) -> Prepared:
    """Give files without converting anything: every network is the tiny one."""
    bundle = tiny_bundle("host", NAME)
    models = list(dict.fromkeys(subject.model for subject in group.subjects))
    files = {subject: {"library": str(bundle.library)} for subject in group.subjects}
    return Prepared(
        dict.fromkeys(models, bundle),
        {model: [Question(Path("image.npy"), LOGITS)] for model in models},
        files,
        {},
        {"roofline": "r.so", "instrument": "i.so"},
    )


def run(results: Path, start: Any, models: Sequence[str] = (NAME,), **options: Any) -> Any:
    groups = plan(ALL, models, threads=(1,))
    return run_groups(groups, SETTINGS, results, prepare=prepared, start=start, **options)


@pytest.mark.smoke
def test_the_document(results: Path, fakes: Starter) -> None:
    document = run(results, fakes(), (NAME, "alexnet"))
    assert json.loads(results.read_text()) == document
    rows = {(row["model"], row["resolution"], row["engine"]): row for row in document["rows"]}
    assert {place[1] for place in rows} == {"224x224", "480x640", "720x1280"}
    row = rows[NAME, "224x224", "ncnn"]
    assert row["kind"] == "measured" and row["threads"] == 1 and row["samples"] == 52
    assert row["median_ms"] == row["p10_ms"] == row["p90_ms"] == pytest.approx(1.65)
    assert row["engine_version"] == ENGINES["ncnn"].version
    assert document["best_peer_over_ours"] == pytest.approx({NAME: 1.5, "alexnet": 1.5})
    assert document["alexnet_over_shufflenet"]["720x1280"] == pytest.approx(1 / 1.1)
    assert document["best_peer_alexnet_over_shufflenet"]["720x1280"] == pytest.approx(1.5 / 1.1)
    at_peak = document["alexnet_over_shufflenet_at_peak"]["224x224"]
    assert at_peak == pytest.approx(1 / 1.1 / document["share_of_peak"][NAME])
    assert document["shuffle_cost"] == pytest.approx({NAME: 1.1})
    work = sum(k.multiply_adds * k.calls for k in tiny_bundle("host", NAME).manifest.kernels)
    assert document["share_of_peak"][NAME] == pytest.approx(work / 1.1e-3 / 1e10)
    assert document["machine"]["cpu"] and document["records"][0]["with_record"] == 0
    assert not document["noisy"] and document["enough_samples"] and not document["excluded"]


def test_kernels_and_what_the_virtual_machine_takes(results: Path, fakes: Starter) -> None:
    groups = plan(ALL, [NAME], [(224, 224)], (1,))
    document = run_groups(groups, SETTINGS, results, prepare=prepared, start=fakes())
    kernels = document["kernels"]
    assert sum(row["calls"] for row in kernels) == len(
        tiny_bundle("host", NAME).manifest.kernel_order
    )
    # The shortest call, 100 ns, is the instrument's own time.
    assert kernels[0]["microseconds"] == pytest.approx(100 * kernels[0]["calls"])
    busy = next(row for row in kernels if row["multiply_adds"])
    expected = busy["multiply_adds"] / (busy["microseconds"] * 1e-6) / 1e10
    assert busy["share_of_peak"] == pytest.approx(expected)
    assert not busy["record"]
    (machine,) = document["virtual_machine"]
    spent = sum(row["microseconds"] for row in kernels)
    assert machine["overhead_microseconds"] == pytest.approx(350 - spent)
    assert machine["own_calls_microseconds"] == 0
    assert machine["other_calls"] == 1


def test_a_wrong_answer_is_named_and_not_timed(results: Path, fakes: Starter) -> None:
    start = fakes(ncnn={"wrong": 0.01}, mnn={"wrong": float("nan")}, openvino={"dies": "time"})
    document = run(results, start)
    assert {row["engine"] for row in document["rows"]} == {
        OURS, "onnxruntime", "litert", "executorch",
    }  # fmt: skip
    reasons = {lost["engine"]: lost["reason"] for lost in document["excluded"]}
    assert "WRONG ANSWER" in reasons["ncnn"] and "0.01" in reasons["ncnn"]
    assert "WRONG ANSWER" in reasons["mnn"]
    assert "died" in reasons["openvino"]
    assert document["best_peer_over_ours"][NAME] == pytest.approx(2.0)
    assert any("EXCLUDED: ncnn" in sentence for sentence in warnings(document))


def test_ours_may_be_the_wrong_one(results: Path, fakes: Starter) -> None:
    document = run(results, fakes(**{OURS: {"wrong": 1.0}}))
    assert document["best_peer_over_ours"] == {} and document["kernels"] == []
    assert {lost["engine"] for lost in document["excluded"]} == {OURS}
    print_document(document, Console(width=80))


def test_finished_parts_are_kept(
    results: Path, fakes: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(name: str, cores: Sequence[int], threads: int) -> FakeWorker:
        started.append(name)
        return fakes()(name, cores, threads)

    first = run(results, start)
    count = len(started)
    assert run(results, start) == first and len(started) == count
    run(results, start, fresh=True)
    assert len(started) == 2 * count
    # Another network is measured, and what was there stays for the next run.
    run(results, start, ("mobilenet-x1.0",))
    again = len(started)
    assert run(results, start)["rows"] == first["rows"] and len(started) == again
    # Another version of an engine is another engine.
    key = "shuffledeploy.deploy.benchmark.document.versions"
    monkeypatch.setattr(key, lambda: {"apache-tvm": "another"})
    run(results, start)
    assert len(started) > again


def test_the_tables_fit_the_screen(results: Path, fakes: Starter) -> None:
    console = Console(width=80, record=True, highlight=False)
    print_document(run(results, fakes(mnn={"wrong": 1.0}), (NAME, "alexnet")), console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "1.50" in text and "AlexNet / ShuffleNet" in text


def test_the_chart(results: Path, fakes: Starter, tmp_path: Path) -> None:
    from shuffledeploy.deploy.benchmark.benchmark_chart import draw_chart

    draw_chart(tmp_path / "c.png", run(results, fakes()))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "tflite"], "unknown engine 'tflite'"),
        (["--rounds", "1"], "two rounds"),
        (["--model", "shufflenet-g3-x0.6"], "unknown network"),
        (["--resolution", "wide"], "HEIGHTxWIDTH"),
        (["--resolution", "9999x9999"], "pixels a side"),
        (["--threads", "0"], "0 threads"),
        (["--threads", "4096"], "4096 threads"),
        (["--json", "/nowhere/b.json"], "no folder"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = [] if "--engine" in arguments else ["--engine", OURS]
    assert command.main([*engine, *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_an_engine_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = {"version": property(lambda self: None if self.name == "mnn" else "1")}
    monkeypatch.setattr("shuffledeploy.deploy.benchmark.engines.Engine.version", absent["version"])
    assert command.main([]) == 2
    assert "make bench" in capsys.readouterr().err


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, fakes: Starter) -> None:
    path = tmp_path / "mine.json"
    for text in ("[1, 2]", "not JSON", '{"rows": []}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="--json"):
            run(path, fakes())
        assert path.read_text() == text


def test_what_is_planned() -> None:
    groups = plan(ALL, threads=(1,))
    assert {(model, group.resolution) for group in groups for model in group.models} == {
        *((model, "224x224") for model in (
            "alexnet", "shufflenet-g3-x0.5", "shufflenet-g3-x1", "mobilenet-x1.0",
            "resnext50-32x4d")),
        *((model, size) for model in ("alexnet", NAME) for size in ("480x640", "720x1280")),
    }  # fmt: skip
    together = next(group for group in groups if group.resolution == "480x640")
    assert set(together.models) == {"alexnet", NAME}
    twins = [s for g in groups for s in g.subjects if s.model.endswith("-unshuffled")]
    assert {subject.engine for subject in twins} == {OURS}
    assert {subject.model for subject in twins} == {twin(NAME), twin("shufflenet-g3-x1")}
    (odd,) = plan(ALL, ["mobilenet-x0.25"], [(128, 96)], (1,))
    assert Subject("mnn", "mobilenet-x0.25", (128, 96)) in odd.subjects


def test_a_program_is_a_group_of_its_own_size(tmp_path: Path) -> None:
    path = _saved(tmp_path / "mine.pt2", _Classifier(), torch.ones(1, 3, 12, 16))
    (group,) = plan([OURS, "onnxruntime"], [path])
    assert (group.size, group.name) == ((12, 16), "mine at 12x16")
    assert {subject.title for subject in group.subjects} == {"mine"}
    other = tmp_path / "other"
    other.mkdir()
    same = _saved(other / "mine.pt2", _Classifier(), torch.ones(1, 3, 12, 16))
    with pytest.raises(UsageError, match="several networks are called mine"):
        plan([OURS], [path, same])
    with pytest.raises(UsageError, match="of its own size alone"):
        plan([OURS], [path], [(24, 24)])


def test_a_program_of_anything_but_an_image_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "rows.pt2", nn.Linear(4, 3), torch.ones(2, 4))
    with pytest.raises(UsageError, match="does not take one image"):
        plan([OURS], [path])
    with pytest.raises(SystemExit):
        command.main(["--program", "mine.onnx"])


def test_a_program_is_compiled_once_and_asked_in_its_logits_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject_networks, "BUNDLES", tmp_path / "bundles")
    path = _saved(tmp_path / "mine.pt2", _Classifier(), torch.ones(1, 3, 12, 16))
    told: list[str] = []
    host = find_target("host")
    bundle, again = (
        subject_networks.bundle_of(path, (12, 16), host, standalone=False, tell=told.append)
        for _ in range(2)
    )
    assert bundle.path == again.path
    assert bundle.manifest.network == "mine"
    assert sum("building the library" in text for text in told) == 1
    asked, *_ = questions(bundle, tmp_path / "images", any_order=True)
    assert asked.order == pytest.approx(float(np.std(asked.logits)))
    assert questions(bundle, tmp_path / "images")[0].order == 1.0
