"""Phones as free boards of a tracker: each registers through adb, and is reached through adb."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from shuffledeploy.deploy.phone.adb_client import PhoneLink
from shuffledeploy.deploy.phone.phone_host import PhoneHost
from shuffledeploy.deploy.remote.pushed_server import (
    RunningServer,
    ServerWishes,
    running_server,
)
from shuffledeploy.model.errors import Failure

_LOOPBACK = "127.0.0.1"
# Ports of a phone that nobody has registered; which one is free shows as it is taken.
_PHONE_PORTS = (20000, 32000)
_TRIES = 3
_LOOK_EVERY_S = 0.5


@contextmanager
def tracked_phone(link: PhoneLink, port: int, key: str, core: str) -> Iterator[RunningServer]:
    """Let a phone be a board of a tracker of this machine for the length of a block.

    Parameters
    ----------
    link : PhoneLink
        The phone.
    port : int
        The tracker's.
    key : str
        What the phone is called there.
    core : str
        Where its sessions run, as `ServerWishes`.

    Raises
    ------
    Failure
        If the phone cannot run the server, or is gone.
    """
    with ExitStack() as stack:
        tracker = stack.enter_context(link.reversed(port))
        for tries_left in reversed(range(_TRIES)):
            own = random.randrange(*_PHONE_PORTS)
            with ExitStack() as attempt:
                # The tracker has to be told at once where the phone is reached.
                announced = attempt.enter_context(link.forwarded(own))
                wishes = ServerWishes(core, own, f"{_LOOPBACK}:{tracker}", key, announced)
                try:
                    server = attempt.enter_context(running_server(PhoneHost(link), wishes))
                except Failure:
                    if not tries_left:
                        raise
                    continue
                stack.push(attempt.pop_all())
                break
        yield server


def serve_phones(
    links: Sequence[PhoneLink], port: int, key: str, core: str, tell: Callable[[str], None]
) -> None:
    """Offer phones to a tracker until the program is ended.

    Parameters
    ----------
    links : sequence of PhoneLink
        The phones.
    port, key, core
        As of `tracked_phone`.
    tell : Callable
        Told of each phone that registered, and that is lost.

    Raises
    ------
    Failure
        If a phone cannot be offered, or all are lost.
    """
    place = f"tracker://{_LOOPBACK}:{port}/{key}"
    with ExitStack() as stack:
        serving = {}
        for link in links:
            serving[link.name] = stack.enter_context(tracked_phone(link, port, key, core))
            tell(f"{link.name} is a board of {place}")
        while serving:
            time.sleep(_LOOK_EVERY_S)
            for name, server in list(serving.items()):
                if why := server.why_ended(0):
                    tell(f"{name} is lost: {why}")
                    del serving[name]
    raise Failure(f"no phone is left at {place}")
