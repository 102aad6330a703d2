"""Two captioners of the frame as loops written by hand, of the same layers: they show what the frame costs.

Each has the forward and the backward pass of contract.py, for a frozen encoder and a Batch without options.
"""

from functools import partial

import numpy as np

from satnp.arrays.products import few_rows_product
from satnp.captioners.locations import attend_forward, locations
from satnp.layers import (
    additive_keys_backward,
    additive_look_backward,
    context_weights_backward,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    rows,
    vocabulary_backward,
    vocabulary_forward,
)
from tests.benchmarks.workloads import training_step


class ShowAndTell:
    @staticmethod
    def forward(p, config, batch, noise):
        gates, words = _words_forward(p, batch, noise)
        v = batch.annotations.mean(axis=1)
        x = v @ p.W_i + p.b_i
        (T, N, _), H = gates.shape, config.H
        h, cells = np.empty((T + 1, N, H), gates.dtype), []
        (h[0], c), first = lstm_cell_forward(x @ p.W_x + p.b, np.zeros((N, H), gates.dtype))
        for t in range(T):
            (h[t + 1], c), cell = lstm_cell_forward(h[t] @ p.W_h, c, gates[t])
            cells.append(cell)
        loss, losses = _loss_forward(p, batch, noise, h[1:])
        return loss, (p, words, v, x, first, h, cells, losses)

    @staticmethod
    def backward(cache, g, frozen=True, dloss=1.0):
        p, words, v, x, first, h, cells, losses = cache
        T, N, H = len(cells), *h.shape[1:]
        dout = _loss_backward(g, dloss, losses).reshape(T, N, H)
        del cache, losses  # the words' errors
        dgates = np.empty((T, N, 4 * H), h.dtype)
        dh = dc = np.zeros((N, H), h.dtype)
        for t in reversed(range(T)):
            _, dc = lstm_cell_backward((dh + dout[t], dc), cells[t], out=dgates[t])
            dh = few_rows_product(dgates[t], p.W_h)
        dfirst, _ = lstm_cell_backward((dh, dc), first)
        dx, dgates = dfirst @ p.W_x.T, rows(dgates)
        g.add_product(rows(h[:-1]), dgates, "W_h")
        g.add(W_x=x.T @ dfirst, b=dfirst.sum(axis=0), W_i=v.T @ dx, b_i=dx.sum(axis=0))
        _words_backward(p, g, dgates, words)


