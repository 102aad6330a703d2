"""Common mistakes, planted in satnp's source: an array that a mistake would give is reported as this mistake.

If several mistakes give the same array, the report names the first. A sentence names the mistake, never the right answer.
"""

from lessons.assignments.choices import bound_backward, bound_forward, choices_backward
from lessons.assignments.declare import Edit, Mistake
from lessons.assignments.fast import all_scores_backward
from lessons.assignments.look import look_backward
from lessons.assignments.through_time import lstm_backward, lstm_forward
from lessons.assignments.whole import captioner_backward, captioner_forward, word_backward
from satnp.arrays.kernels import gate_gradient, softmax_gradient
from satnp.estimators.gumbel import draw
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy_gradient, local_expectation, reinforce
from satnp.layers.attention import additive_query_backward, additive_scores_backward, context_forward
from satnp.layers.conv import conv2d_backward_input, conv2d_backward_weights, conv2d_forward
from satnp.layers.deep_output import deep_output_backward
from satnp.layers.embedding import embedding_backward
from satnp.layers.gate import gate_backward, gate_backward_preactivation
from satnp.layers.initial_state import _of_each_location, initial_state_backward
from satnp.layers.lstm import _cell_gradient, lstm_cell_backward, lstm_cell_forward
from satnp.layers.penalty import doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.pool import average_pool_backward, max_pool_backward, max_pool_forward
from satnp.layers.softmax import cross_entropy_backward, cross_entropy_forward

A1 = (
    Mistake("flipped", "the kernel is flipped", (
        Edit(conv2d_forward, "_correlate(x, W, b", "_correlate(x, W[::-1, ::-1], b"),
        Edit(conv2d_backward_input, "WT[i, j]", "WT[K - 1 - i, K - 1 - j]"),
        Edit(conv2d_backward_weights, "W, stride, padding)\n    dout",
             "W, stride, padding)[::-1, ::-1].copy()\n    dout")
    )),
    Mistake("term", "the bias is missing", (Edit(conv2d_forward, "_correlate(x, W, b", "_correlate(x, W, 0 * b"),)),
    Mistake("step", "the cells are shifted: the padding is not removed where it was added", (
        Edit(conv2d_backward_input, "dx[:, padding : padding + R, padding : padding + S]", "dx[:, :R, :S]"),
    )),
    Mistake("step", "the window is one cell off", (
        Edit(conv2d_backward_input, "dx[photos, window(i, stride, P), window(j, stride, Q)] +=",
             "dx[photos, window((i + 1) % K, stride, P), window(j, stride, Q)] +="),
    )),
    Mistake("batch", "only the first photo counts, not the sum over the batch", (
        Edit(conv2d_backward_weights, "x, W, stride, padding = cache",
             "x, W, stride, padding = cache\n    x, dout = x[:1], dout[:1]"),
    )),
    Mistake("overlap", "where windows overlap, only the last one counts, not their sum", (
        Edit(conv2d_backward_input, "window(j, stride, Q)] += fed", "window(j, stride, Q)] = fed"),
        Edit(max_pool_backward, "taken += dx[cells]", "taken = np.where(taken != 0, taken, dx[cells])"),
        Edit(average_pool_backward, "window(j, stride, Q)] += dout", "window(j, stride, Q)] = dout")
    )),
    Mistake("overlap", "where windows overlap, only the last one counts, not their sum", (
        Edit(max_pool_backward, "    return dx",
             "    for n, p, q, c in np.ndindex(out.shape):\n"
             "        seen = padded[n, p * stride : p * stride + K, q * stride : q * stride + K, c]\n"
             "        i, j = np.unravel_index(seen.argmax(), seen.shape)\n"
             "        dx[n, p * stride + i, q * stride + j, c] = dout[n, p, q, c]\n    return dx"),
    )),
    Mistake("overlap", "where windows overlap, only the last one counts, not their sum", (
        Edit(max_pool_backward, "taken += dx[cells]", "pass"),
    )),
    Mistake("stride", "the stride is ignored", (
        Edit(conv2d_backward_input, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)"),
        Edit(average_pool_backward, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)"),
        Edit(max_pool_backward, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)")
    )),
    Mistake("padding", "a cell outside of the input counts as 0", (Edit(max_pool_forward, "-xp.inf", "0"),)),
    Mistake("spread", "every cell of a window gets its gradient, not only the largest", (
        Edit(max_pool_backward, "left -= taken", "pass"),
        Edit(max_pool_backward, "(padded[cells] == out[photos])", "(padded[cells] == padded[cells])")
    )),
)  # fmt: skip

