"""Runs one engine on the emulated board and has one inference counted; started there by QEMU.

``python board_worker.py REQUEST.json``: the request names the engine's module, its files, the
images, the prefix of the counting plugin's files, the caches that are to be simulated (from the run
before the counted one) and a folder for what comes out. Imports nothing of this project but what
lies beside it and the numbers of the marks.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shuffledeploy.deploy.benchmark.counting_marks import (
    count_begin,
    count_end,
    simulate_caches,
)


def main(request_file: str) -> None:
    """Answer the images, then the first one again, counted."""
    request: dict[str, Any] = json.loads(Path(request_file).read_text())
    output = Path(request["output"])
    engine = importlib.import_module(request["module"]).load(request["files"], 1)
    images = [np.load(image) for image in request["images"]]
    # The first one comes last: it is answered after others, and stays set for the count, which is
    # its second run: an engine that overwrites its input would answer that wrongly.
    for place in reversed(range(len(images))):
        engine.set_input(images[place])
        engine.prepare()
        if place == 0 and request["caches"]:
            simulate_caches(request["caches"])
        engine.run()
        np.save(output / f"answer_{place}.npy", np.asarray(engine.output(), np.float32))
    engine.prepare()
    count_begin()
    engine.run()
    report = count_end(request["counts"])
    (output / "report.txt").write_text(report)
    (output / "maps.txt").write_text(Path("/proc/self/maps").read_text())
    np.save(output / "counted.npy", np.asarray(engine.output(), np.float32))


if __name__ == "__main__":
    main(sys.argv[1])
