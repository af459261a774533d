"""Bundles with a network without a runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import tiny_bundle
from torch import nn

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.deploy.devices.device_names import parse_device_name

CORE = "cortex-a72"
LOCAL = parse_device_name("local")


def here() -> Bundle:
    return tiny_bundle(standalone=True)


def for_arm() -> Bundle:
    return tiny_bundle(CORE, standalone=True)


def compiled(
    module: nn.Module, shape: tuple[int, ...], folder: Path, name: str | None = None
) -> Bundle:
    inputs = (torch.zeros(shape),)
    return shuffledeploy.compile(
        module.eval(), inputs, "host", output=folder / "b", name=name, standalone="net"
    )
