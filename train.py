"""Trains, measures and applies a linear regression: ``python train.py --help``."""

import sys

from linreg.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
