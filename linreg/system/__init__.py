"""What lies between a run and the machine: errors, the screen, files that appear whole, several processes.

In: nothing of the package. Out: ``InputError`` and ``RunError``, ``atomic_write``, ``printable`` lines, ``rank``.
Read ``errors`` (with ``messages``, of other libraries), ``screen``, ``atomic``, ``ranks``.
"""
