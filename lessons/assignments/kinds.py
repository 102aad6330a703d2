"""Names the kind of a mistake, from the arrays of several calls and the right ones. Needs NumPy only.

check.py and the grader share these rules. Each rule holds in every call in which the array is wrong, or says nothing.
An exact factor comes first, then exactly the numbers that a known mistake gives, then patterns of the numbers.
"""

from functools import cache
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

SHARES = {"usual": 0.7, "edges": 0.3}  # of an array's points
OWN = 0.5  # share of an array's points for a right backward of a wrong forward, at most
DTYPE = 0.75  # ... if float32 inputs give float64, or the imaginary part is lost
CHANGED = 0.75  # ... if the function wrote to its inputs or its cache
TOLERANCE = 1e-8
SINGLE = 1e-5  # relative error, the precision of float32
WORDS = {
    "T": "step", "N": "row of the batch", "L": "location", "S": "sample", "R": "row", "P": "row", "Q": "column",
    "K": "cell of the kernel", "C": "channel", "F": "filter", "D": "feature", "M": "feature", "H": "unit", "A": "unit",
    "V": "word of the vocabulary",
}  # fmt: skip
POSITIONS = "first", "second", "third", "fourth"
ABOUT = "it is ", "it has ", "it follows "  # how sentences begin that become "each is ..." for several arrays
LOST = " is lost"  # how the sentence on one term of a sum ends


class View(NamedTuple):
    """One array in one call."""

    found: object  # the array, or None
    right: object
    scale: float  # the largest norm of the arrays of the call, for arrays that should be 0
    axes: tuple  # a letter for each axis, or ""
    sizes: dict  # {letter: size}
    arrays: dict  # the inputs of the call
    others: dict  # the other right arrays of the call, {name: array}
    blocks: tuple = ()  # the names of the equal parts of the last axis
    output: bool = False
    special: tuple = ()  # what is special about the call, in words such as "with N = 1"
    every: dict = {}  # the axes of all arrays of the call


class Finding(NamedTuple):
    kind: str
    sentence: str
    sure: bool = True  # False: the numbers fit no rule


class Told(NamedTuple):
    """The verdict on one array in one group of calls."""

    share: float  # of its points
    kind: str
    sentence: str
    sure: bool = True


def view(n, found, arrays, right, outputs, about, blocks=()):
    """The View of array `n`; `about` holds the `axes` of all arrays and the `sizes` of the call."""
    peers = [x for m, x in right.items() if (m in outputs) == (n in outputs)]
    upstream = [] if n in outputs else [arrays[f"d{m}"] for m in outputs]  # all others are 0 behind a saturated softmax
    scale = max(np.linalg.norm(x) for x in peers + upstream)
    others = {m: x for m, x in right.items() if m != n}
    return View(found, right[n], scale, tuple(about["axes"][n]), about["sizes"], arrays, others, tuple(blocks), n in outputs,
                tuple(about["special"]), about["axes"])  # fmt: skip


def verdict(n, mine, every, planted, own, outs):
    """The Told of array `n` in one group: `mine` are its Views there, `every` those in all calls.

    `planted` are the Findings on known mistakes; `own` is the measure in which the forward is right if the array is the
    gradient of it, else None; `outs` names the outputs that are wrong in the same calls.
    """
    known, said = planted.get(n), {m: x.sentence.partition(": ")[2] for m, x in planted.items()}
    if own is not None and outs and said.get(n) not in [said[m] for m in outs if m in said]:
        known = None  # the forward is wrong, so a mistake of the backward alone explains nothing
    wrong = [x for x in mine if not right(x)]
    if not wrong:
        return Told(1, "right", "right")
    finding = name(n, every if known or all(well(x) for x in every) else mine, known, every)
    if finding.kind == "dtype" and all(well(x) for x in wrong):
        return Told(DTYPE, "dtype", finding.sentence)
    if own is not None and not outs:  # the forward is right, so they differ where it has no derivative, as with ties
        return Told(OWN * own, finding.kind, finding.sentence)
    if own is not None:
        sentence = f"{n}: it is the gradient of your own forward, which differs from the equation"
        if known:
            return Told(OWN * own, known.kind, f"{sentence}: {said[n]}")
        return Told(OWN * own, "forward", sentence)
    if outs and not finding.sure:
        return Told(0, "follows", f"{n}: it is wrong, and so is the forward pass ({', '.join(outs)}): correct that first")
    return Told(0, *finding)


