"""What the compiler's tests share: a collector that leaves the heap alone."""

from __future__ import annotations

import gc

import stages

# Going over some millions of live objects again and again took a third of the tests' time.
assert stages.HOST
gc.freeze()
gc.set_threshold(200_000, 50, 50)
