"""Translate a straight-line NumPy formula, by its syntax tree, to the body of a CUDA kernel.

    return 0.5 * xp_of(x).tanh(0.5 * x) + 0.5     becomes     ((T(0.5) * tanh((T(0.5) * x_))) + T(0.5))

A formula may contain assignments, + - * /, comparisons, numbers, the functions in FUNCTIONS (`xp.exp`) and calls of other
formulas. Nothing else is allowed, because the kernel computes each array element independently.
"""

import ast
import inspect
import textwrap
from math import isfinite
from typing import NamedTuple

OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
# NumPy functions with the same name in CUDA
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "maximum", "minimum", "where")

# functions that C++ lacks, or that do not propagate NaN there as in NumPy
PREAMBLE = """\
template<typename T> __device__ T maximum(T a, T b) { return a > b || a != a ? a : b; }
template<typename T> __device__ T minimum(T a, T b) { return a < b || a != a ? a : b; }
template<typename T> __device__ T where(bool c, T a, T b) { return c ? a : b; }
"""


class Kernel(NamedTuple):
    """The parts of an elementwise kernel. All its variables have one type T."""

    name: str
    inputs: tuple
    outputs: tuple
    body: str

    def __str__(self):
        arguments = [f"T {x}" for x in self.inputs] + [f"T& {x}" for x in self.outputs]
        return f"{self.name}({', '.join(arguments)})\n{{\n{textwrap.indent(self.body, '    ')}\n}}"


class NotElementwise(SyntaxError):
    """Raised for a line that cannot be translated to an elementwise kernel."""


def kernel(formula):
    """Return the Kernel of a formula. Raises NotElementwise, with file and line, if it is not elementwise arithmetic."""
    body = _Body()
    inputs = tuple(body.new(x) for x in inspect.signature(formula).parameters)
    results = body.inline(formula, inputs)
    # compute all results before writing one: an output may also be an input
    results = [x if x in body.names else body.assign("result", x) for x in results]
    outputs = tuple(f"out{k}" for k in range(len(results)))
    return Kernel(formula.__name__, inputs, outputs, "\n".join([*body.lines, *map("{} = {};".format, outputs, results)]))


class _Body:
    """The lines of a kernel so far. Each assignment becomes a constant with a unique name."""

    def __init__(self):
        self.lines, self.names = [], set()

    def new(self, name):
        """Return a unique constant name made from `name`, also different from names of C++ (`do`) and CuPy (`i`)."""
        found, k = f"{name}_", 2
        while found in self.names:
            found, k = f"{name}_{k}", k + 1
        self.names.add(found)
        return found

    def assign(self, name, value):
        found = self.new(name)
        self.lines.append(f"const T {found} = {value};")
        return found

    def inline(self, function, arguments):
        """Append the assignments of `function` to the lines, and return the expressions that it returns."""
        reader = _Reader(self, function, arguments)
        for statement in reader.tree.body:
            match statement:
                case ast.Expr(ast.Constant()):  # the docstring
                    pass
                case ast.Assign([target], value) if reader.is_library(value):
                    reader.libraries.add(target.id)
                case ast.Assign([target], value):
                    targets = target.elts if isinstance(target, ast.Tuple) else [target]
                    values = reader.values(value)
                    if len(values) != len(targets) or not all(isinstance(x, ast.Name) for x in targets):
                        reader.refuse(statement)
                    reader.here |= {x.id: self.assign(x.id, value) for x, value in zip(targets, values, strict=True)}
                case ast.Return(value) if value is not None:
                    return reader.values(value)
                case _:
                    reader.refuse(statement)
        return reader.refuse(reader.tree)


def _is_number(x):
    return type(x) in (int, float) and isfinite(x)


class _Reader:
    """Translates the expressions of one function to C++."""

    def __init__(self, body, function, arguments):
        self.body, self.function = body, inspect.unwrap(function)
        lines, first = inspect.getsourcelines(self.function)
        self.file = inspect.getsourcefile(self.function)
        (self.tree,) = ast.parse(textwrap.dedent("".join(lines))).body
        ast.increment_lineno(self.tree, first - 1)
        names = [x.arg for x in self.tree.args.args]
        if len(names) != len(arguments):
            self.refuse(self.tree)
        self.here, self.libraries = dict(zip(names, arguments, strict=True)), set()

    def refuse(self, node):
        what = ast.unparse(node).splitlines()[0]
        raise NotElementwise(
            f"{self.file}, line {node.lineno}: `{what}` is not elementwise arithmetic; "
            f"write {self.function.__name__} as assignments of + - * /, comparisons and xp.{', xp.'.join(FUNCTIONS)}"
        )

    def is_library(self, node):
        """Return whether the node is `xp` or `xp_of(x)`."""
        match node:
            case ast.Name(name):
                return name in self.libraries
            case ast.Call(ast.Name("xp_of")):
                return True
        return False

    def values(self, node):
        """Return the expressions of a tuple or of a call of a formula, else a list of one expression."""
        if isinstance(node, ast.Tuple):
            return [self.value(x) for x in node.elts]
        match node:
            case ast.Call(ast.Name(name), arguments, []) if callable(self.function.__globals__.get(name)):
                return self.body.inline(self.function.__globals__[name], [self.value(x) for x in arguments])
        return [self.value(node)]

    def value(self, node):
        match node:
            case ast.Name(name) if name in self.here:
                return self.here[name]
            case ast.Name(name) if _is_number(self.function.__globals__.get(name)):
                return f"T({float(self.function.__globals__[name])!r})"
            case ast.Constant(number) if _is_number(number):
                return f"T({float(number)!r})"
            case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
                return f"({self.value(left)} {OPERATORS[type(operator)]} {self.value(right)})"
            case ast.Compare(left, [operator], [right]) if type(operator) in OPERATORS:
                return f"({self.value(left)} {OPERATORS[type(operator)]} {self.value(right)})"
            case ast.UnaryOp(ast.USub(), x):
                return f"(-{self.value(x)})"
            case ast.Call(ast.Attribute(library, name), arguments, []) if self.is_library(library) and name in FUNCTIONS:
                return f"{name}({', '.join(map(self.value, arguments))})"
            case ast.Call(ast.Name(name), _, []) if callable(self.function.__globals__.get(name)):
                results = self.values(node)
                if len(results) == 1:
                    return results[0]
        return self.refuse(node)
