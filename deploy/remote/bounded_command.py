"""Commands whose other end is not trusted: they get so much time, and may say so much."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from shuffledeploy.deploy.remote.remote_host import Answer, Command

LONGEST_ANSWER = 1 << 20
_END_S = 5.0


def _read(process: subprocess.Popen[bytes], pipe: IO[bytes]) -> bytes:
    content = pipe.read(LONGEST_ANSWER)
    if len(content) == LONGEST_ANSWER:
        process.kill()
    return content


def run_bounded(command: Command, limit_s: float, sent: bytes = b"") -> Answer:
    """Run a command of this machine.

    Parameters
    ----------
    command : Command
        What to run.
    limit_s : float
        Seconds after which it is killed.
    sent : bytes
        Its standard input.

    Returns
    -------
    Answer
        At most `LONGEST_ANSWER` bytes of what it said; one that says more is killed.

    Raises
    ------
    TimeoutError
        If it did not end in time.
    """
    is_late = threading.Event()
    process = subprocess.Popen(
        command.words, env=dict(command.environment), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

    def stop() -> None:
        is_late.set()
        process.kill()

    late = threading.Timer(limit_s, stop)
    with process, ThreadPoolExecutor(2) as readers:
        try:
            late.start()
            answer = _exchange(process, readers, sent)
        except BaseException:
            # Nobody waits for it: the readers would until it ends by itself.
            process.kill()
            raise
        finally:
            late.cancel()
    if is_late.is_set():
        raise TimeoutError
    return answer


def _exchange(process: subprocess.Popen[bytes], readers: ThreadPoolExecutor, sent: bytes) -> Answer:
    """Give a command its input and read what it says, until it ends."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    pipes = (process.stdout, process.stderr)
    read = [readers.submit(_read, process, pipe) for pipe in pipes]
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(sent)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    output, errors = (part.result().decode(errors="replace") for part in read)
    return Answer(process.wait(), output, errors)


def end_by_input(process: subprocess.Popen[bytes]) -> None:
    """Let a command see that its input closes, and wait for its end."""
    assert process.stdin
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
