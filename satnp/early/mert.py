"""Minimum error rate training (Och 2003): linear weights that choose the best captions out of lists, by their BLEU-4.

    caption of photo n: argmax_m w . h_nm        h_nm: the features of the m-th caption of its list

Along a line w + gamma d, the score of each caption of a photo is a line in gamma, and the chosen caption is their upper
envelope. So BLEU-4 is constant between the few gammas at which some photo changes its caption, and the search is exact: it
visits all of them in order, and adds up the n-gram counts on the way.
"""

import numpy as np

from satnp.scores.metrics import bleu_of_counts

NARROW = 1e-5  # intervals of gamma that are narrower are passed over: rounded weights could leave them
ROUNDS = 20    # of the search from one start


def chosen(w, lists):
    """The row of the best caption of each photo: w (J,), lists of h (M_n, J) -> (N,)"""
    return np.array([int((h @ w).argmax()) for h in lists])


def bleu4(rows, counts):
    """BLEU-4 of the captions `rows` (N,) of lists of counts (M_n, 10), as `metrics.bleu_counts` gives them."""
    return float(_bleu4(sum(c[m] for c, m in zip(counts, rows, strict=True))))


def _bleu4(total):
    """total (..., 10) -> BLEU-4 (...)"""
    return bleu_of_counts(total[..., :4], total[..., 4:8], total[..., 8], total[..., 9])[..., 3]


def envelope(slopes, offsets):
    """The upper envelope of lines offset + gamma slope: slopes (M,), offsets (M,) -> the gammas where it changes line, in
    rising order (C,), and its lines (C + 1,)"""
    changes, lines = [], []
    for m in np.lexsort((-np.arange(len(slopes)), offsets, slopes)):  # of equal lines the first one wins
        while lines:
            k = lines[-1]
            rise = slopes[m] - slopes[k]
            at = (offsets[k] - offsets[m]) / rise if rise > 0 else -np.inf  # of parallel lines the later one is higher
            if changes and at <= changes[-1]:
                changes.pop()
            elif at > -np.inf:
                changes.append(at)
                break
            lines.pop()
        lines.append(m)
    return np.array(changes), np.array(lines)


def line_search(w, d, lists, counts):
    """The gamma with the best BLEU-4 of w + gamma d -> gamma, BLEU-4. w (J,), d (J,), lists of h (M_n, J), counts (M_n, 10)

    Of equally good intervals it takes the one nearest to 0, and there its middle; an interval without an end, 1 behind the
    other end.
    """
    total, places, steps = 0, [], []
    for h, c in zip(lists, counts, strict=True):
        changes, lines = envelope(h @ d, h @ w)
        total = total + c[lines[0]]
        places.append(changes)
        steps.append(np.diff(c[lines], axis=0))
    places, steps = np.concatenate(places), np.concatenate(steps)
    order = np.argsort(places, kind="stable")
    places, scores = places[order], _bleu4(np.concatenate([total[None], total + steps[order].cumsum(axis=0)]))
    if not len(places):
        return 0.0, float(scores[0])
    starts, ends = np.append(places[0] - 2, places), np.append(places, places[-1] + 2)
    scores = np.where(ends - starts > NARROW, scores, -np.inf)
    middle = (starts + ends) / 2
    best = min(np.flatnonzero(scores == scores.max()), key=lambda k: abs(middle[k]))
    return float(middle[best]), float(scores[best])


def mert(w, lists, counts, rng, starts=5):
    """Weights (J,) whose captions have the best BLEU-4 found -> weights, BLEU-4; never a lower one than that of w (J,)

    lists: of each photo h (M_n, J); counts: of each photo (M_n, 10). The search goes along the coordinates and as many
    random directions until a round gains nothing, from w and from `starts` random weights near it.
    """
    best = w / np.linalg.norm(w), bleu4(chosen(w, lists), counts)
    for start in [best[0], *(best[0] + 0.5 * rng.standard_normal((starts, len(w))))]:
        w, score = start, bleu4(chosen(start, lists), counts)
        for _ in range(ROUNDS):
            before = score
            for d in (*np.eye(len(w)), *rng.standard_normal((len(w), len(w)))):
                gamma, found = line_search(w, d, lists, counts)
                if found > score:
                    w, score = w + gamma * d, found
            w = w / np.linalg.norm(w)
            if score <= before:
                break
        best = max(best, (w, bleu4(chosen(w, lists), counts)), key=lambda found: found[1])
    return best
