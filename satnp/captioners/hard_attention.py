"""Hard attention's part of Show, Attend and Tell's forward pass: S samples of each caption, and the look-ahead that
local_expectation needs. satnp/estimators/choices.py draws the locations and computes their rewards."""

from satnp.arrays.backend import xp_of
from satnp.estimators.choices import Hard, entropy_cost, next_baseline
from satnp.layers import affine_forward, deep_output_forward, dropout_forward, log_softmax, lstm_cell_forward


def for_each_sample(S, batch, noise):
    """The minibatch repeated S times, sample by sample. The samples of a caption share its dropout masks and its coin."""
    if S == 1:
        return batch, noise
    xp = xp_of(batch.mask)

    def again(x, axis):
        return None if x is None else xp.concatenate([x] * S, axis=axis)

    masks = {name: again(getattr(noise, name), 1) for name in ("words", "state", "hidden")}
    repeated = {name: again(getattr(batch, name), 0) for name in ("annotations", "captions", "mask", "weights", "given")}
    if batch.weights is not None:
        repeated["weights"] = repeated["weights"] / S
    return batch._replace(**repeated), noise._replace(**masks, expected=again(noise.expected, 0))


def choices_forward(config, noise, scores, alphas, looks, log_p, mask, ahead, weights=None):
    """Collect the choices of a forward pass: scores, alphas, looks, ahead (T, N, L), log_p, mask, weights (T, N)
    -> entropy cost (), Hard, the baseline of the next training step ()"""
    baseline = xp_of(mask).zeros((), dtype=mask.dtype) if noise.baseline is None else noise.baseline
    hard = Hard(scores, alphas, looks, noise.gumbel, noise.expected, log_p, mask, ahead, baseline, weights)
    return entropy_cost(config, hard), hard, next_baseline(config, hard)


def look_ahead(p, config, annotations, word_gates, words, h_prev, steps, noise, targets):
    """log p of each word for every location: log p(y_t | s_1 .. s_{t-1}, s_t = i) -> (T, N, L)

    Runs the cell and the output layer L times a step, each time from the state that the sampled path has reached, with
    the dropout masks of the forward pass.
    """
    xp, (T, N, _) = xp_of(annotations), h_prev.shape
    L, D = annotations.shape[1:]
    words = words.reshape(T, N, -1)
    ahead = xp.empty((T, N, L), dtype=h_prev.dtype)

    def each(x):
        """(N, K) -> (N*L, K), each row repeated L times"""
        return None if x is None else xp.repeat(x, L, axis=0)

    for t, step in enumerate(steps):
        z = (step.gate.beta[:, None] * annotations).reshape(N * L, D)
        gates = each(word_gates[t] + h_prev[t] @ p.W_h) + z @ p.W_z
        (h, _), _ = lstm_cell_forward(gates, each(step.cell.c_prev))
        h, _ = dropout_forward(h, each(None if noise.state is None else noise.state[t]))
        hidden, _ = deep_output_forward(each(words[t]), h, z, p.L_h, p.L_z, p.b_m)
        hidden, _ = dropout_forward(hidden, each(None if noise.hidden is None else noise.hidden[t]))
        logits, _ = affine_forward(hidden, p.L_o, p.b_o)
        log_p = log_softmax(logits)[xp.arange(N * L), xp.repeat(targets[t], L)]
        ahead[t] = log_p.reshape(N, L)
    return ahead
