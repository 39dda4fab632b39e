"""The pictures of a regression, from its exact solution. In: a trained model, its rows. Out: pixels.

Read ``fitted`` (what a run has learned), ``theory`` (what a rate would do), ``lecture`` (three ways to the optimum).
"""
