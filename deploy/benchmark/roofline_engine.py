"""The ceilings of the core, in a worker of their own: a loop of multiply-adds, and one of reads."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

WIDTHS, SUMS = (4, 8, 16), (8, 10, 12, 16, 24)
#: Beyond any cache of one core's share, and as large as the weights of AlexNet.
STREAM_BYTES = 256 << 20
_SLICE_S = 4e-3


class Ceilings:
    """Measures multiply-adds and bytes a second."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.read_all.restype = ctypes.c_double
        self._library.read_all.argtypes = (ctypes.c_void_p, ctypes.c_int64)
        self._stream: Any = None
        self._best: tuple[int, int] | None = None

    def set_input(self, values: Any) -> None:
        """Take the array that is streamed, not the image, which is no use here."""
        del values
        count = STREAM_BYTES // 4
        raw = np.ones(count + 16, np.float32)
        skip = -raw.ctypes.data % 64 // 4
        self._stream = raw[skip : skip + count]

    def prepare(self) -> None:
        """Do nothing."""

    def run(self) -> None:
        """Find the loop that keeps the core busiest."""
        rates = {
            pair: max(self._rate(*pair) for _ in range(3))
            for pair in itertools.product(WIDTHS, SUMS)
        }
        self._best = max(rates, key=lambda pair: rates[pair])

    def ceilings(self) -> dict[str, Any]:
        """Measure both, warm.

        Returns
        -------
        dict
            ``multiply_adds_per_s``, ``bytes_per_s``, and ``loop``: lanes and independent sums.
        """
        if self._best is None:
            self.run()
        assert self._best is not None
        self._rate(*self._best)
        rate = sorted(self._rate(*self._best) for _ in range(3))[1]
        seconds = self._library.read_all(self._stream.ctypes.data, self._stream.size)
        return {
            "multiply_adds_per_s": rate,
            "bytes_per_s": self._stream.nbytes / seconds,
            "loop": list(self._best),
        }

    def _rate(self, width: int, sums: int) -> float:
        loop = getattr(self._library, f"fma_v{width}_{sums}")
        loop.restype = ctypes.c_double
        loop.argtypes = (ctypes.c_int64, ctypes.c_float, ctypes.c_float)
        rounds = 20_000
        seconds = loop(rounds, 0.5, 1.0)
        rounds = max(1, int(rounds * _SLICE_S / seconds))
        return float(rounds * sums * width / loop(rounds, 0.5, 1.0))


def load(files: dict[str, str], threads: int) -> Ceilings:
    """Load the compiled loops."""
    del threads
    return Ceilings(files["roofline"])