def measure(found, rights, scales):
    """The measure in which outputs are right: 1 less the relative error, 0 at the least."""
    return float(np.mean([max(0, 1 - relative_error(g.real, n, s)) for g, n, s in zip(found, rights, scales, strict=True)]))


def merged(pairs):
    """Sentences without repeats: of [(array, sentence)] those with the same words after "array: " become one."""
    found = {}
    for n, sentence in pairs:
        head, colon, rest = sentence.partition(": ")
        found.setdefault(rest if head == n and colon else sentence, []).append(n if head == n and colon else "")
    several = {words: list(dict.fromkeys(names)) for words, names in found.items()}
    return [f"{', '.join(names)}: {'each' + words[2:] if len(names) > 1 and words.startswith(ABOUT) else words}"
            if all(names) else words for words, names in several.items()]  # fmt: skip


def chance(right):
    """The share of right entries if every column of `right` (N, T) is guessed as its commonest number."""
    most = sum(np.bincount(column[column >= 0]).max(initial=0) for column in right.T)
    return most / (right >= 0).sum()


def score(found, right, wanted):
    """(share of the points, sentence) from the share of right entries; those with right < 0 do not count."""
    counts, guess = right >= 0, chance(right)
    equal = float((found == right)[counts].mean())
    share = min(1.0, max(0.0, (equal - guess) / (wanted - guess)))
    sentence = f"{equal:.1%} of the words are right, {wanted:.0%} is wanted, guessing gives {guess:.1%}"
    first, later = ((found == right)[:, t][counts[:, t]].mean() for t in (slice(1), slice(1, None)))
    if share < 1 and first >= wanted:
        sentence += (
            f"; the first words are right to {first:.0%}, later ones to {later:.0%}: is each word fed to the next step?"
        )
    return share, sentence


def relative_error(g, n, scale=0.0):
    """|g - n| / max(|n|, scale / 1000); infinite if g is None, has another shape or is not finite."""
    if g is None or g.shape != n.shape or not np.isfinite(g).all():
        return float("inf")
    return float(np.linalg.norm(g - n) / max(np.linalg.norm(n), 1e-3 * scale, 1e-300))


def same(g, n, scale=0.0):
    """Equal within rounding?"""
    return relative_error(g, n, scale) <= TOLERANCE and np.abs(g - n).max(initial=0) <= 100 * TOLERANCE * max(
        np.abs(n).max(initial=0), 1e-3 * scale
    )


def right(view):
    """Is the array right, and real?"""
    return view.found is not None and view.found.dtype.kind != "c" and same(view.found, view.right, view.scale)


def name(n, views, planted=None, every=()):
    """The Finding on array `n`, wrong in one or more of the `views`, one for each call. None if it is right in all.

    `every` are all its Views, if `views` are some of them.
    """
    with np.errstate(all="ignore"):
        told, only = _name(n, views, planted), _only(every or views)
    if told is None or told is planted or not only:
        return told
    return (
        told._replace(sentence=f"{told.sentence}; only {only}")
        if told.sure
        else Finding("edge", f"{n}: it is wrong only {only}")
    )


def _only(views):
    """What is special about the calls in which the array is wrong, and about no other, or ""."""
    wrong, fine = [x for x in views if not right(x)], [x for x in views if right(x)]
    if not wrong or not fine:
        return ""
    return next((words for words in wrong[0].special if all(words in x.special for x in wrong)
                 and not any(words in x.special for x in fine)), "")  # fmt: skip


def _name(n, views, planted):
    wrong = [x for x in views if not right(x)]
    if not wrong:
        return None
    if all(x.found is None for x in wrong):
        return Finding("missing", f"{n}: it was not returned")
    if any(x.found is not None and x.found.dtype.kind == "c" for x in wrong):
        return Finding("dtype", f"{n}: it is complex, although no input is")
    if all(well(x) for x in wrong) and (told := _factor(n, [x for x in views if well(x)])):
        return told
    if planted:
        return planted
    if all(well(x) and relative_error(x.found, x.right, x.scale) < SINGLE for x in wrong):
        error = max(relative_error(x.found, x.right, x.scale) for x in wrong)
        return Finding("dtype", f"{n}: it is right to {-np.log10(error):.0f} digits only: is a part computed in float32, "
                       "or a small number added?")  # fmt: skip
    bad = [x for x in wrong if not well(x)]
    malformed = _malformed(n, bad) if bad else None
    if all(x.found is not None for x in wrong) and not (bad and malformed.kind == "batch") and (told := _another(n, wrong)):
        return told
    if bad:
        return malformed
    for rule in (_zero, _blocks, _moved, _padded, _function, _with_another, _ends, _border, _elsewhere):
        if told := rule(n, wrong):
            return told
    some = [x for x in wrong if x.right.size > 1]
    share = np.mean([_off(x).mean() for x in some]) if some else 1
    if share < 0.75:
        return Finding(
            "part", f"{n}: it is right in {1 - share:.0%} of its numbers: a term is lost, added or misplaced", False
        )
    return Finding("term", f"{n}: it is wrong everywhere: a term or a factor is lost, added or misplaced", False)


