"""The lessons: `python -m lessons` is their map."""
