"""What other libraries say, where nothing but their words tells one error or warning from another.

``tests/test_messages.py`` provokes each, and so notices when a library has found other words.
"""

import re

NO_BACKEND = "backend found"  # Lightning, of a GPU that is not there
LOST_PROCESS = ("Connection closed by peer", "Connection reset by peer", "DataLoader worker")  # gloo, and torch
UNSAFE_PICKLE = ("GLOBAL ", "unrecognized function")  # torch, of code in a checkpoint
DENIED_IMPORT = re.compile(r"Importing '([\w.]+)' is not allowed")  # jsonargparse
UNKNOWN_NAME = re.compile(r"--([\w.]+)|(?:[Kk]ey|[Oo]ption) [\"']([\w.]+)[\"']")  # jsonargparse
TRIED_TYPES = ("Does not validate", "Subtypes:", "Errors:", "Given value type:")  # lines of jsonargparse's, of no use

# Warnings, each as a pattern.
FOLDER_IN_USE = r"Checkpoint directory .* exists and is not empty"  # Lightning
CSV_FOLDER_IN_USE = r"Experiment logs directory .* exists and is not empty"  # Lightning
SHORT_EPOCH = r"The number of training batches .* is smaller than the logging interval"  # Lightning
READ_ONLY_ARRAY = "The given NumPy array is not writable"  # torch
MISSING_GLYPH = "Glyph .* missing from"  # matplotlib
OLD_TREESPEC = r"`isinstance\(treespec, LeafSpec\)`"  # torch 2.13, of Lightning 2.6.6