def well(x):
    return x.found is not None and x.found.shape == x.right.shape and bool(np.isfinite(x.found).all())


def _off(x):
    """Where the array is wrong."""
    floor = max(np.abs(x.right).max(initial=0), 1e-3 * x.scale)
    return np.abs(x.found - x.right) > 1e-7 * np.abs(x.right) + 1e-9 * floor


def _malformed(n, bad):
    x = bad[0]
    if x.found is None:
        return Finding("missing", f"{n}: it was not returned")
    if x.found.shape == x.right.shape:
        count = int((~np.isfinite(x.found)).sum())
        where = ""
        if x.found.ndim and count < x.found.size:
            rows = np.flatnonzero(~np.isfinite(x.found).all(axis=tuple(range(1, x.found.ndim))))
            where = f", in row {', '.join(map(str, rows[:4]))}" if len(rows) < len(x.found) else ""
        largest = max(
            [np.abs(a[np.isfinite(a)]).max(initial=0) for a in x.arrays.values() if a.dtype.kind == "f"], default=0
        )
        inputs = f"; the inputs go up to {largest:.0f}" if largest > 50 else ""
        return Finding("non-finite", f"{n}: it has {count} numbers that are not finite{where}{inputs}")
    told = f"{n}: it has shape {_shape(x.found)}, wanted {_shape(x.right)}"
    summed = [x.found.ndim - x.right.ndim == k and all(
        y.found is not None and y.found.ndim - y.right.ndim == k and any(
            same(y.found.sum(axis=axes), y.right, y.scale) for axes in combinations(range(y.found.ndim), k))
        for y in bad) for k in (1, 2, 3)]  # fmt: skip
    if any(summed):
        axes = next(axes for axes in combinations(range(x.found.ndim), x.found.ndim - x.right.ndim)
                    if same(x.found.sum(axis=axes), x.right, x.scale))  # fmt: skip
        which = " and ".join(POSITIONS[a] for a in axes)
        return Finding("batch", f"{told}: it is right after a sum over its {which} axis, so this sum is missing")
    if x.found.ndim == x.right.ndim:
        for a in range(x.found.ndim):
            if x.right.shape[a] == 1 and same(x.found.sum(axis=a, keepdims=True), x.right, x.scale):
                return Finding("batch", f"{told}: right after a sum over its {POSITIONS[a]} axis, so this sum is missing")
    if sorted(x.found.shape) == sorted(x.right.shape):
        for p in permutations(range(x.found.ndim)):
            if x.found.transpose(p).shape == x.right.shape and same(x.found.transpose(p), x.right, x.scale):
                return Finding("transposed", f"{told}; it is the transpose of what is right")
        return Finding("transposed", f"{told}; it looks transposed")
    if x.found.size == x.right.size and same(x.found.reshape(x.right.shape), x.right, x.scale):
        return Finding("shape", f"{told}; the numbers are right")
    if x.found.ndim == x.right.ndim == 1 and len(x.found) in {size for a in x.arrays.values() for size in a.shape}:
        return Finding("batch", f"{told}: is the sum over the wrong axis?")
    return Finding("batch" if x.found.ndim > x.right.ndim else "shape", told)


def _shape(x):
    return str(tuple(map(int, x.shape)))


def _multiple(x, y):
    """k if x = k y, else None."""
    k = float((x * y).real.sum() / max((y * y).real.sum(), 1e-300))
    return k if np.linalg.norm(x - k * y) <= 1e-7 * max(np.linalg.norm(x), np.linalg.norm(y)) else None


