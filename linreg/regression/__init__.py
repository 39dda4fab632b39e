"""The lecture: a hypothesis, the mean squared error, and gradient descent on standardized data.

In: batches (x, y) in the data's units. Out: predictions in them, and what ``exact`` knows of how right they are.
Read ``linear_regression`` and ``gradient``, then ``regressor`` (above it ``linreg.module``) and ``standardizer``;
``units`` is about a training step of one's own; ``checks`` is for the doctor.
"""
