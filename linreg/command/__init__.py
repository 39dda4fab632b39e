"""The command line. In: what was typed. Out: an exit code.

Read ``main``, then ``cli`` (from flags and configs to objects), ``typed`` and ``slips`` (what was typed, before it
is parsed), ``parser`` (the grammar) and ``signatures``.
"""