def _factor(n, views):
    """The array is right except for a factor: a sign, a constant, or a size."""
    told = [x for x in views if np.linalg.norm(x.right) > 1e-9 * x.scale]  # an array of zeros has no factor
    if any(not right(x) for x in views if not np.linalg.norm(x.right) > 1e-9 * x.scale) or not told:
        return None
    ratios = [_multiple(x.found, x.right) for x in told]
    if None in ratios or (len(told) == 1 and told[0].right.size < 2):
        return None
    ratios = np.array(ratios)
    if np.abs(ratios).min() < 1e-9 or np.allclose(ratios, 1, rtol=SINGLE):
        return None
    if np.allclose(ratios, ratios[0], rtol=1e-6):
        if np.isclose(ratios[0], -1):
            return Finding("sign", f"{n}: it has the wrong sign everywhere")
        if len(told) > 1 or np.isclose(ratios[0] * 12, round(ratios[0] * 12)):
            return Finding("factor", f"{n}: it is {_number(ratios[0])} times what is right")
    for what, sizes in _sizes(told).items():
        for k in (1, -1, 2, 0.5, -2, -0.5):
            for way, power in ("multiplied", sizes), ("divided", 1 / sizes):
                if np.allclose(ratios, k * power, rtol=1e-6):
                    why = (
                        "a sum in place of a mean?"
                        if way == "multiplied"
                        else "a mean in place of a sum, or the mean twice?"
                    )
                    by = f"{way} by {what}: {why}" if k == 1 else f"{_number(k)} times what is right {way} by {what}"
                    return Finding("size", f"{n}: it is {by}")
    letters = [a for a in told[0].sizes if all(a in x.sizes for x in told)]
    of = {a: np.array([x.sizes[a] for x in told], float) for a in letters}
    of |= {f"({a} - 1)": size - 1 for a, size in of.items() if (size > 1).all()}
    for a, b in permutations(of, 2):
        if not np.allclose(of[a], of[b]) and np.allclose(ratios, of[a] / of[b], rtol=1e-6):
            return Finding("size", f"{n}: it is {a} / {b} times what is right: is it divided by {b} in place of {a}?")
    return None


def _number(k):
    return f"{k:.6g}"


def _sizes(views):
    """{words: the size in each call} that a factor may be: axes, products of two of them, squares, sums of a mask."""
    letters = list(dict.fromkeys(a for x in views for a in x.sizes))
    letters = [a for a in letters if all(a in x.sizes for x in views)]
    of = {a: np.array([x.sizes[a] for x in views], float) for a in letters}
    found = {_size(a): of[a] for a in letters}
    found |= {f"the square of {a}": of[a] ** 2 for a in letters}
    found |= {f"{a} times {b}": of[a] * of[b] for a, b in combinations(letters, 2)}
    found |= {f"{a} times {b} times {c}": of[a] * of[b] * of[c] for a, b, c in combinations(letters, 3)}
    found |= {f"{a} - 1": of[a] - 1 for a in letters if (of[a] > 1).all()}
    found |= {f"the square root of {a}": np.sqrt(of[a]) for a in letters}
    for m in "mask", "weights":
        if all(m in x.arrays and x.arrays[m].sum() for x in views):
            found[f"the sum of the {m}"] = np.array([x.arrays[m].sum() for x in views])
    return {words: sizes for words, sizes in found.items() if not np.allclose(sizes, sizes[0]) or len(views) == 1}


def _size(letter):
    word = WORDS.get(letter, "")
    return "K, the size of the kernel" if letter == "K" else f"{letter}, the number of {plural(word)}" if word else letter


def plural(word):
    head, of, rest = word.partition(" of ")
    return f"{head}s{of}{rest}"


def _another(n, wrong):
    """The array is another of the right arrays."""
    for m in wrong[0].others:
        if all(m in x.others and x.others[m].any() and x.found.size and same(x.found, x.others[m]) for x in wrong):
            return Finding("order", f"{n}: it has the numbers of {m}: are the results in the order of the docstring?")
    return None


def _zero(n, wrong):
    if any(np.linalg.norm(x.found) > 1e-13 * np.linalg.norm(x.right) for x in wrong):
        return None
    return Finding("zero", f"{n}: it is all zeros" + ("" if wrong[0].output else ": no gradient gets there"))


