"""Show, Attend and Tell from scratch in NumPy: every forward and every backward pass by hand."""

__version__ = "0.1.0"
__all__ = ["load"]


def load(path=None):
    """The trained Model in checkpoint `path`: load("best.npz").caption("photo.jpg", beam=5).

    Without a path: the captioner that comes with satnp.
    """
    from satnp.checkpoint import load

    return load(path)
