"""A board behind ssh: an OpenSSH server on loopback, run by an ordinary user with its own home."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.model.scratch import scratch_folder

USER = "board"
#: nobody's number: as root, an OpenSSH server would want a system user and folders of the system.
_ORDINARY = 65534
_SERVER_CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv PATH={home}/bin:/usr/local/bin:/usr/bin:/bin
"""
_CLIENT_CONFIGURATION = """\
Host board stranger unknown-key
  HostName 127.0.0.1
  Port {port}
  User {user}
  StrictHostKeyChecking yes
  IdentitiesOnly yes
Host board
  UserKnownHostsFile {keys}/known_hosts
  IdentityFile {keys}/key
Host stranger
  UserKnownHostsFile {keys}/known_hosts
  IdentityFile {keys}/stranger
Host unknown-key
  UserKnownHostsFile /dev/null
  IdentityFile {keys}/key
Host closed
  HostName 127.0.0.1
  Port 1
"""


@dataclass(frozen=True)
class SshBoard:
    """A running server.

    Attributes
    ----------
    home : Path
        Of its user.
    client : Path
        A folder for the front of the PATH: its ``ssh`` knows the board as ``board``; it has no key
        for ``stranger``, does not know the key of ``unknown-key``, and nobody is at ``closed``.
    process : subprocess.Popen
        The server, which leads a process group.
    """

    home: Path
    client: Path
    process: subprocess.Popen[bytes]


def _packages() -> Path:
    """Fetch Debian's OpenSSH server, and what gives a process a list of users of its own."""

    def build(folder: Path) -> None:
        with scratch_folder("shuffledeploy-apt-") as scratch:
            tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
            apt_tree.unpack(tree, ["openssh-server", "libwrap0", "libnss-wrapper"], folder)

    return built_once(f"test-sshd-{recipe_hash(Path(__file__))}", build)


def _copy_programs(folder: Path) -> tuple[Path, Path]:
    """Copy where the ordinary user can read them: the server, and the folder of its libraries."""
    packages, libraries = _packages(), folder / "lib"
    libraries.mkdir()
    for library in packages.rglob("*.so*"):
        shutil.copy(library, libraries / library.name)
    return Path(shutil.copy(packages / "usr/sbin/sshd", folder / "sshd")), libraries


def _write_keys(folder: Path, keys: Path, port: int) -> None:
    for key in (folder / "host_key", keys / "key", keys / "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True
        )  # fmt: skip
    shutil.copy(keys / "key.pub", folder / "authorized_keys")
    public = (folder / "host_key.pub").read_text()
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")


def _write_client(keys: Path, port: int) -> Path:
    configuration = keys / "config"
    configuration.write_text(_CLIENT_CONFIGURATION.format(port=port, user=USER, keys=keys))
    client = keys / "bin"
    client.mkdir()
    script = client / "ssh"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {configuration} "$@"\n')
    script.chmod(0o755)
    return client


@contextmanager
def ssh_board(keys: Path) -> Iterator[SshBoard]:
    """Run a board for the length of a block; what its clients need goes into an empty folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    number = os.getuid() or _ORDINARY
    folder = Path(tempfile.mkdtemp(prefix="shuffledeploy-ssh-"))
    try:
        sshd, libraries = _copy_programs(folder)
        home = folder / "home"
        home.mkdir()
        _write_keys(folder, keys, port)
        configuration = folder / "sshd_config"
        configuration.write_text(_SERVER_CONFIGURATION.format(port=port, folder=folder, home=home))
        (folder / "passwd").write_text(f"{USER}:x:{number}:{number}::{home}:/bin/sh\n")
        (folder / "group").write_text(f"{USER}:x:{number}:\n")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, number, number)
        environment = {
            "PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"),
            "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(folder / "group"),
        }  # fmt: skip
        with (keys / "log").open("wb") as log:
            process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", configuration], env=environment, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
                **({"user": number, "group": number, "extra_groups": []}
                   if os.getuid() == 0 else {}),
            )  # fmt: skip
        try:
            _wait_for(port, process)
            yield SshBoard(home, _write_client(keys, port), process)
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the ssh server does not come up")
