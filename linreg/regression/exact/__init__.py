"""The known answer of linear regression, and what follows from it; it knows no model class.

In: training rows, and a model's weights. Out: the least-squares solution, a rate that suits it, a report beside it.
Read ``least_squares``, ``learning_rate``, ``expected``, ``baseline`` (the callback), ``description``, ``coefficients``,
``report`` and ``comparison``; ``merged`` is the same from several processes, of wide tables the spreads alone.
"""
