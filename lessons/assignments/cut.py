"""Cuts a small package from satnp's source by its syntax tree: a few functions and only what they need.

`package` copies definitions with their comments. It leaves out the bodies that students write, and the definitions that
only these bodies use. captioner/support.py replaces satnp's modules for threads and devices.
"""

import ast
import importlib
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path

from lessons.assignments.declare import place
from lessons.assignments.hints import HINTS

PACKAGE = "captioner"
OURS = "satnp", "lessons"
SHARED = "lessons.assignments.support"
# SHARED replaces these modules
SUPPORT = "satnp.arrays.backend", "satnp.arrays.elementwise", "satnp.arrays.threads", "satnp.arrays.products"
TODO = "# TODO. Hint: {}"
MORE = "    # A second hint: python check.py --hint {}\n"
FAST = "F", "out", "more", "relu"  # arguments and fields that only satnp's fast form needs
WORDS = (
    "`out`", "F from", "F is given", "kernel", "host", "algorithm", "relu", "winograd.", "_correlate", "more (",
    "Relative error", "recomputes",
)  # fmt: skip


class Source:
    """One module: its definitions, and where its imported names come from."""

    def __init__(self, name):
        self.name, self.text = name, inspect.getsource(importlib.import_module(name))
        self.lines, tree = self.text.splitlines(keepends=True), ast.parse(self.text)
        self.docstring, self.nodes, self.imports = ast.get_docstring(tree, clean=False) or "", {}, {}
        for node in tree.body:
            if isinstance(node, ast.Import):
                self.imports |= {x.asname or x.name: (x.name, None) for x in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.imports |= {x.asname or x.name: (node.module, x.name) for x in node.names}
            else:
                self.nodes |= dict.fromkeys(_defined(node), node)

    def definition(self, name, cut=False):
        """The source of a definition with the comments above it; with `cut`, its body raises NotImplementedError."""
        node = self.nodes[name]
        decorators = getattr(node, "decorator_list", [])
        start = min([node.lineno, *(x.lineno for x in decorators)]) - 1
        body, above = (node.lineno - 1, ["@takes_out\n"]) if by_hand(node) else (start, [])  # drop the GPU kernel
        end = node.end_lineno
        while start and self.lines[start - 1].startswith("#"):
            start -= 1
        above = [line for line in self.lines[start:body] if line.startswith("#")] + above
        if not cut:
            return "".join(above + self.lines[body:end])
        todo = TODO.format(HINTS.get(name, ["the docstring describes the arguments and the results."])[0])
        todo = textwrap.indent("\n".join(textwrap.wrap(todo, 120, subsequent_indent="# ")), "    ")
        more = MORE.format(name) if name in HINTS else ""
        arguments = ", ".join(x for x in ast.unparse(node.args).split(", ") if x.partition("=")[0] not in FAST)
        text = _docstring(plain(ast.get_docstring(node))).replace("\n", "\n    ").replace("\n    \n", "\n\n")
        return f'def {name}({arguments}):\n    {text}\n{todo}\n{more}    raise NotImplementedError("{name}")\n'


def plain(text):
    """A docstring without what only satnp's fast form needs."""
    kept = []
    for part in text.split("\n\n"):
        part = re.sub(r", written to `out` if given|, F from `exponentials`", "", part)
        for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z])", part):
            if any(word in sentence for word in WORDS):
                part = part.replace(sentence, "").strip()
        kept += [part] if part else []
    return "\n\n".join(kept)


@cache
def source(module):
    return Source(module)


