"""Measures satnp; nothing here is needed to use it."""

from satnp.arrays import runtime

runtime.tune()  # as the commands do, before NumPy is imported
