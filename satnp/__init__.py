"""Show, Attend and Tell from scratch in NumPy: every forward and every backward pass by hand."""

__version__ = "0.1.0"
__all__ = ["load"]


def load(path):
    """The trained Model in checkpoint `path`: load("best.npz").caption("photo.jpg", beam=5)."""
    from satnp.checkpoint import load

    return load(path)