A2 = (
    Mistake("c-path", "the gradient of c from the next step is lost", (
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = 0 * dc_prev"),
    )),
    Mistake("c-path", "the gradient of c from the next step is lost", (
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = (1 - live) * dc"),
    )),
    Mistake("c-path", "dc, the gradient of c from the next step, is lost", (
        Edit(_cell_gradient, "dc = dc + dh * o", "dc = dh * o"),
    )),
    Mistake("h-path", "the gradient of h from the next step is lost", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = (1 - live) * dh"),
    )),
    Mistake("h-path", "the gradient of c from h is lost", (
        Edit(_cell_gradient, "dc = dc + dh * o * (1 - tanh_c * tanh_c)", "dc = dc + 0 * dh"),
    )),
    *(
        Mistake("gate", f"the gate {n} gets no gradient", (
            Edit(lstm_cell_backward, "    return dgates", f"    d{n}[...] = 0\n    return dgates"),
        )) for n in "ifog"
    ),
    Mistake("gate", "the columns of two gates are exchanged: the order is i, f, o, g", (
        Edit(lstm_cell_forward, "range(4)", "(0, 1, 3, 2)"),
        Edit(lstm_cell_backward, "range(4)", "(0, 1, 3, 2)")
    )),
    Mistake("gate", "the columns of two gates are exchanged: the order is i, f, o, g", (
        Edit(lstm_cell_forward, "range(4)", "(1, 0, 2, 3)"),
        Edit(lstm_cell_backward, "range(4)", "(1, 0, 2, 3)")
    )),
    Mistake("slope", "the derivative of tanh(c) is missing", (
        Edit(_cell_gradient, "dc = dc + dh * o * (1 - tanh_c * tanh_c)", "dc = dc + dh * o"),
    )),
    Mistake("slope", "the derivatives of the gates' sigmoid and tanh are missing", (
        Edit(_cell_gradient, "return di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g), dc_prev",
             "return di, df, do, dg, dc_prev"),
    )),
    Mistake("step", "c of this step is used in place of c of the step before", (
        Edit(_cell_gradient, "df = dc * c_prev", "df = dc * (f * c_prev + i * g)"),
    )),
    Mistake("step", "h of this step is used in place of h of the step before", (
        Edit(lstm_backward, "dW_h += before[t].T @ dgates",
             "dW_h += (before[t + 1] if t + 1 < len(x) else before[t]).T @ dgates"),
    )),
    Mistake("step", "h of this step is used in place of h of the step before", (
        Edit(lstm_forward, "out.append(h)", "out.append(h)\n        before[-1] = h"),
    )),
    Mistake("step", "the array of the step before is used", (
        Edit(lstm_backward, "dW_x += x[t].T", "dW_x += x[t - 1].T"),
        Edit(lstm_backward, "dW_h += before[t].T", "dW_h += before[t - 1].T")
    )),
    Mistake("step", "the array of the step before is used", (
        Edit(lstm_backward, "dW_x += x[t].T", "dW_x += x[max(t - 1, 0)].T"),
        Edit(lstm_backward, "dW_h += before[t].T", "dW_h += before[max(t - 1, 0)].T")
    )),
    Mistake("step", "it is off by one step", (Edit(lstm_backward, "dh + dout[t]", "dh + dout[max(t - 1, 0)]"),)),
    Mistake("steps", "only one step counts, not the sum over time", (
        Edit(lstm_backward, "dW_x += ", "dW_x[...] = "),
        Edit(lstm_backward, "dW_h += ", "dW_h[...] = "),
        Edit(lstm_backward, "db += ", "db[...] = ")
    )),
    Mistake("batch", "only the first sentence counts, not the sum over the batch", (
        Edit(lstm_backward, "dW_x += x[t].T @ dgates", "dW_x += x[t][:1].T @ dgates[:1]"),
        Edit(lstm_backward, "dW_h += before[t].T @ dgates", "dW_h += before[t][:1].T @ dgates[:1]"),
        Edit(lstm_backward, "db += dgates.sum(axis=0)", "db += dgates[0]")
    )),
    Mistake("batch", "only the last sentence counts, not the sum over the batch", (
        Edit(lstm_backward, "dW_x += x[t].T @ dgates", "dW_x += x[t][-1:].T @ dgates[-1:]"),
        Edit(lstm_backward, "dW_h += before[t].T @ dgates", "dW_h += before[t][-1:].T @ dgates[-1:]"),
        Edit(lstm_backward, "db += dgates.sum(axis=0)", "db += dgates[-1]")
    )),
    Mistake("mask", "the mask is ignored", (
        Edit(lstm_forward, "zip(x, mask[:, :, None]", "zip(x, 0 * mask[:, :, None] + 1"),
    )),
    Mistake("mask", "the mask is ignored in the backward pass", (
        Edit(lstm_backward, "live, dh = mask[t][:, None],", "live, dh = 0 * mask[t][:, None] + 1,"),
    )),
    Mistake("mask", "a padded step adds to the gradients", (
        Edit(lstm_backward, "(live * dh, live * dc)", "(dh, dc)"),
    )),
    Mistake("mask", "a padded step passes no gradient to the step before it", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = dgates @ W_h.T"),
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = dc_prev")
    )),
    Mistake("mask", "a padded step passes no gradient through h to the step before it", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = dgates @ W_h.T"),
    )),
)  # fmt: skip

