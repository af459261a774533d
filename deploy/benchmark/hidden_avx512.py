"""Programs that find no AVX-512 on a processor that has it, as on a client core of its vendor."""

from __future__ import annotations

import os
import platform
import sys

from shuffledeploy.compiler.processor_features import cpu_features
from shuffledeploy.deploy.benchmark.native import compiled
from shuffledeploy.deploy.benchmark.processor import HIDES_AVX512
from shuffledeploy.model.errors import UsageError

_PRELOADED = "LD_PRELOAD"


def environment_without_avx512() -> dict[str, str]:
    """Give the variables under which a program and all that it starts find no AVX-512 and no AMX.

    Returns
    -------
    dict of str
        This process's environment, and the library of ``hide_avx512.c`` loaded before others.
        A program that is linked without shared libraries finds AVX-512 all the same.

    Raises
    ------
    UsageError
        Where the processor has no AVX-512 to hide, or Linux cannot let CPUID fault on it.
    Failure
        If the library cannot be compiled.
    """
    features = cpu_features()
    if sys.platform != "linux" or platform.machine() != "x86_64" or "avx512f" not in features:
        raise UsageError("this machine has no AVX-512 to hide: run the command itself")
    if "cpuid_fault" not in features:
        raise UsageError(
            "AVX-512 cannot be hidden here: /proc/cpuinfo lacks cpuid_fault (of the processor, or"
            " of the virtual machine)"
        )
    loaded = [compiled("hide_avx512"), *filter(None, [os.environ.get(_PRELOADED)])]
    return {**os.environ, HIDES_AVX512: "1", _PRELOADED: ":".join(loaded)}
