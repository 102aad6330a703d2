"""Show, Attend and Tell from scratch in NumPy: every forward and every backward pass by hand."""

from satnp import runtime

__version__ = "0.1.0"
__all__ = ["load"]


runtime.let_blas_rest()
runtime.keep_freed_memory()
runtime.share_cores()


def load(path):
    """The trained Model in checkpoint `path`: load("best.npz").caption("photo.jpg", beam=5)."""
    from satnp.checkpoint import load

    return load(path)
