"""From numbers to mini-batches: a table, split once, in an order that is a function of (seed, epoch).

In: files, arrays, or known coefficients. Out: a data module's batches (x (N, D), y (N, T)).
Read ``table``, ``data`` and ``batches``; then ``synthetic`` and ``csv_data``, with ``reader`` and, for what is larger
than memory, ``conversion`` and ``memmap``; ``prediction`` goes the way back, from a model to a file, and ``columns``
asks whether other rows have the columns that a model was trained on, in the same units.
"""
