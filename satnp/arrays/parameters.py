"""Named arrays that are views of ONE flat buffer, so that an optimiser, clipping or a checkpoint is one operation."""

from math import prod

import numpy as np

from satnp.arrays.backend import xp_of


class Parameters:
    """`p.W_a` or `p["W_a"]` is a view into `p.flat`; writing to one writes to the other.

    Parameters(shapes) with shapes {name: shape} makes zeros; give `flat` to lay the names over an existing buffer.
    Names with a dot group: `p.part("encoder")` holds what is called `encoder.*`, without the prefix, same memory.
    """

    def __init__(self, shapes, xp=np, dtype=np.float32, flat=None):
        self.shapes = dict(shapes)
        size = sum(prod(shape) for shape in self.shapes.values())
        self.flat = xp.zeros(size, dtype=dtype) if flat is None else flat
        if self.flat.shape != (size,):
            raise ValueError(f"flat has shape {self.flat.shape}, the named arrays need ({size},)")
        self._views, start = {}, 0
        for name, shape in self.shapes.items():
            self._views[name] = self.flat[start : start + prod(shape)].reshape(shape)
            start += prod(shape)

    @classmethod
    def of(cls, arrays):
        """Parameters with copies of the host `arrays` {name: array}, all of one dtype."""
        flat = np.concatenate([np.ravel(x) for x in arrays.values()]) if arrays else np.zeros(0, np.float32)
        return cls({name: x.shape for name, x in arrays.items()}, flat=flat)

    @classmethod
    def join(cls, **parts):
        """One buffer for several Parameters: join(encoder=a, decoder=b) has names encoder.*, decoder.*"""
        return cls.of({f"{part}.{name}": x for part, p in parts.items() for name, x in p.items()})

    def part(self, prefix):
        """The Parameters called `prefix.*`, as a view of the same memory; they must lie side by side, as join lays them."""
        names = [name for name in self.shapes if name.startswith(prefix + ".")]
        before = 0
        for name in self.shapes:
            if name in names:
                break
            before += prod(self.shapes[name])
        shapes = {name.removeprefix(prefix + "."): self.shapes[name] for name in names}
        return Parameters(shapes, flat=self.flat[before : before + sum(map(prod, shapes.values()))])

    def before(self, prefix):
        """The Parameters that lie before the first one called `prefix.*`, as a view of the same memory."""
        first = next(k for k, name in enumerate(self.shapes) if name.startswith(prefix + "."))
        shapes = dict(list(self.shapes.items())[:first])
        return Parameters(shapes, flat=self.flat[: sum(map(prod, shapes.values()))])

    def since(self, prefix):
        """The Parameters from the first one called `prefix.*` to the last, as a view of the same memory."""
        skipped = self.before(prefix)
        shapes = {name: shape for name, shape in self.shapes.items() if name not in skipped.shapes}
        return Parameters(shapes, flat=self.flat[len(skipped.flat) :])

    def stacked(self, *names):
        """Matrices that follow each other and have the same columns, as one matrix of all their rows; the same memory."""
        before, columns = 0, self.shapes[names[0]][1]
        for name in self.shapes:
            if name == names[0]:
                break
            before += prod(self.shapes[name])
        rows = sum(self.shapes[name][0] for name in names)
        return self.flat[before : before + rows * columns].reshape(rows, columns)

    def on(self, flat):
        """The same names over another flat buffer."""
        return Parameters(self.shapes, flat=flat)

    def zeros_like(self):
        """Zeros with the same names, for gradients and moments."""
        return self.on(xp_of(self.flat).zeros_like(self.flat))

    def add(self, **arrays):
        """self[name] += x for each; `p.name[...] += x` would also copy the sum onto itself."""
        for name, x in arrays.items():
            view = self._views[name]
            view += x

    def items(self):
        return self._views.items()

    def __iter__(self):
        return iter(self._views)

    def __len__(self):
        return len(self._views)

    def __getitem__(self, name):
        return self._views[name]

    def __getattr__(self, name):
        try:
            return self.__dict__["_views"][name]
        except KeyError:
            raise AttributeError(f"no parameter {name!r}; there are {', '.join(self.__dict__.get('_views', ()))}") from None

    def __repr__(self):
        return f"Parameters({', '.join(f'{name} {shape}' for name, shape in self.shapes.items())})"
