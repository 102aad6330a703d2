"""Finds out, in the process of a submission, whether a call evaluates functions at slightly changed inputs."""

import sys

import numpy as np

FEW = 3       # changed forms of its inputs that a call may use: a stable formula may need one or two
SMALL = 4     # inputs with fewer numbers are like others by chance
CHANGE = 1e-3  # of the largest number: the steps of differences are smaller


class Watch:
    """Profile function for a call with real inputs. A submission can switch it off, but not the clock of numerical.py."""

    def __init__(self, call, arrays, root):
        inputs = [arrays[n] for n in call["inputs"] if n in arrays]
        self.inputs, self.root = [x for x in inputs if x.dtype.kind == "f" and x.size >= SMALL], root
        self.forms, self.complex, self.imaginary = set(), False, False

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def __call__(self, frame, event, _):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(self.root):
            return
        known = [*frame.f_locals.values(), *(x for x in code.co_consts if isinstance(x, complex) and 0 < abs(x) < CHANGE)]
        known += [y for x in known if type(x) in (tuple, list) for y in x]
        numbers = [x for x in known if isinstance(x, (complex, np.ndarray, np.generic))]
        self.complex |= any(isinstance(x, complex) or x.dtype.kind == "c" for x in numbers)
        self.imaginary |= "imag" in code.co_names or "imag" in code.co_consts
        if event == "call":
            self.forms |= {x.tobytes() for x in numbers if any(_changed(x, y) for y in self.inputs)}

    def stepped(self):
        """Was there a complex step, or were there differences?"""
        return self.complex and self.imaginary or len(self.forms) > FEW


def _changed(x, y):
    """Is the array `x` equal to `y` except for a small change?"""
    if np.shape(x) != y.shape or x.dtype.kind not in "fc" or np.array_equal(x, y):
        return False
    return np.abs(x - y).max() <= CHANGE * np.abs(y).max()
