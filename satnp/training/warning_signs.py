"""Warnings when a training goes wrong: each rule is a pure function that returns a sentence, or None.

Nothing here uses the random generator of a training or changes its parameters, so the warnings do not change its bits.
"""

import os
import sys
import tracemalloc
from collections import Counter
from math import log, prod
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from satnp import terminal
from satnp.arrays.backend import xp_of
from satnp.arrays.optim import OPTIMISERS
from satnp.captioners import CAPTIONERS
from satnp.captioners.glstm import guidance_rows
from satnp.data.captions import END
from satnp.data.features import kept_shape
from satnp.encoders.clips import input_shape
from satnp.model import NO_WORDS
from satnp.scores.evaluation import ONE_PHOTO, unknown_share

STILL = 0.01      # weights with a smaller total variation distance (0 to 1) count as the same
UNKNOWN = 0.1     # largest share of unknown words without a warning
STRETCH = 5       # warn if this many norms in the log all differ ...
WINDOW = 50       # ... from the median of this many before them, by these factors
EXPLODING, VANISHING = 5, 0.05
GUESSING = 0.01   # largest validation loss above that of guessing without a warning, in nats a word
LEAST = 10        # smallest number of norms for a median


class Watch:
    """Print each warning when its sign appears, and again only if the sign was gone in between."""

    def __init__(self):
        self.up, self.norms = set(), []

    def before(self, model, recipe, train, val, photos, count):
        """Check the captions (lists of ids) and the memory before the first step; `photos` are host arrays.

        count: the number of photos whose CIDEr the training looks at, of a split.
        """
        self._see("one photo", ONE_PHOTO if count == 1 else None)
        self._see("unknown in training", unknown_words(train, "training"))
        self._see("unknown in validation", unknown_words(val, "validation"))
        need = memory_needed(model, recipe, train, photos)
        parts = ", ".join(f"{size / 2**20:.0f} for {part}" for part, size in need.items())
        total = sum(need.values()) / 2**20
        tqdm.write(f"this training needs about {total:.0f} MiB of memory in addition to Python's: {parts}")
        if xp_of(model.params.flat) is np:
            held = sum(x.nbytes for x in photos if not isinstance(x, np.memmap))
            self._see("memory", short_of_memory(need, held, free_memory()))

    def logged(self, norm):
        """Check the norm of the gradient in a new line of the log."""
        self.norms = [*self.norms, norm][-STRETCH - WINDOW :]
        self._see("norm", standing_out(self.norms))

    def validated(self, captions, nll, V):
        """Check the model.Captions of the validation photos, and the validation loss of V words, in nats a word."""
        self._see("guessing", worse_than_guessing(nll, V))
        self._see("captions", same_caption(captions))
        self._see("attention", still_attention([caption.alpha for caption in captions if caption.alpha is not None]))

    def page(self, path, error):
        """Check whether the page `path` of the training was written; error: what kept it from being written, or None."""
        because = error and (getattr(error, "strerror", None) or error)
        self._see("page", error and f"{path} could not be written ({because}); the training goes on without it")

    def _see(self, sign, sentence):
        if sentence and sign not in self.up:
            tqdm.write(terminal.sentence(f"warning: {sentence}"), file=sys.stderr)
        (self.up.add if sentence else self.up.discard)(sign)


def same_caption(captions):
    """Warn if most photos get the same caption."""
    said, count = Counter(map(str, captions)).most_common(1)[0]
    if count > max(2, len(captions) / 2):
        said = said[:60] or NO_WORDS
        return (
            f"{count} of the {len(captions)} validation photos get the same caption, {said!r}; if this continues, "
            "the model ignores the photos: check that captions and photos belong together, then change learning_rate"
        )


def worse_than_guessing(nll, V):
    """Warn if the validation loss is above that of a guess that gives each of V words the same probability."""
    if nll > log(V) + GUESSING:
        return (
            f"the validation loss, {nll:.3f} nats a word, is above ln V = {log(V):.3f}, that of guessing among {V} words; "
            "if the training loss is far lower, use best.npz and add captions, else lower learning_rate"
        )


def still_attention(alphas):
    """Warn if attention is uniform, or the same for every word. alphas: one array (T, rows, columns) per caption"""
    if not alphas:
        return None
    alphas = [alpha.reshape(len(alpha), -1) for alpha in alphas]
    uniform = np.mean([_distance(alpha, 1 / alpha.shape[1]) for alpha in alphas])
    moved = [_distance(alpha[1:], alpha[0]) for alpha in alphas if len(alpha) > 1]
    if uniform < STILL:
        seen = "is almost uniform"
    elif moved and np.mean(moved) < STILL:
        seen = "looks at the same places for every word"
    else:
        return None
    return f"attention {seen} in the validation captions; if this continues, lower penalty or train for more steps"


