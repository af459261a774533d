"""`compile/tune.py` as a user starts it: bad input is one line and a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stages import HOST, seeded
from torch import nn

from shuffledeploy.compiler.bundle.folder import MANIFEST, load_bundle
from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.tune import main
from shuffledeploy.compiler.tuning.records.record_log import log_path, read_log
from shuffledeploy.model.fashion_data import CLASSES
from shuffledeploy.model.registry import FASHION_CHECKPOINT

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]


class _Small(nn.Module):
    """A shuffle between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 9, 1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(nn.functional.channel_shuffle(self.a(x), 3)).mean((2, 3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    torch.export.save(trace(seeded(_Small()), (1, 6, 4, 5)), path)
    return path


def _text(path: Path) -> Path:
    path.write_text("this is no such thing")
    return path


def _weights(path: Path) -> Path:
    torch.save({"conv.weight": torch.zeros(1)}, path)
    return path


def _cut(path: Path, program: Path) -> Path:
    path.write_bytes(program.read_bytes()[:-500])
    return path


BAD: list[tuple[str, Callable[[Path, Path], list[str | Path]], str]] = [
    ("model", lambda t, p: ["--model", "shufflenet-g3-x3"], "shufflenet"),
    ("target", lambda t, p: ["--target", "cortex-m4"], "no target is called 'cortex-m4'"),
    ("32-bit", lambda t, p: ["--target", '{"kind": "llvm", "mtriple": "armv7a-linux"}'], "32-bit"),
    ("device", lambda t, p: ["--device", "toaster", "--program", p], "toaster"),
    ("no-program", lambda t, p: ["--program", t / "none.pt2"], "no program at"),
    ("text", lambda t, p: ["--program", _text(t / "t.pt2")], "not a saved torch.export program"),
    ("cut", lambda t, p: ["--program", _cut(t / "c.pt2", p)], "damaged, cut short"),
    ("weights", lambda t, p: ["--weights", _weights(t / "w.pt")], "no network that is known here"),
    (
        "other-network",
        lambda t, p: ["--model", "alexnet", "--weights", FASHION_CHECKPOINT],
        "weights of shufflenet-fashion under shuffledeploy's names, not of alexnet",
    ),
    ("mean-alone", lambda t, p: ["--program", p, "--mean", "0.5"], "--mean and --std go together"),
    ("no-deviation", lambda t, p: ["--program", p, "--mean", "0", "--std", "0"], "above 0"),
    ("channels", lambda t, p: ["--program", p, "--mean", "0", "--std", "1"], "of 1 channels"),
    ("no-labels", lambda t, p: ["--labels", t / "none.txt"], "no file of labels"),
    ("binary-labels", lambda t, p: ["--labels", p], "no text in UTF-8"),
    (
        "few-labels",
        lambda t, p: ["--program", p, "--labels", _text(t / "l.txt")],
        "1 labels, and the network answers with (1, 9)",
    ),
    ("no-weights", lambda t, p: ["--weights", t / "none.pt"], "no file of weights"),
    ("pickle", lambda t, p: ["--weights", _text(t / "w.pt")], "no checkpoint"),
    ("resolution", lambda t, p: ["--resolution", "7by7"], "HEIGHTxWIDTH"),
    ("small", lambda t, p: ["--resolution", "0x8"], "pixels a side"),
    ("both", lambda t, p: ["--program", p, "--resolution", "8x8"], "leave out"),
    ("output", lambda t, p: ["--program", p, "--output", _text(t / "o")], "not a bundle"),
    ("under-file", lambda t, p: ["--program", p, "--output", _text(t / "f") / "o"], "cannot write"),
    ("json", lambda t, p: ["--program", p, "--json", _text(t / "j") / "o.json"], "cannot write"),
    (
        "logs",
        lambda t, p: ["--program", p, "--logs", _text(t / "l"), "--trials", "1"],
        "tuning log",
    ),
    (
        "score",
        lambda t, p: ["--target", "arm", "--program", p, "--trials", "1", "--score", "latency"],
        "emulated: the time",
    ),
    ("plot", lambda t, p: ["--program", p, "--plot", _text(t / "p") / "c.png"], "cannot write"),
    ("beside", lambda t, p: ["--program", p, "--beside", _text(t / "b")], "goes with --plot"),
    ("no-rows", lambda t, p: ["--plot", t / "c.png", "--beside", _text(t / "b")], "no file of"),
    ("dump", lambda t, p: ["--program", p, "--dump-ir", _text(t / "d")], "cannot write"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_bad_input_is_one_line_and_status_2(
    make: Callable[[Path, Path], list[str | Path]],
    message: str,
    tmp_path: Path,
    program: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(word) for word in make(tmp_path, program)]
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    if "--trials" not in arguments:
        arguments += ["--trials", "0"]
    if "--target" not in arguments:
        arguments += ["--target", "host"]
    assert main([*arguments, "--no-check"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    # Nothing half-written.
    assert {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()} == {
        path: size for path, size in before.items() if path.is_file()
    }


def test_weights_tell_their_network_and_a_program_its_pictures(
    tmp_path: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--target", "host", "--trials", "0", "--no-check", "--output", str(tmp_path / "b")]
    assert main([*plain, "--weights", str(FASHION_CHECKPOINT)]) == 0
    assert "weights of shufflenet-fashion under shuffledeploy's names" in capsys.readouterr().err
    manifest = load_bundle(tmp_path / "b").manifest
    assert (manifest.network, manifest.labels) == ("shufflenet-fashion", CLASSES)
    (tmp_path / "labels.txt").write_text("".join(f"class {i}\n" for i in range(9)))
    six = ["0.5", "0.4", "0.3", "0.2", "0.1", "0"]
    named = ["--labels", str(tmp_path / "labels.txt"), "--mean", *six, "--std", *["0.25"] * 6]
    assert main([*plain, "--program", str(program), *named]) == 0
    manifest = load_bundle(tmp_path / "b").manifest
    assert manifest.labels[:2] == ("class 0", "class 1")
    assert manifest.normalisation is not None
    assert manifest.normalisation.mean == (0.5, 0.4, 0.3, 0.2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trials", "-1"], "--trials: must be a whole number, 0 or more"),
        (["--trials", "x"], "--trials: must be a whole number, 0 or more"),
        (["--minutes", "0"], "--minutes: must be a number above 0"),
        (["--minutes", "nan"], "--minutes: must be a number above 0"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["--model", "a", "b", "--program", "c"], "not allowed with argument --model"),
    ],
)
def test_what_the_parser_refuses(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert told in capsys.readouterr().err


def test_a_mistake_is_told_before_tvm_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from shuffledeploy.compiler.tune import main\n"
        "assert main(['--device', 'emulated', '--score', 'latency']) == 2\n"
        "assert main(['--json', '/dev/null/x.json']) == 2\n"
        "assert 'torch' not in sys.modules\n"
        "assert main(['--model', 'shufflenet-g3-x3']) == 2\n"
        "assert 'tvm' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"] * 3


def test_a_device_that_is_not_there_fails_before_a_network_is_traced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--target", "host", "--device", "tracker://127.0.0.1:1/pi", "--trials", "1"]
    assert main([*arguments, "--logs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "no tracker answers at 127.0.0.1:1" in said
    assert "tracing" not in said
    assert not any(tmp_path.iterdir())


def test_a_program_is_tuned_compiled_and_checked(
    program: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one worker: each imports TVM
    output, report, logs = tmp_path / "bundle", tmp_path / "report.json", tmp_path / "logs"
    arguments = ["--target", "host", "--program", str(program), "--output", str(output),
                 "--logs", str(logs), "--json", str(report), "--dump-ir", str(tmp_path / "ir"),
                 "--plot", str(tmp_path / "curve.png"), "--trials", "4"]  # fmt: skip
    assert main(arguments) == 0
    first = json.loads(report.read_text())
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    search = first["search"]
    assert search["unit"] == "ns"
    assert search["curve"][-1]["trials"] == sum(task["trials"] for task in search["tasks"]) == 4
    assert search["curve"][-1]["score"] == pytest.approx(
        sum(task["calls"] * task["after"] for task in search["tasks"])
    )
    assert first["parity"]["passed"] is True
    assert first["parity"]["max_abs_error"] < 1e-4
    assert first["parity"]["top1_agreement"] == 1.0
    assert (first["trials"], first["shuffle_kernels"], first["device"]) == (4, 0, "local")
    assert first["trials_per_second"] > 0
    assert first["tasks_with_record"] == first["tasks"] == 3
    assert first["kernels"] == load_bundle(output).manifest.kernel_calls
    assert first["score_source"].startswith("measured: ")
    assert any((tmp_path / "ir").iterdir())
    # A second run has nothing new to learn, and says so.
    log = log_path(logs, HOST.name)
    before = log.read_bytes()
    with log.open("ab") as stream:
        stream.write(b'{"half": \n')
    capsys.readouterr()
    assert main(arguments) == 0
    second = json.loads(report.read_text())
    text = capsys.readouterr().out
    assert second["trials"] == 0
    assert "nothing new to learn" in text
    assert "no curve to draw" in text
    assert second["log_lines_rejected"] == 1
    assert f"log line not used: {log}:" in text
    assert second["tasks_with_record"] == first["tasks_with_record"]
    assert log.read_bytes().startswith(before)
    assert read_log(log).best


def test_the_file_runs_as_a_script(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "compile" / "tune.py", "--target", "no-such-core"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "TVM_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: no target is called 'no-such-core'")
    assert result.stdout == ""
    assert not any(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(program: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    arguments = ["--target", "host", "--program", str(program), "--trials", "0", "--no-check"]
    assert main([*arguments, "--output", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    assert not (tmp_path / MANIFEST).exists()


def test_networks_and_targets_are_tuned_one_after_another(
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    targets = ["cortex-a72", "cortex-a76"]
    several = ["--program", str(program), "--target", *targets, "--trials", "0"]
    assert main([*several, "--no-check", "--json", "runs.json"]) == 0
    runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert [run["target"] for run in runs] == targets
    assert [load_bundle(Path(run["bundle"])).manifest.target for run in runs] == targets
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == [
        "small", "cortex-a76", "0",
    ]  # fmt: skip
    for option in ("output", "plot", "standalone"):
        assert main([*several, f"--{option}", "x"]) == 2
        assert f"--{option}" in capsys.readouterr().err
    # A mistake in the last is told before the first is tuned.
    assert main(["--model", "alexnet", "shufflenet-g3-x9", "--trials", "0"]) == 2
    assert main(["--model", "alexnet", "--target", "cortex-a72", "cortex-m4", "--trials", "0"]) == 2
    assert capsys.readouterr().out == ""
