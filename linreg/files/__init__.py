"""From files to numbers: what a CSV file and a cell mean, judged and never guessed.

In: a path. Out: blocks of float64 (n, C), NaN where a cell is missing, or an InputError with file, line and column.
Read ``text_file``, ``csv_text``, ``cells`` and ``columns`` for what is meant, then ``blocks`` and ``plain_lines`` for
how it is fast; ``parquet`` and ``sources``; ``rows`` for the way back; ``doubts`` for what is said of numbers.
"""
