"""A stand-in for CuPy without a GPU: NumPy's numbers, CuPy 14.2's refusals and a few more.

`import tests.strict as xp` gives NumPy's functions over `strict.ndarray`, a wrapper (np.asarray of a subclass would not
ask it) that neither meets a host array nor becomes one by accident. `xp.asarray(host)` copies to the device, `x.get()`
copies back; `counts` counts both, the waits for the device and (about) the kernels; `budget` and `no_sync` bound them.

Sterner than CuPy, where CuPy would go on slowly, silently or in no defined order:
- a NumPy function of a device array; a host array or a list as index or value (a hidden upload); random numbers;
- `x[idx] = v` that writes an element twice; an index out of range (CuPy wraps it); `x @= w`; `a3d @ w2d`.
Kinder in one thing: `add.at` takes complex arrays, so that complex-step checks run here.
"""

import contextlib
import operator
import types

import numpy as np

from satnp.arrays.elementwise import write

counts = types.SimpleNamespace(h2d=0, d2h=0, syncs=0, launches=0)
_syncs_refused = False

SCALARS = (bool, int, float, complex, np.number, np.bool)

# NumPy 2.4's public names that CuPy 14.2 lacks.
MISSING = """
    False_ ScalarType True_ asmatrix block bmat busday_count busday_offset busdaycalendar bytes_ char character
    clongdouble complex256 core ctypeslib datetime64 datetime_as_string datetime_data dtypes einsum_path emath
    errstate f2py flexible float128 frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall
    histogram_bin_edges info insert is_busday isnat little_endian longdouble ma matrix matvec memmap nanpercentile
    nanquantile ndenumerate nditer nested_iters object_ polyder polydiv polyint rec recarray record sctypeDict
    setbufsize seterr seterrcall show_runtime spacing str_ strings test timedelta64 typecodes unstack vecdot vecmat
    void linalg.diagonal linalg.matrix_norm linalg.multi_dot linalg.outer linalg.svdvals linalg.tensordot
    linalg.test linalg.trace linalg.vecdot linalg.vector_norm
""".split()

MISSING_KEYWORDS = {"where", "initial", "correction", "stable", "like", "device"}
MISSING_KEYWORDS_OF = {"clip": {"min", "max"}, "einsum": {"out"}, "reshape": {"shape"}, "take": {"mode"}}
REDUCE = {"add", "multiply"}  # the only ufuncs with .reduce in CuPy
_ATOMIC = [np.dtype(t) for t in ("int32", "uint32", "uint64", "float32", "float64")]
AT = {  # the ufuncs with .at in CuPy, and the element types they take there; complex is the kindness named above
    "add": [*_ATOMIC, *map(np.dtype, ("float16", "complex64", "complex128"))],
    "subtract": [np.dtype("int32"), np.dtype("uint32")],
    "maximum": _ATOMIC,
    "minimum": _ATOMIC,
}
# CuPy must look at values before it can go on.
SYNCS = """
    argwhere average bincount choose compress delete extract flatnonzero histogram intersect1d nonzero put setdiff1d
    union1d unique
""".split()
JOINS = "concatenate stack hstack vstack dstack column_stack".split()
# Nothing to compute on the device.
FREE = """
    broadcast_shapes can_cast empty empty_like iscomplexobj isrealobj isscalar issubdtype may_share_memory ndim
    promote_types result_type shape shares_memory size
""".split()


def _synchronise(what):
    if _syncs_refused:
        raise RuntimeError(f"{what} waits for the device, inside no_sync()")
    counts.syncs += 1
    counts.d2h += 1


def _operand(x):
    """The NumPy value of what an operator takes: a device array or a scalar, nothing else."""
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, SCALARS):
        return x
    raise TypeError(f"Unsupported type {type(x)}: a device array meets only device arrays and scalars; use xp.asarray")


