"""Data parallelism over the cores of this process: each core takes a share of a minibatch through all layers.

    g = sum over the shares of  (captions of the share / N) g_share

The cores meet once a step. Inside a share BLAS uses one thread, and layers do not divide their work: a core that another
program uses delays its own share, and not each operation of all cores. ranks.py does the same over processes.

A small minibatch is one share for the captioner, whose operations are too short for two threads; its encoder, if trained,
still works on a share of the photos on each core (Model.encode).
"""

import sys
from threading import Condition

import numpy as np

from satnp.arrays import threads
from satnp.arrays.backend import xp_of

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()  # False in free-threaded Python
LEAST = 2**24 if GIL else 1  # multiplications of a word's step that are worth a share; with fewer, cores wait for the GIL


def parameters_of_a_word(decoder):
    """The number of a captioner's parameters that one word uses: all but the other rows of the word embedding E.

    1 if there are none (decoder is None): the captioner is a table.
    """
    return 1 if decoder is None else decoder.flat.size - decoder.E[1:].size


def shares_of(n, xp, size=None):
    """Return slices that divide n captions or photos among the cores; a single slice inside of a share, or on a device.

    xp: the module of the arrays. size: parameters_of_a_word of the captioner; with a small captioner a share needs more
    captions. None for photos: a share may be a single photo.
    """
    if xp is not np or threads.on_one_core():
        return [slice(0, n)]
    return threads.shares(n, 1 if size is None else LEAST // size)


def in_shares(work, shares):
    """[work(share) for share in shares], each on a core, with BLAS on one thread

    A single share runs on this thread, and its encoder or its convolutions use the other cores.
    """
    with threads.one_blas_thread():
        return threads.parallel(work, shares)


class Gradient:
    """The gradient of a minibatch, computed in shares and summed in `grads`, Parameters. size as in shares_of."""

    def __init__(self, grads, size):
        self.grads, self.size = grads, size

    def compute(self, passes, n, N):
        """Set grads to the gradient of n of the N captions of a minibatch -> [(dloss, result)] of the shares

        passes(rows, grads, dloss) -> result: both passes over the slice `rows` of the n captions. They add dloss times the
        gradient of their mean loss to grads. Without captions (n = 0) they get the first one, with dloss 0.
        """
        shares = shares_of(max(1, n), xp_of(self.grads.flat), self.size)
        turns = Turns(len(shares))

        def work(rows, grads):
            dloss = (min(n, rows.stop) - min(n, rows.start)) / N
            return dloss, passes(rows, grads, dloss)

        done = turns.take(work, self.grads, shares)
        turns.clear_others(self.grads)
        return done


def add_in_shares(work, grads, shares):
    """Call work(share, grads) for each share, on a core; they add to `grads`, Parameters, in turn.

    Raises ValueError for several shares inside of one of several shares: they would not wait for the turns of these.
    """
    if len(shares) == 1:
        work(shares[0], grads)
        return
    outer = grads.sums
    if outer is not None and len(outer.turns.sums) > 1:
        raise ValueError(f"{len(shares)} shares inside one of {len(outer.turns.sums)}; divide with shares_of")
    turns = Turns(len(shares), {place for place, _ in grads.places()} if outer is None else outer.turns.written)
    turns.take(work, grads, shares)
    if outer is not None:
        outer.added |= turns.written


class Turns:
    """The shares add to one gradient in turn, so that its sums have the same order, and the same bits, each time.

    A share waits only for shares with a lower number, so two shares never wait for each other. The first term of an array
    is written, not added: the memory need not be cleared, and the large products of share 0 need no memory of their own.

    written: the places, as in Sums, of the arrays that have a term; the set that is given is changed.
    """

    def __init__(self, count, written=None):
        self.sums, self.changed = [Sums(self, k) for k in range(count)], Condition()
        self.written = set() if written is None else written

    def take(self, work, grads, shares):
        """[work(share, grads) for each share], each on a core, with `grads` that add in turn

        At the end it adds what the shares have kept.
        """

        def of_one(share):
            part, sums = share
            with sums:
                return work(part, grads.in_turn(sums))

        done = in_shares(of_one, list(zip(shares, self.sums, strict=True)))
        for sums in self.sums:
            for place, (view, x) in sums.kept.items():
                if place not in self.written:
                    view[...] = 0
                self.written.add(place)
                view += x
            sums.kept.clear()  # sums and turns refer to each other: the arrays would wait for the garbage collector
        return done

    def clear_others(self, grads):
        """Set the arrays to 0 that no share has added to."""
        for place, view in grads.places():
            if place not in self.written:
                view[...] = 0


class Sums:
    """The additions of share k to the gradient. Context manager: after the block the share adds nothing more.

    place: the index in the buffer at which the array `view` begins.
    """

    def __init__(self, turns, k):
        self.turns, self.k, self.added, self.kept, self.ended = turns, k, set(), {}, False

    def add(self, place, view, x):
        """Add x to `view` when all lower shares have added to it. A second term is kept until all shares have ended."""
        if place in self.added:
            own = self.own(place, view)
            own += x
            return
        turns = self.turns
        with turns.changed:
            turns.changed.wait_for(lambda: all(place in s.added or s.ended for s in turns.sums[: self.k]))
        if place in turns.written:
            view += x
        else:
            view[...] = x
        self._add({place})

    def first(self, places, write):
        """Call write(), which writes the arrays at `places`, if this is share 0 and they have no term -> True if it did"""
        if self.k or places & self.turns.written:
            return False
        write()
        self._add(places)
        return True

    def own(self, place, view):
        """Return an array of zeros for this share alone; it is added to `view` when all shares have ended."""
        if place not in self.kept:
            self.kept[place] = view, xp_of(view).zeros_like(view)
        return self.kept[place][1]

    def _add(self, places):
        with self.turns.changed:
            self.added |= places
            self.turns.written |= places
            self.turns.changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.turns.changed:
            self.ended = True
            self.turns.changed.notify_all()


def of_captions(noise, rows, N):
    """The Noise of the captions in the slice `rows` of N; its arrays are (N,), or (T, S*N, ...) sample by sample, or ()."""

    def part(x):
        if x is None or x.ndim == 0:
            return x
        if x.ndim == 1:
            return x[rows]
        samples = x.reshape(len(x), -1, N, x.shape[2])
        return samples[:, :, rows].reshape(len(x), -1, x.shape[2])

    return type(noise)(*map(part, noise))
