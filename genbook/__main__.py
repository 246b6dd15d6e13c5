"""The command `genbook`, run as `python -m genbook`."""

import sys

from genbook.cli import main

sys.exit(main())
