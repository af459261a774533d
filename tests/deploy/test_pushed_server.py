"""Why a pushed server ended, from a command that stands for the way to a device."""

from __future__ import annotations

import os
import platform

import pytest

from shuffledeploy.deploy.remote.pushed_server import ServerWishes, running_server
from shuffledeploy.deploy.remote.remote_host import Answer, Command, HostTraits
from shuffledeploy.deploy.remote.ssh_host import SshHost


class _Host(SshHost):
    """A device that has the server; a script is what starts it."""

    script = ""

    def traits(self) -> HostTraits:
        return HostTraits(platform.machine())

    def shell(self, line: str, limit_s: float = 1.0) -> Answer:
        return Answer(0, "there\n", "")

    def shell_command(self, line: str) -> Command:
        return Command(("sh", "-c", self.script), os.environ)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        # The command is gone, its last words are still on their way.
        ("echo ready 4000; (sleep 0.3; echo Connection to board closed by remote host.) &",
         "the connection was lost: the board closed it"),
        ("echo ready 4000", "the connection was lost"),
        ("echo ready 4000; echo ready 5000", "ready 5000"),
    ],
)  # fmt: skip
def test_why_a_server_ended_is_what_it_said_last(
    monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(_Host, "script", script)
    with running_server(_Host("ssh://board", (), "/nowhere"), ServerWishes()) as server:
        assert server.port == 4000
        assert server.why_ended(5.0) == reason