def _moved(n, wrong):
    """The same numbers in another order."""
    told = [x for x in wrong if x.right.size > 1]
    if not told or not all(_varied(x) for x in told):
        return None
    d, axes = told[0].right.ndim, told[0].axes
    for p in permutations(range(d)):
        if p != tuple(range(d)) and all(
            x.right.transpose(p).shape == x.right.shape and same(x.found, x.right.transpose(p)) for x in told
        ):
            return Finding("transposed", f"{n}: it is the transpose of what is right" if d == 2 else
                           f"{n}: it is right with its axes exchanged: {_exchanged(p)}")  # fmt: skip
    for k in range(1, d + 1):
        for some in combinations(range(d), k):
            if all(same(x.found, np.flip(x.right, some)) for x in told):
                kernel = all(axes[a] == "K" for a in some)
                what = "the kernel" if kernel else f"its {' and '.join(POSITIONS[a] for a in some)} axis"
                return Finding("flipped" if kernel else "order", f"{n}: it is right, but {what} is in reverse order")
    for a in range(d):
        for step in 1, -1:
            if told[0].axes[a] in ("T", "L", "S", "R", "P", "Q") and all(_shifted(x, a, step) for x in told):
                word = _word(told[0], a)
                here, there = ("after", "before") if step == 1 else ("before", "after")
                return Finding("step", f"{n}: it is one {word} off: each {word} has the numbers that belong to the {word} "
                               f"{there} it, so an index may be one too {'small' if step == 1 else 'large'}")  # fmt: skip
    if d > 1:
        for p in permutations(range(d)):
            if p != tuple(range(d)) and (
                all(same(x.found, x.right.transpose(p).reshape(x.right.shape)) for x in told)
                or all(same(x.found, x.right.reshape([x.right.shape[i] for i in p]).transpose(np.argsort(p))) for x in told)
            ):
                return Finding(
                    "order", f"{n}: it has the right numbers in another order: a reshape where a transpose is needed?"
                )
    return None


def _elsewhere(n, wrong):
    if all(
        x.right.size > 2 and _varied(x) and same(np.sort(x.found, axis=None), np.sort(x.right, axis=None)) for x in wrong
    ):
        return Finding("order", f"{n}: it has the right numbers at other places")
    return None


def _varied(x):
    """Are most of the right numbers different? Others are equal at many places by chance."""
    return np.unique(x.right).size > 0.6 * x.right.size


def _exchanged(p):
    moved = [POSITIONS[a] for a in range(len(p)) if p[a] != a]
    return " and ".join([", ".join(moved[:-1]), moved[-1]])


def _word(x, a):
    """What the axis `a` counts."""
    letter = x.axes[a]
    if letter == "K":
        return "row of the kernel" if a == 0 or x.axes[a - 1] != "K" else "column of the kernel"
    return {"S": "column", "N": "photo"}.get(letter, WORDS.get(letter, "")) if "R" in x.sizes else WORDS.get(letter, "")


def _shifted(x, a, step):
    """Does found[k] equal right[k - step] along axis a, with two numbers or more to compare?"""
    size = x.right.shape[a]
    if size < 2:
        return False
    g, r = np.moveaxis(x.found, a, 0), np.moveaxis(x.right, a, 0)
    g, r = (g[step:], r[:-step]) if step > 0 else (g[:step], r[-step:])
    return r.size > 1 and bool(r.any()) and same(g, r)


def _padded(n, wrong):
    """Right where the mask is 1."""
    told = []
    for x in wrong:
        for m in "mask", "weights", "sampled":
            if m in x.arrays and (shaped := _as(x.arrays[m], m, x)) is not None:
                told.append(not (_off(x) & (shaped != 0)).any())
                break
        else:
            return None
    if told and all(told):
        return Finding("mask", f"{n}: it is wrong only where the {m} is 0: should that part count?")
    return None


FUNCTIONS = {
    "a tanh": np.tanh, "a sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), "an exponential": np.exp, "a logarithm": np.log,
    "a square": np.square, "a square root": np.sqrt, "a relu": lambda x: np.maximum(x, 0), "an absolute value": np.abs,
    "a difference from 1": lambda x: 1 - x, "a reciprocal": lambda x: 1 / x,
}  # fmt: skip


