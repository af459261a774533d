"""Importing this takes the machine for another: green has to mean the same on every host.

``HOST_CPU=haswell make test`` takes this machine for a core that LLVM knows and whose code runs
here: kernels of 8 lanes on a machine with 16, of 4 with ``HOST_CPU=x86-64``.
"""

from __future__ import annotations

import os

if name := os.environ.get("HOST_CPU"):
    import tvm

    # Where `compiler.targets` learns which core this is.
    tvm.register_global_func("target.llvm_get_system_cpu", lambda: name, override=True)