def _unwrap(x):
    """A function's argument with NumPy arrays in place of device arrays; functions take sequences too."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(_unwrap, x))
    return _operand(x) if isinstance(x, (ndarray, np.ndarray)) else x


def _wrap(result):
    """A NumPy result on the device; scalars become 0-d arrays."""
    if isinstance(result, (list, tuple)):
        return [_wrap(r) for r in result] if isinstance(result, list) else tuple(map(_wrap, result))
    if isinstance(result, (bool, np.generic)):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    if result.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {result.dtype}")
    return ndarray(result)


def _is_view(result, args):
    parts = result if isinstance(result, (list, tuple)) else [result]
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    return all(isinstance(p, np.ndarray) and any(np.may_share_memory(p, a) for a in arrays) for p in parts)


def _call(function, name, args, keywords):
    """Call a NumPy function or method on the unwrapped arguments and count what it would cost on the device."""
    lacking = keywords.keys() & (MISSING_KEYWORDS | MISSING_KEYWORDS_OF.get(name, set()))
    if lacking:
        raise TypeError(f"CuPy's {name} has no keyword {', '.join(sorted(lacking))}")
    if name in SYNCS or (name == "where" and len(args) == 1):
        _synchronise(f"xp.{name}")
    out = keywords.get("out")
    args = [_unwrap(x) for x in args]
    result = function(*args, **{k: _unwrap(v) for k, v in keywords.items()})
    if name in FREE:
        return ndarray(result) if isinstance(result, np.ndarray) else result
    if name in JOINS:
        _count_join(len(args[0]))
    elif name == "dot" and np.ndim(result) == 0:
        counts.launches += 2  # a product and a sum, CuPy's default
    elif out is not None or not _is_view(result, args):
        counts.launches += 1
    return _wrap(result) if out is None else out


def _count_join(arrays):
    """Up to eight arrays are copied one by one; more in one kernel, which is sent a table of their addresses."""
    counts.launches += arrays if arrays <= 8 else 1
    counts.h2d += arrays > 8


def _count_matmul(*operands):
    """A launch, and one more for each operand that cuBLAS gets a copy of: a matrix whose rows and columns both have gaps,
    and a stack of matrices that is not in C order."""
    for x in operands:
        counts.launches += x.ndim > 1 and not (x.flags.c_contiguous or x.ndim == 2 and x.flags.f_contiguous)
    counts.launches += 1


def _check_matmul(a, b):
    if np.ndim(a) != np.ndim(b) and max(np.ndim(a), np.ndim(b)) > 2:
        raise TypeError(f"{np.ndim(a)}-D @ {np.ndim(b)}-D is many small products in CuPy: reshape to two dimensions")


class ufunc:
    """A NumPy ufunc with no more methods and keywords than CuPy's have."""

    def __init__(self, function):
        self._function = function
        self.__name__ = function.__name__

    def __call__(self, *args, out=None, **keywords):
        if keywords.keys() - {"dtype", "casting"}:
            raise TypeError(f"Wrong arguments {', '.join(keywords)}: CuPy's {self.__name__} has only out, dtype and casting")
        nin = self._function.nin
        if len(args) > nin:
            args, out = args[:nin], args[nin]
        operands = [_operand(x) for x in args]
        if self._function is np.matmul:
            _check_matmul(*operands)
            _count_matmul(*operands)
        else:
            counts.launches += 1
        if out is None:
            return _wrap(self._function(*operands, **keywords))
        self._function(*operands, out=_operand(out), **keywords)
        return out

    def at(self, a, index, values):
        """a[index] += values (or -=, or the larger, the smaller), repeated elements included; writes to `a`."""
        if self.__name__ not in AT:
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        if a.dtype not in AT[self.__name__]:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        key, _, masked = _key(index)
        _count_scatter(values, masked)
        self._function.at(_operand(a), key, _operand(values))

    def reduce(self, a, axis=0, dtype=None, out=None, keepdims=False):
        if self.__name__ not in REDUCE:
            raise NotImplementedError(f"`cupy_{self.__name__}.reduce` is not supported yet")
        return _call(self._function.reduce, "reduce", (a, axis, dtype), {"out": out, "keepdims": keepdims})


