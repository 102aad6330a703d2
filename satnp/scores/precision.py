"""Average precision: how well scores separate the photos that have something from those that have not."""

import numpy as np


def average_precision(scores, truth):
    """The mean, over the true photos, of the share of true ones among the photos with at least this score.

    scores (N,), truth (N,) bool -> from the share of true photos, for random scores, to 1; nan without a true photo. Equal
    scores are counted against the true ones.
    """
    order = np.lexsort((truth, -scores))
    hits = truth[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()) if hits.any() else float("nan")


def mean_average_precision(scores, truth):
    """scores (N, K), truth (N, K) bool -> mean over the columns with a true photo, average precision of each column (K,)"""
    each = np.array([average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])])
    return float(np.nanmean(each)), each
