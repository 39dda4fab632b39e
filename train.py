"""Trains, measures and applies a linear regression; ``python train.py --help`` says how.

These lines are a ``train.py`` of another project too, which has linreg installed: models and data lie beside it.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("linreg", run_name="__main__")
