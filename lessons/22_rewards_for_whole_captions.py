# %% [markdown]
# # 22 Rewards for whole captions: self-critical training
#
# - time: 75 minutes
# - cpu: 55 seconds
# - before: 09, 12, 13, 14
# - equations: Rennie et al. 2017, eqs. 1-9
# - about: satnp.training.self_critical.weighted
#
# Cross-entropy trains a captioner to predict the next word of captions that people wrote. But the captioner is judged by
# the whole captions that it writes itself, with scores such as CIDEr (lesson 14). A score counts words and has no derivative
# with respect to the parameters. The expected score of a drawn caption does have one. This lesson computes its gradient
# exactly, by enumerating all captions of a tiny captioner. Then it estimates the gradient from a few drawn captions, as
# self-critical training does, and trains a real captioner with three different rewards.

# %% [markdown]
# The names:
#
# | name | shape | meaning |
# |---|---|---|
# | `captions` $y$ | (R, T) | R captions of T words; every entry after `<end>` is `<end>` |
# | `p` | (R,) | the probability of each caption, $p(y)$ |
# | `r` | (R,) | the reward of each caption, a number computed by any program |
# | `J` | () | the expected reward, $\sum_y p(y) r(y)$ |
# | `b` | () or (R,) | a baseline, which is subtracted from the reward |
#
# $dx$ is the derivative of a loss with respect to $x$. The loss here is $-J$, since training makes a loss small.

# %%
from itertools import product

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure

from satnp import load
from satnp.arrays.optim import adam
from satnp.captioners import show_and_tell, show_attend_tell
from satnp.data.captions import END, START, Vocabulary
from satnp.data.scenes import is_true, make_scenes
from satnp.decoding import beam_search
from satnp.proof.gradcheck import numeric_gradient
from satnp.scores.metrics import cider_d, document_frequency
from satnp.training import self_critical

np.set_printoptions(precision=4, suppress=True, linewidth=78)

# %% [markdown]
# ## Predict
#
# A captioner can write three captions of a photo. Their probabilities are a softmax of three numbers,
# $z = (\log 2, 0, 0)$, and their rewards are $r = (4, 0, 8)$.
#
# 1. What is the expected reward?
# 2. To increase it, which of the three $z$ would you raise, which would you lower, and which would you leave as it is?
# 3. Now you may not see all three rewards: you draw one caption, and see its reward alone. It is the first caption, with
#    reward 4. Would you raise its probability?

# %% [markdown]
# ## Run
#
# These are the numbers of the first example of lesson 09, with captions in place of locations: the expected reward is a mean
# of the rewards, weighted by a softmax, exactly as the context is a mean of the annotations. So the derivative is the same:
#
# $$
# \frac{\partial J}{\partial z_k} = p_k (r_k - J)
# $$

# %%
z, r = np.array([np.log(2), 0.0, 0.0]), np.array([4.0, 0.0, 8.0])
p = np.exp(z) / np.exp(z).sum()
J = (p * r).sum()
print("p", p, " expected reward", J, " dJ/dz", p * (r - J))

# %% [markdown]
# The first caption has the reward 4, which is the mean: its probability should stay as it is. A positive reward does not
# mean that a caption is good. What counts is the difference from what the captioner gets on average.
#
# ### A captioner whose captions can be listed
#
# With three captions there is nothing to estimate. With 20 words and captions of 10 words there are $20^{10}$ captions, and
# nobody can list them. Between the two is a captioner with four words and captions of at most four. It is a small RNN. The
# photo is one vector $a$, and
#
# $$
# \begin{aligned}
# h_0 &= a W_a \\
# h_t &= \tanh(E[y_{t-1}] + h_{t-1} W_h) \\
# p(y_t) &= \operatorname{softmax}(h_t W_p)
# \end{aligned}
# $$
#
# Its captions have at least one word, and never contain `<pad>`, `<start>` or `<unk>`: the logits of these words are set to
# $-\infty$. The reward is CIDEr-D against the two references of the first photo; the other photos only make the weights of
# the n-grams (lesson 14). `<end>` counts as a word, for a reason that "Break it" shows.

