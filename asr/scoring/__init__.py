"""The room where hypotheses meet references: error rates, their significance, and reports of where the errors are.

It needs nothing of the recogniser; any system's output can be scored.
"""
