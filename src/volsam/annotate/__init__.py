"""Corrections that accumulate: crops with truth and a mask of what is unknown, ready for training."""