# %%
vocabulary = Vocabulary(["<pad>", "<start>", "<end>", "<unk>", "a", "red", "blue", "square"])
references = [["a red square", "red square"], ["a blue square", "blue square"], ["a blue square", "a square"], ["a square"]]
reward_of = self_critical.Reward(vocabulary, [[text.split() for text in texts] for texts in references])
T, V, H = 4, len(vocabulary.words), 6
words = [vocabulary.words.index(word) for word in ("a", "red", "blue", "square")]
captions = np.array([
    [*said, *[END] * (T - length)] for length in range(1, T + 1) for said in product(words, repeat=length)
])  # fmt: skip
ended = np.cumsum(captions == END, axis=1) - (captions == END)
mask = (ended == 0).astype(float)  # 1 for each word, and for the <end> that ends the caption
r = reward_of(np.zeros(len(captions), int), captions)  # each is a caption of the first photo
print(len(captions), "captions; the best of them:")
for k in np.argsort(-r)[:4]:
    print(f"  {' '.join(vocabulary.decode(captions[k])):24} reward {r[k]:.3f}")


# %%
def log_softmax(x):
    x = x - x.real.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def policy_forward(params, captions):
    """The log-probabilities of all words at each step: captions (R, T) -> log_p (T, R, V), cache"""
    R, h, log_p, states = len(captions), params["a"] @ params["W_a"], [], []
    h = np.repeat(h[None], R, axis=0)
    read = np.concatenate([np.full((R, 1), START), captions[:, :-1]], axis=1)
    for t in range(T):
        h_prev, h = h, np.tanh(params["E"][read[:, t]] + h @ params["W_h"])
        logits = h @ params["W_p"]
        logits[:, [0, 1, 3] if t else [0, 1, 2, 3]] = -np.inf  # what a caption does not contain
        log_p.append(log_softmax(logits))
        states.append((h_prev, h, read[:, t]))
    return np.stack(log_p), (params, states)


def policy_backward(dlogits, cache):
    """Lesson 06, with an RNN in place of the LSTM: dlogits (T, R, V) -> {name: gradient}"""
    params, states = cache
    grads = {name: np.zeros_like(x) for name, x in params.items()}
    dh = np.zeros_like(states[0][0])
    for t in reversed(range(T)):
        h_prev, h, word = states[t]
        grads["W_p"] += h.T @ dlogits[t]
        dsum = (dlogits[t] @ params["W_p"].T + dh) * (1 - h * h)
        np.add.at(grads["E"], word, dsum)
        grads["W_h"] += h_prev.T @ dsum
        dh = dsum @ params["W_h"].T
    grads["W_a"] += np.outer(params["a"], dh.sum(axis=0))
    grads["a"] += params["W_a"] @ dh.sum(axis=0)
    return grads


def of_captions(log_p):
    """log p(y) = sum over the words of the caption, up to <end>: (T, R, V) -> (R,)"""
    return (np.take_along_axis(log_p, captions.T[:, :, None], axis=2)[..., 0] * mask.T).sum(axis=0)


rng = np.random.default_rng(0)
shapes = {"a": (3,), "W_a": (3, H), "E": (V, H), "W_h": (H, H), "W_p": (H, V)}
params = {name: 0.7 * rng.standard_normal(shape) for name, shape in shapes.items()}
log_p, cache = policy_forward(params, captions)
p = np.exp(of_captions(log_p))
J = (p * r).sum()
print(f"the probabilities sum to {p.sum():.12f}, the expected reward is {J:.4f}, the largest {r.max():.3f}")

# %% [markdown]
# ### The gradient of the expected reward
#
# The rewards do not depend on the parameters, only the probabilities do. With $\nabla$ for the gradient with respect to the
# parameters, and $\nabla p = p \, \nabla \log p$:
#
# $$
# \nabla J = \sum_y r(y) \nabla p(y) = \sum_y p(y) \, r(y) \, \nabla \log p(y) = \mathbb{E}_{y} [ r(y) \, \nabla \log p(y) ]
# $$
#
# The last form is an expectation over captions that the captioner draws. So the mean over a few drawn captions estimates it.
# This is the REINFORCE estimator of lesson 12; words take the place of locations.
#
# $\log p(y)$ is a sum over the words of the caption. For one word, lesson 07 derived the gradient of $-\log p(y_t)$ with
# respect to the logits: it is $p_t - \operatorname{onehot}(y_t)$. Every word of a caption gets the reward of the whole
# caption as its weight:
#
# $$
# d\mathrm{logit}_t = -\left( r(y) - b \right) \left( \operatorname{onehot}(y_t) - p_t \right)
# $$
#
# The baseline $b$ may be any number that does not depend on the drawn caption, because it changes nothing on average:
#
# $$
# \mathbb{E}_{y} [ b \, \nabla \log p(y) ] = b \sum_y \nabla p(y) = b \, \nabla \sum_y p(y) = b \, \nabla 1 = 0
# $$
#
# In satnp, `weighted` builds the minibatch: the weight of each word is $(r - b) / R$ for R drawn captions, and the backward
# pass is that of cross-entropy. (In the listing, `advantages` is $r - b$, `never` and `late` are words that are not drawn,
# and `noise` is for hard attention.)

