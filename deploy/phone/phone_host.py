"""A phone as a place where the native server runs; nothing is installed there."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.phone.adb_client import PhoneLink, why_unusable
from shuffledeploy.deploy.phone.emulated_phone.phone_system import COUNTS_PROPERTY
from shuffledeploy.deploy.remote.remote_host import Answer, Command, HostTraits
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line

#: The only folder in which adb's shell may execute what it wrote (AOSP, shell.te).
FOLDER = "/data/local/tmp/shuffledeploy"
_ABI_PROPERTY = "ro.product.cpu.abi"
_EMULATED_PROPERTIES = ("ro.boot.qemu", "ro.kernel.qemu")
_PATH = re.compile(r"/[\w./-]{1,100}")
_ABI = "arm64-v8a"
_32_BIT = ("armeabi", "x86", "mips")
# What is pushed is executed: nobody else may write there. adbd itself gives everybody every right.
_PRIVATE = "umask 077; "
_SHELL_S = 20.0
# 10 MB over a bad cable of USB 1.1.
_PUSH_S = 120.0


@dataclass(frozen=True)
class PhoneHost:
    """A phone, see `deploy.remote.remote_host.RemoteHost`.

    Attributes
    ----------
    link : PhoneLink
        The way to it.
    """

    link: PhoneLink

    @property
    def name(self) -> str:
        """Return its device name."""
        return self.link.name

    @property
    def folder(self) -> str:
        """Return its folder for all that is pushed."""
        return FOLDER

    def traits(self) -> HostTraits:
        """Ask what it is.

        Raises
        ------
        Failure
            If it runs no 64-bit ARM code, or is gone.
        """
        names = (_ABI_PROPERTY, *_EMULATED_PROPERTIES, COUNTS_PROPERTY)
        told = self.shell("; ".join(f"getprop {name}" for name in names)).output.split("\n")
        values = dict(zip(names, (line.strip() for line in told), strict=False))
        abi = values.get(_ABI_PROPERTY, "")
        if abi != _ABI:
            kind = "32-bit, and " if abi in _32_BIT or abi.startswith("armeabi") else ""
            raise Failure(
                f"{self.name} is {printable_line(abi) or 'of an ABI that it does not tell'}:"
                f" {kind}no {_ABI} phone, which libraries are built for"
            )
        is_emulated = any(values.get(name) == "1" for name in _EMULATED_PROPERTIES)
        counts = values.get(COUNTS_PROPERTY, "")
        return HostTraits("aarch64", is_emulated, counts if _PATH.fullmatch(counts) else "")

    def shell(self, line: str, limit_s: float = _SHELL_S) -> Answer:
        """Run a line in its shell.

        Raises
        ------
        Failure
            If it is gone.
        """
        return self.link.shell(_PRIVATE + line, limit_s)

    def shell_command(self, line: str) -> Command:
        """Return what runs a line there, with our standard input and output as its own."""
        return self.link.client.command(self.link.arguments("shell", _PRIVATE + line))

    def push(self, files: Path, folder: str) -> None:
        """Send all files of a folder into a folder there.

        Raises
        ------
        Failure
            If there is no room, or it is gone.
        """
        self.link.push(sorted(files.iterdir()), folder, _PUSH_S)

    def forwarded(self, port: int) -> AbstractContextManager[int]:
        """Let a free port of this machine lead to one of the phone, for a block's length."""
        return self.link.forwarded(port)

    def why_lost(self, said: str) -> str:
        """Say in one line why a command ended that should not have, from its last words."""
        if told := why_unusable(said):
            return told
        try:
            # The cable may be out without a word of adb's.
            self.shell("true")
        except Failure as failure:
            return str(failure).removeprefix(f"{self.name}: ")
        lines = said.strip().splitlines()
        return printable_line(lines[-1]) if lines else "the server died"
