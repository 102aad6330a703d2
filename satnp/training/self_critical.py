"""Self-critical training (Rennie et al. 2017): the captioner learns from captions that it draws, by their CIDEr-D.

    y ~ p(y | photo),    r = CIDEr-D of y,    dlogit_t = -(r - b) (onehot(y_t) - p_t)

    p_t = softmax(logit_t / temperature)

This is the score-function estimator (estimators/score_function.py), with words as choices: the gradient of the loss with
Batch.weights = r - b. Where hard attention draws its locations, they are choices too, with the same r - b.

The captions must be drawn from the distribution whose gradient is computed: drawing and loss both exclude what
decoding.unsaid names and use no dropout. The baseline b is the reward of the greedy caption, or the mean reward of the
photo's other captions; it must not depend on the caption that it is subtracted from.

Differs: the temperature, which is 1 in the paper, and the largest length, which few training captions exceed.

With a temperature below 1, the drawn captions are near those that greedy decoding and beams find. At temperature 1 they are
much worse, and most of what is learnt is to draw fewer bad words (tests/benchmarks/results/flickr8k_scst.md).
"""

from dataclasses import replace

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.captioners.contract import Batch
from satnp.data.captions import END, START
from satnp.decoding import MIN_LENGTH, beam_search, sample_words, unsaid
from satnp.estimators import leave_one_out
from satnp.scores.metrics import cider_d, document_frequency


class Reward:
    """CIDEr-D of captions of the training photos. <end> counts as a word, or the captioner would learn not to say it."""

    def __init__(self, vocabulary, captions):
        """captions: for each photo a list of captions, each a list of words"""
        self.vocabulary = vocabulary
        self.references = [[" ".join([*words, "<end>"]) for words in of_photo] for of_photo in captions]
        self.frequency = document_frequency(self.references)

    def __call__(self, photos, ids):
        """Rewards of the captions ids (R lists or rows) of photos (R,) -> (R,)"""
        said = [" ".join(self.vocabulary.decode(row) + ["<end>"] * (END in row)) for row in ids]
        return cider_d(said, [self.references[n] for n in photos], self.frequency)[1]


def policy(config):
    """The Config with which captions are drawn and their gradient is computed.

    It has no penalty. Hard attention draws one path for each caption, unless it decodes by expectation.
    """
    changes = {"penalty": 0.0} if hasattr(config, "penalty") else {}
    if getattr(config, "hard", False):
        decoding = "expectation" if config.decoding == "expectation" else "sampling"
        changes |= {"decoding": decoding, "estimator": "reinforce", "baseline": "none", "samples": 1, "entropy_weight": 0.0}
    return replace(config, **changes)


def draw_captions(captioner, params, config, annotations, uniform, noise, reward, baseline, temperature=1.0):
    """Draw S captions of each photo -> Batch and Noise of the R = N*S captions, photo by photo, their rewards (N, S) and the
    number of their words

    annotations (N, L, D); config from `policy`; uniform (R, steps) from 0 to 1, and noise (R, ...) from decoding_noise or
    None: host arrays; reward(n, ids): the rewards of captions of the photos n, from 0 to N - 1; baseline: "greedy" or
    "leave_one_out". The captions are drawn from p^(1/temperature), word by word.

    Source: Rennie et al. 2017, eqs. 7 and 9; the leave-one-out baseline: Kool, van Hoof and Welling 2019.
    """
    xp, (R, steps), N = xp_of(annotations), uniform.shape, len(annotations)
    owners = np.repeat(np.arange(N), R // N)
    repeated = xp.repeat(annotations, R // N, axis=0)
    if noise is not None:  # the captions of one photo would share its numbers
        noise = to_device(noise, xp)
    photos = annotations if noise is None else repeated
    ids, _, _ = sample_words(captioner, params, config, photos, uniform, noise, temperature)
    rewards = reward(owners, ids).reshape(N, -1)
    if baseline == "greedy":
        looking = config if noise is None else replace(config, decoding="argmax")
        greedy = beam_search(captioner, params, looking, annotations, beam=1, max_length=steps)
        expected = reward(np.arange(N), [decoded.ids for decoded in greedy])[:, None]
    else:
        expected = leave_one_out(rewards.T).T
    words = R + (np.cumsum(ids[:, :-1] == END, axis=1) == 0).sum()  # <end> counts, what follows it does not
    return *weighted(captioner, config, repeated, ids, noise, (rewards - expected).ravel(), temperature), rewards, int(words)


def weighted(captioner, config, annotations, ids, noise, advantages, temperature=1.0, min_length=MIN_LENGTH):
    """The minibatch whose loss has the gradient -mean over R captions of (r - b) d log p(y), p at the temperature:
    annotations (R, L, D), ids (R, T) as sample_words gives them, noise (R, steps, ...) or None, advantages r - b (R,)
    -> Batch, Noise"""
    xp, (R, T), dtype = xp_of(annotations), ids.shape, annotations.dtype
    mask = (np.cumsum(ids[:, :-1] == END, axis=1) == 0).astype(dtype)
    mask = np.concatenate([np.ones((R, 1), dtype), mask], axis=1)
    captions = np.concatenate([np.full((R, 1), START), ids], axis=1)
    weights = mask * (advantages / R).astype(dtype)[:, None]
    never, late = unsaid(config.V, min_length)
    batch = Batch(annotations, *(to_device(x, xp) for x in (captions, mask, weights)), never=never, late=late,
                  temperature=temperature)  # fmt: skip
    if noise is None:
        return batch, captioner.Noise()
    looked = xp.ascontiguousarray(noise.transpose(1, 0, 2)[:T])
    return batch, captioner.Noise(gumbel=looked, expected=xp.zeros(R, dtype=dtype))