# %%
show(self_critical.weighted)


# %%
def surrogate_backward(weight, log_p, cache):
    """The gradient of -sum_y weight(y) log p(y): weight (R,) -> dlogits (T, R, V), {name: gradient}"""
    onehot = np.eye(V)[captions.T]  # (T, R, V)
    dlogits = -(weight * mask.T)[:, :, None] * (onehot - np.exp(log_p))
    return dlogits, policy_backward(dlogits, cache)


dlogits, exact = surrogate_backward(p * r, log_p, cache)  # of -J, by enumeration
for name, g in exact.items():
    print(f"d{name:4}{g.shape!s:9} norm {np.linalg.norm(g):.4f}")

# %% [markdown]
# The drawing shows one step, $t = 2$, of three drawn captions; `said` are their words at this step. The dashed arrows are
# gradients. No gradient flows into the reward: it enters as a weight.

# %%
drawn = rng.choice(len(captions), 3, p=p, replace=False)
said, at = captions[drawn, 1], np.arange(3)
advantage = r[drawn] - J
_, states = cache
h = states[1][1][drawn]  # states[1] is (h_1, h_2, the words read)
logits = h @ params["W_p"]
allowed = np.isfinite(log_p[1, drawn])
weight = mask[drawn, 1] * advantage / 3


def picked(logits, said):
    return log_softmax(np.where(allowed, logits, -np.inf))[at, said]


graph(
    "22_reward",
    [
        ("logits", "h @ W_p", {"h": "dlogits @ W_p.T", "W_p": "h.T @ dlogits"}),
        ("log_p", "picked(logits, said)", {"logits": "dlog_p[:, None] * (onehot - p)", "said": None}),
        ("loss", "-(weight * log_p).sum()", {"log_p": "-dloss * weight", "weight": None}),
    ],
    {
        "h": h, "W_p": params["W_p"], "logits": logits, "said": said, "weight": weight, "picked": picked,
        "log_p": log_p[1, drawn, said], "p": np.exp(log_p[1, drawn]), "onehot": np.eye(V)[said],
        "dlogits": -weight[:, None] * (np.eye(V)[said] - np.exp(log_p[1, drawn])),
    },
    {"H": H, "V": V, "R": 3},
    {"loss": np.float64(1)},
    "the weight (r - b) / R has a forward arrow only: the reward is not differentiated",
)  # fmt: skip

# %% [markdown]
# ## Check by number
#
# First the exact gradient, against the complex step of $-J$. Then satnp: the same enumeration with its Show and Tell (an
# LSTM without attention, Vinyals et al. 2015), whose loss is made by `weighted`.


# %%
def minus_J(name):
    point = {n: x.astype(complex) for n, x in params.items()}
    return lambda x: -(np.exp(of_captions(policy_forward(point | {name: x}, captions)[0])) * r).sum()


for name, g in exact.items():
    near(f"d{name}", g, numeric_gradient(minus_J(name), params[name]))


# %%
config, captioner = show_and_tell.Config(V=V, D=3, M=4, H=5, dropout=0.0), show_and_tell.captioner
theirs = captioner.init(config, rng)
theirs = theirs.on(0.7 * rng.standard_normal(theirs.flat.size))
photo = np.repeat(rng.standard_normal((1, 2, 3)), len(captions), axis=0)


def satnp_gradient(weight, p=theirs, backward=True):
    """The loss -sum_y weight(y) log p(y) of satnp's Show and Tell, and its gradient."""
    R = len(captions)
    batch, noise = self_critical.weighted(captioner, config, photo, captions, None, weight * R)
    loss, cache = captioner.forward(p, config, batch, noise)
    grads = p.zeros_like()
    if backward:
        captioner.backward(cache, grads, frozen=True)
    return loss, grads.flat


