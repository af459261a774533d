"""What the tests of deployment share: the emulated board, or the reason why there is none."""

from __future__ import annotations

import pytest

from deploy.emulator.qemu import Emulator, ensure_emulator
from model.errors import Failure


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """QEMU with the counting plugin."""
    try:
        return ensure_emulator()
    except Failure as error:
        pytest.skip(f"no emulator: {error}")
