"""The doctor: what is known of every training that is right, checked on this one; nothing is written.

In: any model, any data, the flags of fit. Out: a verdict for each check.
Read ``doctor``, then ``context`` and ``observer`` (what a check may look at), then any of the checks.
"""
