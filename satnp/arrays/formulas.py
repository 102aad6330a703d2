"""A straight-line NumPy formula as the body of a CUDA kernel, made from its syntax tree.

    return 0.5 * xp_of(x).tanh(0.5 * x) + 0.5     becomes     ((T(0.5) * tanh((T(0.5) * x_))) + T(0.5))

Assignments, + - * /, comparisons, numbers, `xp.exp` and its like, and functions that are such formulas themselves: each
array element goes through it alone, so nothing else may be in it.
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
FUNCTIONS = ("exp", "log", "sqrt", "tanh", "maximum", "minimum", "where")  # of NumPy, under the same name in CUDA

# what C++ has not, or not as NumPy has it: a NaN stays one
PREAMBLE = """\
template<typename T> __device__ T maximum(T a, T b) { return a > b || a != a ? a : b; }
template<typename T> __device__ T minimum(T a, T b) { return a < b || a != a ? a : b; }
template<typename T> __device__ T where(bool c, T a, T b) { return c ? a : b; }
"""


class Kernel(NamedTuple):
    """What an elementwise kernel consists of; all numbers are of one type T."""

    name: str
    inputs: tuple
    outputs: tuple
    body: str

    def __str__(self):
        arguments = [f"T {x}" for x in self.inputs] + [f"T& {x}" for x in self.outputs]
        return f"{self.name}({', '.join(arguments)})\n{{\n{textwrap.indent(self.body, '    ')}\n}}"


class NotElementwise(SyntaxError):
    """A line that no elementwise kernel can be made from."""


def kernel(formula):
    """The Kernel of a formula. Raises NotElementwise with file and line of what is no elementwise arithmetic."""
    body = _Body()
    inputs = tuple(body.new(x) for x in inspect.signature(formula).parameters)
    results = body.inline(formula, inputs)
    # all are known before one is written: an output may be an input too
    results = [x if x in body.names else body.assign("result", x) for x in results]
    outputs = tuple(f"out{k}" for k in range(len(results)))
    return Kernel(formula.__name__, inputs, outputs, "\n".join([*body.lines, *map("{} = {};".format, outputs, results)]))


class _Body:
    """The lines of a kernel so far; each assignment is a constant with a name of its own."""

    def __init__(self):
        self.lines, self.names = [], set()

    def new(self, name):
        """`name`, made into one that no other constant has, nor C++ (`do`) or CuPy (`i`)."""
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
        """The expressions that `function` returns, its assignments written as lines."""
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
    """The expressions of one function in C++."""

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
            f"{self.file}, line {node.lineno}: `{what}` is no elementwise arithmetic; "
            f"write {self.function.__name__} as assignments of + - * /, comparisons and xp.{', xp.'.join(FUNCTIONS)}"
        )

    def is_library(self, node):
        """Is it xp, or xp_of(x)?"""
        match node:
            case ast.Name(name):
                return name in self.libraries
            case ast.Call(ast.Name("xp_of")):
                return True
        return False

    def values(self, node):
        """The expressions of a tuple, or of what returns one."""
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
