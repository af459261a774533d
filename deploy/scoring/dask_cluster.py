"""A connection to a cluster of Dask's `distributed` that somebody started.

Of Dask this uses the plainest part: a function of this project and one argument, bytes, go to
whichever machine is free, and bytes come back. Dask itself notices a machine that dies and gives
its tasks to others, and takes in machines that join.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from shuffledeploy.deploy.scoring.machine_facts import MachineFacts, facts_of_this_machine
from shuffledeploy.model.errors import Failure, UsageError

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 5.0
# How long a cluster may be without any machine: one that restarts comes back sooner.
LOST_S = 20.0
POLL_S = 1.0
START = "dask worker ADDRESS --no-nanny --nthreads N"


class ClusterMachine(msgspec.Struct, frozen=True):
    """What a machine of the cluster says of itself.

    Attributes
    ----------
    facts : MachineFacts
        Its versions.
    is_daemon : bool
        Whether it runs below a process that lets it start none of its own.
    """

    facts: MachineFacts
    is_daemon: bool


def describe_this_machine() -> bytes:
    """Say what this machine is (runs on each machine of a cluster)."""
    is_daemon = bool(multiprocessing.current_process().daemon)
    return msgspec.json.encode(ClusterMachine(facts_of_this_machine(), is_daemon))


def call_on_machine(function: Callable[[bytes], bytes], argument: bytes) -> tuple[str, bytes]:
    """Call a function, and say which machine of the cluster that was (runs there)."""
    from distributed import get_worker

    return str(get_worker().address), function(argument)


class DaskCluster:
    """A connection to a cluster's scheduler.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    address : str
        As the user named it.
    tell : Callable
        Told of machines that are not used.

    Attributes
    ----------
    warnings : list of str
        A sentence for each machine that is not used.
    """

    def __init__(self, client: Client, address: str, tell: Callable[[str], None]) -> None:
        self._client, self._address, self._tell = client, address, tell
        self._unfit: set[str] = set()
        self._alone_since: float | None = None
        self.warnings: list[str] = []

    def machines(self) -> dict[str, int]:
        """List the machines that can be used, by address, with how many tasks each runs at once.

        Raises
        ------
        Failure
            If the scheduler is gone.
        """
        try:
            found = self._client.nthreads()
        except Exception as error:
            raise Failure(f"{self._lost('the scheduler')} ({_first_line(error)})") from error
        return {name: count for name, count in found.items() if name not in self._unfit}

    def require_like_this(self) -> None:
        """Refuse a cluster of no machine, or of one that would build or score otherwise.

        Raises
        ------
        UsageError
            Says which machine, and what it has.
        """
        from distributed import TimeoutError as NoneCame

        with contextlib.suppress(NoneCame):
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        if not self.machines():
            raise UsageError(
                f"--cluster: the scheduler at {self._address} has no workers: start one with"
                f" {START.replace('ADDRESS', self._address)}"
            )
        answers = self._client.run(describe_this_machine, on_error="return")
        here = facts_of_this_machine()
        for machine, answer in answers.items():
            if unlike := _complaint(answer, here):
                raise UsageError(f"--cluster: the worker at {machine} cannot be used: {unlike}")

    def submit(self, function: Callable[[bytes], bytes], argument: bytes) -> Future[Any]:
        """Hand a call to whichever machine is free; its result names the machine, too."""
        allowed = sorted(self.machines()) if self._unfit else None
        return self._client.submit(call_on_machine, function, argument, pure=False, workers=allowed)

    def set_aside(self, machine: str, why: str) -> None:
        """Send a machine nothing more, and say why.

        Raises
        ------
        Failure
            If it was the last.
        """
        if machine in self._unfit:
            return
        self._unfit.add(machine)
        sentence = f"the worker at {machine} is not used: {why}"
        self.warnings.append(sentence)
        self._tell(sentence)
        if not self.machines():
            raise Failure(f"--cluster: no worker is left: the last, at {machine}: {why}")

    def wait(self, futures: Sequence[Future[Any]]) -> None:
        """Wait a moment, or until one of these is done.

        Raises
        ------
        Failure
            If the scheduler is gone, or there has been no machine for a while.
        """
        from distributed import CancelledError, wait
        from distributed import TimeoutError as NoneDone

        try:
            with self._client.as_current():
                wait(list(futures), timeout=POLL_S, return_when="FIRST_COMPLETED")
        except NoneDone:
            pass
        except CancelledError as error:
            raise Failure(self._lost("the scheduler")) from error
        else:
            self._alone_since = None
            return
        if self.machines():
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > LOST_S:
            raise Failure(self._lost("all workers"))

    def answer(self, future: Future[Any]) -> tuple[str, bytes] | None:
        """Give the machine and the answer of a call that is done; None if machines died of it.

        Raises
        ------
        Failure
            If the cluster does not run the call at all.
        """
        from distributed import CancelledError, KilledWorker

        try:
            machine, answer = future.result()
        except KilledWorker:
            return None
        except CancelledError as error:
            raise Failure(self._lost("the scheduler")) from error
        except Exception as error:
            raise Failure(
                f"the cluster at {self._address} does not run what it is sent"
                f" ({_first_line(error)}); what was found until then is in the log"
            ) from error
        return str(machine), bytes(answer)

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Forget calls that are under way."""
        with contextlib.suppress(Exception):
            self._client.cancel(list(futures), force=True)

    def _lost(self, what: str) -> str:
        return (
            f"{what} at {self._address} {'are' if what.endswith('s') else 'is'} lost; what was"
            " found until then is in the log, and the same command goes on from there"
        )


@contextmanager
def connected(address: str, tell: Callable[[str], None]) -> Iterator[DaskCluster]:
    """Connect to a scheduler.

    Parameters
    ----------
    address : str
        Such as ``tcp://127.0.0.1:8786``, or ``tls://``: then with the certificates of Dask's own
        configuration (``distributed.comm.tls``).
    tell : Callable
        Told of machines that are not used.

    Raises
    ------
    UsageError
        If `distributed` is not installed, no scheduler answers within seconds, or a ``tls://``
        address has no certificates.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(
            "--cluster needs Dask's distributed: pip install distributed==2026.8.0"
        ) from None
    _quiet()
    try:
        with warnings.catch_warnings():
            # Versions are compared here, and by what kernels are made of.
            warnings.simplefilter("ignore")
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except Exception as error:
        if address.startswith("tls://") and isinstance(error, TypeError):
            raise UsageError(
                f"--cluster: {address} needs certificates: name them in Dask's own configuration,"
                " distributed.comm.tls"
            ) from error
        raise UsageError(
            f"--cluster: no scheduler of Dask answers at {address} ({_first_line(error)}); start"
            " one with: dask scheduler --host 127.0.0.1"
        ) from error
    try:
        yield DaskCluster(client, address, tell)
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=CONNECT_S)


def _complaint(answer: Any, here: MachineFacts) -> str | None:
    """Say why a machine that described itself cannot be used."""
    if isinstance(answer, BaseException):
        return f"it cannot run this project ({_first_line(answer)})"
    try:
        machine = msgspec.json.decode(answer, type=ClusterMachine)
    except (msgspec.DecodeError, TypeError):
        return "it does not say what it is"
    if machine.is_daemon:
        return "it was started below a nanny and may start no process: give it --no-nanny"
    return here.difference_from(machine.facts)


def _first_line(error: BaseException) -> str:
    """Give an error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def _quiet() -> None:
    """Let `distributed` log nothing: this module says what is wrong with a cluster."""
    for name in ["distributed", *logging.root.manager.loggerDict]:
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
