"""Photos and sentences in one space: the similarity of every photo with every sentence, and the loss that ranks them."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of

TINY = 1e-12  # added to the square of a norm


class NormaliseCache(NamedTuple):
    out: object
    norm: object   # (N, 1)


class AlignmentCache(NamedTuple):
    v: object
    s: object
    mask: object
    best: object   # (N, R, T) int, the location with the largest product


class RankingCache(NamedTuple):
    of_photos: object     # (N, N), 1 where a sentence counts against photo k, in row k
    of_sentences: object  # (N, N), 1 where a photo counts against sentence k, in column k


def normalise_forward(x):
    """out = x / |x|

    x (N, K) -> out (N, K)
    """
    norm = xp_of(x).sqrt((x * x).sum(axis=1, keepdims=True) + TINY)
    out = x / norm
    return out, NormaliseCache(out, norm)


def normalise_backward(dout, cache):
    """dout (N, K) -> dx (N, K): the part of dout along x has no effect"""
    out, norm = cache
    return (dout - (dout * out).sum(axis=1, keepdims=True) * out) / norm


def alignment_forward(v, s, mask):
    """S_kl = sum_t mask_lt max_i v_ki . s_lt: each word of sentence l takes the location of photo k that fits it best

    v (N, L, K), s (R, T, K), mask (R, T) -> S (N, R)

    Source: Karpathy and Fei-Fei 2015, eq. 8.
    """
    xp, (N, L, K), (R, T) = xp_of(v), v.shape, mask.shape
    products = (v.reshape(-1, K) @ s.reshape(-1, K).T).reshape(N, L, R, T)
    best = products.real.argmax(axis=1)
    chosen = xp.take_along_axis(products, best[:, None], axis=1)[:, 0]
    return (mask * chosen).sum(axis=2), AlignmentCache(v, s, mask, best)


def alignment_backward(dS, cache):
    """dS (N, R) -> dv (N, L, K), ds (R, T, K)"""
    v, s, mask, best = cache
    xp, (N, L, K), (R, T) = xp_of(v), v.shape, mask.shape
    # one product in each column (k, l, t) counts
    counts = best[:, None] == xp.arange(L).reshape(1, L, 1, 1)
    dproducts = (counts * (dS[:, :, None] * mask)[:, None]).reshape(N * L, R * T)
    return (dproducts @ s.reshape(-1, K)).reshape(v.shape), (dproducts.T @ v.reshape(-1, K)).reshape(s.shape)


def ranking_loss_forward(S, others, margin=0.2, hardest=False):
    """loss = mean_k ( sum_l [m - S_kk + S_kl]_+  +  sum_l [m - S_kk + S_lk]_+ )

    S (N, N), others (N, N) -> loss ()

    S has the similarity of photo k with sentence l in row k and column l; they belong together on the diagonal. A sum is
    over the l with others_kl = 1, which are not of the same photo. With `hardest`, only the largest term of each sum counts.

    Source: Kiros et al. 2014, Karpathy and Fei-Fei 2015, eq. 9; `hardest`: Faghri et al. 2018.
    """
    xp = xp_of(S)
    true = xp.diagonal(S)
    costs = []
    for right, axis in ((true[:, None], 1), (true[None], 0)):
        cost = others * xp.maximum(margin - right + S, 0)
        if hardest:
            largest = xp.expand_dims(cost.real.argmax(axis=axis), axis)
            cost = cost * (xp.expand_dims(xp.arange(len(S)), 1 - axis) == largest)
        costs.append(cost)
    loss = (costs[0] + costs[1]).sum() / len(S)
    return loss, RankingCache(*((cost.real > 0).astype(S.real.dtype) for cost in costs))


def ranking_loss_backward(dloss, cache):
    """dloss () -> dS (N, N)"""
    of_photos, of_sentences = cache
    xp, N = xp_of(of_photos), len(of_photos)
    dS = of_photos + of_sentences - xp.diag(of_photos.sum(axis=1) + of_sentences.sum(axis=0))
    return dloss / N * dS
