"""The L locations of N photos for additive attention, and the forward passes of attention over them.

The same three functions serve training, where caption n belongs to photo n, and decoding, where a photo has any number of
captions, without copies of its arrays. scores_forward and context_of also take the rows of all T steps at once, where row
t * N + n belongs to photo n. The backward passes are methods of deferred.Deferred; that of the scores of all steps is
additive_steps_backward.
"""

from typing import NamedTuple

from satnp.arrays.backend import to_device, xp_of
from satnp.layers import (
    additive_scores_forward,
    additive_steps_forward,
    beam_additive_scores,
    beam_products,
    context_forward,
    exponentials,
    soft_attention,
    softmax,
)


class Locations(NamedTuple):
    """keys (N, L, A), or F = exp(-2 keys) in their place; vectors (N, L, D), of which a context is a weighted sum, or
    None if only the scores are needed.

    photos (R,), on the host, is the photo of each of R captions in decoding; None in training, where R is N, or T*N for all
    steps at once. present (N, L) is False at locations that do not exist, which get the score -inf; None: all exist.
    """

    keys: object
    F: object
    vectors: object
    photos: object = None
    present: object = None


class AttendCache(NamedTuple):
    scores: object
    alpha: object    # (N, L)
    vectors: object  # (N, L, D)


def locations(keys, vectors, present=None):
    """keys (N, L, A), vectors (N, L, D), present (N, L) or None -> Locations"""
    F = exponentials(keys)
    return Locations(keys if F is None else None, F, vectors, present=present)


def present_regions(annotations):
    """annotations (N, L, D) -> present (N, L): False for a region whose features are all 0

    Photos have different numbers of regions; the missing ones are zeros. If a photo has no region at all, its L vectors of
    zeros count as present, so that its mean and its softmax exist.
    """
    present = (annotations.real != 0).any(axis=2)
    return present | ~present.any(axis=1, keepdims=True)


def scores_forward(locations, query, v, c):
    """e_i = v . tanh(keys_i + query) + c: query (R, A), v (A,), c (1,) -> scores (R, L), -inf if absent; cache"""
    if locations.photos is None:
        N = len(locations.keys if locations.F is None else locations.F)
        forward = additive_scores_forward if len(query) == N else additive_steps_forward
        scores, cache = forward(locations.keys, query, v, c, locations.F)
    else:
        scores, cache = beam_additive_scores(locations.keys, locations.F, query, v, c, locations.photos), None
    if locations.present is None:
        return scores, cache
    xp, present = xp_of(scores), locations.present
    if locations.photos is not None:
        present = present[to_device(locations.photos, xp)]
    return xp.where(present, scores, -xp.inf), cache


def context_of(locations, alpha):
    """context = sum_i alpha_i vectors_i: alpha (R, L) -> context (R, D)"""
    if locations.photos is None:
        return context_forward(alpha, locations.vectors)[0]
    return beam_products(alpha, locations.vectors, locations.photos)


def attend_forward(locations, query, v, c):
    """Scores, softmax and context in one: query (R, A), v (A,), c (1,) -> context (R, D), alpha (R, L), cache

    Source: Xu et al. 2015, eqs. 4-6.
    """
    scores, cache = scores_forward(locations, query, v, c)
    if locations.photos is None:
        alpha, context = soft_attention(scores, locations.vectors)
    else:
        alpha = softmax(scores)
        context = context_of(locations, alpha)
    return context, alpha, AttendCache(cache, alpha, locations.vectors)
