"""The training of any LightningModule: Lightning's Trainer, guarded, stoppable and lean.

In: the Trainer's flags. Out: a Trainer with the callbacks that a run here has.
Read ``trainer``, ``guard`` and ``stopping``; ``draws``, ``samplers`` and ``inside`` (exact resume); ``lean`` and
``chunks`` are about microseconds.
"""
