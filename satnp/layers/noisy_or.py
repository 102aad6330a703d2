"""A word belongs to a photo if it belongs to one of the photo's locations: noisy-OR over the locations."""

from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import elementwise
from satnp.layers.activations import sigmoid

FAR = 40.0  # for z below -FAR, softplus(z) is exp(z) to the last digit


class NoisyOrCache(NamedTuple):
    z: object
    S: object      # (N, K), -log(1 - p)


class NoisyOrLossCache(NamedTuple):
    z: object
    y: object
    S: object
    log_p: object  # (N, K)


def noisy_or_forward(z):
    """p_w = 1 - prod_j (1 - sigmoid(z_jw)) = 1 - exp(-S_w),  S_w = sum_j softplus(z_jw)

    z (N, L, K) -> p (N, K)

    Source: Fang et al. 2015.
    """
    _, S = _logarithms(z)
    return -xp_of(z).expm1(-S), NoisyOrCache(z, S)


def noisy_or_backward(dp, cache):
    """dp (N, K) -> dz (N, L, K)"""
    z, S = cache
    return _noisy_or_gradient(dp[:, None], z, S[:, None])


def noisy_or_loss_forward(z, y):
    """loss = mean_n sum_w -(y log p + (1 - y) log(1 - p)), with p from noisy_or_forward

    z (N, L, K), y (N, K) -> loss ()

    y is 1 for the words of a photo and 0 for the others. Units: nats a photo.

    Source: the logistic loss of Wu et al. 2016, of several labels at once.
    Pitfall: log(p) of a rounded p is -inf for words far from every location; log p is computed from S here.
    """
    log_p, S = _logarithms(z)
    loss = ((1 - y) * S - y * log_p).sum() / len(z)
    return loss, NoisyOrLossCache(z, y, S, log_p)


def noisy_or_loss_backward(dloss, cache):
    """dloss () -> dz (N, L, K)"""
    z, y, S, log_p = cache
    y, S, log_p = y[:, None], S[:, None], log_p[:, None]
    return _noisy_or_loss_gradient(dloss / len(z), z, y, S, log_p)


def _logarithms(z):
    """z (N, L, K) -> log p (N, K), S (N, K)

    Where every z is below -FAR, p = S = sum_j exp(z_j) to the last digit, which may be rounded to 0; log p is not.
    """
    xp = xp_of(z)
    highest = z.max(axis=1, keepdims=True)
    shift = xp.where(highest < -FAR, highest, xp.zeros_like(highest))
    S = _summand(z, shift).sum(axis=1)
    shift = shift[:, 0]
    return shift + xp.log(xp.where(shift < 0, S, -xp.expm1(-S))), xp.exp(shift) * S


@elementwise
def _softplus(z):
    """log(1 + exp(z)), without overflow"""
    xp = xp_of(z)
    positive = xp.maximum(z, 0)
    return positive + xp.log1p(xp.exp(z - 2 * positive))


@elementwise
def _summand(z, shift):
    """softplus(z) if shift is 0, exp(z - shift) if it is the largest z"""
    xp = xp_of(z)
    z = z - shift
    positive = xp.maximum(z, 0)
    small = xp.exp(z - 2 * positive)
    return xp.where(shift < 0, small, positive + xp.log1p(small))


@elementwise
def _noisy_or_gradient(dp, z, S):
    return dp * xp_of(z).exp(-S) * sigmoid(z)


@elementwise
def _noisy_or_loss_gradient(dloss, z, y, S, log_p):
    """d(-log p)/dz = -sigmoid(z) / expm1(S), of which both parts may be rounded to 0, is an exponential here"""
    share = xp_of(z).exp(z - _softplus(z) - S - log_p)
    return dloss * ((1 - y) * sigmoid(z) - y * share)