def satnp_log_p(p):
    return np.array([-satnp_gradient(np.eye(len(captions))[k], p, False)[0] for k in range(len(captions))])


# %% [markdown]
# The loss with the weight 1 for one caption and 0 for all others is that caption's $-\log p(y)$, so 340 forward passes give
# all probabilities, and $J$. The derivative of $J$ along one random direction is a single number. We compute it from the
# difference of $J$ at two points on that line.

# %%
p_theirs = np.exp(satnp_log_p(theirs))
direction, step = rng.standard_normal(theirs.flat.size), 1e-6
ahead, behind = (theirs.on(theirs.flat + sign * step * direction) for sign in (1, -1))
slope = ((np.exp(satnp_log_p(ahead)) - np.exp(satnp_log_p(behind))) * r).sum() / (2 * step)
print(f"satnp's probabilities sum to {p_theirs.sum():.12f}")
near("satnp's gradient along a direction", -satnp_gradient(p_theirs * r)[1] @ direction, slope, 1e-7)

# %% [markdown]
# ### Four baselines, and their exact variance
#
# An estimate is a mean over S drawn captions. Since all captions can be listed, its mean and its variance need no
# experiment: they are sums over all captions, or over all pairs of captions. The baselines:
#
# | baseline | $b$ |
# |---|---|
# | none | 0 |
# | expected reward | $J$, which a moving average approximates |
# | greedy (self-critical, Rennie et al. 2017) | the reward of the caption that greedy decoding writes |
# | leave one out (Kool et al. 2019) | the mean reward of the other drawn captions |
#
# Predict: which baseline gives the smallest variance? Greedy decoding is how the captioner is used later. Is the reward of
# its caption close to the expected reward?

# %%
def greedy_row(log_p):
    """The row of the caption that greedy decoding writes: the likeliest word at each step."""
    row = 0
    for t in range(T):
        word = END if t and captions[row, t - 1] == END else log_p[t, row].argmax()
        start = [*captions[row, :t], word]
        row = next(k for k, caption in enumerate(captions) if list(caption[: t + 1]) == start)
    return row


greedy = greedy_row(log_p)
print(f"greedy caption {' '.join(vocabulary.decode(captions[greedy]))!r}, reward {r[greedy]:.3f}; expected reward {J:.3f}")

one_by_one = []  # g(y) of each caption, as one vector
for k in range(len(captions)):
    grads = surrogate_backward(-np.eye(len(captions))[k], log_p, cache)[1]
    one_by_one.append(np.concatenate([g.ravel() for g in grads.values()]))
G = np.array(one_by_one)
truth = (p * r) @ G
pairs = p[:, None] * p[None]
square = (G * G).sum(axis=1)
for name, b in (("none", 0.0), ("expected reward", J), ("greedy", r[greedy])):
    near(f"baseline {name}: the mean is the gradient", (p * (r - b)) @ G, truth)
    of_one = (p * (r - b) ** 2 * square).sum() - truth @ truth  # the variance for S = 1
    told = [f"{np.sqrt(of_one / S) / np.linalg.norm(truth):.2f} (S = {S})" for S in (2, 5, 50)]
    print(f"  standard deviation / norm of the gradient: {', '.join(told)}")

# %% [markdown]
# With the leave-one-out baseline and S = 2, the estimate is $\frac{1}{2} (r - r') (g - g')$, where
# $g(y) = \nabla \log p(y)$. The variance for S captions follows from the variance of a pair, $v_2$, and from the variance
# $v_1$ of one caption with the baseline $J$ (Hoeffding 1948, for all means of this kind):
# $\left( (S - 2) v_1 + 2 v_2 \right) / \left( S (S - 1) \right)$.

# %%
apart = square[:, None] + square[None] - 2 * G @ G.T
of_one = (p * (r - J) ** 2 * square).sum() - truth @ truth
of_pair = (pairs * (r[:, None] - r[None]) ** 2 * apart).sum() / 4 - truth @ truth
near("leave one out: the mean is the gradient", ((pairs * (r[:, None] - r[None])).sum(axis=1) @ G), truth)
told = [((S - 2) * of_one + 2 * of_pair) / (S * (S - 1)) for S in (2, 5, 50)]
print(f"  standard deviation / norm of the gradient: {', '.join(f'{np.sqrt(v) / np.linalg.norm(truth):.2f}' for v in told)}")

