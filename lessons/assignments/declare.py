"""What an assignment is: which functions are cut, which arrays are asked for and what each of them is worth."""

import inspect
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PUBLIC = 0  # the seed of the numbers that a student has
HIDDEN = 7  # ... and of those that marks are made with; --seed gives another one


class Speed(NamedTuple):
    """`forward`, `backward` (or None) are the naive form; the student's is to be `ratio` times as fast at each of `sizes`.

    Worth what the task's points give for "seconds": all of it from `ratio` on, log(found) / log(ratio) of it below.
    """

    forward: Any
    backward: Any
    ratio: float
    sizes: tuple


@dataclass(frozen=True, eq=False)
class Task:
    """A pair forward(*inputs) -> out, cache and backward(dout, cache) -> gradients, or a function that only returns arrays.

    `make(rng, **sizes)` returns the inputs by name, in the order of forward's arguments; what is no array (a stride) is
    passed as it is. The gradients asked for are those of the floating inputs not in `constants`; they are called d<input>.
    `usual` and `edges` are lists of sizes: marks are made of both. `points` says what each array is worth.

    `judge(inputs, outputs)` -> {array: (share, sentence)} marks what has no single right value; it gets arrays, None for
    those that did not come, and returns the share of the points of each.

    With `score` the output's right numbers, below 0 where nothing counts, are returned by `make` under the output's name,
    and not handed over. Points are in proportion, from none for what a guess of the commonest number in each column gets.
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
    score: float = 0      # share of equal numbers that is worth all points; see above
    speed: Any = None     # a Speed
    uses: tuple = ()      # tasks whose functions this one's call: where those are wrong, this is told to follow
    blocks: dict = field(default_factory=dict)  # {array: names of the parts, of one size, that its last axis is made of}
    seconds: int = 20     # of the processor, that all calls may take together


class Edit(NamedTuple):
    """In the source of `function`, `old` (which occurs once) becomes `new`."""

    function: Any
    old: str
    new: str


class Mistake(NamedTuple):
    """What people get wrong: the arrays that it gives are recognised, and told as `kind` and `sentence`."""

    kind: str
    sentence: str
    edits: tuple


@dataclass(frozen=True, eq=False)
class Assignment:
    """`cut` are the functions whose bodies the student writes, `given` what else of the source comes with the starter."""

    name: str
    title: str
    cut: tuple
    given: tuple
    tasks: tuple
    memory: int = 2 * 2**30  # bytes that a process may have
    points: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "points", sum(sum(task.points.values()) for task in self.tasks))


def place(definition):
    """(module, name) of a function or class as it stands in the source."""
    definition = inspect.unwrap(definition)
    return definition.__module__, definition.__name__
