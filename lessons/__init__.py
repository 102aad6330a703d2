"""Twenty-two lessons: `python -m lessons` is their map."""
