"""Models and data to be copied: each file a whole one, with a config of its name beside it.

In: ``linreg``'s public names, and nothing else of it. Out: a model and its data for ``train.py --config``.
Read ``README.md`` here, then ``classifier`` and ``cnn``; ``autoencoder``, ``gan``, ``gpt``, ``poisson``, ``quantile``,
``sequence`` and ``transformer`` in any order. Recipes: ``sweep``, ``folds``, ``export``. ``_broken`` is for
``configs/broken``.
"""

import os
import signal
import sys

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a recipe, which Python now imports
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
