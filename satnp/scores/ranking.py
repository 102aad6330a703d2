"""How well photos and sentences find each other: recall at 1, 5 and 10, and the median rank (Hodosh et al. 2013)."""

import numpy as np

RECALLS = 1, 5, 10


def ranks(S, photo_of):
    """Ranks of the true answers, from 1 -> {"photo to sentence": ranks of the best own sentence of each photo (N,),
    "sentence to photo": ranks of each sentence's photo (R,)}

    S (N, R) is the similarity of photos and sentences, photo_of (R,) the photo of each sentence. An answer that is as
    similar as the true one counts as more similar, so equal similarities give the worst ranks.
    """
    own = photo_of == np.arange(len(S))[:, None]
    best = np.where(own, S, -np.inf).max(axis=1, keepdims=True)
    of_photos = 1 + ((S >= best) & ~own).sum(axis=1)
    true = S[photo_of, np.arange(S.shape[1])]
    of_sentences = (S >= true).sum(axis=0)
    return {"photo to sentence": of_photos, "sentence to photo": of_sentences}


def recalls(found):
    """What `ranks` gives -> for both ways {"R@1": share of the ranks up to 1, ..., "median": the median rank}"""
    return {
        way: {f"R@{k}": float(np.mean(x <= k)) for k in RECALLS} | {"median": float(np.median(x))}
        for way, x in found.items()
    }