class ElementwiseKernel:
    """CuPy's, whose body is executed by NumPy, line by line: what formulas.py writes reads the same in Python."""

    FUNCTIONS = {name: getattr(np, name) for name in "exp expm1 log log1p sqrt tanh maximum minimum where".split()}

    def __init__(self, in_params, out_params, operation, name="kernel", preamble=""):
        self.inputs, self.outputs = ([param.split()[1] for param in params.split(",")] for params in (in_params, out_params))
        self.lines = [line.strip().removeprefix("const T ").split(" = ", 1) for line in operation.split(";") if line.strip()]

    def __call__(self, *args):
        args, given = args[: len(self.inputs)], args[len(self.inputs) :]
        operands = list(map(_operand, args))
        dtypes = {x.dtype for x in operands if isinstance(x, np.ndarray)}
        dtypes |= {_operand(x).dtype for x in given}
        if len(dtypes) != 1 or len(operands) != len(self.inputs):
            raise TypeError(f"a kernel of {len(self.inputs)} arrays of one type T got {len(operands)}, of {dtypes}")
        (dtype,), shape = dtypes, np.broadcast_shapes(*map(np.shape, operands))
        names = self.FUNCTIONS | {"T": dtype.type} | dict(zip(self.inputs, operands, strict=True))
        for name, expression in self.lines:
            names[name] = eval(expression, {"__builtins__": {}}, names)
        counts.launches += 1
        outs = [ndarray(np.broadcast_to(names[name], shape).astype(dtype)) for name in self.outputs]
        for out, x in zip(given, outs, strict=bool(given)):
            _operand(out)[...] = _operand(x)
        outs = given or outs
        return outs[0] if len(outs) == 1 else tuple(outs)


def run_by_hand(definition, args, out=None):
    """One of satnp/arrays/kernels.py: a launch, and one more for each array that must be laid out anew."""
    arrays = [x for x in args if isinstance(x, ndarray)]
    if len({x.dtype for x in arrays if x.dtype.kind == "f"}) != 1:
        raise TypeError(f"{definition.__name__} wants floats of one type, not {[x.dtype for x in arrays]}")
    counts.launches += 1 + sum(not x.flags.c_contiguous for x in arrays)
    found = definition(*map(_unwrap, args))
    if out is None:
        return _wrap(found)
    for made, x in zip(found if isinstance(found, tuple) else (found,), out, strict=True):
        if x is not None and not (x.flags.c_contiguous and x.dtype == made.dtype and x.shape == made.shape):
            raise TypeError(f"{definition.__name__} writes to a contiguous {made.shape} of {made.dtype} only")
    return _wrap(write(found, [None if x is None else _operand(x) for x in out]))


def _key(index):
    """`index` for NumPy -> (key, whether an array takes part, whether a boolean one does)."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, (np.ndarray, list, tuple)):
            raise TypeError(f"index of type {type(part)} is a hidden upload: xp.asarray it once")
    arrays = [part for part in parts if isinstance(part, ndarray)]
    return tuple(map(_unwrap, parts)), bool(arrays), any(x.dtype == bool for x in arrays)


def _count_scatter(value, masked):
    if masked:
        _synchronise("a boolean mask as index")
    if not isinstance(value, ndarray):
        counts.h2d += 1  # CuPy makes an array of the scalar first
    counts.launches += 1


class ndarray:
    """An array on the stand-in device: `_a`, a NumPy array that nobody else may touch."""

    __slots__ = ("_a",)
    __hash__ = None

    def __init__(self, a):
        self._a = a

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, function, types, args, keywords):
        raise TypeError(f"np.{function.__name__} got a device array: write xp.{function.__name__}")

    def __array_ufunc__(self, function, method, *inputs, **keywords):
        if method == "__call__" and any(isinstance(x, np.generic) for x in inputs):
            return ufunc(function)(*inputs, **keywords)  # np.float32(2) * x, which CuPy allows
        raise TypeError(f"np.{function.__name__} got a device array: write xp.{function.__name__}")

    def get(self):
        _synchronise(".get()")
        return self._a.copy()

    def item(self):
        _synchronise(".item()")
        return self._a.item()

    def tolist(self):
        _synchronise(".tolist()")
        return self._a.tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __complex__(self):
        return complex(self.item())

    def __bool__(self):
        _synchronise("bool()")
        return bool(self._a)

    def __repr__(self):
        _synchronise("printing")
        return f"strict.{self._a!r}"

    def __format__(self, spec):
        _synchronise("printing")
        return format(self._a if self.ndim else self._a.item(), spec)

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        key, advanced, masked = _key(index)
        if masked:
            _synchronise("a boolean mask as index")
        if advanced:
            counts.launches += 1
            return _wrap(self._a[key].copy())
        if not any(part is Ellipsis for part in key):
            key = (*key, Ellipsis)  # so that x[0, 0] is a 0-d view
        return ndarray(self._a[key])

    def __setitem__(self, index, value):
        key, advanced, masked = _key(index)
        values = _operand(value)
        if advanced:
            _count_scatter(value, masked)
            written = np.arange(self.size).reshape(self.shape)[key]
            if np.size(values) > 1 and np.unique(written).size < written.size:
                raise ValueError("x[idx] = v writes an element twice and CuPy does not say which wins: use xp.add.at")
        else:
            counts.launches += 1
        self._a[key] = values

    def __imatmul__(self, other):
        raise TypeError("x @= w writes to x in NumPy and makes a new x in CuPy: use xp.matmul(x, w, out=...)")


def _attribute(name, wrap):
    return property(lambda self: wrap(getattr(self._a, name)))


def _method(name):
    function = getattr(np.ndarray, name)
    return lambda self, *args, **keywords: _call(function, name, (self, *args), keywords)


def _operator(function, reflected=False):
    def apply(self, *others):
        operands = [self._a, *map(_operand, others)]
        if reflected:
            operands.reverse()
        if function is operator.matmul:
            _check_matmul(*operands)
            _count_matmul(*operands)
        else:
            counts.launches += 1
        return _wrap(function(*operands))

    return apply


def _inplace_operator(function):
    def apply(self, other):
        counts.launches += 1
        function(self._a, _operand(other))
        return self

    return apply


for _name in "dtype flags itemsize nbytes ndim shape size strides".split():
    setattr(ndarray, _name, _attribute(_name, wrap=lambda value: value))
for _name in "T imag mT real".split():
    setattr(ndarray, _name, _attribute(_name, wrap=ndarray))
for _name in """
    all any argmax argmin argpartition argsort astype clip conj copy cumprod cumsum diagonal dot fill flatten max
    mean min nonzero partition prod ravel repeat reshape round searchsorted sort squeeze std sum swapaxes take trace
    transpose var view
