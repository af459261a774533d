"""LiteRT and ExecuTorch: what their converters make answers as PyTorch does."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shuffledeploy.deploy.benchmark.answers import Question, check
from shuffledeploy.deploy.benchmark.benchmark_plan import OWN, Subject
from shuffledeploy.deploy.benchmark.conversion import RUNNER, converted, model_mb
from shuffledeploy.deploy.benchmark.engines import ENGINES
from shuffledeploy.deploy.benchmark.executorch_build import compiled_runner, installed_package
from shuffledeploy.deploy.benchmark.litert_converter import is_converter_installed
from shuffledeploy.deploy.benchmark.worker_process import WorkerProcess
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.registry import build, input_shape

NAME = "shufflenet-g3-x0.5"


def files_for(engine: str, folder: Path) -> dict[str, str]:
    """Convert ShuffleNet 0.5x, or skip where what converts is not installed."""
    if ENGINES[engine].version is None:
        pytest.skip(f"`make bench` installs {ENGINES[engine].package}")
    if engine == "litert" and not is_converter_installed():
        pytest.skip("`make peers` installs the converter of LiteRT")
    files = converted(Subject(engine, NAME, OWN), ENGINES[engine].model_format, folder)
    if ENGINES[engine].needs_runner:
        version = ENGINES[engine].version or ""
        runner = compiled_runner(installed_package(), version, platform.machine())
        files[RUNNER] = str(runner)
    return files


def asked(folder: Path) -> list[Question]:
    """Give two images and PyTorch's answers."""
    generator = torch.Generator().manual_seed(5)
    network = build(NAME)
    questions = []
    for place in range(2):
        image = torch.randn(input_shape(NAME), generator=generator)
        np.save(folder / f"image_{place}.npy", image.numpy())
        with torch.no_grad():
            questions.append(Question(folder / f"image_{place}.npy", network(image).numpy()))
    return questions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which what was converted is found again."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    process = WorkerProcess("an engine", [0], 1)
    yield process
    process.close()


@pytest.mark.parametrize("engine", ["litert", "executorch"])
def test_a_converted_network_answers_as_pytorch_does(
    engine: str, worker: WorkerProcess, models: Path, tmp_path: Path
) -> None:
    files = files_for(engine, models)
    # 0.72 M weights of four bytes, and not the functions that call the engine.
    assert 2.7 < model_mb(files) < 2.9
    questions = asked(tmp_path)
    image = str(questions[0].image)
    worker.ask("load", module=ENGINES[engine].module, files=files, image=image, threads=1)
    assert check(worker, questions) < 1e-5
    assert worker.ask("memory")["libraries"]


def test_a_file_that_is_no_program_is_a_failure(
    worker: WorkerProcess, models: Path, tmp_path: Path
) -> None:
    files = files_for("executorch", models)
    (tmp_path / "none.pte").write_bytes(b"no program" * 100)
    np.save(tmp_path / "image.npy", np.zeros(input_shape(NAME), np.float32))
    with pytest.raises(Failure, match="ExecuTorch cannot load the program"):
        worker.ask(
            "load", module=ENGINES["executorch"].module, image=str(tmp_path / "image.npy"),
            files={**files, "model": str(tmp_path / "none.pte")}, threads=1,
        )  # fmt: skip


class Pools(nn.Module):
    """Pools that XNNPACK has only in another form, and some that it has."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Pool an image."""
        image = nn.functional.avg_pool2d(image, (3, 5), stride=2, padding=(1, 2))
        image = nn.functional.avg_pool2d(image, 3, padding=1, count_include_pad=False)
        return image.mean((2, 3)) + image.mean((2, 3), keepdim=True).flatten(1)


def test_pools_are_written_as_xnnpacks_quantiser_takes_them() -> None:
    pytest.importorskip("executorch", reason="`make bench` installs executorch")
    from shuffledeploy.deploy.benchmark.executorch_conversion import rewrite_pools

    image = torch.randn(1, 3, 17, 20, generator=torch.Generator().manual_seed(1))
    module = torch.export.export(Pools().eval(), (image,)).module()
    rewrite_pools(module, in_int8=True)
    torch.testing.assert_close(module(image), Pools()(image))
    names = Counter(str(node.target) for node in module.graph.nodes)
    assert names["aten.conv2d.default"] == names["aten.avg_pool2d.default"] == 1
    assert names["aten.constant_pad_nd.default"] == 0


def test_pools_are_written_as_xnnpack_has_them() -> None:
    pytest.importorskip("executorch", reason="`make bench` installs executorch")
    from shuffledeploy.deploy.benchmark.executorch_conversion import rewrite_pools

    image = torch.randn(1, 3, 17, 20, generator=torch.Generator().manual_seed(1))
    module = torch.export.export(Pools().eval(), (image,)).module()
    rewrite_pools(module)
    torch.testing.assert_close(module(image), Pools()(image))
    names = Counter(str(node.target) for node in module.graph.nodes)
    assert names["aten.constant_pad_nd.default"] == 1
    assert names["aten.avg_pool2d.default"] == names["aten.mean.dim"] == 2
    means = [node for node in module.graph.nodes if str(node.target) == "aten.mean.dim"]
    assert all(node.args[2] is True for node in means)
