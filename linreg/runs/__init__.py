"""What a run leaves, and goes on from, in files that can be trusted.

In: a checkpoint, a config. Out: the run's folder, its curves, its checkpoints, a training that goes on exactly.
Read ``folder``, ``checkpoints``, ``checkpoint_file``; then ``recorded``, ``resume``, ``restored``, ``draws``; ``allowed``
and ``safe_yaml`` are about what a stranger's file may name.
"""
