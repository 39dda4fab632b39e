"""The command line. In: what was typed. Out: an exit code.

Read ``main``, then ``cli`` (from flags and configs to objects), ``typed`` (what was typed, before it is parsed) and
``parser`` (the grammar).
"""
