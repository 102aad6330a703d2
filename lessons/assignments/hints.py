"""Two hints for each function to write: the first stands in the stub, `python check.py --hint NAME` gives the second."""

HINTS = {
    # A1
    "conv2d_forward": (
        "Pad x with zeros once. With which cells of the padded x is one cell (i, j) of the kernel multiplied? A slice "
        "selects them.",
        "Loop over i and j alone: x[:, window(i, stride, P), window(j, stride, Q)] @ W[i, j] is (N, P, Q, F); add these, "
        "then b.",
    ),
    "conv2d_backward": (
        "The forward is a sum over i and j of products; take the two factors of one product and write the gradient of each.",
        "With the same slices as in the forward: dW[i, j] sums x[slices] times dout over N, P, Q; dout @ W[i, j].T is ADDED "
        "to the "
        "same slices of a zero array of the padded shape. Cut the padding off at the end. b is added everywhere, so db is a "
        "sum.",
    ),
    "max_pool_forward": (
        "Collect the K x K slices of x, one for each place in a window, and take the largest, element by element.",
        "With ceil=True pad the far side with minus infinity, as far as the last window reaches; P and Q are "
        "output_size(..., ceil=ceil).",
    ),
    "max_pool_backward": (
        "Which one cell of each window was the output? It gets all of dout of the window, the others get 0.",
        "Go through the K x K places in reading order; a cell takes dout where it equals out and no earlier cell has taken "
        "it. "
        "Use += on dx: windows may overlap.",
    ),
    "average_pool_forward": (
        "It is a convolution whose kernel is 1 / K^2 everywhere, for each channel.",
        "Add the K x K slices of x, then divide by K * K.",
    ),
    "average_pool_backward": (
        "Each cell of a window has the same share in its mean.",
        "Add dout / K^2 to each of the K x K slices of a zero array of the shape of x.",
    ),
    # A2
    "lstm_cell_forward": (
        "Cut the columns into four parts of H, in the order i, f, o, g.",
        "The backward needs c_prev, the four gates and tanh(c): put them into the cache.",
    ),
    "lstm_cell_backward": (
        "Draw the cell: c goes to h through o tanh(c), and out to the next step. Add up its two gradients first.",
        "With dc complete, c = f c_prev + i g gives df, dc_prev, di and dg: in a product each factor gets dc times the "
        "other one. o gets its gradient from h. Then each goes back through its own sigmoid or tanh.",
    ),
    "lstm_forward": (
        "A step is x_t W_x + h W_h + b into the cell. Keep, for each step, h of the step before and the cell's cache.",
        "After the cell: h = m h_new + (1 - m) h, with m of shape (N, 1); the same for c.",
    ),
    "lstm_backward": (
        "Walk from the last step to the first. Two arrays go from step to step: dh and dc.",
        "At step t: dh += dout[t]; the cell gets m dh and m dc; what it returns goes on, plus (1 - m) times the old dh and "
        "dc.",
    ),
    # A3
    "additive_scores_forward": (
        "query has one row for each caption, keys one for each location: give query a new axis.",
        "tanh(keys + query[:, None]) is (N, L, A); its product with v is (N, L).",
    ),
    "additive_scores_backward": (
        "First the gradient of the sum inside the tanh, (N, L, A). dkeys and dquery come from it, dv from the tanh.",
        "d = dscores[:, :, None] * v * (1 - tanh^2) is dkeys; query was repeated over L, so dquery sums it over L. dv has "
        "the tanh.",
    ),
    "softmax_forward": (
        "A constant that is subtracted from all scores of a row changes nothing: which one keeps exp small?",
        "Subtract the row's largest score (axis=-1, keepdims=True), exp, divide by the row's sum.",
    ),
    "softmax_backward": (
        "d alpha_i / d e_k is alpha_i (1 - alpha_i) for i = k and -alpha_i alpha_k for others: sum over i.",
        "The sum is alpha_k (dalpha_k - m) with one number m for each row: the mean of dalpha, weighted by alpha.",
    ),
    "context_forward": (
        "Multiply each location's vector by its weight, then sum over the locations.",
        "alpha[:, :, None] * annotations, summed over axis 1.",
    ),
    "context_backward": (
        "A product of two factors: each one's gradient is dcontext times the other one.",
        "dalpha sums over D (alpha_i is one number for D products); dannotations has dcontext at every location.",
    ),
    "gate_forward": (
        "beta = sigmoid(h W + b) has G columns; with G = 1 NumPy repeats it over the D features.",
        "Keep h, context, W and beta for the backward.",
    ),
    "gate_backward": (
        "z is a product of beta and context. With G = 1 one beta is in D products.",
        "dbeta = dz * context, summed over D if G = 1 and not if G = D; then times beta (1 - beta), and an affine map's "
        "backward.",
    ),
    "look_forward": (
        "Write the lines in the order of the docstring's formula, a line a layer, and keep every cache.",
        "keys: affine_forward of annotations as (N * L, D) with b; query: affine_forward of h with np.zeros_like(b).",
    ),
    "look_backward": (
        "The forward's lines, from the last to the first. Where a value was used twice, add its two gradients.",
        "Twice are used: h (gate and query), annotations (context and keys), alpha (context, and outside: dalpha). "
        "Add at alpha BEFORE the softmax's backward.",
    ),
    "doubly_stochastic_forward": (
        "What is squared is one number for each caption and location: 1 minus a sum over the steps.",
        "((mask[:, :, None] * alphas).sum(axis=0) - 1)^2, summed over L, averaged over N.",
    ),
    "doubly_stochastic_backward": (
        "The square's gradient is 2 (sum over ALL steps - 1); it is the same for each step that counts.",
        "Multiply it by dpenalty / N, and by the mask of the step.",
    ),
    # A4
    "embedding_forward": ("An array of ids as an index selects rows.", "E[ids]; the backward needs ids and the shape of E."),
    "embedding_backward": (
        "A word that occurs twice uses its row twice.",
        "np.add.at adds every row; dE[ids] += dout keeps only one row of a word that occurs twice.",
    ),
    "cross_entropy_forward": (
        "Work with the logarithm of the softmax all the way.",
        "log p = e - max e - log(sum of exp(e - max e)); select the column of each target, multiply by the weights.",
    ),
    "cross_entropy_backward": (
        "The gradient of -log softmax(e)[y] with respect to e is short: p minus something.",
        "In p, what is subtracted, and in which column of each row? Then multiply by the weights and by dloss.",
    ),
    "initial_state_forward": (
        "The mean over L, then two affine maps with a tanh each.",
        "Keep the mean, h, c, both weights and L.",
    ),
    "initial_state_backward": (
        "Go back through each tanh first. The mean is used twice, so it has two gradients.",
        "Add the two, divide by L, and give it to every location.",
    ),
    "deep_output_forward": ("A sum of four terms in one tanh.", "Keep h, z, both weights and the output itself."),
    "deep_output_backward": (
        "First go back through the tanh. Which gradient does each of the four terms of a sum get?",
        "After the tanh every term has dout (1 - out^2): words and b are added as they are; h L_h and z L_z are affine maps "
        "without bias.",
    ),
    "word_forward": (
        "The look reads h of the step before; the deep output reads h of this step.",
        "One affine map serves the gates: [E[y], h, z] times [W_x; W_h; W_z] stacked.",
    ),
    "word_backward": (
        "The forward's lines, from the last to the first; three values were used twice: E[y], h, z.",
        "h_t: from the deep output and from step t + 1. z: deep output and gates. h_{t-1}: gates and look.",
    ),
    "captioner_forward": (
        "First state, loop, loss; keep every cache and every alpha.",
        "The penalty takes all alphas at once, (T, N, L), and the mask as (T, N).",
    ),
    "captioner_backward": (
        "The penalty's backward comes before the loop, the first state's after it.",
        "In the loop, from the last step: cross-entropy, word_backward; add up what belongs to the weights and to a.",
    ),
    "train": (
        "Overfit ten captions first; then batches of 32, Adam, a rate that falls to 0.",
        "To caption: begin with id 0, take the argmax, feed it to the next step, T times.",
    ),
    # A5
    "draw": (
        "The index of the largest of e + g, for each row.",
        "Compare np.arange(L) with that index[..., None], and keep g's dtype.",
    ),
    "total": (
        "One number for each caption, repeated over T.",
        "Sum over the words that count, along axis 0, and add it to np.zeros_like(log_p): the same shape and dtype.",
    ),
    "to_go": ("A running sum that starts at the end.", "Reverse, cumsum, reverse: [::-1] twice, along axis 0."),
    "after": (
        "It is to_go without the step's own word.",
        "Subtract from to_go the log-probability of the step itself, if it counts.",
    ),
    "moving_average": (
        "The mean is over the images that were sampled: how many are they? What if there are none?",
        "np.where(count > 0, decay * baseline + (1 - decay) * mean, baseline), and divide by max(count, 1).",
    ),
    "leave_one_out": (
        "Subtract the sample's own reward from the sum of all. By how many do you divide?",
        "Axis 0 holds the samples of the same caption; no other axis is summed.",
    ),
    "reinforce": (
        "The gradient of log alpha[s] with respect to e is s - alpha. Mind the sign: a cost.",
        "The advantage has one axis less than the sample: give it one, [..., None]. A cost is minus the reward.",
    ),
    "local_expectation": (
        "The gradient of sum_i alpha_i l_i with respect to e is a softmax's backward with l upstream.",
        "Two terms, both with a minus: alpha * (l - alpha . l), and the estimator with the advantage.",
    ),
    "entropy": (
        "log alpha from log_softmax; where alpha is 0 the product is 0.",
        "l = log_softmax(scores) is finite also where alpha is 0, so exp(l) * l is 0 there.",
    ),
    "entropy_gradient": (
        "The gradient of sum alpha log alpha through the softmax: its mean, weighted by alpha, is -H.",
        "weight * (x - alpha * sum of x) with x = alpha log alpha, 0 where alpha is 0.",
    ),
    "bound_forward": (
        "every_path(T, L) gives one-hot rows (P, T, L). The probability of a path is a product over T.",
        "(sample * alpha).sum(axis=2).prod(axis=1), then the sum of p times rewards.",
    ),
    "bound_backward": (
        "For each path call reinforce with its reward at every step; weight by p, sum over the paths.",
        "reinforce is the gradient of a cost, so a minus; and everything times dbound. drewards = dbound p.",
    ),
    "choices_backward": (
        "Rewards (S, T, N) by total for each sample; advantage = rewards minus leave_one_out.",
        "share = mask / (S N) multiplies the advantage; share * entropy_weight, an array, is the entropy's weight. Add both "
        "gradients.",
    ),
    # A6
    "all_scores_forward": (
        "What does not depend on t? What can be one product for all t?",
        "annotations as (N * L, D) times W_a, plus b, once; h as (T * N, H) times W_s, once; then the "
        "tanh a step at a time.",
    ),
    "all_scores_backward": (
        "The gradient inside the tanh, (T, N, L, A), is summed over T for the keys and over L for the query.",
        "Sum it over T as you go; then two matrix products give dW_a and dannotations, two give dW_s and dh.",
    ),
}