def _function(n, wrong):
    """A function of each number that is missing, or one too many."""
    if not any(np.unique(x.right).size > 2 for x in wrong):
        return None
    for what, f in FUNCTIONS.items():
        if all(same(x.found, f(x.right)) for x in wrong):
            return Finding("function", f"{n}: it is right but for {what} of each number, which is one step too many")
        if all(same(f(x.found), x.right) for x in wrong):
            return Finding("function", f"{n}: it is right but for {what} of each number, which is missing")
    constants = [(x.found - x.right).mean() for x in wrong]
    if np.allclose(constants, constants[0]) and all(same(x.found - constants[0], x.right) for x in wrong):
        return Finding("constant", f"{n}: it differs from what is right by {_number(constants[0])} everywhere")
    return None


def _with_another(n, wrong):
    """Right but for a factor or a term that is another array of the call."""
    if not any(np.unique(x.right).size > 2 for x in wrong):
        return None
    for m in [*wrong[0].arrays, *wrong[0].others]:
        if all((m in x.arrays and x.arrays[m].dtype.kind == "f") or m in x.others for x in wrong):
            given = [_spread(x.arrays[m] if m in x.arrays else x.others[m], m, x) for x in wrong]
            if any(y is None or x.right.size > 1 and np.unique(y).size == 1 for x, y in zip(wrong, given, strict=True)):
                continue
            for words, f in ((m, lambda y: y), (f"1 - {m}", lambda y: 1 - y), (f"1 - {m}^2", lambda y: 1 - y * y)):
                if all(same(x.found, x.right * f(y)) for x, y in zip(wrong, given, strict=True)):
                    return Finding("factor", f"{n}: it is right but for the factor {words}, which is one too many")
                if all(same(x.found * f(y), x.right) for x, y in zip(wrong, given, strict=True)):
                    return Finding("factor", f"{n}: it is right but for the factor {words}, which is missing")
            for k in (1, -1):
                if all(same(x.found - k * y, x.right) for x, y in zip(wrong, given, strict=True)):
                    way = "added" if k == 1 else "subtracted"
                    return Finding("term", f"{n}: it is right but for the term {m}, which is {way}")
    return None


def _spread(array, m, x):
    """Array `m` of the call in the shape of the array of the View, or None: each of its axes must be one of the array's."""
    if array.shape == x.right.shape:
        return array
    letters = x.every.get(m, ())
    if len(letters) != array.ndim or len(set(letters)) < len(letters) or not all(a and a in x.axes for a in letters):
        return None
    order = sorted(range(array.ndim), key=lambda k: x.axes.index(letters[k]))
    shape = [array.shape[letters.index(a)] if a in letters else 1 for a in x.axes]
    return np.broadcast_to(array.transpose(order).reshape(shape), x.right.shape)


def _as(mask, m, x):
    """The mask in the shape of the array, or None."""
    letters = {"mask": ("T", "N"), "weights": ("N",), "sampled": ("N",)}[m]
    sizes = [x.sizes.get(a) for a in letters]
    if not all(a in x.axes for a in letters):
        return None
    if list(mask.shape) != sizes:
        mask = mask.T
    if list(mask.shape) != sizes:
        return None
    order = sorted(range(len(letters)), key=lambda k: x.axes.index(letters[k]))
    shape = [x.sizes[a] if a in letters else 1 for a in x.axes]
    return np.broadcast_to(mask.transpose(order).reshape(shape), x.right.shape)


def _part(found, rights):
    """What is wrong in a part of the array: zeros, a sign, a factor; or ""."""
    if not any(g.any() for g in found):
        return "zero"
    ratios = [_multiple(g, r) for g, r in zip(found, rights, strict=True)]
    if None in ratios or not np.allclose(ratios, ratios[0], rtol=1e-6) or sum(r.size for r in rights) < 2:
        return ""
    return "of the wrong sign" if np.isclose(ratios[0], -1) else f"{_number(ratios[0])} times what is right"


def _blocks(n, wrong):
    """Right in some of the equal parts of the last axis, such as the columns of a gate."""
    names = wrong[0].blocks
    if not names:
        return None
    told = [x for x in wrong if x.right.size > len(names)]
    each = [[_off(x)[..., s].any() for s in _parts(x, names)] for x in told]
    if not each or any(one != each[0] for one in each) or all(each[0]) or not any(each[0]):
        if each and all(any(one) for one in each) and all(each[0]):
            return _exchanged_blocks(n, told, names)
        return None
    if told_ := _exchanged_blocks(n, told, names):
        return told_
    bad = [k for k, off in enumerate(each[0]) if off]
    hows = {_part([x.found[..., _parts(x, names)[k]] for x in told], [x.right[..., _parts(x, names)[k]] for x in told])
            for k in bad}  # fmt: skip
    how = hows.pop() if len(hows) == 1 else ""
    return Finding(
        "gate", f"{n}: it is {how or 'wrong'} in the part of {' and '.join(names[k] for k in bad)}, and right elsewhere"
    )


