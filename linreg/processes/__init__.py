"""Several processes of one run: how they begin, share the rows, log as one, and end together.

In: the Trainer's flags, and what torchrun or srun say. Out: the flags of those that were started, one line for what
has ended them, each one's rows. Read ``launchers``, ``meeting``, ``shares``, ``logged``, ``ends``.
"""
