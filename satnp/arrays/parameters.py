"""Named arrays that are views of one flat buffer, so that an optimiser step, clipping or a checkpoint is one operation."""

from math import prod

import numpy as np

from satnp.arrays.backend import xp_of


class Parameters:
    """`p.W_a` or `p["W_a"]` is a view of `p.flat`; a write to one changes the other.

    Parameters({name: shape}) allocates zeros; pass `flat` to use an existing buffer. A dot in a name makes a group:
    `p.part("encoder")` returns the parameters `encoder.*`, without the prefix, as views of the same memory.
    """

    def __init__(self, shapes, xp=np, dtype=np.float32, flat=None):
        self.shapes = dict(shapes)
        size = sum(prod(shape) for shape in self.shapes.values())
        self.flat = xp.zeros(size, dtype=dtype) if flat is None else flat
        if self.flat.shape != (size,):
            raise ValueError(f"flat has shape {self.flat.shape}, the named arrays need ({size},)")
        self._views, self._stacks, self._starts, start = {}, {}, {}, 0
        for name, shape in self.shapes.items():
            self._starts[name], self._views[name] = start, self.flat[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        self.sums = None  # shares.Sums, if additions have to be in turn

    @classmethod
    def of(cls, arrays):
        """Return Parameters with copies of the host `arrays` {name: array}, all of one dtype."""
        flat = np.concatenate([np.ravel(x) for x in arrays.values()]) if arrays else np.zeros(0, np.float32)
        return cls({name: x.shape for name, x in arrays.items()}, flat=flat)

    @classmethod
    def join(cls, **parts):
        """Copy several Parameters to one buffer: join(encoder=a, decoder=b) has the names encoder.*, decoder.*"""
        return cls.of({f"{part}.{name}": x for part, p in parts.items() for name, x in p.items()})

    def part(self, prefix):
        """Return the parameters `prefix.*` as views of the same memory, none if there are no such names.

        Raises ValueError if other parameters are between them in `flat`: a view would have these numbers in it.
        """
        names = [name for name in self.shapes if name.startswith(prefix + ".")]
        view = self._side_by_side(names, f"take {prefix}.* as one part")
        return self._some({name.removeprefix(prefix + "."): name for name in names}, view)

    def before(self, prefix):
        """Return the parameters before the first `prefix.*`, as views of the same memory.

        Raises ValueError if there is no `prefix.*`.
        """
        names = list(self.shapes)
        first = next((k for k, name in enumerate(names) if name.startswith(prefix + ".")), None)
        if first is None:
            raise ValueError(f"there is no parameter {prefix}.*; there are {', '.join(names)}")
        size = sum(prod(self.shapes[name]) for name in names[:first])
        return self._some({name: name for name in names[:first]}, self.flat[:size])

    def since(self, prefix):
        """Return the parameters from the first `prefix.*` to the end, as views of the same memory.

        Raises ValueError if there is no `prefix.*`.
        """
        skipped = self.before(prefix)
        names = [name for name in self.shapes if name not in skipped.shapes]
        return self._some({name: name for name in names}, self.flat[len(skipped.flat) :])

    def _some(self, names, flat):
        """The Parameters {new name: name} of this buffer, which lie in its part `flat`."""
        found = Parameters({new: self.shapes[name] for new, name in names.items()}, flat=flat)
        found.sums, found._starts = self.sums, {new: self._starts[name] for new, name in names.items()}
        return found

    def stacked(self, *names):
        """Return adjacent matrices with the same number of columns as one matrix of all their rows, a view.

        Raises ValueError for matrices that do not follow each other in the buffer: a view would have other numbers in it.
        """
        if self.sums is not None:
            raise ValueError("in a share of a minibatch, add to stacked gradients with add_product")
        return self._stacked(names)

    def _stacked(self, names):
        if names not in self._stacks:
            self._stacks[names] = self._stack(names)
        return self._stacks[names]

    def _stack(self, names):
        shapes = [self.shapes.get(name) for name in names]
        if any(shape is None or len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
            found = [f"{name} {self.shapes.get(name, '(no parameter)')}" for name in names]
            raise ValueError(f"cannot stack {', '.join(found)}; name matrices that have the same number of columns")
        return self._side_by_side(names, f"stack {', '.join(names)}").reshape(-1, shapes[0][1])

    def _side_by_side(self, names, what):
        """The part of `flat` with the parameters `names`, which must follow each other in this order."""
        order = list(self.shapes)
        first = order.index(names[0]) if names else 0
        found = order[first : first + len(names)]
        if found != list(names):
            raise ValueError(
                f"cannot {what}: {', '.join(found)} follow each other in the buffer; "
                f"give {', '.join(names)} in this order, and nothing between them"
            )
        before, size = (sum(prod(self.shapes[name]) for name in part) for part in (order[:first], names))
        return self.flat[before : before + size]

    def on(self, flat):
        """Return Parameters with the same names and shapes on another flat buffer."""
        return Parameters(self.shapes, flat=flat)

    def zeros_like(self):
        """Return zeros with the same names and shapes, for gradients and the moments of an optimiser."""
        return self.on(xp_of(self.flat).zeros_like(self.flat))

    def add(self, **arrays):
        """self[name] += x for each name. (`p.name[...] += x` would also copy the sum onto itself.)"""
        for name, x in arrays.items():
            if self.sums is None:
                view = self._views[name]
                view += x
            else:
                self.sums.add(self._starts[name], self._views[name], x)

    def add_product(self, x, dout, *names):
        """self[name] += x^T dout, the gradient of a weight of x @ W; several names as in `stacked`. x (R, K), dout (R, J)"""
        if self.sums is None:
            W = self._stacked(names)
            W += x.T @ dout
            return
        places = {self._starts[name] for name in names}
        if self.sums.first(places, lambda: xp_of(x).matmul(x.T, dout, out=self._stacked(names))):
            return
        product, row = x.T @ dout, 0
        for name in names:
            rows = len(self._views[name])
            self.add(**{name: product[row : row + rows]})
            row += rows

    def in_turn(self, sums):
        """Return the same Parameters, on the same buffer, that add by `sums` (shares.Sums)."""
        found = self._some(dict(zip(self.shapes, self.shapes, strict=True)), self.flat)
        found.sums = sums
        return found

    def places(self):
        """Yield (where it begins in the buffer, array) of each parameter."""
        for name, view in self._views.items():
            yield self._starts[name], view

    def items(self):
        return self._views.items()

    def __iter__(self):
        return iter(self._views)

    def __len__(self):
        return len(self._views)

    def __getitem__(self, name):
        return self._views[name] if self.sums is None else self.sums.own(self._starts[name], self._views[name])

    def __getattr__(self, name):
        if name in self.__dict__.get("_views", ()):
            return self[name]
        raise AttributeError(f"no parameter {name!r}; there are {', '.join(self.__dict__.get('_views', ()))}")

    def __repr__(self):
        return f"Parameters({', '.join(f'{name} {shape}' for name, shape in self.shapes.items())})"
