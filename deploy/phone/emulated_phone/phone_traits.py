"""What an emulated phone is and how it behaves; all that a test may want to be different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shuffledeploy.compiler.cores import DEFAULT_CORE

#: How a phone meets a client: lets it in, waits for somebody to look at its screen, or is silent.
Welcome = Literal["open", "unauthorized", "silent"]


@dataclass(frozen=True)
class PhoneTraits:
    """An emulated phone.

    Attributes
    ----------
    core : str
        The core that it emulates.
    abi : str
        What it says that it runs, as Android names it.
    room_kib : int
        Room that ``df`` shows on ``/data``, and that pushed files may take.
    welcome : str
        ``open``, ``unauthorized`` (it asks on its screen, and nobody answers) or ``silent``.
    """

    core: str = DEFAULT_CORE
    abi: str = "arm64-v8a"
    room_kib: int = 8 << 20
    welcome: Welcome = "open"