A3 = (
    Mistake("diagonal", "only the diagonal of the softmax's Jacobian is used: each weight depends on every score", (
        Edit(softmax_gradient, "alpha * (dalpha - (alpha * dalpha).sum(axis=-1, keepdims=True))",
             "alpha * dalpha * (1 - alpha)"),
    )),
    Mistake("diagonal", "the part of the softmax's Jacobian that comes from its sum is missing", (
        Edit(softmax_gradient, "alpha * (dalpha - (alpha * dalpha).sum(axis=-1, keepdims=True))", "alpha * dalpha"),
    )),
    Mistake("beta", "the gradient of h from the gate is lost: beta depends on h too", (
        Edit(look_backward, "dh + dh_gate", "dh"),
    )),
    Mistake("path", "the gradient of h from the scores is lost", (Edit(look_backward, "dh + dh_gate", "dh_gate"),)),
    Mistake("beta", "the gate is missing", (Edit(gate_backward, "dcontext = dz * beta", "dcontext = dz + 0 * beta"),)),
    Mistake("penalty", "dalpha, the gradient of the weights from the penalty, is lost", (
        Edit(look_backward, "dalpha + dalpha_context", "dalpha_context"),
    )),
    Mistake("penalty", "the gradient of the weights from the penalty does not go through the softmax", (
        Edit(look_backward, "softmax_backward(dalpha + dalpha_context, cache.softmax)",
             "softmax_backward(dalpha_context, cache.softmax) + dalpha"),
    )),
    Mistake("path", "the gradient of the weights from the context is lost", (
        Edit(look_backward, "dalpha + dalpha_context", "dalpha"),
    )),
    Mistake("path", "the gradient of the annotations from the keys is lost", (
        Edit(look_backward, "dannotations + drows.reshape(dannotations.shape)", "dannotations"),
    )),
    Mistake("path", "the gradient of the annotations from the context is lost", (
        Edit(look_backward, "dannotations + drows.reshape(dannotations.shape)", "drows.reshape(dannotations.shape)"),
    )),
    Mistake("slope", "the derivative of the sigmoid is missing", (
        Edit(gate_gradient, "* beta * (1 - beta)", "+ 0 * beta"),
        Edit(gate_backward_preactivation, "sigmoid_gradient(dz * cache.context, cache.beta, out=(out,))",
             "dz * cache.context")
    )),
    Mistake("batch", "only the first row of the batch counts, not the sum over the batch", (
        Edit(gate_backward, "h.T @ dpre, dpre.sum(axis=0)", "h[:1].T @ dpre[:1], dpre[0]"),
    )),
    Mistake("slope", "the derivative of the tanh is missing", (
        Edit(additive_scores_backward, "    dkeys, dv",
             "    keys, _, v, _ = cache\n    dpre = dscores[:, :, None] * v + 0 * keys\n"
             "    return dpre, dpre.sum(axis=1), additive_keys_backward(dscores[None], cache.query[None], cache)[1], "
             "dscores.sum().reshape(1)\n    dkeys, dv"),
    )),
    Mistake("locations", "the query gets the gradient of only one location, not the sum over all", (
        Edit(additive_query_backward, "np.dot(dscores[n], of_photo, out", "np.dot(dscores[n][:1], of_photo[:1], out"),
    )),
    Mistake("locations", "the weights are ignored: it is the mean over the locations, not the weighted sum", (
        Edit(context_forward, "_weighted_sum(alpha,", "_weighted_sum(0 * alpha + 1 / alpha.shape[1],"),
    )),
    Mistake("mask", "the mask is ignored", (
        Edit(doubly_stochastic_forward, "(mask[:, :, None] * alphas)", "alphas"),
        Edit(doubly_stochastic_backward, "_spread(mask[:, :, None], ", "_spread(0 * mask[:, :, None] + 1, ")
    )),
    Mistake("mask", "the mask is ignored in the backward pass", (
        Edit(doubly_stochastic_backward, "_spread(mask[:, :, None], ", "_spread(0 * mask[:, :, None] + 1, "),
    )),
    Mistake("term", "the 1 that each location's sum should reach is missing", (
        Edit(doubly_stochastic_forward, ".sum(axis=0) - 1", ".sum(axis=0)"),
    )),
)  # fmt: skip

