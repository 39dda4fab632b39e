"""The doctor: what is known of every training that is right, checked on this one; nothing is written.

In: any model, any data, the flags of fit. Out: a verdict for each check.
Read ``doctor``, then ``context``, ``fits``, ``batch`` and ``observer`` (what a check may look at), then any of the
checks: ``running``, ``learning``, ``gradients``, ``leaks``, ``reproducing``, ``rows``.
One of your own, beside your model:

    from linreg.checks.doctor import CHECKS
    from linreg.verdict import judge
    def no_large_weight(context):
        largest = max(float(p.detach().abs().max()) for p in context.model.parameters())
        return judge(largest < 10, f"{largest:.2g}", "below 10", "begin smaller")
    CHECKS.append(no_large_weight)
"""
