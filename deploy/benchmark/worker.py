"""The process in which one engine runs one network, pinned to the cores that it is given.

It reads one JSON object a line and answers each with one. Engines print as they like: what is
written to standard output goes to the log, answers go to a copy of it made before. Between two
requests it sleeps in a read. Nothing here is imported that an engine might want to do without.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

from shuffledeploy.deploy.benchmark import memory


class Worker:
    """Carries out requests; each method is a command, its arguments the request's fields."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.before_kb = 0
        self.before_libraries: dict[str, int] = {}
        self.loading_kb = 0

    def load(self, module: str, files: dict[str, str], image: str, threads: int) -> Any:
        """Import the engine, load a network and run it once, noting what that does to memory."""
        values = np.load(image)
        self.before_libraries = memory.loaded_libraries()
        self.before_kb = memory.resident_kb()
        memory.forget_peak()
        self.engine = importlib.import_module(module).load(files, threads)
        self.engine.set_input(values)
        self._run()
        self.loading_kb = memory.peak_kb()
        memory.forget_peak()
        return {}

    def answer(self, image: str, times: int) -> Any:
        """Give the logits that the network answers to an image after so many runs."""
        self.engine.set_input(np.load(image))
        for _ in range(times):
            self._run()
        logits = np.asarray(self.engine.output(), np.float32)
        return {"shape": list(logits.shape), "logits": logits.reshape(-1).tolist()}

    def time(self, warm: int, count: int) -> Any:
        """Time single runs after some that warm the caches; in seconds."""
        gc.disable()
        for _ in range(warm):
            self._run()
        seconds = []
        for _ in range(count):
            self.engine.prepare()
            began = time.perf_counter_ns()
            self.engine.run()
            seconds.append((time.perf_counter_ns() - began) * 1e-9)
        gc.enable()
        return {"seconds": seconds}

    def memory(self) -> Any:
        """Tell memory beyond the bare process's, and the engine's libraries."""
        libraries = memory.loaded_libraries()
        own = {p: size for p, size in libraries.items() if p not in self.before_libraries}
        running = memory.peak_kb()
        return {
            "running_kb": running - self.before_kb,
            "peak_kb": max(running, self.loading_kb) - self.before_kb,
            "bare_kb": self.before_kb,
            "libraries": own,
        }

    def ask(self, method: str, **arguments: Any) -> Any:
        """Call a method that only this engine's module has."""
        return getattr(self.engine, method)(**arguments)

    def _run(self) -> None:
        self.engine.prepare()
        self.engine.run()


def main(cores: str) -> int:
    """Answer requests until there are no more."""
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("command"))(**request)
        except Exception as error:  # an engine's failure is an answer, not the end of the worker
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {reason}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
