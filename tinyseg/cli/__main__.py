"""``python -m tinyseg.cli``: the command from a checkout that is not installed."""

import sys

from tinyseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
