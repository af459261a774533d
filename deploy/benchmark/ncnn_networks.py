"""The networks of ncnn's own benchmark on an emulated core: counted, simulated, and remembered."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import numpy as np

from shuffledeploy.deploy.benchmark.board_python import ensure_python
from shuffledeploy.deploy.benchmark.counted_process import (
    BoardProgram,
    CountedProcess,
    count_process,
)
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.board.wheels import unpack_wheels
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.scratch import scratch_folder

#: Releases of ncnn on PyPI whose aarch64 packages the board's Python runs.
RELEASES = (
    "1.0.20221128", "1.0.20230517", "1.0.20230816", "1.0.20240102", "1.0.20240410", "1.0.20240820",
    "1.0.20250503", "1.0.20260114",
)  # fmt: skip
#: Network -> pixels of a side of its input, three channels (`benchncnn.cpp`).
INPUTS = {
    "squeezenet": 227, "mobilenet": 224, "mobilenet_v2": 224, "mobilenet_v3": 224,
    "shufflenet": 224, "shufflenet_v2": 224, "mnasnet": 224, "proxylessnasnet": 224,
    "efficientnet_b0": 224, "efficientnetv2_b0": 224, "regnety_400m": 224, "blazeface": 128,
    "googlenet": 224, "resnet18": 224, "alexnet": 227, "vgg16": 224, "resnet50": 224,
    "squeezenet_ssd": 300, "mobilenet_ssd": 300, "mobilenet_yolo": 416, "mobilenetv2_yolov3": 352,
    "yolov4-tiny": 416, "nanodet_m": 320, "yolo-fastest-1.1": 320, "yolo-fastestv2": 352,
    "vision_transformer": 384, "FastestDet": 352,
}  # fmt: skip
_MODULE = "ncnn_param_engine"
# What a count depends on beside the network, the core and the tools.
_RECIPE = ("board_worker.py", "counting_marks.py", "counted_process.py", f"{_MODULE}.py")
_HERE = Path(__file__).parent
# What the benchmark fills its inputs with.
_VALUE = 0.01


def find_parameters(folder: Path, network: str) -> Path | None:
    """Find a network's file in ncnn's benchmark folder, in `models` or beside it."""
    places = (folder / "models", folder / "benchmark" / "models", folder)
    files = [place / f"{network}.param" for place in places]
    return next((file for file in files if file.is_file()), None)


def require_parameters(folder: Path) -> None:
    """Refuse a folder without any network of the benchmark.

    Raises
    ------
    UsageError
        There is none.
    """
    if not any(find_parameters(folder, network) for network in INPUTS):
        raise UsageError(
            f"{folder} holds no .param file of ncnn's benchmark: name the folder benchmark of a"
            " checkout of github.com/Tencent/ncnn"
        )


def release_of(date: str) -> str:
    """Return the release nearest in time to a day such as ``2023-06-15``, as pip is told it."""
    day = datetime.date.fromisoformat(date)

    def days(release: str) -> int:
        return abs((datetime.date.fromisoformat(release.removeprefix("1.0.")) - day).days)

    return f"ncnn=={min(RELEASES, key=days)}"


def count_network(
    parameters: Path, pixels: int, board: Board, model: CycleModel, wheel: str
) -> CountedProcess:
    """Count one warmed inference of a network as ncnn's own benchmark runs it.

    What was counted is remembered in the project's cache folder.

    Parameters
    ----------
    parameters : Path
        The network's ``.param`` file; its weights are zeros.
    pixels : int
        Of a side of its input.
    board : Board
        Gives the core and the caches.
    model : CycleModel
        Of the board's core.
    wheel : str
        The release of ncnn, as pip is told it.

    Raises
    ------
    Failure
        The wheel cannot be fetched, ncnn does not run the network, or its cycles cannot be
        estimated.
    """
    kept = cache_folder() / "ncnn-counts" / f"{_key(parameters, pixels, board, model, wheel)}.json"
    known = _read(kept)
    if known is not None:
        return known
    with scratch_folder("shuffledeploy-counted-") as folder:
        image = folder / "image.npy"
        np.save(image, np.full((1, 3, pixels, pixels), _VALUE, np.float32))
        files = {"parameters": str(parameters.resolve())}
        program = BoardProgram(f"ncnn, {parameters.stem}", _engine(), files, (_package(wheel),))
        counted = count_process(program, [image], board.core, model, folder, board.caches)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replaced(kept) as beside:
        beside.write_bytes(msgspec.json.encode(counted))
    return counted


def _engine() -> str:
    return f"{__name__.rpartition('.')[0]}.{_MODULE}"


def _package(wheel: str) -> Path:
    """Give the folder with a wheel's contents."""
    python = ensure_python().version

    def build(folder: Path) -> None:
        unpack_wheels([wheel], python, folder, what=wheel)

    return built_once(f"peer-ncnn-{recipe_hash(wheel, python)}", build)


def _key(parameters: Path, pixels: int, board: Board, model: CycleModel, wheel: str) -> str:
    # ncnn asks the board for its caches, and cuts its work to their sizes.
    builds = (ensure_emulator().plugin.parent.name, ensure_python().folder.name)
    facts = (wheel, str(pixels), board.core, str(board.caches.shapes), *builds, model.source)
    return recipe_hash(*facts, parameters, *(_HERE / name for name in _RECIPE))


def _read(path: Path) -> CountedProcess | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CountedProcess)
    except (OSError, msgspec.MsgspecError):
        return None
