"""The parent's side of a worker: starts it, asks it, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any, Protocol

from shuffledeploy.model.errors import Failure

#: A request that takes longer than this is taken for a hang.
ANSWER_S = 300.0

WORKER = "shuffledeploy.deploy.benchmark.worker"


class Asked(Protocol):
    """What the rounds need of a worker."""

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""

    def close(self) -> None:
        """End it."""


def environment(threads: int) -> dict[str, str]:
    """Give the variables under which every engine has the same threads and none of them spins."""
    count = str(threads)
    names = ("OMP", "OPENBLAS", "MKL", "TVM", "NUMEXPR")
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": count for name in names},
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "TVM_THREAD_POOL_SPIN_COUNT": "0",
        "OPENVINO_TELEMETRY_ENABLE": "0",
    }


class WorkerProcess:
    """A worker, asleep unless it is asked.

    Parameters
    ----------
    name : str
        For messages.
    cores : sequence of int
        Where it may run.
    threads : int
        That its engine may use.
    """

    def __init__(self, name: str, cores: Sequence[int], threads: int) -> None:
        self.name = name
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", WORKER, ",".join(map(str, cores))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, encoding="utf-8", env=environment(threads),
        )  # fmt: skip

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises
        ------
        Failure
            The engine failed, the process died or hangs; the message says what it said last.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **fields}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Failure(f"{self.name}: its process died{self._last_words()}") from None
        answer = json.loads(self._line())
        if "error" in answer:
            raise Failure(f"{self.name}: {answer['error']}")
        return dict(answer)

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        deadline = time.monotonic() + ANSWER_S
        # One answer a request: nothing is left in the stream's buffer.
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._process.stdout], [], [], left)[0]:
                if line := self._process.stdout.readline():
                    return line
                raise Failure(f"{self.name}: its process died{self._last_words()}")
        self._process.kill()
        raise Failure(f"{self.name}: no answer within {ANSWER_S:.0f} s")

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        status = self._process.poll()
        return f" (status {status})" + (f"; it said last: {lines[-1][:200]}" if lines else "")