def _parts(x, names):
    width = x.right.shape[-1] // len(names)
    return [slice(k * width, (k + 1) * width) for k in range(len(names))]


def _exchanged_blocks(n, told, names):
    for p in permutations(range(len(names))):
        if p != tuple(range(len(names))) and all(
            same(x.found, np.concatenate([x.right[..., _parts(x, names)[k]] for k in p], axis=-1)) for x in told
        ):
            moved = " and ".join(names[k] for k in range(len(p)) if p[k] != k)
            return Finding("gate", f"{n}: it has the parts of {moved} exchanged: the order of the columns is i, f, o, g")
    return None


def _ends(n, wrong):
    """Right, or wrong, at one end of an axis alone."""
    told = [x for x in wrong if x.right.size > 1]
    for a in range(max([x.right.ndim for x in told], default=0)):
        some = [x for x in told if x.right.ndim > a and x.right.shape[a] > 1 and np.abs(x.right).max() > 1e-12 * x.scale]
        if len(some) < len(told) or not some or not (word := _word(some[0], a)):
            continue
        lines = [[bool(_off(x).take(k, axis=a).any()) for k in range(x.right.shape[a])] for x in some]
        live = [
            [bool((np.abs(x.right) > 1e-12 * x.scale).take(k, axis=a).any()) for k in range(x.right.shape[a])] for x in some
        ]
        for where, k in ("first", 0), ("last", -1):
            others = slice(1, None) if k == 0 else slice(None, -1)
            if all(one[k] and not any(one[others]) for one in lines):
                how = _part([x.found.take(k, axis=a) for x in some], [x.right.take(k, axis=a) for x in some])
                return Finding("end", f"{n}: it is {how or 'wrong'} at the {where} {word}, and right elsewhere")
            if all(not one[k] and y[k] and any(y[others])
                   and not any(u and not o for o, u in zip(one[others], y[others], strict=True))
                   for one, y in zip(lines, live, strict=True)):  # fmt: skip
                rest = [x.found.take(range(x.right.shape[a])[others], axis=a) for x in some]
                zero = ", and zero elsewhere" if not any(r.any() for r in rest) else ""
                return Finding("end", f"{n}: it is right at the {where} {word} only{zero}")
    return None


def _border(n, wrong):
    """Right except at the border of the rows and columns."""
    for x in wrong:
        rows = [
            a
            for a in range(x.right.ndim)
            if x.axes[a] in ("R", "P") and a + 1 < x.right.ndim and x.axes[a + 1] in ("S", "Q")
        ]
        if not rows or min(x.right.shape[rows[0] : rows[0] + 2]) < 3:
            return None
        inner = [slice(1, -1) if a in (rows[0], rows[0] + 1) else slice(None) for a in range(x.right.ndim)]
        if _off(x)[tuple(inner)].any():
            return None
    return Finding("border", f"{n}: it is right except at the border: look at the padding and at windows that stick out")


# ---- known mistakes


VECTORS = 3


def fingerprint(x):
    """A few random projections of an array, as a list: arrays with equal fingerprints are equal. None for None."""
    if x is None:
        return None
    flat = np.nan_to_num(np.asarray(x, float).ravel(), nan=3.7, posinf=5.1, neginf=-5.1)
    return [list(np.shape(x)), (_vectors(flat.size) @ flat).tolist()]


@cache
def _vectors(size):
    return np.random.default_rng(size).standard_normal((VECTORS, size))


def planted(tables, views):
    """{array: Finding} of the arrays that equal those of a known mistake in every call.

    `tables` are [(kind, sentence, {array: [the fingerprint in each call]})], `views` {array: [View in each call]}. Of
    several mistakes the one that explains the most arrays counts. If none is equal, the array may be a constant multiple of
    it, or have a constant multiple of the term that is lost.
    """
    with np.errstate(all="ignore"):
        return _planted(tables, views)


