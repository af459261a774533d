"""Saved programs for tests, in order and manipulated."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Small(nn.Module):
    """A constant, a buffer and parameters: everything that a saved program stores apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) * torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[4.0]]])


class Held(Small):
    """The same with a graph within the graph, and an operator that changes its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            inner = torch.relu_(self.norm(self.conv(x)))
        return inner + 1


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Copy an archive, each member through `change`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def edited(
    source: Path, target: Path, edit: Callable[[Any], Any], member: str = "models/model.json"
) -> Path:
    """Copy an archive, one JSON member through `edit`: what it returns, or what it changed."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(member):
            return data
        content = json.loads(data)
        return json.dumps(edit(content) or content).encode()

    return rewritten(source, target, change)


def with_member(source: Path, target: Path, name: str, content: bytes) -> Path:
    """Copy an archive and add a member to its folder."""
    rewritten(source, target, lambda name, data: data)
    with zipfile.ZipFile(target, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/{name}", content)
    return target
