"""The ceilings of the core, in a worker of their own: a loop of multiply-adds, and one of reads."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

WIDTHS, SUMS, STREAMS = (4, 8, 16), (8, 10, 12, 16, 24), (1, 2, 4, 8)
#: Beyond any cache of one core's share, and as large as the weights of AlexNet.
STREAM_BYTES = 256 << 20
_SLICE_S = 4e-3


class Ceilings:
    """Measures multiply-adds and bytes a second."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._stream: Any = None
        self._best: tuple[int, int] | None = None
        self._streams = 1

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
        """Find the loops that keep the core busiest."""
        rates = {
            pair: max(self._rate(*pair) for _ in range(3))
            for pair in itertools.product(WIDTHS, SUMS)
        }
        self._best = max(rates, key=lambda pair: rates[pair])
        reads = {count: max(self._read(count) for _ in range(3)) for count in STREAMS}
        self._streams = max(reads, key=lambda count: reads[count])

    def ceilings(self) -> dict[str, Any]:
        """Measure both, warm.

        Returns
        -------
        dict
            ``multiply_adds_per_s``, ``bytes_per_s``, ``loop`` (lanes and independent sums) and
            ``streams`` read side by side.
        """
        if self._best is None:
            self.run()
        assert self._best is not None
        self._rate(*self._best)
        rate = sorted(self._rate(*self._best) for _ in range(3))[1]
        return {
            "multiply_adds_per_s": rate,
            "bytes_per_s": max(self._read(self._streams) for _ in range(2)),
            "loop": list(self._best),
            "streams": self._streams,
        }

    def _read(self, streams: int) -> float:
        read = getattr(self._library, f"read_{streams}")
        read.restype = ctypes.c_double
        read.argtypes = (ctypes.c_void_p, ctypes.c_int64)
        return float(self._stream.nbytes / read(self._stream.ctypes.data, self._stream.size))

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
