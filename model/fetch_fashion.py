"""Command: get Fashion-MNIST into the cache."""

from __future__ import annotations

import argparse
import sys

from shuffledeploy.model.errors import command
from shuffledeploy.model.fashion_data import fetch, read_split


@command
def main(argv: list[str] | None = None) -> int:
    """Fetch the data set, check it, and say where it is."""
    parser = argparse.ArgumentParser(
        description="Get Fashion-MNIST (31 MB) from the Debian package that ships it, through "
        "the machine's own apt, without root. It is kept in $XDG_CACHE_HOME/shuffledeploy (by "
        "default ~/.cache/shuffledeploy); when it is there, or the package is installed, "
        "nothing is downloaded.",
    )
    parser.parse_args(argv)
    folder = fetch()
    for name in ("train", "test"):
        print(f"{name}: {len(read_split(name, folder).labels):,} images of 28x28")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(None))
