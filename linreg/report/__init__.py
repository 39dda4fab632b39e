"""What a run says at its end, of any model. In: what was found. Out: lines, files, pictures.

Read ``findings``, then ``figures``; ``card``; ``progress`` while it runs.
"""