A4 = (
    Mistake("repeated", "if a word occurs twice, only one occurrence counts", (
        Edit(embedding_backward, "dE[words] = np.add.reduceat(dout[order], starts)", "dE[ids] = dout"),
    )),
    Mistake("repeated", "if a word occurs twice, only one occurrence counts", (
        Edit(embedding_backward, "np.add.reduceat(dout[order], starts)", "dout[order][starts]"),
    )),
    Mistake("repeated", "it is the mean over a word's occurrences, not their sum", (
        Edit(embedding_backward, "np.add.reduceat(dout[order], starts)",
             "np.add.reduceat(dout[order], starts) / np.bincount(ids)[words][:, None]"),
    )),
    Mistake("target", "the term of the target word is missing", (
        Edit(cross_entropy_backward, "] -= scale[:, 0]", "] -= 0"),
    )),
    Mistake("mask", "the weights, which are 0 for padding, are ignored", (
        Edit(cross_entropy_forward, "(weights * log_p)", "log_p"),
        Edit(cross_entropy_backward, "(dloss * weights)", "(dloss + 0 * weights)")
    )),
    Mistake("mask", "the weights, which are 0 for padding, are ignored in the backward pass", (
        Edit(cross_entropy_backward, "(dloss * weights)", "(dloss + 0 * weights)"),
    )),
    Mistake("slope", "the derivative of the tanh is missing", (
        Edit(deep_output_backward, "dpre = tanh_gradient(dout, out)", "dpre = dout"),
        Edit(initial_state_backward, "tanh_gradient(dc, cache.c)", "dc"),
        Edit(initial_state_backward, "tanh_gradient(dh, cache.h)", "dh")
    )),
    Mistake("path", "the gradient of the annotations from one of the two states is lost", (
        Edit(_of_each_location, "(dmean_h + dmean_c)", "dmean_h"),
    )),
    Mistake("path", "the gradient of the annotations from one of the two states is lost", (
        Edit(_of_each_location, "(dmean_h + dmean_c)", "dmean_c"),
    )),
    Mistake("batch", "only the first row of the batch counts, not the sum over the batch", (
        Edit(deep_output_backward, "return dpre, dh, dz, dL_h, dL_z, dpre.sum(axis=0)",
             "return dpre, dh, dz, h[:1].T @ dpre[:1], z[:1].T @ dpre[:1], dpre[0]"),
    )),
    Mistake("step", "the input word is used as the target", (
        Edit(captioner_forward, "captions[:, t + 1], mask", "captions[:, t], mask"),
    )),
    Mistake("step", "every step has the input and the target of the step before", (
        Edit(captioner_forward, "captions[:, t], h, c", "captions[:, max(t - 1, 0)], h, c"),
        Edit(captioner_forward, "captions[:, t + 1], mask", "captions[:, t], mask")
    )),
    Mistake("step", "the target word is used as the input", (
        Edit(captioner_forward, "captions[:, t], h, c", "captions[:, t + 1], h, c"),
    )),
    Mistake("mask", "padded words count", (Edit(captioner_forward, "mask[:, t] / N", "0 * mask[:, t] + 1 / N"),)),
    Mistake("mask", "padded steps count in the penalty", (
        Edit(captioner_forward, "np.stack(alphas), mask.T", "np.stack(alphas), 0 * mask.T + 1"),
    )),
    Mistake("mask", "the mask is ignored everywhere", (
        Edit(captioner_forward, "mask[:, t] / N", "0 * mask[:, t] + 1 / N"),
        Edit(captioner_forward, "np.stack(alphas), mask.T", "np.stack(alphas), 0 * mask.T + 1")
    )),
    Mistake("batch", "the loss is summed over the batch, not averaged over the captions", (
        Edit(captioner_forward, "mask[:, t] / N", "mask[:, t]"),
    )),
    Mistake("batch", "the loss is averaged over all words, not over the captions", (
        Edit(captioner_forward, "mask[:, t] / N", "mask[:, t] / mask.sum()"),
    )),
    Mistake("penalty", "the penalty is missing", (Edit(captioner_forward, "loss + penalty", "loss"),)),
    Mistake("penalty", "the gradient of the weights alpha from the penalty is lost", (
        Edit(captioner_backward, "dc, dalphas[t])", "dc, 0 * dalphas[t])"),
    )),
    Mistake("step", "the gradient of alpha from the penalty is that of another step", (
        Edit(captioner_backward, "dc, dalphas[t])", "dc, dalphas[t - 1])"),
    )),
    Mistake("c-path", "the gradient of c from the next step is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh + dh_out, 0 * dc)"),
    )),
    Mistake("c-path", "the gradient of c from the next step is lost", (
        Edit(captioner_backward, "dannotations = dannotations + dseen",
             "dannotations, dc = dannotations + dseen, 0 * dc"),
    )),
    Mistake("h-path", "the gradient of h from the next step is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh_out, dc)"),
    )),
    Mistake("path", "the gradient of h from the word of its own step is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh, dc)"),
    )),
    Mistake("path", "the gradient of the previous step's h from the look is lost: the scores and beta depend on it", (
        Edit(word_backward, "return dannotations, dh + dh_look", "return dannotations, dh"),
    )),
    Mistake("path", "the gradient of the previous step's h from the gates is lost", (
        Edit(word_backward, "return dannotations, dh + dh_look", "return dannotations, dh_look"),
    )),
    Mistake("path", "the gradient of z from the gates is lost", (Edit(word_backward, "dz + dx[:, M + H :]", "dz"),)),
    Mistake("path", "the gradient of z from the deep output is lost", (
        Edit(word_backward, "dz + dx[:, M + H :]", "dx[:, M + H :]"),
    )),
    Mistake("path", "the gradient of E from the gates is lost", (Edit(word_backward, "dEy + dx[:, :M]", "dEy"),)),
    Mistake("path", "the gradient of E from the deep output is lost", (
        Edit(word_backward, "dEy + dx[:, :M]", "dx[:, :M]"),
    )),
    Mistake("steps", "only one step counts, not the sum over time", (
        Edit(captioner_backward, "Weights(*(g + m for", "Weights(*(0 * g + m for"),
        Edit(captioner_backward, "dannotations = dannotations + dseen", "dannotations = dseen")
    )),
    Mistake("path", "the gradient of the annotations from the first state is lost", (
        Edit(captioner_backward, "dannotations + dmean,", "dannotations,"),
    )),
    Mistake("path", "the gradient of the annotations from the looks is lost", (
        Edit(captioner_backward, "dannotations + dmean,", "dmean,"),
    )),
)  # fmt: skip