def _defined(node):
    """The names that a top-level statement of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [x.id for target in node.targets for x in ast.walk(target) if isinstance(x, ast.Name)]
    return []


def _called(decorator):
    return getattr(getattr(decorator, "func", decorator), "id", None)


def by_hand(node):
    """Does the definition have the decorator by_hand, of a hand-written kernel?"""
    return any(_called(x) == "by_hand" for x in getattr(node, "decorator_list", []))


def resolve(module, name):
    """The (module, name) that defines `name` as used in `module`; the name None stands for a module itself."""
    if module.partition(".")[0] not in OURS:
        return module, name
    if module in SUPPORT and name is not None:
        return SHARED, name
    if name is not None and name in source(module).nodes:
        return module, name
    if name is not None and name in source(module).imports:
        return resolve(*source(module).imports[name])
    if name is not None and importlib.util.find_spec(f"{module}.{name}"):
        return f"{module}.{name}", None
    return module, name


@cache
def uses(module, name, cut=False):
    """{(name, attribute or None): (module, name there)} of the names that a definition uses from outside it."""
    found, node = source(module), source(module).nodes[name]
    dropped = set()
    for x in getattr(node, "decorator_list", []):
        if cut or _called(x) == "by_hand":
            dropped |= set(map(id, ast.walk(x)))
    if cut:
        for x in node.body:
            dropped |= set(map(id, ast.walk(x)))
    needed = {("takes_out", None): (SHARED, "takes_out")} if by_hand(node) and not cut else {}
    for x in ast.walk(node):
        if id(x) in dropped:
            continue
        if isinstance(x, ast.Attribute) and isinstance(x.value, ast.Name) and x.value.id in found.imports:
            where = resolve(*found.imports[x.value.id])
            if where[1] is None and where[0].partition(".")[0] in OURS:  # kernels.softmax
                needed[x.value.id, x.attr] = resolve(where[0], x.attr)
        elif isinstance(x, ast.Name) and x.id in found.nodes and x.id != name:
            needed[x.id, None] = (module, x.id)
        elif isinstance(x, ast.Name) and x.id in found.imports:
            where = resolve(*found.imports[x.id])
            if where[1] is not None or where[0].partition(".")[0] not in OURS:
                needed[x.id, None] = where
    return needed


def closure(roots, cut=()):
    """Every (module, name) that `roots` need, with the roots; the bodies of `cut` do not count."""
    seen, todo = [], list(roots)
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.append(here)
        for module, name in uses(*here, here in cut).values():
            if module.partition(".")[0] in OURS:
                todo.append((module, name))
    return seen


def package(assignment, cut=False, edits=(), name=PACKAGE):
    """{file: text} of the package: with `cut` the starter, else the model solution with `edits` made."""
    roots = [place(x) for x in (*assignment.cut, *assignment.given)]
    missing = [place(x) for x in assignment.cut] if cut else []
    wanted = closure(roots, missing)
    modules = list(dict.fromkeys(module for module, _ in wanted))
    files = {f"{name}/__init__.py": f'"""{assignment.name}: {assignment.title}"""\n'}
    for module in modules:
        files[f"{name}/{short(module)}.py"] = _text(source(module), wanted, missing, edits, name, roots)
    return files


def write(folder, files):
    """Write {name: text} as files below `folder`."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def short(module):
    """satnp.layers.lstm -> lstm, satnp.reference.conv -> reference_conv"""
    *_, room, last = module.split(".")
    return f"reference_{last}" if room == "reference" else last


def _text(found, wanted, missing, edits, package, roots):
    """The text of one module of the package."""
    plain, from_, modules, bodies = set(), {}, {}, {}
    for name in [x for x in found.nodes if (found.name, x) in wanted]:
        cut = (found.name, name) in missing
        needed = dict(uses(found.name, name, cut))
        if cut:  # import what the student's body can use
            plain.add("import numpy as np")
            direct, all_of_it = uses(found.name, name).values(), closure([(found.name, name)])
            needed |= {(x[1], None): x for x in all_of_it if x in wanted and x[0] != found.name and x[0] != SHARED
                       and (x in direct or x in roots)
                       and isinstance(source(x[0]).nodes.get(x[1]), ast.FunctionDef)}  # fmt: skip
            needed |= {k: x for k, x in uses(found.name, name).items() if x == (SHARED, "xp_of")}
        for (alias, attribute), (module, there) in needed.items():
            ours = module.partition(".")[0] in OURS
            if attribute:
                modules[alias] = short(module)
            elif there is None:
                plain.add(f"import {module}" + (f" as {alias}" if alias != module else ""))
            elif module != found.name:
                where = f"{package}.{short(module)}" if ours else module
                from_.setdefault((ours, where), set()).add(there + (f" as {alias}" if alias != there else ""))
        node = found.nodes[name]
        bodies[node.lineno] = edited(found.definition(name, cut), (found.name, name), edits)
        if (
            missing
            and isinstance(node, ast.ClassDef)
            and not any((found.name, name) in uses(*here).values() for here in wanted if here not in missing)
        ):  # a cache of students' own
            fields = [x for x in bodies[node.lineno].splitlines() if x.strip().partition(":")[0] not in ("F", "relu")]
            bodies[node.lineno] = "".join(f"{re.sub(' *# .*F is used.*', '', x)}\n" for x in fields)
    if any("np." in body for body in bodies.values()):
        plain.add("import numpy as np")
    lines = [_docstring(found.docstring)]
    standard = sorted(x for x in plain if "numpy" not in x)
    standard += sorted(f"from {where} import {', '.join(sorted(x))}" for (ours, where), x in from_.items() if not ours)
    ours = [f"from {package} import {m}" + (f" as {alias}" if alias != m else "") for alias, m in sorted(modules.items())]
    ours += sorted(f"from {where} import {', '.join(sorted(x))}" for (ours_, where), x in from_.items() if ours_)
    lines += ["\n".join(part) for part in (standard, sorted(x for x in plain if "numpy" in x), ours) if part]
    return "\n\n".join(lines) + "\n\n\n" + "\n\n".join(bodies[k] for k in sorted(bodies))


def _docstring(text):
    """The module's docstring without the paragraphs that name satnp or its files."""
    kept = [part for part in text.strip().split("\n\n") if "satnp" not in part and ".py" not in part]
    kept = kept or [re.split(r"(?<=\.)\s", text.strip())[0]]
    body = "\n\n".join(kept)
    return f'"""{body}\n"""' if "\n" in body else f'"""{body}"""'


def edited(text, here, edits):
    """`text`, the definition at `here`, with its edits made. Raises ValueError unless each `old` occurs once."""
    for edit in edits:
        if place(edit.function) == here:
            if text.count(edit.old) != 1:
                raise ValueError(f"{edit.old!r} occurs {text.count(edit.old)} times in {here[1]}, not once")
            text = text.replace(edit.old, edit.new)
    return text
