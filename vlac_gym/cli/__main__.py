"""Runs the command line as `python -m vlac_gym.cli`."""

import sys

from vlac_gym.cli import main

if __name__ == "__main__":
    sys.exit(main())
