"""The process of one emulated phone and of the adb server that knows it; see `phone_process`.

It says ``ready PORT ADB_PORT`` when the adb server at ``ADB_PORT`` has been told of the phone at
``PORT``. SIGUSR1 pulls the cable: connections end, and no client can connect again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from shuffledeploy.deploy.phone.adb_program import find_adb
from shuffledeploy.deploy.phone.emulated_phone.adb_device import AdbConnection, EmulatedPhone
from shuffledeploy.deploy.phone.emulated_phone.phone_files import PhoneDisk
from shuffledeploy.deploy.phone.emulated_phone.phone_process import LOOPBACK, private_settings
from shuffledeploy.deploy.phone.emulated_phone.phone_system import ensure_phone_files, make_root
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits

_ADB_SERVER_S = 20.0
_CONNECT_S = 3.0
# Waits until its input closes, as it does when this process ends, be it of SIGKILL.
_END_GROUP = "read -r _; kill -9 0"


def main() -> None:
    """Serve until standard input closes (``--watch``) or the process is ended."""
    folder, traits, *options = sys.argv[1:]
    found = msgspec.json.decode(traits, type=PhoneTraits)
    files = ensure_phone_files()
    root = Path(folder) / "root"
    make_root(files, root, found)
    phone = EmulatedPhone(files, PhoneDisk(root, found.room_kib << 10), found)
    # What runs on the phone is of this process group, which has to go as a whole.
    with subprocess.Popen(["/bin/sh", "-c", _END_GROUP], stdin=subprocess.PIPE):
        asyncio.run(_serve(phone, Path(folder), "--watch" in options))


async def _serve(phone: EmulatedPhone, folder: Path, watch: bool) -> None:
    connections: set[AdbConnection] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = AdbConnection(phone, reader, writer)
        connections.add(connection)
        await connection.serve()
        connections.discard(connection)

    server = await asyncio.start_server(connected, LOOPBACK, 0)

    def pull_cable() -> None:
        server.close()
        for connection in connections:
            connection.close()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, pull_cable)
    if watch:
        loop.add_reader(sys.stdin.fileno(), lambda: os.killpg(0, signal.SIGKILL))
    port = int(server.sockets[0].getsockname()[1])
    adb_port = await _start_adb_server(folder, f"{LOOPBACK}:{port}")
    print(f"ready {port} {adb_port}", flush=True)
    await asyncio.Event().wait()


async def _start_adb_server(folder: Path, serial: str) -> int:
    """Start an adb server of this phone's own and tell it of the phone; return its port."""
    adb, port = find_adb(), _free_port()
    environment = {**os.environ, **private_settings(folder, f"localhost:{port}")}
    server = await asyncio.create_subprocess_exec(
        adb.executable, "nodaemon", "server", env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.wait_for(_until_listening(server, port), _ADB_SERVER_S)
    client = await asyncio.create_subprocess_exec(
        adb.executable, "connect", serial, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # Where the phone lets nobody in, the client waits for longer than anybody wants to.
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(client.wait(), _CONNECT_S)
    return port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def _until_listening(server: asyncio.subprocess.Process, port: int) -> None:
    while server.returncode is None:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise RuntimeError("the adb server ended by itself")


if __name__ == "__main__":
    main()