OWN_SAMPLE = "the baseline includes the sample itself, but must not depend on it"

A5 = (
    Mistake("draw", "the Gumbel numbers have the wrong sign", (Edit(draw, "scores + gumbel", "scores - gumbel"),)),
    Mistake("draw", "it is the likeliest location, not a drawn one", (
        Edit(draw, "(scores + gumbel)", "(scores + 0 * gumbel)"),
    )),
    Mistake("mask", "words that do not count are included", (Edit(total, "(mask * log_p)", "log_p"),)),
    Mistake("mask", "words that do not count are included", (
        Edit(to_go, "(mask * log_p)", "log_p"),
        Edit(after, "mask * log_p", "log_p")
    )),
    Mistake("step", "it is off by one step: this word is missing", (
        Edit(to_go, "    return (mask * log_p)[::-1].cumsum(axis=0)[::-1]",
             "    return (mask * log_p)[::-1].cumsum(axis=0)[::-1] - mask * log_p"),
    )),
    Mistake("step", "it is off by one step: this word is included", (
        Edit(after, "to_go(log_p, mask) - mask * log_p", "to_go(log_p, mask)"),
    )),
    Mistake("step", "it is the sum up to step t, of words that this choice cannot change", (
        Edit(to_go, "(mask * log_p)[::-1].cumsum(axis=0)[::-1]", "(mask * log_p).cumsum(axis=0)"),
    )),
    Mistake("step", "it is the sum up to step t, of words that this choice cannot change", (
        Edit(after, "to_go(log_p, mask) - mask * log_p", "(mask * log_p).cumsum(axis=0) - mask * log_p"),
    )),
    Mistake("step", "it is only this step's word, not a sum", (
        Edit(to_go, "(mask * log_p)[::-1].cumsum(axis=0)[::-1]", "mask * log_p"),
    )),
    Mistake("mask", "images that were not sampled are included", (
        Edit(moving_average, "(sampled * reward).sum()", "reward.sum()"),
        Edit(moving_average, "sampled.sum()", "len(sampled)")
    )),
    Mistake("mask", "images that were not sampled are counted", (
        Edit(moving_average, "maximum(count, 1)", "maximum(len(sampled), 1)"),
    )),
    Mistake("decay", "the weights of the old baseline and the new mean are exchanged", (
        Edit(moving_average, "decay * baseline + (1 - decay) * mean", "(1 - decay) * baseline + decay * mean"),
    )),
    Mistake("decay", "the old baseline is not multiplied by its weight", (
        Edit(moving_average, "decay * baseline + (1 - decay) * mean", "baseline + (1 - decay) * mean"),
    )),
    Mistake("own sample", OWN_SAMPLE, (
        Edit(leave_one_out, "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)", "0 * rewards + rewards.mean(axis=0)"),
    )),
    Mistake("own sample", "the divisor counts the sample itself too", (
        Edit(leave_one_out, "(len(rewards) - 1)", "len(rewards)"),
    )),
    Mistake("batch", "the mean is not over the samples of one caption", (
        Edit(leave_one_out, "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)",
             "(rewards.sum() - rewards) / (rewards.size - 1)"),
    )),
    Mistake("term", "alpha is missing: a part of the gradient of log p is lost", (
        Edit(reinforce, "(sample - alpha)", "sample"),
    )),
    Mistake("diagonal", "each weight depends on every score", (
        Edit(reinforce, "(sample - alpha)", "(sample * (1 - alpha))"),
    )),
    Mistake("baseline", "the baseline is missing", (
        Edit(choices_backward, "rewards - leave_one_out(rewards)", "rewards"),
    )),
    Mistake("own sample", OWN_SAMPLE, (Edit(choices_backward, "leave_one_out(rewards)", "rewards.mean(axis=0)"),)),
    Mistake("mask", "padded steps get a gradient", (Edit(choices_backward, "mask / (S * N)", "(0 * mask + 1) / (S * N)"),)),
    Mistake("batch", "it is not averaged over the samples", (Edit(choices_backward, "mask / (S * N)", "mask / N"),)),
    Mistake("batch", "it is not averaged over the captions", (Edit(choices_backward, "mask / (S * N)", "mask / S"),)),
    Mistake("reward", "the rewards of the choices are missing", (
        Edit(choices_backward, "reinforce(sample, alpha, share * advantage)", "0"),
    )),
    Mistake("entropy", "the entropy is missing", (Edit(choices_backward, "entropy_weight * share", "0 * share"),)),
    Mistake("entropy", "the sign of the entropy is wrong: it makes alpha sharper, not flatter", (
        Edit(choices_backward, "+ entropy_gradient", "- entropy_gradient"),
    )),
    Mistake("diagonal", "H is missing: each weight depends on every score", (
        Edit(entropy_gradient, "(x - alpha * x.sum(axis=-1, keepdims=True))", "x"),
    )),
    Mistake("expectation", "the log p of this word is not compared with its mean over the locations", (
        Edit(local_expectation, "(ahead - (alpha * ahead).sum(axis=-1, keepdims=True))", "ahead"),
    )),
    Mistake("expectation", "the log p of this word is missing", (
        Edit(local_expectation, "- alpha * (ahead", "- 0 * alpha * (ahead"),
    )),
    Mistake("expectation", "the reward of the later words is missing", (
        Edit(local_expectation, "reinforce(sample, alpha, advantage)", "0 * reinforce(sample, alpha, advantage)"),
    )),
    Mistake("mean", "the paths are not weighted by their probabilities", (
        Edit(bound_forward, "(p * rewards).sum()", "rewards.mean()"),
    )),
    Mistake("mean", "the paths are not weighted by their probabilities", (
        Edit(bound_backward, "\"p,ptl->tl\", p, cost", "\"p,ptl->tl\", 0 * p + 1 / len(p), cost"),
        Edit(bound_backward, "dbound * p", "dbound / len(p) + 0 * p")
    )),
    Mistake("mean", "the paths are summed without their probabilities as weights", (
        Edit(bound_backward, "\"p,ptl->tl\", p, cost", "\"p,ptl->tl\", 0 * p + 1, cost"),
    )),
)  # fmt: skip

A6 = (
    *(x for x in (*A1, *A4) if {edit.function for edit in x.edits} & {
        conv2d_forward, conv2d_backward_input, conv2d_backward_weights, embedding_backward,
    }),
    Mistake("steps", "only one step counts, not the sum over the steps", (
        Edit(all_scores_backward, "additive_keys_backward(dscores, queries,",
             "additive_keys_backward(dscores[-1:], queries[-1:],"),
    )),
    Mistake("steps", "only one step counts, not the sum over the steps", (
        Edit(all_scores_backward, "additive_keys_backward(dscores, queries,",
             "additive_keys_backward(dscores[:1], queries[:1],"),
    )),
)  # fmt: skip

MISTAKES = {"A1": A1, "A2": A2, "A3": A3, "A4": A4, "A5": A5, "A6": A6}