# %% [markdown]
# All four are right on average, and they differ in their noise. The expected reward is the best of them; the greedy caption
# has a smaller reward (0.83 in place of 1.09), and as a baseline it is a little worse. Without a baseline every drawn
# caption becomes more probable, because no reward is negative; only the average over many draws shows which captions should
# become less probable. The leave-one-out baseline is itself noisy: with two captions it does not help here (9.04 in place of
# 8.96). With five it is near the expected reward (4.62 and 4.20), and it needs no further caption. The greedy baseline needs
# one further caption for each photo.
#
# ## Look
#
# Now we train two captioners. First the small one, from 16 drawn captions a step, with Adam. The curves show the expected
# reward by enumeration, not an estimate of it. "exact" uses the exact gradient. The last column is the mean reward of the
# captions that begin with "a".


# %%
def estimate(name, log_p, cache, rng, S=16):
    """The gradient of -J from S drawn captions with a baseline, or the exact one."""
    p = np.exp(of_captions(log_p))
    weight = p * r
    if name != "exact":
        drawn, weight = rng.choice(len(p), S, p=p / p.sum()), np.zeros(len(p))
        others = (r[drawn].sum() - r[drawn]) / (S - 1)
        baseline = {"none": 0.0, "leave one out": others, "greedy": r[greedy_row(log_p)]}[name]
        np.add.at(weight, drawn, (r[drawn] - baseline) / S)
    return surrogate_backward(weight, log_p, cache)[1]


curves = {}
for name in ("exact", "none", "greedy", "leave one out"):
    mine, draw = {n: x.copy() for n, x in params.items()}, np.random.default_rng(2)
    states = {n: {"step": 0, "mean": np.zeros_like(x), "square": np.zeros_like(x)} for n, x in mine.items()}
    curves[name] = []
    for _ in range(120):
        log_p_now, cache_now = policy_forward(mine, captions)
        p_now = np.exp(of_captions(log_p_now))
        curves[name].append((p_now * r).sum())
        for n, g in estimate(name, log_p_now, cache_now, draw).items():
            adam(mine[n], g, states[n], 0.02)
    best, with_a = p_now.argmax(), captions[:, 0] == words[0]
    print(f"{name:14} expected reward {curves[name][-1]:.3f}, likeliest {' '.join(vocabulary.decode(captions[best]))!r}, "
          f"with 'a' {(p_now * r)[with_a].sum() / p_now[with_a].sum():.2f}")  # fmt: skip
figure = Figure((6.4, 3.6), layout="constrained")
ax = figure.subplots()
for name, curve in curves.items():
    ax.plot(curve, label=name, color="black" if name == "exact" else None)
ax.axhline(r.max(), color="gray", linestyle=":")
ax.set(xlabel="step", ylabel="expected reward (CIDEr-D)")
ax.legend()
save(figure, "22_expected_reward", "the dotted line is the reward of the best caption")

# %% [markdown]
# In these runs all four end at the same place, the estimates later than the exact gradient. (Other random numbers can lead
# an estimate elsewhere: try `default_rng(0)` for `draw`.) None reaches the dotted line. The captioner has learnt
# "red square", with the reward 6.7; "a red square" has the reward 8.0. To get there, the first word would have to become
# "a". But captions that begin with "a" now have a mean reward near 0, much less than 6.7, so the gradient makes "a" less
# probable. And what follows "a" is hardly trained, because the gradient of a caption has the factor $p(y)$. Gradient ascent
# has ended in a local maximum. Self-critical training starts from a captioner that was trained with cross-entropy (Rennie et
# al. 2017); exercise 4 shows what this changes here.
#
# ### Three rewards, one captioner
#
# Now the captioner of lesson 00. It was trained with cross-entropy on sentences about rendered scenes, and we know what is
# true of each scene. Three rewards:
#
# | name | reward of a sentence |
# |---|---|
# | true | 1 if it is true of the scene, else 0 |
# | true and detailed | the number of its adjectives / 4 if it is true, else 0 |
# | detailed | the number of its adjectives / 4 |
#
# The adjectives are the sizes and the colours; a sentence about two objects can have four. Each training starts from the
# same parameters and has 40 steps of 32 photos with five drawn sentences each. Predict for each reward: how many of 300
# unseen scenes are described truly after it, and how do the sentences change?

