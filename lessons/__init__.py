"""Eighteen lessons: `python -m lessons` is their map."""

import satnp  # before NumPy: it makes two settings
