"""Brings the zoo's networks to the other engines, each by the engine's own converter.

Everything lands in ``build/bench/models``, a folder for each network, resolution and format, and is
used again as long as the converters' versions and the networks' source are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import torch

from shuffledeploy.deploy.benchmark.benchmark_plan import Subject
from shuffledeploy.deploy.benchmark.litert_converter import CONVERTER, ensure_converter
from shuffledeploy.deploy.benchmark.subject_networks import (
    example_of,
    folder_name,
    network_of,
)
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.folders import BUILD, PACKAGE, SEARCH_PATH
from shuffledeploy.model.scratch import scratch_folder

MODELS_FOLDER = BUILD / "bench" / "models"
MADE_BY = "made_by.json"
OPSET = 18
CONVERTING_S = 600.0
#: The role of C functions that call an engine: no part of a model.
RUNNER = "runner"

#: Packages whose versions decide whether a converted file is still good.
_CONVERTERS = {
    "onnx": ("torch", "onnx", "onnxscript"),
    "onnx-int8": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "ncnn": ("torch", "pnnx"),
    "mnn": ("torch", "onnx", "onnxscript", "MNN"),
    "litert": ("torch",),
    "litert-int8": ("torch",),
    "executorch": ("torch", "executorch"),
    "executorch-int8": ("torch", "executorch", "torchao"),
}
#: Modules of this package that convert in a process of their own, and others that they take.
_MODULES = {
    "litert": ("litert_conversion",),
    "litert-int8": ("litert_int8_conversion", "litert_conversion", "calibration_images"),
    "executorch": ("executorch_conversion",),
    "executorch-int8": (
        "executorch_int8_conversion",
        "executorch_conversion",
        "calibration_images",
    ),
    "onnx-int8": ("onnx_int8_conversion", "calibration_images"),
}
#: MNN's converter without what its command does beside: it installs a package by pip, and reports
#: each conversion to MNN's makers.
_MNN_CONVERT = """\
import sys
sys.modules["MNN.tools.utils.log"] = None
from MNN.tools.mnnconvert import main
main()
"""
#: Formats that are made of a network in ONNX.
_OF_ONNX = ("mnn", "onnx-int8")

Files = dict[str, str]


def converted(subject: Subject, model_format: str, folder: Path = MODELS_FOLDER) -> Files:
    """Give a network's files in a format, converted first where they are absent or old.

    Parameters
    ----------
    subject : Subject
        The network and its resolution.
    model_format : str
        ``onnx``, ``ncnn``, ``mnn``, ``litert`` or ``executorch``; ``onnx-int8``, ``litert-int8`` or
        ``executorch-int8``.
    folder : Path
        Where converted files are kept.

    Returns
    -------
    dict of str
        Absolute paths by role: ``model``, or ``parameters`` and ``weights``.

    Raises
    ------
    Failure
        A converter failed; its last words are in the message.
    """
    # Converters and the emulated board run in folders of their own.
    network = f"{folder_name(subject.model)}-{subject.resolution}"
    home = folder.absolute() / network / model_format
    key = _key(model_format)
    if not _is_made_by(home, key):
        source = converted(subject, "onnx", folder) if model_format in _OF_ONNX else {}
        home.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(f".{home.name}.", home.parent) as name:
            made = name / home.name
            made.mkdir()
            _CONVERT[model_format](subject, made, source)
            (made / MADE_BY).write_text(json.dumps(key), encoding="utf-8")
            shutil.rmtree(home, ignore_errors=True)
            made.rename(home)
    return {role: str(home / name) for role, name in _NAMES[model_format].items()}


_NAMES = {
    "onnx": {"model": "network.onnx"},
    "onnx-int8": {"model": "network.onnx"},
    "mnn": {"model": "network.mnn"},
    "ncnn": {"parameters": "network.ncnn.param", "weights": "network.ncnn.bin"},
    "litert": {"model": "network.tflite"},
    "litert-int8": {"model": "network.tflite"},
    "executorch": {"model": "network.pte"},
    "executorch-int8": {"model": "network.pte"},
}


def model_mb(files: Mapping[str, str]) -> float:
    """Give the size of a model's files, MiB."""
    own = (file for role, file in files.items() if role != RUNNER)
    return sum(Path(file).stat().st_size for file in own) / 2**20


def _key(model_format: str) -> dict[str, str]:
    key = {name: metadata.version(name) for name in _CONVERTERS[model_format]}
    if model_format in ("litert", "litert-int8"):
        key["converter"] = CONVERTER
    if model_format in _MODULES:
        files = [Path(__file__).with_name(f"{name}.py") for name in _MODULES[model_format]]
        code = b"".join(file.read_bytes() for file in files)
        key["module"] = hashlib.sha256(code).hexdigest()
    digest = hashlib.sha256()
    for source in sorted((PACKAGE / "model").glob("*.py")):
        digest.update(source.read_bytes())
    return {**key, "networks": digest.hexdigest(), "opset": str(OPSET)}


