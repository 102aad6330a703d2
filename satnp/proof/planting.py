"""Plants a mistake in the source of a backward pass, to show that a gradient check catches it."""

import inspect
import linecache
import sys
from contextlib import contextmanager
from typing import Any, NamedTuple


class Bug(NamedTuple):
    """In the source of `function`, `new` replaces `old`, which occurs once; the check `case` must report exactly `kinds`."""

    name: str
    function: Any
    old: str
    new: str
    case: str
    kinds: set


def planted(bug):
    """-> `bug.function`, compiled from its source with the mistake in it"""
    source = inspect.getsource(bug.function)
    if source.count(bug.old) != 1:
        raise ValueError(f"{bug.old!r} occurs {source.count(bug.old)} times in {bug.function.__name__}, not once")
    namespace = dict(inspect.unwrap(bug.function).__globals__)
    file, broken = f"<bug: {bug.name}>", source.replace(bug.old, bug.new)
    linecache.cache[file] = len(broken), None, broken.splitlines(keepends=True), file  # kernels are built from this source
    exec(compile(broken, file, "exec"), namespace)
    return namespace[bug.function.__name__]


@contextmanager
def in_place(bug):
    """Context manager: inside the block satnp uses the function with the mistake, which is yielded."""
    broken, name = planted(bug), bug.function.__name__
    ours = [module for path, module in sys.modules.items() if path.partition(".")[0] == "satnp"]
    places = [module for module in ours if getattr(module, name, None) is bug.function]
    for module in places:
        setattr(module, name, broken)
    try:
        yield broken
    finally:
        for module in places:
            setattr(module, name, bug.function)
