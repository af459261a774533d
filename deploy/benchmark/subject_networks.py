"""The network behind a subject's name: one of the zoo, or the program in a file (``.pt2``)."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.frontend.program import load_program
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.zoo import compile_exported
from shuffledeploy.deploy.runtime.comparison import BUNDLES, cached_bundle, still_good
from shuffledeploy.model import registry
from shuffledeploy.model.errors import UsageError

PROGRAM = ".pt2"


def is_program(name: str) -> bool:
    """Whether a name is that of a program's file."""
    return name.endswith(PROGRAM)


def short_name(name: str) -> str:
    """Name a network in tables: a program by its file's name alone."""
    return Path(name).stem if is_program(name) else name


@functools.lru_cache(maxsize=2)
def _loaded(name: str) -> ExportedProgram:
    return load_program(Path(name))


def program_size(name: str) -> tuple[int, int]:
    """Give height and width of the image that a program takes.

    Raises
    ------
    UsageError
        It takes anything but one image, or answers with anything but one tensor: the other
        engines are asked for such alone.
    """
    program = _loaded(name)
    kinds = program.graph_signature
    shapes = [
        tuple(node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in kinds.user_inputs
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or len(kinds.user_outputs) != 1:
        raise UsageError(f"{name} does not take one image [1, C, H, W] and answer with one tensor")
    _, _, height, width = shapes[0]
    return int(height), int(width)


def shape_of_image(name: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give the shape of a network's input, NCHW.

    Raises
    ------
    UsageError
        There is no such network, or it takes no images of that size.
    """
    if not is_program(name):
        return registry.input_shape(name, size)
    if size != program_size(name):
        raise UsageError(f"{name} takes images of its own size alone: leave out --resolution")
    (image,) = (
        node.meta["val"]
        for node in _loaded(name).graph.nodes
        if node.name in _loaded(name).graph_signature.user_inputs
    )
    _, channels, height, width = image.shape
    return 1, int(channels), height, width


def network_of(name: str) -> nn.Module:
    """Build a network of the zoo, or take that of a program."""
    return _loaded(name).module() if is_program(name) else registry.build(name)


def example_of(name: str, size: tuple[int, int]) -> torch.Tensor:
    """Give an image for converters to trace with."""
    return torch.zeros(shape_of_image(name, size))


def folder_name(name: str) -> str:
    """Name what is made of a network: of a program by its content, too."""
    if not is_program(name):
        return name
    path = Path(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return re.sub(r"\W+", "-", path.stem) + f"-{digest[:12]}"


def bundle_of(
    name: str,
    size: tuple[int, int],
    target: CompileTarget,
    *,
    standalone: bool,
    tell: Callable[[str], None],
) -> Bundle:
    """Give a network's bundle, compiled first where that is absent or old."""
    if not is_program(name):
        return cached_bundle(
            name, size, target, standalone=standalone, tell=lambda t: tell(t or "")
        )
    path = BUNDLES / f"{folder_name(name)}-{target.folder_name}"
    bundle = still_good(path, target)
    if bundle is not None and (bundle.manifest.standalone is not None or not standalone):
        return bundle
    short = re.sub(r"\W", "_", Path(name).stem)
    return compile_exported(
        _loaded(name), target, path, network=short_name(name), options={"program": Path(name).name},
        standalone=short if standalone else None, progress=lambda text: tell(f"{name}: {text}"),
    )  # fmt: skip