def _planted(tables, views):
    seen = {n: [fingerprint(x.found if x.found is None or x.found.dtype.kind != "c" else None) for x in some]
            for n, some in views.items()}  # fmt: skip
    rights = {n: [fingerprint(x.right) for x in some] for n, some in views.items()}
    ranked, terms = [], {}
    for kind, sentence, wrong in tables:
        if any(some[0].output and n in wrong and all(right(x) for x in some) for n, some in views.items()):
            continue  # a mistake of the forward, but the forward is right
        exact, nearly = {}, {}
        for n in [n for n in wrong if n in views and any(not right(x) for x in views[n])]:
            four = list(zip(seen[n], wrong[n], rights[n], views[n], strict=True))
            if any((g is None) != (p is None) or g is not None and g[0] != p[0] for g, p, *_ in four):
                continue
            four = [(np.array(g[1]), np.array(p[1]), np.array(r[1]) if r[0] == g[0] else np.full(VECTORS, np.inf),
                     max(np.linalg.norm(x.right), 1e-3 * x.scale)) for g, p, r, x in four if g is not None]  # fmt: skip
            clear = [np.abs(p - r).max() > 1e-6 * size for g, p, r, size in four]  # does the mistake change this array?
            if not any(clear):
                continue
            single = any(x.found is not None and x.found.dtype == np.float32 for x in views[n])
            close = SINGLE if single else 20 * TOLERANCE
            if all(np.abs(g - p).max() <= close * max(size, np.abs(p).max()) for g, p, r, size in four):
                exact[n] = Finding(kind, f"{n}: {sentence}")
            elif how := _times(four, clear, sentence):
                nearly[n] = Finding(kind, f"{n}: {how}")
            elif sentence.endswith(LOST):
                terms.setdefault(n, []).append((kind, sentence.removesuffix(LOST), four))
        if any(p is not None and any(p[1]) for n in exact for p in wrong[n]):  # zeros fit many mistakes
            ranked.append((1, len(exact), exact))
        ranked.append((0, len(nearly), nearly))
    kept = {n: told for n, some in terms.items() if (told := _two_terms(n, some))}
    for *_, named in sorted(reversed(ranked), key=lambda x: x[:2]):  # the last one wins; of equals the first in the table
        kept |= named
    return kept


def _two_terms(n, some):
    """The Finding if two of the terms together, each some times too many or too few, explain the array in every call."""
    for (kind, head, four), (_, other, four_2) in combinations(some, 2):
        off = np.concatenate([r - g for g, _, r, _ in four])
        lost = np.stack([np.concatenate([r - p for _, p, r, _ in x]) for x in (four, four_2)], axis=1)
        if head == other or not np.isfinite(off).all() or not np.isfinite(lost).all() or np.linalg.matrix_rank(lost) < 2:
            continue
        ks = np.linalg.lstsq(lost, off, rcond=None)[0]
        if len(off) > 2 * VECTORS and np.abs(ks).min() > 1e-6 and same(lost @ ks, off):
            return Finding(kind, f"{n}: {_counts(head, 1 - ks[0])}, and {_counts(other, 1 - ks[1])}")
    return None


def _counts(head, count):
    """How often a term counts, in words."""
    if np.isclose(count, 0, atol=1e-6):
        return head + LOST
    return f"{head} has the wrong sign" if np.isclose(count, -1) else f"{head} counts {_number(count)} times"


def _times(four, clear, sentence):
    """The sentence if the array is a constant multiple, or has a constant multiple of the term that is lost, else ""."""
    told = [x for x, yes in zip(four, clear, strict=True) if yes]
    others = [x for x, yes in zip(four, clear, strict=True) if not yes]
    if any(np.abs(g - r).max() > 20 * TOLERANCE * size for g, p, r, size in others):
        return ""
    if len(told) < 2 or not all(np.isfinite(r).all() for _, _, r, _ in told):
        return ""
    if sentence.endswith(LOST) and any(p.any() for _, p, *_ in told):  # if only zeros are left, any factor fits
        there = [_multiple(r - g, r - p) for g, p, r, _ in told]
        if None not in there and there[0] != 0 and np.allclose(there, there[0], rtol=1e-6):
            return _counts(sentence.removesuffix(LOST), 1 - there[0])
    on_top = [_multiple(g, p) for g, p, *_ in told]
    if None not in on_top and on_top[0] != 0 and np.allclose(on_top, on_top[0], rtol=1e-6) and abs(on_top[0]) != 1:
        return f"{sentence}, and the result is multiplied by {_number(on_top[0])}"
    if None not in on_top and np.allclose(on_top, -1):
        return f"{sentence}, and the sign is wrong"
    return ""
