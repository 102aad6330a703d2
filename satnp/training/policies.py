"""Training on words that the captioner draws itself."""

import numpy as np

from satnp.arrays.backend import to_host
from satnp.decoding import draw_words, may_say


def scheduled_words(captioner, params, config, annotations, captions, chance, coins, draws, noise=None):
    """Scheduled sampling: replace some of the words that the captioner reads by words that it draws itself.

    annotations (N, L, D), captions (N, T+1) and uniform numbers from 0 to 1, coins and draws (N, T), the last three host
    arrays; noise from decoding_noise -> (N, T), for Batch.given: <start>, then at each position the true word or, with
    probability `chance`, a word drawn from p(y_t) given the words before it in this array, by the probabilities of
    decoding.may_say. The words are drawn without dropout, and no gradient flows through them.

    Source: Bengio et al. 2015, section 2.4.
    """
    given, own = captions[:, :-1].copy(), coins < chance
    own[:, 0] = False
    state, parents = captioner.start(params, config, annotations, noise), np.arange(len(given))
    for t in range(1, 1 + own.any(axis=0).nonzero()[0].max(initial=0)):
        log_p, state, _ = captioner.step(params, config, state, given[:, t - 1], parents)
        drawn = draw_words(may_say(to_host(log_p).astype(np.float64), t - 1), draws[:, t])
        given[:, t] = np.where(own[:, t], drawn, given[:, t])
    return given