""".split():
    setattr(ndarray, _name, _method(_name))
for _name in "abs eq ge gt invert le lt ne neg pos".split():
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in "add and floordiv lshift mod mul or pow rshift sub truediv xor".split():
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, f"__{_name}__")))
    setattr(ndarray, f"__r{_name}__", _operator(getattr(operator, f"__{_name}__"), reflected=True))
    setattr(ndarray, f"__i{_name}__", _inplace_operator(getattr(operator, f"__i{_name}__")))
ndarray.__matmul__ = _operator(operator.matmul)


def asarray(x, dtype=None):
    """`x` on the device: a device array as it is, anything else as a copy."""
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == dtype else x.astype(dtype)
    counts.h2d += 1
    return _wrap(np.array(x, dtype=dtype))


def array(x, dtype=None, copy=True):
    return x.copy() if copy and isinstance(x, ndarray) and dtype in (None, x.dtype) else asarray(x, dtype)


def ascontiguousarray(x, dtype=None):
    x = asarray(x, dtype)
    return x if x.flags.c_contiguous else x.copy()


def _export(name):
    """NumPy's `name` (or `linalg.norm`) as CuPy would have it."""
    if name in MISSING:
        raise AttributeError(f"CuPy has no {name}, though NumPy has")
    value = operator.attrgetter(name)(np)
    if isinstance(value, np.ufunc):
        return ufunc(value)
    if isinstance(value, types.ModuleType):
        return _Submodule(name)
    if isinstance(value, type) or not callable(value):
        return value  # dtypes, pi, newaxis
    return lambda *args, **keywords: _call(value, name.rpartition(".")[2], args, keywords)


class _Submodule:
    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        return _export(f"{self._name}.{name}")


def __getattr__(name):
    if name == "random":
        raise AttributeError("CuPy's random streams are not NumPy's: draw on the host, then xp.asarray")
    if name.startswith("_") or name == "testing":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _export(name)


@contextlib.contextmanager
def no_sync():
    """Within the block whatever waits for the device raises RuntimeError."""
    global _syncs_refused
    before, _syncs_refused = _syncs_refused, True
    try:
        yield
    finally:
        _syncs_refused = before


@contextlib.contextmanager
def budget(launches=None, h2d=None, d2h=None, syncs=None):
    """AssertionError when the block costs more than this; yields the costs, filled in at the end of the block.

    launches counts kernels (about), h2d and d2h copies, syncs waits for the device; None is no limit.
    """
    limits = {"launches": launches, "h2d": h2d, "d2h": d2h, "syncs": syncs}
    before = dict(vars(counts))
    costs = types.SimpleNamespace()
    yield costs
    for name in limits:
        setattr(costs, name, getattr(counts, name) - before[name])
    over = [name for name, limit in limits.items() if limit is not None and getattr(costs, name) > limit]
    if over:
        raise AssertionError(", ".join(f"{name}: {getattr(costs, name)}, not {limits[name]}" for name in over))
