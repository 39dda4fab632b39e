"""What a run leaves, and how it goes on from there.

In: a config, a checkpoint. Out: the run's folder, its curves, its checkpoints, a training that goes on exactly.
Read ``folder``, ``loggers``, ``record``, ``checkpoints``; then ``recorded`` (a checkpoint's config), ``resumable``,
``resume`` and ``restored``.
"""
