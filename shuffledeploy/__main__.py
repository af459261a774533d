"""``python -m shuffledeploy``."""

import sys

from shuffledeploy.command_line import main

if __name__ == "__main__":
    sys.exit(main(None))