class TopDown:
    @staticmethod
    def forward(p, config, batch, noise):
        gates, words = _words_forward(p, batch, noise)
        a = batch.annotations
        (N, L, D), T, H, A = a.shape, len(gates), config.H, config.A
        v = a.mean(axis=1)
        gates += v @ p.W_v
        places = locations((rows(a) @ p.W_a + p.b_a).reshape(N, L, A), a)
        sizes = (T + 1, N, 2 * H), (T, N, D + 2 * H), (T, N, L), (T, N, A)
        hh, zhh, alphas, queries = (np.empty(size, gates.dtype) for size in sizes)
        W1, W2, steps = p.stacked("W_h1", "W_h2"), p.stacked("U_z", "U_h1", "U_h2"), []
        hh[0], c1 = 0, np.zeros((N, H), gates.dtype)
        c2 = c1
        for t in range(T):
            (h1, c1), cell1 = lstm_cell_forward(hh[t] @ W1, c1, gates[t])
            np.matmul(h1, p.W_s, out=queries[t])
            z, alphas[t], attend = attend_forward(places, queries[t], p.w, p.c_a)
            zhh[t, :, :D], zhh[t, :, D : D + H], zhh[t, :, D + H :] = z, h1, hh[t, :, H:]
            (h2, c2), cell2 = lstm_cell_forward(zhh[t] @ W2 + p.b_2, c2)
            hh[t + 1, :, :H], hh[t + 1, :, H:] = h1, h2
            steps.append((cell1, attend.scores, cell2))
        loss, losses = _loss_forward(p, batch, noise, hh[1:, :, H:])
        return loss, (p, words, a, v, hh, zhh, alphas, queries, steps, losses)

    @staticmethod
    def backward(cache, g, frozen=True, dloss=1.0):
        p, words, a, v, hh, zhh, alphas, queries, steps, losses = cache
        (T, N, _), D, H = alphas.shape, a.shape[2], hh.shape[2] // 2
        dout = _loss_backward(g, dloss, losses).reshape(T, N, H)
        del cache, losses  # the words' errors
        W1, W2 = p.stacked("W_h1", "W_h2"), p.stacked("U_z", "U_h1", "U_h2")
        dgates1, dgates2 = np.empty((2, T, N, 4 * H), hh.dtype)
        dscores, dqueries = np.empty_like(alphas), np.empty_like(queries)
        dh1 = dh2 = dc1 = dc2 = np.zeros((N, H), hh.dtype)
        for t in reversed(range(T)):
            cell1, scores, cell2 = steps[t]
            _, dc2 = lstm_cell_backward((dh2 + dout[t], dc2), cell2, out=dgates2[t])
            dzhh = few_rows_product(dgates2[t], W2)
            dalpha = context_weights_backward(dzhh[:, :D], a)
            additive_look_backward(dalpha, alphas[t], scores, out=(dscores[t], dqueries[t]))
            dh1 = dh1 + dzhh[:, D : D + H] + few_rows_product(dqueries[t], p.W_s)
            _, dc1 = lstm_cell_backward((dh1, dc1), cell1, out=dgates1[t])
            dhh = few_rows_product(dgates1[t], W1)
            dh1, dh2 = dhh[:, :H], dhh[:, H:] + dzhh[:, D + H :]
        dkeys, dw, dc_a = additive_keys_backward(dscores, queries, scores)
        dphoto, dkeys, dgates1, dgates2 = dgates1.sum(axis=0), rows(dkeys), rows(dgates1), rows(dgates2)
        g.add_product(rows(hh[:-1]), dgates1, "W_h1", "W_h2")
        g.add_product(rows(zhh), dgates2, "U_z", "U_h1", "U_h2")
        g.add(
            b_2=dgates2.sum(axis=0), W_s=rows(hh[1:, :, :H]).T @ rows(dqueries), W_v=v.T @ dphoto,
            W_a=rows(a).T @ dkeys, b_a=dkeys.sum(axis=0), w=dw, c_a=dc_a,
        )  # fmt: skip
        _words_backward(p, g, dgates1, words)


def _words_forward(p, batch, noise):
    """-> E[y] W_x + b (T, N, 4H), cache"""
    words, embedding = embedding_forward(batch.captions[:, :-1].T.ravel(), p.E)
    words, dropout = dropout_forward(words, rows(noise.words))
    gates = words @ p.W_x
    gates += p.b
    return gates.reshape(*batch.mask.T.shape, -1), (words, embedding, dropout)


def _words_backward(p, g, dgates, cache):
    words, embedding, dropout = cache
    dE = embedding_backward(dropout_backward(dgates @ p.W_x.T, dropout), embedding)
    g.add(W_x=words.T @ dgates, b=dgates.sum(axis=0), E=dE)


def _loss_forward(p, batch, noise, h):
    """h (T, N, H) -> loss (), cache"""
    h, dropout = dropout_forward(rows(h), rows(noise.out))
    loss, vocabulary = vocabulary_forward(
        h, p.W_p, p.b_p, batch.captions[:, 1:].T.ravel(), batch.mask.T.ravel() / len(batch.mask)
    )  # fmt: skip
    return loss, (vocabulary, dropout)


def _loss_backward(g, dloss, cache):
    """-> dh (T*N, H)"""
    vocabulary, dropout = cache
    dh, dW_p, db_p = vocabulary_backward(dloss, vocabulary)
    g.add(W_p=dW_p, b_p=db_p)
    return dropout_backward(dh, dropout)


def step(loop, given):
    return training_step(loop, given["params"], given["config"], given["noise"], given)


LOOPS = {"step_show_and_tell": partial(step, ShowAndTell), "step_top_down": partial(step, TopDown)}
