"""The package as a program or a notebook uses it: nothing is printed, mistakes are one line."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shuffledeploy
from shuffledeploy import UsageError, api
from shuffledeploy.compiler.bundle.folder import Bundle

pytestmark = pytest.mark.long


class TwoInputs(nn.Module):
    """Adds one image to a convolution of another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 8, 1)

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(image)) + other


EXAMPLES = (torch.zeros(1, 3, 6, 6), torch.zeros(1, 8, 6, 6))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("api") / "bundle"
    lines: list[str] = []
    found = shuffledeploy.compile(
        TwoInputs().eval(), EXAMPLES, target="host", output=folder, progress=lines.append
    )
    assert any("building the library" in line for line in lines)
    return found


def test_a_module_is_compiled_called_and_compared(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shuffledeploy.check_parity(bundle.path, "local").passed
    image, other = torch.randn(1, 3, 6, 6), torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        expected = TwoInputs().eval()(image, other)
    with shuffledeploy.open_bundle(bundle) as run:
        assert run.inputs == ("image", "other")
        answer = run(image, other)
        assert isinstance(answer, torch.Tensor)
        torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)
        again = run(other=other.numpy(), image=image.numpy())
        assert isinstance(again, np.ndarray)
        np.testing.assert_array_equal(again, answer.numpy())
        for values in ((image,), (image, other, other), (other, image)):
            with pytest.raises(UsageError):
                run(*values)
        with pytest.raises(UsageError, match="takes image, other"):
            run(image, third=other)
        with pytest.raises(UsageError, match="each once"):
            run(image, other, other=other)
    with pytest.raises(UsageError, match="is closed"):
        run(image, other)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_network_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "records_folder", lambda: tmp_path / "logs")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()).eval()
    outcome = shuffledeploy.tune(
        network, (torch.zeros(1, 3, 6, 6),), target="host", trials=3, output=tmp_path / "bundle",
        standalone="tuned",
    )  # fmt: skip
    assert outcome.search.trials == 3
    assert outcome.parity is not None
    assert outcome.parity.passed
    assert outcome.bundle.manifest.kernels[0].record
    assert outcome.bundle.manifest.standalone is not None
    assert outcome.bundle.manifest.standalone.name == "tuned"
    assert list((tmp_path / "logs").glob("host-*/records.jsonl"))


def _lambda() -> object:
    return lambda x: x


@pytest.mark.parametrize(
    ("program", "inputs", "message"),
    [
        (nn.Dropout(), EXAMPLES[:1], "training mode: call its eval"),
        (_lambda(), EXAMPLES[:1], "a function is no network"),
        (nn.ReLU().eval(), (), "example_inputs is empty"),
        (nn.ReLU().eval(), (np.zeros(3),), "is on ndarray: give tensors on the CPU"),
        (nn.ReLU().eval(), (torch.zeros(3, device="meta"),), "is on meta"),
        (nn.Conv2d(3, 8, 1).eval(), (torch.zeros(1, 4, 5, 5),), "cannot be traced"),
        ("nowhere.pt2", (), "no program at nowhere.pt2"),
    ],
    ids=["training", "lambda", "no inputs", "an array", "another device", "a shape", "no file"],
)
def test_mistakes_are_one_line(
    program: object, inputs: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as told:
        shuffledeploy.compile(program, inputs, "host", output=tmp_path / "b")  # type: ignore
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_or_bundle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no target is called"):
        shuffledeploy.compile(nn.ReLU().eval(), EXAMPLES[:1], "cortex-m0")
    for call in (shuffledeploy.open_bundle, shuffledeploy.check_parity, shuffledeploy.load_bundle):
        with pytest.raises(UsageError, match="is not a bundle"):
            call(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(UsageError, match="make the bundle again"):
        shuffledeploy.load_bundle(tmp_path)


def test_examples_in_docstrings_run(tmp_path: Path) -> None:
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    examples = 0
    for found in finder.find(api.compile, globs={"compile": api.compile, "folder": tmp_path / "x"}):
        examples += len(found.examples)
        runner.run(found)
    assert examples >= 3
    assert runner.failures == 0


def test_all_names_are_there() -> None:
    for name in shuffledeploy.__all__:
        assert getattr(shuffledeploy, name).__doc__


IMPORTS = """
import json, resource, sys
import {module}
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("tvm", "torch", "matplotlib") if name in sys.modules]
print(json.dumps([used.ru_utime + used.ru_stime, heavy]))
"""


@pytest.mark.parametrize(
    "module",
    ["shuffledeploy", "shuffledeploy.command_line", "shuffledeploy.compiler.bundle.folder",
     "shuffledeploy.api", "shuffledeploy.compiler.tuning.records.record_log"],
)  # fmt: skip
def test_neither_tvm_nor_pytorch_is_imported(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(module=module)], check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    seconds, heavy = json.loads(done.stdout)
    assert heavy == []
    # 0.3 s is asked for; a machine that is busy may take longer, one that imports TVM takes 4 s.
    assert seconds < 1.5
