"""A network without a runtime, run by several threads of its caller: answers to the bit."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages import HOST, draw
from standalone_networks import Loaded, SeveralOfEach, aligned_copy, standalone
from torch import Tensor, nn

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.compiler.standalone.c_interface import MISALIGNED, NO_SUCH_THREAD
from shuffledeploy.deploy.runner.bench_runner import program_flags

_MEETS = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
THREADS = 3


class Units(nn.Module):
    """Work enough for threads: parts of pixels and of outputs, strips, and what TVM computes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 2, 1)
        self.depthwise = nn.Conv2d(64, 64, 3, 1, 1, groups=64)
        self.classifier = nn.Linear(64, 70)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.depthwise(torch.relu(self.wide(torch.relu(self.stem(x))))))
        y = self.classifier(x.mean((2, 3)))
        return y.cumsum(1), y


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder, target = tmp_path_factory.mktemp("units"), HOST.on_threads(THREADS)
    return standalone(folder, Units(), draw(1, 3, 40, 38), target=target)


def _shares(loaded: Loaded, inputs: list[Array]) -> tuple[list[Array], list[int]]:
    """Run the network on threads of this process; give its answers, and what each call returned."""
    given = [aligned_copy(value) for value in inputs]
    outputs = loaded.bundle.manifest.outputs
    places = [aligned_copy(np.zeros(t.shape, t.dtype)) for t in outputs]
    pointers = [place.ctypes.data for place in (*given, *places, loaded.workspace)]
    barrier = threading.Barrier(THREADS)
    meet = _MEETS(lambda _: barrier.wait() and None)
    returned = [-1] * THREADS

    def share(thread: int) -> None:
        arguments = [*map(ctypes.c_void_p, pointers), ctypes.c_int(thread), meet, None]
        returned[thread] = loaded.function("run_share")(*arguments)

    threads = [threading.Thread(target=share, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [p.view(t.dtype).reshape(t.shape) for p, t in zip(places, outputs, strict=True)]
    return answers, returned


@pytest.mark.parametrize("network", ["units", "small"])
def test_threads_compute_together_what_one_computes(
    network: str, units: Bundle, tmp_path: Path
) -> None:
    bundle = units if network == "units" else _small(tmp_path)
    loaded = Loaded(bundle)
    inputs = [draw(*t.shape).numpy() for t in bundle.manifest.inputs]
    for _ in range(3):
        answers, returned = _shares(loaded, inputs)
        assert returned == [0] * THREADS
        for shared, alone in zip(answers, loaded.run(inputs), strict=True):
            np.testing.assert_array_equal(shared, alone)


def _small(folder: Path) -> Bundle:
    """Compile a network that stays on one thread, and copies answers at its end."""
    target = HOST.on_threads(THREADS)
    return standalone(folder, SeveralOfEach(), draw(1, 6), draw(1, 6), target=target)


def test_wrong_arguments_are_found(units: Bundle) -> None:
    loaded = Loaded(units)
    tensors = len(units.manifest.inputs) + len(units.manifest.outputs)
    pointers: list[Any] = [ctypes.c_void_p(loaded.workspace.ctypes.data)] * (tensors + 1)
    run: Callable[..., int] = loaded.function("run_share")
    meet = _MEETS(lambda _: None)
    for thread in (THREADS, -1):
        assert run(*pointers, ctypes.c_int(thread), meet, None) == NO_SUCH_THREAD
    assert run(*pointers, ctypes.c_int(0), None, None) == MISALIGNED
    assert run(None, *pointers[1:], ctypes.c_int(0), meet, None) == MISALIGNED


def test_threads_of_a_c_program_run_it(units: Bundle, tmp_path: Path) -> None:
    program = tmp_path / "threads.c"
    program.write_text("""\
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "net.h"

static _Alignas(64) float x[NET_X_ELEMENTS], a[NET_OUTPUT_0_ELEMENTS], b[NET_OUTPUT_1_ELEMENTS];
static _Alignas(64) float c[NET_OUTPUT_0_ELEMENTS], d[NET_OUTPUT_1_ELEMENTS];
static _Alignas(64) unsigned char workspace[NET_WORKSPACE_BYTES];
static pthread_barrier_t barrier;

static void meet(void *with) { pthread_barrier_wait(with); }

static void *share(void *number) {
  const int thread = *(const int *)number;
  return net_run_share(x, a, b, workspace, thread, meet, &barrier) ? number : NULL;
}

int main(void) {
  pthread_t threads[NET_THREADS];
  int numbers[NET_THREADS], failed = 0;
  for (int i = 0; i < NET_X_ELEMENTS; ++i) x[i] = (float)(i % 17) / 17.0f;
  pthread_barrier_init(&barrier, NULL, NET_THREADS);
  for (int i = 0; i < NET_THREADS; ++i) {
    numbers[i] = i;
    pthread_create(&threads[i], NULL, share, &numbers[i]);
  }
  for (int i = 0; i < NET_THREADS; ++i) {
    void *status = NULL;
    pthread_join(threads[i], &status);
    failed |= status != NULL;
  }
  if (failed || net_run(x, c, d, workspace)) return 2;
  return memcmp(a, c, sizeof a) || memcmp(b, d, sizeof b);
}
""")
    flags = [*program_flags(HOST.architecture), f"-I{units.path}"]
    compile_c(program, tmp_path / "threads", flags, [units.path / units.standalone.archive])
    assert subprocess.run([str(tmp_path / "threads")], check=False, timeout=60).returncode == 0