# %%
model = load(DATA / "scenes.npz")
decoder, looking = model.params.part("decoder"), self_critical.policy(model.config)
train, test = make_scenes(300, "train", seed=5), make_scenes(300, "test", seed=0)
seen, unseen = (model.annotate(np.stack([scene.image for scene in scenes])) for scenes in (train, test))
ADJECTIVES = {"small", "big", "red", "green", "cyan", "pink", "yellow", "blue"}


def adjectives(sentence):
    return sum(word in ADJECTIVES for word in sentence.split())


REWARDS = {
    "true": lambda sentence, scene: float(is_true(sentence, scene)),
    "true and detailed": lambda sentence, scene: is_true(sentence, scene) * adjectives(sentence) / 4,
    "detailed": lambda sentence, scene: adjectives(sentence) / 4,
}


def sentences(ids):
    return [" ".join(model.vocabulary.decode(row)) for row in ids]


def measured():
    """-> the share of true greedy sentences of the unseen scenes, their mean number of adjectives, the sentences"""
    said = sentences([found.ids for found in beam_search(show_attend_tell, decoder, looking, unseen, beam=1, max_length=20)])
    return np.mean([is_true(*pair) for pair in zip(said, test, strict=True)]), np.mean([adjectives(x) for x in said]), said


def train_with(reward, steps=40, S=5):
    rng, state = np.random.default_rng(0), {"step": 0, "mean": 0 * decoder.flat, "square": 0 * decoder.flat}
    for _ in range(steps):
        some = rng.choice(len(train), 32, replace=False)

        def rewards(photos, ids, some=some):
            return np.array([reward(x, train[some[n]]) for n, x in zip(photos, sentences(ids), strict=True)])

        uniform = rng.random((32 * S, 20))
        batch, noise, _, _ = self_critical.draw_captions(
            show_attend_tell, decoder, looking, seen[some], uniform, None, rewards, "leave_one_out"
        )
        _, cache = show_attend_tell.forward(decoder, looking, batch, noise)
        grads = decoder.zeros_like()
        show_attend_tell.backward(cache, grads, frozen=True)
        adam(decoder.flat, grads.flat, state, 8e-4)


start, trained = decoder.flat.copy(), {}
for name, reward in {"cross-entropy only": None, **REWARDS}.items():
    decoder.flat[:] = start
    if reward:
        train_with(reward)
    share, count, said = trained[name] = measured()
    print(f"{name:18} true {share:.3f}, adjectives {count:.2f}, words {np.mean([len(x.split()) for x in said]):.1f}, "
          f"different sentences {len(set(said))}\n  {said[2][:74]!r}")  # fmt: skip
decoder.flat[:] = start
assert trained["true and detailed"][1] > 3.9 and trained["true and detailed"][0] > 0.9
assert trained["detailed"][0] < 0.2 and trained["true"][1] < trained["cross-entropy only"][1]

# %% [markdown]
# Each training did what its reward says.
#
# - "true" keeps nearly all sentences true (.977 of them, .980 before) and leaves out what is not needed for it: there are
#   fewer adjectives, and the sentences are shorter and less varied. A short sentence has fewer words that can be wrong.
# - "true and detailed" adds the adjectives that cross-entropy left out. (In its training captions, sizes are optional.)
# - "detailed" has learnt to repeat adjectives until the caption is cut off. Its reward is 19/4; a sentence of the training
#   captions has 4/4 at most. No sentence is true.
#
# The third is not a fault of the method: it maximises the reward as it is written. CIDEr-D compares whole captions with
# references, and other scores can rise with it. On Flickr8k, self-critical training with CIDEr-D raised satnp's CIDEr from
# .518 to .554 and BLEU-4 from .206 to .220, by 7 % each, but BLEU-1 from .620 to .635 only, by 2 %
# (`tests/benchmarks/results/flickr8k_released.md`, beam 3).
#
# ## Break it
#
# Three mistakes that people make, each by its exact effect.
#
# **The baseline contains the caption's own reward.** The mean reward of all S drawn captions is a natural baseline. But it
# depends on the drawn caption.

