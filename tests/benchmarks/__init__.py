"""Benchmarks of satnp; they are not needed to use it."""

from satnp.arrays import runtime

runtime.tune()  # before NumPy is imported, as satnp's commands do