def _distance(p, q):
    """Mean total variation distance of the rows of p (T, L) from q."""
    return 0.5 * np.abs(p - q).sum(axis=1).mean()


def standing_out(norms):
    """Warn if the last norms of the gradient are all far above or far below the norms before them."""
    before, last = norms[-STRETCH - WINDOW : -STRETCH], norms[-STRETCH:]
    if len(before) < LEAST:
        return None
    usual = median(before)
    if min(last) > EXPLODING * usual:
        seen, todo = "explodes", "lower learning_rate, or make warmup longer"
    elif max(last) < VANISHING * usual:
        seen, todo = "vanishes", "if the loss is still high, start again with a lower learning_rate"
    else:
        return None
    return f"the gradient {seen}: its norm is {median(last):.3g} in the last {STRETCH} log lines, {usual:.3g} before; {todo}"


def unknown_words(captions, split):
    """Warn if many words of the captions (lists of ids) are not in the vocabulary."""
    share = unknown_share(captions)
    if share > UNKNOWN:
        return f"{share:.0%} of the words of the {split} captions are not in the vocabulary; lower min_count or add captions"


def memory_needed(model, recipe, captions, photos):
    """Estimate {part: bytes} of a training on `captions` (lists of ids); the host arrays `photos` feed the encoder."""
    copies = 1 + len(OPTIMISERS[recipe.optimiser][1]) + 2 * (recipe.averaging > 0)  # validation makes a copy
    lengths = Counter(len(ids) - 1 for ids in captions)
    N, T = max(((min(count, recipe.batch_size), T) for T, count in lengths.items()), key=prod)
    if recipe.objective == "scst":
        N, T = recipe.batch_size * recipe.samples, max(lengths)
    return {
        "parameters": model.params.flat.nbytes + copies * model.trainable.flat.nbytes,
        "photos": sum(x.nbytes for x in photos),
        "a minibatch": minibatch_memory(model.on(np), N, T),
    }


def minibatch_memory(model, N, T):
    """Bytes of both passes over N captions of T words, extrapolated from two smaller minibatches of blank photos."""
    few = min(N, 2)
    _peak(model, 2 * few, T)  # allocates the buffers that layers keep (blocks.scratch): they do not grow with N
    one, two = _peak(model, few, T), _peak(model, 2 * few, T)
    return one + (two - one) * (N - few) // few


def _peak(model, N, T):
    captioner, rng = CAPTIONERS[model.captioner], np.random.default_rng(0)
    captions, mask, grads = np.full((N, T + 1), END), np.ones((N, T), np.float32), model.trainable.zeros_like()
    if model.keeps_features:
        photos = np.zeros((N, *kept_shape(model)), np.float16)
    else:
        photos = np.zeros((N, *input_shape(model.encoder_config)), np.uint8)
    if model.guidance is not None:
        photos = np.concatenate([photos, guidance_rows(np.zeros((N, model.guidance)), model.config.D)], axis=1)
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    noise = captioner.draw_noise(model.config, T, N, prod(model.grid), rng)
    annotations, encoder_cache = model.encode(photos)
    _, *cache = model.loss(annotations, captions, mask, noise)  # in a list, as in training
    dannotations = captioner.backward(cache.pop(), grads.part("decoder"), model.frozen)
    if not model.frozen:
        model.encode_backward(dannotations, encoder_cache, grads.part("encoder"))
    _, peak = tracemalloc.get_traced_memory()
    if not tracing:
        tracemalloc.stop()
    return peak - before


def short_of_memory(need, held, free):
    """Warn if `free` (bytes, or None if unknown) is less than memory_needed, of which `held` bytes are already in use."""
    if free is None or sum(need.values()) - held <= free:
        return None
    most = max(need, key=need.get)
    lower = {"parameters": "M, H and A", "photos": "the number of photos", "a minibatch": "batch_size"}[most]
    return f"only {free / 2**20:.0f} MiB of memory are free, which is too little; the largest part is {most}: lower {lower}"


def free_memory():
    """Bytes of memory that are available; None if the system does not report it."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # MemAvailable includes what the file cache can release
        return int(meminfo.read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None
