"""`compile/logs.py`: what is covered, what does not fit any more, two logs into one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from stages import seeded
from torch import nn

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.logs import main
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.record_log import SHORTLIST, append, log_path, read_log
from shuffledeploy.compiler.tuning.records.recorded_schedules import make_record
from shuffledeploy.compiler.tuning.report.coverage import KnownKernel, covered, known_kernels
from shuffledeploy.compiler.tuning.search.tasks import default_schedule

ARM = find_target("arm")
#: A trace that a template could leave, of a block that no kernel has.
UNFIT = [[["GetSBlock", [], ["part_99", "main"], ["b0"]]], []]


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1, groups=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    torch.export.save(trace(seeded(_Small()), (1, 4, 4, 4)), path)
    return path


@pytest.fixture(scope="module")
def kernels(program: Path) -> dict[str, KnownKernel]:
    return known_kernels(ARM, [], [program])


def _fitting(kernel: KnownKernel, score: float, source: str = "counted: there") -> Record:
    schedule = default_schedule(kernel.function, ARM.core)
    return make_record(kernel.name, kernel.key, schedule, score, "instructions", source, 3)


def _foreign(record: Record) -> Record:
    return dataclasses.replace(record, kernel="conv_of_old", key="0" * 20)


def test_show_and_check_name_what_has_no_record(
    program: Path,
    kernels: dict[str, KnownKernel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, *rest = kernels.values()
    common = ["--target", "arm", "--program", str(program), "--logs", str(tmp_path)]
    log = log_path(tmp_path, ARM.name)
    append(log, [_fitting(first, 100.0)])
    assert main(["check", *common]) == 1
    text = capsys.readouterr().out
    assert f"no record: {first.name}" not in text
    assert all(f"no record: {kernel.name} (" in text for kernel in rest)
    assert f"1 of {len(kernels)} tasks have a record" in text
    assert main(["show", *common]) == 0
    text = capsys.readouterr().out
    assert "(1) instructions, counted: there" in text
    assert first.name in text
    append(log, [_fitting(kernel, 50.0) for kernel in rest])
    assert main(["check", *common]) == 0
    # A record whose schedule fits no longer is as good as none, and is named.
    broken = dataclasses.replace(_fitting(first, 1.0), trace=UNFIT)
    append(log, [broken])
    assert main(["check", *common]) == 1
    assert f"does not fit: {first.name}" in capsys.readouterr().out


def test_weights_are_of_scores_where_all_have_one_kind(
    kernels: dict[str, KnownKernel], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    append(log, [_fitting(k, 10.0 * (i + 1)) for i, k in enumerate(kernels.values())])
    rows = covered(kernels, read_log(log))
    total = sum(10.0 * (i + 1) for i in range(len(kernels)))
    assert [row.weight for row in rows] == sorted((row.weight for row in rows), reverse=True)
    assert rows[0].weight == pytest.approx(10.0 * len(kernels) / total)
    first = next(iter(kernels.values()))
    append(log, [dataclasses.replace(_fitting(first, 1.0), unit="ns", source="measured: x")])
    work = {key: int(kernel.function.attrs["multiply_adds"]) for key, kernel in kernels.items()}
    for row in covered(kernels, read_log(log)):
        assert row.weight == pytest.approx(work[row.kernel.key] / sum(work.values()))


def test_prune_names_and_removes_what_fits_nothing(
    program: Path,
    kernels: dict[str, KnownKernel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second, *_ = kernels.values()
    log = log_path(tmp_path, ARM.name)
    old = _foreign(_fitting(first, 7.0))
    broken = dataclasses.replace(_fitting(second, 1.0), trace=UNFIT)
    append(log, [_fitting(first, 100.0), _fitting(second, 60.0), old, broken])
    with log.open("a") as stream:
        stream.write('{"half\n')
    command = ["prune", "--target", "arm", "--program", str(program), "--logs", str(tmp_path)]
    before = log.read_bytes()
    assert main([*command, "--dry-run"]) == 0
    assert log.read_bytes() == before
    assert main(command) == 0
    text = capsys.readouterr().out
    assert f"conv_of_old ({old.key}, 7 instructions): no known network has this kernel" in text
    assert f"{second.name} ({second.key}, 1 instructions): its schedule no longer fits" in text
    assert "not JSON" in text
    found = read_log(log)
    assert found.rejected == ()
    # What was behind the broken record counts again.
    assert {r.key: r.score for r in found.records} == {first.key: 100.0, second.key: 60.0}
    assert [path.name for path in log.parent.iterdir()] == [log.name]


def test_prune_keeps_the_records_of_each_precision(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = find_target("cortex-a76")
    log = log_path(tmp_path, core.name)
    command = ["--target", core.name, "--program", str(program), "--logs", str(tmp_path)]
    keys, known = [], set()
    for precision in ("float32", "float16", "int8"):
        found = known_kernels(core.computing_in(precision), (), [program])
        # A kernel that no precision before it has.
        first = next(kernel for key, kernel in found.items() if key not in known)
        known |= set(found)
        schedule = default_schedule(first.function, core.core)
        append(log, [make_record(first.name, first.key, schedule, 1.0, "instructions", "x", 3)])
        keys.append(first.key)
    assert main(["prune", *command]) == 0
    assert {record.key for record in read_log(log).records} == set(keys)
    for precision in ("float16", "int8"):
        assert main(["show", *command, "--precision", precision]) == 0
        assert "1 of" in capsys.readouterr().out.splitlines()[-1]


def test_merge_keeps_the_best_few_and_mixes_nothing(
    kernels: dict[str, KnownKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = kernels.values()
    ours, theirs = (log_path(tmp_path / side, ARM.name) for side in ("a", "b"))
    many = [
        dataclasses.replace(_fitting(first, 10.0 + i), trace=[[["Unroll", [f"l{i}"], [], []]], []])
        for i in range(7)
    ]
    append(ours, many[::2])
    append(theirs, [*many[1::2], _fitting(second, 5.0)])
    assert main(["merge", str(ours.parent), str(theirs)]) == 0
    log = read_log(ours)
    assert [r.score for r in log.shortlist[first.key]] == [10.0 + i for i in range(SHORTLIST)]
    assert log.best[second.key].score == 5.0
    assert len(ours.read_text().splitlines()) == SHORTLIST + 1
    assert len(theirs.read_text().splitlines()) == 4
    before = ours.read_bytes()
    other_source = log_path(tmp_path / "c", ARM.name)
    append(other_source, [_fitting(first, 1.0, "counted: elsewhere")])
    other_target = log_path(tmp_path / "d", "cortex-a53")
    append(other_target, many)
    damaged = log_path(tmp_path / "e", ARM.name)
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{\n")
    for other, message in (
        (other_source, "do not mix: only one has counted: elsewhere; counted: there"),
        (other_target, "logs of other targets (cortex-a72, cortex-a53)"),
        (damaged, "not JSON"),
        (tmp_path / "nowhere", "there is no tuning log"),
    ):
        assert main(["merge", str(ours), str(other)]) == 2
        assert message in capsys.readouterr().err
        assert ours.read_bytes() == before
    assert all(json.loads(line) for line in ours.read_text().splitlines())
