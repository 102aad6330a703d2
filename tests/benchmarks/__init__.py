"""Measures satnp; nothing here is needed to use it."""

import satnp  # before NumPy, as a program of its own would: its settings of the process come first