def _is_made_by(home: Path, key: Mapping[str, str]) -> bool:
    try:
        return bool(json.loads((home / MADE_BY).read_text(encoding="utf-8")) == key)
    except (OSError, ValueError):
        return False


def _to_onnx(subject: Subject, folder: Path, _: Files) -> None:
    example = (example_of(subject.model, subject.size),)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network_of(subject.model), example, str(folder / _NAMES["onnx"]["model"]),
                opset_version=OPSET, dynamo=True, external_data=False, optimize=True,
                verbose=False, input_names=["image"], output_names=["logits"],
            )  # fmt: skip
    except Exception as error:  # exporters raise whatever their parts do
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Failure(f"{subject.model} cannot be written as ONNX: {reason}") from error
    finally:
        logging.disable(disabled)


def _to_mnn(subject: Subject, folder: Path, source: Files) -> None:
    command = [
        sys.executable, "-c", _MNN_CONVERT, "-f", "ONNX",
        "--modelFile", source["model"], "--MNNModel", str(folder / _NAMES["mnn"]["model"]),
        "--bizCode", "bench",
    ]  # fmt: skip
    _convert("mnnconvert", command, subject, folder, "mnn")


def _to_ncnn(subject: Subject, folder: Path, _: Files) -> None:
    example = example_of(subject.model, subject.size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network_of(subject.model), example)
        torch.jit.save(traced, str(folder / "network.pt"))
    # Weights are written as fp16 unless one says otherwise.
    command = [
        str(Path(sys.executable).parent / "pnnx"), "network.pt",
        f"inputshape=[{','.join(map(str, example.shape))}]", "fp16=0",
    ]  # fmt: skip
    _convert("pnnx", command, subject, folder, "ncnn")


def _to_litert(subject: Subject, folder: Path, _: Files) -> None:
    _convert_program("litert-torch", ensure_converter(), subject, folder, "litert")


def _to_litert_int8(subject: Subject, folder: Path, _: Files) -> None:
    _convert_program("ai-edge-quantizer", ensure_converter(), subject, folder, "litert-int8")


def _to_onnx_int8(subject: Subject, folder: Path, source: Files) -> None:
    module = f"{__package__}.{_MODULES['onnx-int8'][0]}"
    command = [sys.executable, "-m", module, source["model"], _NAMES["onnx-int8"]["model"]]
    _convert("ONNX Runtime's quantiser", command, subject, folder, "onnx-int8")


def _to_executorch(subject: Subject, folder: Path, _: Files) -> None:
    _convert_program("executorch", Path(sys.executable), subject, folder, "executorch")


def _to_executorch_int8(subject: Subject, folder: Path, _: Files) -> None:
    _convert_program("executorch", Path(sys.executable), subject, folder, "executorch-int8")


def _convert_program(
    tool: str, python: Path, subject: Subject, folder: Path, model_format: str
) -> None:
    """Have a module of this package convert what `torch.export` makes, in a Python of its own."""
    example = (example_of(subject.model, subject.size),)
    program = folder / "network.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(network_of(subject.model), example), program)
    command = [
        str(python), "-m", f"{__package__}.{_MODULES[model_format][0]}", program.name,
        _NAMES[model_format]["model"],
    ]  # fmt: skip
    _convert(tool, command, subject, folder, model_format)


def _convert(
    tool: str, command: list[str], subject: Subject, folder: Path, model_format: str
) -> None:
    """Run a converter in a folder, see that it wrote what it should, and remove all else."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(SEARCH_PATH)}
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env=environment,
            timeout=CONVERTING_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{tool} did not convert {subject.model}: {error}") from None
    wanted = _NAMES[model_format].values()
    missing = [name for name in wanted if not (folder / name).is_file()]
    if done.returncode or missing:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Failure(
            f"{tool} did not convert {subject.model} (status {done.returncode}); it said: {said}"
        )
    for file in folder.iterdir():
        if file.name not in wanted:
            file.unlink()


_CONVERT: dict[str, Callable[[Subject, Path, Files], None]] = {
    "onnx": _to_onnx,
    "mnn": _to_mnn,
    "ncnn": _to_ncnn,
    "onnx-int8": _to_onnx_int8,
    "litert": _to_litert,
    "litert-int8": _to_litert_int8,
    "executorch": _to_executorch,
    "executorch-int8": _to_executorch_int8,
}