# %%
with_itself = (pairs * (r[:, None] - (r[:, None] + r[None]) / 2)).sum(axis=1) @ G
print(f"S = 2: the mean of the estimate is {with_itself @ truth / (truth @ truth):.3f} times the gradient")
near("it is the gradient times (1 - 1/S)", with_itself, truth / 2)

# %% [markdown]
# Here the direction is right and the size is wrong, by the factor $1 - 1/S$. With Adam this can remain unnoticed, because
# its step does not depend on the scale of the gradients.
#
# **The captions are drawn at one temperature, and the gradient is computed at another.** Captions are drawn from
# $q_t = \operatorname{softmax}(\mathrm{logit}_t / 0.5)$, but the backward pass uses $p_t$. (A trained captioner draws better
# captions at .5: in `tests/benchmarks/results/flickr8k_scst.md` they have a mean CIDEr-D of .464, at 1 of .224.)

# %%
log_q = log_softmax(np.where(np.isfinite(log_p), log_p, -np.inf) / 0.5)
q = np.exp(of_captions(log_q))
onehot = np.eye(V)[captions.T]
dlogits = ((q * r) * mask.T)[:, :, None] * (onehot - np.exp(log_q)) / 0.5
truth_q = np.concatenate([g.ravel() for g in policy_backward(dlogits, cache).values()])
print(f"expected reward at temperature 1 {J:.3f}, at .5 {(q * r).sum():.3f}")
for b in (0.0, (q * r).sum()):
    mixed = (q * (r - b)) @ G
    cosines = [mixed @ g / np.linalg.norm(mixed) / np.linalg.norm(g) for g in (truth, truth_q)]
    print(f"baseline {b:.2f}: cosine with the gradient at temperature 1: {cosines[0]:.3f}, at .5: {cosines[1]:.3f}")

# %% [markdown]
# The mean of this estimate is the gradient of neither expected reward. And the baseline, which should not matter on
# average, changes its direction: with $q$ in place of $p$ the proof above does not hold. In satnp, the loss and the drawing
# have the same temperature (`Batch.temperature`).
#
# **`<end>` is not part of the reward.** Then ending a caption in the right place has no reward of its own.

# %%
sentences_of_all = [" ".join(vocabulary.decode(caption)) for caption in captions]
without = cider_d(sentences_of_all, [references[0]] * len(captions), document_frequency(references))[1]
for text in ("a red square", "a red square a"):
    k = sentences_of_all.index(text)
    print(f"{text:16} reward with <end> {r[k]:.2f}, without {without[k]:.2f}")

# %% [markdown]
# With `<end>`, the superfluous "a" costs 39 % of the reward, without it only 15 %. So without `<end>` there is little reason
# to stop at the right word, and satnp appends `<end>` to each caption and to each reference before it computes the reward.
#
# ## Exercises
#
# 1. By hand: $p = (1/2, 1/4, 1/4)$ and $r = (8, 0, 0)$. What are $J$ and $\partial J / \partial z$? Check: the entries of
#    the derivative sum to 0, and the first is 2.
# 2. Which constant baseline gives the smallest variance? Minimise $\sum_y p(y) (r(y) - b)^2 |g(y)|^2$ with respect to $b$;
#    compute the best $b$ from `p`, `r` and `square`, and the standard deviation for S = 5. Check: 1.33 and 4.14; the
#    expected reward, 1.09, gave 4.20.
# 3. Entropy. The objective $J + 0.5 \, \mathrm{H}$, with $\mathrm{H} = -\sum_y p(y) \log p(y)$, rewards a captioner that
#    keeps several captions: the reward becomes $r(y) - 0.5 \log p(y)$. Train with the exact gradient for 120 steps as
#    above. Check: at the end, the entropy is .132 in place of .051, and the expected reward 6.65 in place of 6.70.
# 4. Train from a better start: first 60 steps of cross-entropy on the two references of the photo, with the weight 1/2 each,
#    then 120 steps of the exact gradient of the expected reward. Check: the likeliest caption is now "a red square", and the
#    expected reward is 7.96.
# 5. Write a reward with which the captioner of scenes names one object only, and truly. Train with it for 40 steps. Check:
#    fewer than 4 words on average, and more than 90 % of the sentences name the colour and the shape of an object.
#
# ## Next
#
# Lesson 23 leaves recurrent decoders: detectors, a conditional random field and templates, the captioners of 2011.
