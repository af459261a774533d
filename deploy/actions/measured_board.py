"""What `device.py measure` does: a board that is really there becomes a file for ``--board``."""

from __future__ import annotations

import argparse

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.board.places import CONSOLE
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.estimate.boards import read_board
from shuffledeploy.deploy.runner.board_probe import UNKNOWN_CORE, probe_board, write_board


def measure(options: argparse.Namespace) -> int:
    """Measure a board and write its file; return the exit status."""
    place = parse_device_name(options.device)
    with CONSOLE.status(f"measuring clock and memory of {place.text}"):
        probed = probe_board(place, options.core)
    write_board(probed, place.text, options.file)
    print(options.file.read_text(encoding="utf-8"), end="")
    if probed.core_name != UNKNOWN_CORE:
        # Says in one line what of it --board would not take.
        read_board(options.file)
    else:
        print(
            f"note: --board takes none but {', '.join(CORES)}: name the nearest in {options.file}"
        )
    return 0
