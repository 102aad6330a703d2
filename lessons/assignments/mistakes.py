"""What people get wrong, planted in satnp's source: an array that equals what a mistake gives is told as that mistake.

Of several that give the same array the first is named. A sentence says what kind of wrong it is, never what is right.
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
    Mistake("flipped", "the kernel is turned around", (
        Edit(conv2d_forward, "_correlate(x, W, b", "_correlate(x, W[::-1, ::-1], b"),
        Edit(conv2d_backward_input, "WT[i, j]", "WT[K - 1 - i, K - 1 - j]"),
        Edit(conv2d_backward_weights, "W, stride, padding)\n    dout",
             "W, stride, padding)[::-1, ::-1].copy()\n    dout")
    )),
    Mistake("term", "the bias is not in it", (Edit(conv2d_forward, "_correlate(x, W, b", "_correlate(x, W, 0 * b"),)),
    Mistake("step", "the cells are shifted: the padding is not cut off where it was put on", (
        Edit(conv2d_backward_input, "dx[:, padding : padding + R, padding : padding + S]", "dx[:, :R, :S]"),
    )),
    Mistake("step", "the window that is read is one cell off", (
        Edit(conv2d_backward_input, "dx[photos, window(i, stride, P), window(j, stride, Q)] +=",
             "dx[photos, window((i + 1) % K, stride, P), window(j, stride, Q)] +="),
    )),
    Mistake("batch", "it hears of the first photo alone: a sum over the batch is due", (
        Edit(conv2d_backward_weights, "x, W, stride, padding = cache",
             "x, W, stride, padding = cache\n    x, dout = x[:1], dout[:1]"),
    )),
    Mistake("overlap", "where windows overlap the last one wins, in place of a sum", (
        Edit(conv2d_backward_input, "window(j, stride, Q)] += fed", "window(j, stride, Q)] = fed"),
        Edit(max_pool_backward, "taken += dx[cells]", "taken = np.where(taken != 0, taken, dx[cells])"),
        Edit(average_pool_backward, "window(j, stride, Q)] += dout", "window(j, stride, Q)] = dout")
    )),
    Mistake("overlap", "where windows overlap the last one wins, in place of a sum", (
        Edit(max_pool_backward, "    return dx",
             "    for n, p, q, c in np.ndindex(out.shape):\n"
             "        seen = padded[n, p * stride : p * stride + K, q * stride : q * stride + K, c]\n"
             "        i, j = np.unravel_index(seen.argmax(), seen.shape)\n"
             "        dx[n, p * stride + i, q * stride + j, c] = dout[n, p, q, c]\n    return dx"),
    )),
    Mistake("overlap", "where windows overlap the last one wins, in place of a sum", (
        Edit(max_pool_backward, "taken += dx[cells]", "pass"),
    )),
    Mistake("stride", "the stride is not in it", (
        Edit(conv2d_backward_input, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)"),
        Edit(average_pool_backward, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)"),
        Edit(max_pool_backward, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)")
    )),
    Mistake("padding", "a cell that is not there counts as 0", (Edit(max_pool_forward, "-xp.inf", "0"),)),
    Mistake("spread", "every cell of a window hears its gradient, and not the largest alone", (
        Edit(max_pool_backward, "left -= taken", "pass"),
        Edit(max_pool_backward, "(padded[cells] == out[photos])", "(padded[cells] == padded[cells])")
    )),
)  # fmt: skip

A2 = (
    Mistake("c-path", "what c of a step is told by the step after it is lost", (
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = 0 * dc_prev"),
    )),
    Mistake("c-path", "what c of a step is told by the step after it is lost", (
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = (1 - live) * dc"),
    )),
    Mistake("c-path", "what c is told by the step after it, dc, is lost", (
        Edit(_cell_gradient, "dc = dc + dh * o", "dc = dh * o"),
    )),
    Mistake("h-path", "what h of a step is told by the step after it is lost", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = (1 - live) * dh"),
    )),
    Mistake("h-path", "what c is told by h is lost", (
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
    Mistake("slope", "the slope of tanh(c) is not in it", (
        Edit(_cell_gradient, "dc = dc + dh * o * (1 - tanh_c * tanh_c)", "dc = dc + dh * o"),
    )),
    Mistake("slope", "the slopes of the gates are not in it", (
        Edit(_cell_gradient, "return di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g * g), dc_prev",
             "return di, df, do, dg, dc_prev"),
    )),
    Mistake("step", "c of this step stands where that of the step before is due", (
        Edit(_cell_gradient, "df = dc * c_prev", "df = dc * (f * c_prev + i * g)"),
    )),
    Mistake("step", "h of this step stands where that of the step before is due", (
        Edit(lstm_backward, "dW_h += before[t].T @ dgates",
             "dW_h += (before[t + 1] if t + 1 < len(x) else before[t]).T @ dgates"),
    )),
    Mistake("step", "h of this step stands where that of the step before is due", (
        Edit(lstm_forward, "out.append(h)", "out.append(h)\n        before[-1] = h"),
    )),
    Mistake("step", "it hears of the step before", (
        Edit(lstm_backward, "dW_x += x[t].T", "dW_x += x[t - 1].T"),
        Edit(lstm_backward, "dW_h += before[t].T", "dW_h += before[t - 1].T")
    )),
    Mistake("step", "it hears of the step before", (
        Edit(lstm_backward, "dW_x += x[t].T", "dW_x += x[max(t - 1, 0)].T"),
        Edit(lstm_backward, "dW_h += before[t].T", "dW_h += before[max(t - 1, 0)].T")
    )),
    Mistake("step", "it is off by one step", (Edit(lstm_backward, "dh + dout[t]", "dh + dout[max(t - 1, 0)]"),)),
    Mistake("steps", "one step alone is in it: a sum over time is due", (
        Edit(lstm_backward, "dW_x += ", "dW_x[...] = "),
        Edit(lstm_backward, "dW_h += ", "dW_h[...] = "),
        Edit(lstm_backward, "db += ", "db[...] = ")
    )),
    Mistake("batch", "it hears of the first sentence alone: a sum over the batch is due", (
        Edit(lstm_backward, "dW_x += x[t].T @ dgates", "dW_x += x[t][:1].T @ dgates[:1]"),
        Edit(lstm_backward, "dW_h += before[t].T @ dgates", "dW_h += before[t][:1].T @ dgates[:1]"),
        Edit(lstm_backward, "db += dgates.sum(axis=0)", "db += dgates[0]")
    )),
    Mistake("batch", "it hears of the last sentence alone: a sum over the batch is due", (
        Edit(lstm_backward, "dW_x += x[t].T @ dgates", "dW_x += x[t][-1:].T @ dgates[-1:]"),
        Edit(lstm_backward, "dW_h += before[t].T @ dgates", "dW_h += before[t][-1:].T @ dgates[-1:]"),
        Edit(lstm_backward, "db += dgates.sum(axis=0)", "db += dgates[-1]")
    )),
    Mistake("mask", "the mask is not looked at", (
        Edit(lstm_forward, "zip(x, mask[:, :, None]", "zip(x, 0 * mask[:, :, None] + 1"),
    )),
    Mistake("mask", "the mask is not looked at on the way back", (
        Edit(lstm_backward, "live, dh = mask[t][:, None],", "live, dh = 0 * mask[t][:, None] + 1,"),
    )),
    Mistake("mask", "a step that is over writes to the gradients", (
        Edit(lstm_backward, "(live * dh, live * dc)", "(dh, dc)"),
    )),
    Mistake("mask", "a step that is over passes nothing on to the step before it", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = dgates @ W_h.T"),
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = dc_prev")
    )),
    Mistake("mask", "a step that is over passes nothing on through h to the step before it", (
        Edit(lstm_backward, "dh = dgates @ W_h.T + (1 - live) * dh", "dh = dgates @ W_h.T"),
    )),
)  # fmt: skip

A3 = (
    Mistake("diagonal", "of the softmax's derivative only the diagonal is there: each weight depends on every score", (
        Edit(softmax_gradient, "alpha * (dalpha - (alpha * dalpha).sum(axis=-1, keepdims=True))",
             "alpha * dalpha * (1 - alpha)"),
    )),
    Mistake("diagonal", "what each weight takes from the others is not there", (
        Edit(softmax_gradient, "alpha * (dalpha - (alpha * dalpha).sum(axis=-1, keepdims=True))", "alpha * dalpha"),
    )),
    Mistake("beta", "what h is told by the gate is lost: beta depends on h too", (
        Edit(look_backward, "dh + dh_gate", "dh"),
    )),
    Mistake("path", "what h is told by the scores is lost", (Edit(look_backward, "dh + dh_gate", "dh_gate"),)),
    Mistake("beta", "the gate is not in it", (Edit(gate_backward, "dcontext = dz * beta", "dcontext = dz + 0 * beta"),)),
    Mistake("penalty", "what the weights are told from elsewhere, by the penalty, is lost", (
        Edit(look_backward, "dalpha + dalpha_context", "dalpha_context"),
    )),
    Mistake("penalty", "what the weights are told by the penalty goes through the softmax too", (
        Edit(look_backward, "softmax_backward(dalpha + dalpha_context, cache.softmax)",
             "softmax_backward(dalpha_context, cache.softmax) + dalpha"),
    )),
    Mistake("path", "what the weights are told by the context is lost", (
        Edit(look_backward, "dalpha + dalpha_context", "dalpha"),
    )),
    Mistake("path", "what the annotations are told by the keys is lost", (
        Edit(look_backward, "dannotations + drows.reshape(dannotations.shape)", "dannotations"),
    )),
    Mistake("path", "what the annotations are told by the context is lost", (
        Edit(look_backward, "dannotations + drows.reshape(dannotations.shape)", "drows.reshape(dannotations.shape)"),
    )),
    Mistake("slope", "the slope of the sigmoid is not in it", (
        Edit(gate_gradient, "* beta * (1 - beta)", "+ 0 * beta"),
        Edit(gate_backward_preactivation, "sigmoid_gradient(dz * cache.context, cache.beta, out=(out,))",
             "dz * cache.context")
    )),
    Mistake("batch", "it hears of the first of the batch alone: a sum over the batch is due", (
        Edit(gate_backward, "h.T @ dpre, dpre.sum(axis=0)", "h[:1].T @ dpre[:1], dpre[0]"),
    )),
    Mistake("slope", "the slope of the tanh is not in it", (
        Edit(additive_scores_backward, "    dkeys, dv",
             "    keys, _, v, _ = cache\n    dpre = dscores[:, :, None] * v + 0 * keys\n"
             "    return dpre, dpre.sum(axis=1), additive_keys_backward(dscores[None], cache.query[None], cache)[1], "
             "dscores.sum().reshape(1)\n    dkeys, dv"),
    )),
    Mistake("locations", "the query hears of one location alone: a sum over all of them is due", (
        Edit(additive_query_backward, "np.dot(dscores[n], of_photo, out", "np.dot(dscores[n][:1], of_photo[:1], out"),
    )),
    Mistake("locations", "the weights are not in it: the mean location in place of the weighted sum", (
        Edit(context_forward, "_weighted_sum(alpha,", "_weighted_sum(0 * alpha + 1 / alpha.shape[1],"),
    )),
    Mistake("mask", "the mask is not looked at", (
        Edit(doubly_stochastic_forward, "(mask[:, :, None] * alphas)", "alphas"),
        Edit(doubly_stochastic_backward, "_spread(mask[:, :, None], ", "_spread(0 * mask[:, :, None] + 1, ")
    )),
    Mistake("mask", "the mask is not looked at on the way back", (
        Edit(doubly_stochastic_backward, "_spread(mask[:, :, None], ", "_spread(0 * mask[:, :, None] + 1, "),
    )),
    Mistake("term", "the 1 that is wanted of every place is not in it", (
        Edit(doubly_stochastic_forward, ".sum(axis=0) - 1", ".sum(axis=0)"),
    )),
)  # fmt: skip

A4 = (
    Mistake("repeated", "of a word that occurs twice only one occurrence counts", (
        Edit(embedding_backward, "dE[words] = np.add.reduceat(dout[order], starts)", "dE[ids] = dout"),
    )),
    Mistake("repeated", "of a word that occurs twice only one occurrence counts", (
        Edit(embedding_backward, "np.add.reduceat(dout[order], starts)", "dout[order][starts]"),
    )),
    Mistake("repeated", "the mean over a word's occurrences in place of their sum", (
        Edit(embedding_backward, "np.add.reduceat(dout[order], starts)",
             "np.add.reduceat(dout[order], starts) / np.bincount(ids)[words][:, None]"),
    )),
    Mistake("target", "that the word which was said should be the likeliest is not in it", (
        Edit(cross_entropy_backward, "] -= scale[:, 0]", "] -= 0"),
    )),
    Mistake("mask", "the weights, which are 0 for padding, are not looked at", (
        Edit(cross_entropy_forward, "(weights * log_p)", "log_p"),
        Edit(cross_entropy_backward, "(dloss * weights)", "(dloss + 0 * weights)")
    )),
    Mistake("mask", "the weights, which are 0 for padding, are not looked at on the way back", (
        Edit(cross_entropy_backward, "(dloss * weights)", "(dloss + 0 * weights)"),
    )),
    Mistake("slope", "the slope of the tanh is not in it", (
        Edit(deep_output_backward, "dpre = tanh_gradient(dout, out)", "dpre = dout"),
        Edit(initial_state_backward, "tanh_gradient(dc, cache.c)", "dc"),
        Edit(initial_state_backward, "tanh_gradient(dh, cache.h)", "dh")
    )),
    Mistake("path", "what the annotations are told by one of the two states is lost", (
        Edit(_of_each_location, "(dmean_h + dmean_c)", "dmean_h"),
    )),
    Mistake("path", "what the annotations are told by one of the two states is lost", (
        Edit(_of_each_location, "(dmean_h + dmean_c)", "dmean_c"),
    )),
    Mistake("batch", "it hears of the first of the batch alone: a sum over the batch is due", (
        Edit(deep_output_backward, "return dpre, dh, dz, dL_h, dL_z, dpre.sum(axis=0)",
             "return dpre, dh, dz, h[:1].T @ dpre[:1], z[:1].T @ dpre[:1], dpre[0]"),
    )),
    Mistake("step", "the word that is read stands where the word to be said is due", (
        Edit(captioner_forward, "captions[:, t + 1], mask", "captions[:, t], mask"),
    )),
    Mistake("step", "every step is one word behind", (
        Edit(captioner_forward, "captions[:, t], h, c", "captions[:, max(t - 1, 0)], h, c"),
        Edit(captioner_forward, "captions[:, t + 1], mask", "captions[:, t], mask")
    )),
    Mistake("step", "the word to be said is read before it is said", (
        Edit(captioner_forward, "captions[:, t], h, c", "captions[:, t + 1], h, c"),
    )),
    Mistake("mask", "padded words count", (Edit(captioner_forward, "mask[:, t] / N", "0 * mask[:, t] + 1 / N"),)),
    Mistake("mask", "padded steps count in the penalty", (
        Edit(captioner_forward, "np.stack(alphas), mask.T", "np.stack(alphas), 0 * mask.T + 1"),
    )),
    Mistake("mask", "the mask is looked at nowhere", (
        Edit(captioner_forward, "mask[:, t] / N", "0 * mask[:, t] + 1 / N"),
        Edit(captioner_forward, "np.stack(alphas), mask.T", "np.stack(alphas), 0 * mask.T + 1")
    )),
    Mistake("batch", "the words are summed over the batch, where a mean over the captions is due", (
        Edit(captioner_forward, "mask[:, t] / N", "mask[:, t]"),
    )),
    Mistake("batch", "the mean over all words in place of that over the captions", (
        Edit(captioner_forward, "mask[:, t] / N", "mask[:, t] / mask.sum()"),
    )),
    Mistake("penalty", "the penalty is not in it", (Edit(captioner_forward, "loss + penalty", "loss"),)),
    Mistake("penalty", "what the weights alpha are told by the penalty is lost", (
        Edit(captioner_backward, "dc, dalphas[t])", "dc, 0 * dalphas[t])"),
    )),
    Mistake("step", "what alpha is told by the penalty is that of another step", (
        Edit(captioner_backward, "dc, dalphas[t])", "dc, dalphas[t - 1])"),
    )),
    Mistake("c-path", "what c of a step is told by the step after it is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh + dh_out, 0 * dc)"),
    )),
    Mistake("c-path", "what c of a step is told by the step after it is lost", (
        Edit(captioner_backward, "dannotations = dannotations + dseen",
             "dannotations, dc = dannotations + dseen, 0 * dc"),
    )),
    Mistake("h-path", "what h of a step is told by the step after it is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh_out, dc)"),
    )),
    Mistake("path", "what h of a step is told by its own word is lost", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh, dc)"),
    )),
    Mistake("path", "what h of the step before is told by the look is lost: the scores and beta depend on it", (
        Edit(word_backward, "return dannotations, dh + dh_look", "return dannotations, dh"),
    )),
    Mistake("path", "what h of the step before is told by the gates is lost", (
        Edit(word_backward, "return dannotations, dh + dh_look", "return dannotations, dh_look"),
    )),
    Mistake("path", "what z is told by the gates is lost", (Edit(word_backward, "dz + dx[:, M + H :]", "dz"),)),
    Mistake("path", "what z is told by the deep output is lost", (
        Edit(word_backward, "dz + dx[:, M + H :]", "dx[:, M + H :]"),
    )),
    Mistake("path", "what E is told by the gates is lost", (Edit(word_backward, "dEy + dx[:, :M]", "dEy"),)),
    Mistake("path", "what E is told by the deep output is lost", (Edit(word_backward, "dEy + dx[:, :M]", "dx[:, :M]"),)),
    Mistake("steps", "one step alone is in it: a sum over time is due", (
        Edit(captioner_backward, "Weights(*(g + m for", "Weights(*(0 * g + m for"),
        Edit(captioner_backward, "dannotations = dannotations + dseen", "dannotations = dseen")
    )),
    Mistake("path", "what the annotations are told by the first state is lost", (
        Edit(captioner_backward, "dannotations + dmean,", "dannotations,"),
    )),
    Mistake("path", "what the annotations are told by the looks is lost", (
        Edit(captioner_backward, "dannotations + dmean,", "dmean,"),
    )),
)  # fmt: skip

OWN_SAMPLE = "the own sample is in the baseline, which must not depend on it"

A5 = (
    Mistake("draw", "the Gumbel numbers have the wrong sign", (Edit(draw, "scores + gumbel", "scores - gumbel"),)),
    Mistake("draw", "it is the likeliest place, not a drawn one", (
        Edit(draw, "(scores + gumbel)", "(scores + 0 * gumbel)"),
    )),
    Mistake("mask", "words that do not count are in it", (Edit(total, "(mask * log_p)", "log_p"),)),
    Mistake("mask", "words that do not count are in it", (
        Edit(to_go, "(mask * log_p)", "log_p"),
        Edit(after, "mask * log_p", "log_p")
    )),
    Mistake("step", "it is off by one step: this word is not in it", (
        Edit(to_go, "    return (mask * log_p)[::-1].cumsum(axis=0)[::-1]",
             "    return (mask * log_p)[::-1].cumsum(axis=0)[::-1] - mask * log_p"),
    )),
    Mistake("step", "it is off by one step: this word is in it", (
        Edit(after, "to_go(log_p, mask) - mask * log_p", "to_go(log_p, mask)"),
    )),
    Mistake("step", "it is the sum up to step t, of words that this choice cannot change", (
        Edit(to_go, "(mask * log_p)[::-1].cumsum(axis=0)[::-1]", "(mask * log_p).cumsum(axis=0)"),
    )),
    Mistake("step", "it is the sum up to step t, of words that this choice cannot change", (
        Edit(after, "to_go(log_p, mask) - mask * log_p", "(mask * log_p).cumsum(axis=0) - mask * log_p"),
    )),
    Mistake("step", "it is this step's word alone, where a sum is due", (
        Edit(to_go, "(mask * log_p)[::-1].cumsum(axis=0)[::-1]", "mask * log_p"),
    )),
    Mistake("mask", "images that were not sampled are in it", (
        Edit(moving_average, "(sampled * reward).sum()", "reward.sum()"),
        Edit(moving_average, "sampled.sum()", "len(sampled)")
    )),
    Mistake("mask", "images that were not sampled are counted", (
        Edit(moving_average, "maximum(count, 1)", "maximum(len(sampled), 1)"),
    )),
    Mistake("decay", "the old and the new are weighed the wrong way round", (
        Edit(moving_average, "decay * baseline + (1 - decay) * mean", "(1 - decay) * baseline + decay * mean"),
    )),
    Mistake("decay", "the old is not weighed", (
        Edit(moving_average, "decay * baseline + (1 - decay) * mean", "baseline + (1 - decay) * mean"),
    )),
    Mistake("own sample", OWN_SAMPLE, (
        Edit(leave_one_out, "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)", "0 * rewards + rewards.mean(axis=0)"),
    )),
    Mistake("own sample", "it is divided by all samples, where those without the own one are due", (
        Edit(leave_one_out, "(len(rewards) - 1)", "len(rewards)"),
    )),
    Mistake("batch", "the mean is not over the samples of one caption", (
        Edit(leave_one_out, "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)",
             "(rewards.sum() - rewards) / (rewards.size - 1)"),
    )),
    Mistake("term", "alpha is not in it: the score of a choice is lost in part", (
        Edit(reinforce, "(sample - alpha)", "sample"),
    )),
    Mistake("diagonal", "each weight depends on every score", (
        Edit(reinforce, "(sample - alpha)", "(sample * (1 - alpha))"),
    )),
    Mistake("baseline", "the baseline is not in it", (
        Edit(choices_backward, "rewards - leave_one_out(rewards)", "rewards"),
    )),
    Mistake("own sample", OWN_SAMPLE, (Edit(choices_backward, "leave_one_out(rewards)", "rewards.mean(axis=0)"),)),
    Mistake("mask", "padded steps hear something", (Edit(choices_backward, "mask / (S * N)", "(0 * mask + 1) / (S * N)"),)),
    Mistake("batch", "the mean over the samples is not taken", (Edit(choices_backward, "mask / (S * N)", "mask / N"),)),
    Mistake("batch", "the mean over the captions is not taken", (Edit(choices_backward, "mask / (S * N)", "mask / S"),)),
    Mistake("reward", "what the choices were worth is not in it", (
        Edit(choices_backward, "reinforce(sample, alpha, share * advantage)", "0"),
    )),
    Mistake("entropy", "the entropy is not in it", (Edit(choices_backward, "entropy_weight * share", "0 * share"),)),
    Mistake("entropy", "the entropy's sign is wrong: it sharpens alpha where it should spread it", (
        Edit(choices_backward, "+ entropy_gradient", "- entropy_gradient"),
    )),
    Mistake("diagonal", "H is not in it: each weight depends on every score", (
        Edit(entropy_gradient, "(x - alpha * x.sum(axis=-1, keepdims=True))", "x"),
    )),
    Mistake("expectation", "what this word is worth is not compared with its mean", (
        Edit(local_expectation, "(ahead - (alpha * ahead).sum(axis=-1, keepdims=True))", "ahead"),
    )),
    Mistake("expectation", "what this word is worth is not in it", (
        Edit(local_expectation, "- alpha * (ahead", "- 0 * alpha * (ahead"),
    )),
    Mistake("expectation", "what the later words are worth is not in it", (
        Edit(local_expectation, "reinforce(sample, alpha, advantage)", "0 * reinforce(sample, alpha, advantage)"),
    )),
    Mistake("mean", "the paths are not weighed by their probabilities", (
        Edit(bound_forward, "(p * rewards).sum()", "rewards.mean()"),
    )),
    Mistake("mean", "the paths are not weighed by their probabilities", (
        Edit(bound_backward, "\"p,ptl->tl\", p, cost", "\"p,ptl->tl\", 0 * p + 1 / len(p), cost"),
        Edit(bound_backward, "dbound * p", "dbound / len(p) + 0 * p")
    )),
    Mistake("mean", "the paths are summed and not weighed by their probabilities", (
        Edit(bound_backward, "\"p,ptl->tl\", p, cost", "\"p,ptl->tl\", 0 * p + 1, cost"),
    )),
)  # fmt: skip

A6 = (
    *(x for x in (*A1, *A4) if {edit.function for edit in x.edits} & {
        conv2d_forward, conv2d_backward_input, conv2d_backward_weights, embedding_backward,
    }),
    Mistake("steps", "one step alone is in it: a sum over the steps is due", (
        Edit(all_scores_backward, "additive_keys_backward(dscores, queries,",
             "additive_keys_backward(dscores[-1:], queries[-1:],"),
    )),
    Mistake("steps", "one step alone is in it: a sum over the steps is due", (
        Edit(all_scores_backward, "additive_keys_backward(dscores, queries,",
             "additive_keys_backward(dscores[:1], queries[:1],"),
    )),
)  # fmt: skip

MISTAKES = {"A1": A1, "A2": A2, "A3": A3, "A4": A4, "A5": A5, "A6": A6}
