"""The classes that describe an assignment: functions to write, arrays to return, and the points of each array."""

import inspect
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PUBLIC = 0  # the seed of the starter's arrays
HIDDEN = 7  # the default seed for grading; --seed gives another one


class Speed(NamedTuple):
    """A speed test: the student's form should be `ratio` times as fast as `forward`, `backward` (or None), the naive form.

    Times are summed over `sizes`. The points for "seconds" are given in full from `ratio` on; below it the share is
    log(found) / log(ratio).
    """

    forward: Any
    backward: Any
    ratio: float
    sizes: tuple


@dataclass(frozen=True, eq=False)
class Task:
    """A pair forward(*inputs) -> out, cache and backward(dout, cache) -> gradients, or a function that only returns arrays.

    `make(rng, **sizes)` returns the inputs by name, in the order of forward's arguments; an input that is not an array (a
    stride) is passed unchanged. The backward returns the gradients, called d<input>, of the floating-point inputs that are
    not in `constants`. `usual` and `edges` are lists of sizes; both are graded. `points` are those of each array.

    `judge(inputs, outputs)` -> {array: (share of its points, sentence)} grades outputs that have no single right value. An
    output that was not returned is None.

    With `score`, `make` also returns the right output, under the output's name; the student's function does not get it.
    Entries below 0 do not count. Points grow linearly with the share of right entries: none for guessing the commonest
    number of each column, all at `score`.
    """

    name: str
    forward: Any
    backward: Any
    make: Any
    outputs: tuple
    usual: tuple
    edges: tuple
    points: dict
    constants: tuple = ()
    cache: bool = True    # forward returns (out, cache); False: only arrays
    judge: Any = None
    score: float = 0      # share of right entries that gets all points
    speed: Any = None     # a Speed
    uses: tuple = ()      # tasks whose functions this task calls; if they are wrong, it is marked with right ones, too
    near: Any = None      # near(arrays) -> inputs at which the derivative is taken instead, where a forward has a kink
    blocks: dict = field(default_factory=dict)  # {array: names of the equal parts of its last axis}
    seconds: int = 20     # of CPU time, the limit for all calls together
    large: Any = None     # sizes in numerical.py where they are not usual[0]; None: a larger N


class Edit(NamedTuple):
    """In the source of `function`, `new` replaces `old`, which occurs once."""

    function: Any
    old: str
    new: str


class Mistake(NamedTuple):
    """A common mistake: if a submission returns the same arrays as `edits`, the report gives `kind` and `sentence`."""

    kind: str
    sentence: str
    edits: tuple


@dataclass(frozen=True, eq=False)
class Assignment:
    """`cut` are the functions whose bodies the student writes, `given` the other definitions in the starter."""

    name: str
    title: str
    cut: tuple
    given: tuple
    tasks: tuple
    memory: int = 2 * 2**30  # bytes, the limit of a submission's process
    points: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "points", sum(sum(task.points.values()) for task in self.tasks))


def place(definition):
    """(module, name) of a function or class in the source."""
    definition = inspect.unwrap(definition)
    return definition.__module__, definition.__name__
