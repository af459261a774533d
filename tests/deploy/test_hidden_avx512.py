"""Commands that run as on a core without AVX-512."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shuffledeploy.compiler.processor_features import cpu_features
from shuffledeploy.deploy import without_avx512
from shuffledeploy.deploy.benchmark import hidden_avx512, processor
from shuffledeploy.model.errors import USAGE_STATUS

_CAN_HIDE = {"avx512f", "cpuid_fault"} <= cpu_features()
can_hide = pytest.mark.skipif(not _CAN_HIDE, reason="no AVX-512 that can be hidden")

_SHOWN = """
import signal, threading
signal.signal(signal.SIGSEGV, lambda *_: None)  # A program's own handler takes nothing away.
import numpy
found = numpy._core._multiarray_umath.__cpu_features__
print(found["AVX512F"], found["AVX2"])
from shuffledeploy.compiler.targets import find_target
thread = threading.Thread(target=lambda: print(find_target("host").core.lanes))
thread.start(), thread.join()
from shuffledeploy.deploy.benchmark.processor import cpu_model
print(cpu_model().endswith("AVX-512 hidden"))
"""


@can_hide
def test_a_program_finds_a_client_core() -> None:
    # `env` is one program, and starts the other.
    command = [sys.executable, without_avx512.__file__, "env", sys.executable, "-c", _SHOWN]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "8", "True"], done.stderr


@can_hide
def test_a_crash_is_still_one() -> None:
    crash = "import ctypes; ctypes.string_at(8)"
    command = [sys.executable, without_avx512.__file__, sys.executable, "-c", crash]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -11


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("features", "words"),
    [({"avx2"}, "no AVX-512 to hide"), ({"avx512f"}, "lacks cpuid_fault")],
)
def test_what_cannot_be_hidden_is_refused_in_one_line(
    features: set[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hidden_avx512, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(hidden_avx512.platform, "machine", lambda: "x86_64")
    assert without_avx512.main(["true"]) == USAGE_STATUS
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.smoke
def test_a_program_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert without_avx512.main(["no-such-program"]) == USAGE_STATUS
    assert "no program 'no-such-program'" in capsys.readouterr().err


@pytest.mark.smoke
def test_reports_tell_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processor.HIDES_AVX512, raising=False)
    assert "hidden" not in processor.cpu_model()
    monkeypatch.setenv(processor.HIDES_AVX512, "1")
    assert processor.cpu_model().endswith("AVX-512 hidden")
