"""The command `genbook`, run as `python -m genbook`."""

import sys

from genbook.cli import main

if __name__ == "__main__":
    sys.exit(main())
