# %% [markdown]
# # Answers to lesson 04

# %% [markdown]
# ## 1
#
# - hint: Each of the $K^2$ cells of a window has the same slope.
# - hint: The slope is $1 / K^2$.
#
# Each cell gets $d\mathrm{out} / K^2$ of its window: 10/4 = 2.5 at (0, 0). A window has $K^2$ cells, so the sum of the
# gradient is again 210.

# %%
from satnp.layers import average_pool_backward, average_pool_forward

x, dout = cells[None, :, :, None], np.array([[10, 20, 30], [40, 50, 60.0]])[None, :, :, None]
dx = average_pool_backward(dout, average_pool_forward(x, 2, 2)[1])
near("dx", dx[0, :, :, 0], np.kron(dout[0, :, :, 0], np.ones((2, 2))) / 4, within=1e-15)
print("dx[0, 0]", dx[0, 0, 0, 0], " sum", dx.sum())
assert dx[0, 0, 0, 0] == 2.5 and dx.sum() == 210

# %% [markdown]
# ## 2
#
# - hint: With K = 3 and stride 1 there are 2 x 4 windows.
# - hint: The gradient of an upstream gradient of ones counts, for each cell, the windows whose maximum it is.
#
# The 9 at (2, 2), of 4 windows. The two windows of columns 0-2 have two nines, at (2, 0) and (2, 2): a tie, and the first
# in reading order is at (2, 0).

# %%
out, cache = max_pool_forward(x, 3, 1)
wins = max_pool_backward(np.ones_like(out), cache)[0, :, :, 0]
print(wins.astype(int))
assert out[0, :, :, 0].shape == (2, 4) and wins.max() == wins[2, 2] == 4 and wins[2, 0] == 2

# %% [markdown]
# ## 3
#
# - hint: Count the maxima of each window first, then divide.
# - hint: `(window == window.max())` is 1 at each of them.
#
# Without ties there is one maximum, and the division by 1 changes nothing, so random inputs do not show the difference.
# With a tie each of the four zeros gets 1/4, which is the answer of the central difference above.


# %%
def fair_forward(x):
    return max_pool_forward(x, 2, 2)[0], x


def fair_backward(dout, x):
    dx = np.zeros_like(x)
    for n, p, q, c in np.ndindex(dout.shape):
        window = x[n, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2, c]
        share = window == window.max()
        dx[n, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2, c] += dout[n, p, q, c] * share / share.sum()
    return dx


fair = Case("fair pool", lambda rng: {"x": rng.standard_normal((2, 4, 6, 3))}, fair_forward, fair_backward)
result, dx = check_gradients(fair), fair_backward(one, tie)
print(f"passed {result.passed}, error {result.error:.1e}; at the tie {dx.ravel()}")
assert result.passed and dx.sum() == 1

# %% [markdown]
# ## 4
#
# - hint: The objects of a scene have a `colour`; `COLOURS` in `satnp.data.scenes` lists all of them.
# - hint: `crops` and `init` change in one place each: the label, and 6 columns of `W` and `b` in place of 4.
#
# Colours. A filter of the first layer can respond to a colour directly, and the mean over the locations keeps it. A shape
# is in the places of the edges to each other, which takes several layers.

# %%
from satnp.data.scenes import COLOURS  # noqa: E402

names = list(COLOURS)
by_shape = train, test, init  # kept for the next exercise
train, test = (
    (images, np.array([names.index(thing.colour) for scene in scenes for thing in scene.objects]))
    for (images, _), scenes in ((train, make_scenes(800, "train", 0)), (test, make_scenes(200, "test", 0)))
)


def color_init(rng):
    top = Parameters.of({"W": 0.1 * rng.standard_normal((config.D, 6), dtype=np.float32), "b": np.zeros(6, np.float32)})
    return Parameters.join(encoder=small.init(config, rng), top=top)


init = color_init
(share,) = run(1)[2]
print(f"after one epoch: colours {share:.3f}, shapes {right[0]:.3f}")
assert share > 0.98 > right[0]
train, test, init = by_shape

# %% [markdown]
# ## 5
#
# - hint: Forward: `logits = a.reshape(N, L * D) @ W + b`. Backward: `da = (dlogits @ W.T).reshape(N, L, D)`.
# - hint: In `forward` and `backward`, `a.mean(axis=1)` becomes `a.reshape(len(a), -1)`, and the last line a reshape.
# - hint: `W` has 36 rows for each row of before. What does that mean for the number of examples that each row sees?
#
# Each location has weights of its own, so the features need not be the same everywhere: the network is ahead after one
# epoch. But then a shape at another place meets other weights and must be learned again. The network is right on all of
# its 2012 training photos after ten epochs and on fewer unseen ones. With the mean, all locations share the same 32
# weights for a shape.


# %%
def flat_init(rng):
    W = 0.1 * rng.standard_normal((36 * config.D, 4), dtype=np.float32)
    return Parameters.join(encoder=small.init(config, rng), top=Parameters.of({"W": W, "b": np.zeros(4, np.float32)}))


def flat_forward(params, images, labels):
    a, encoder = small.forward(params.part("encoder"), config, images)
    logits, last = affine_forward(a.reshape(len(a), -1), params["top.W"], params["top.b"])
    weights = np.full(len(labels), 1 / len(labels), logits.real.dtype)
    loss, entropy = cross_entropy_forward(logits, labels, weights)
    return loss, (logits, encoder, last, entropy, a.shape)


def flat_backward(dloss, cache, grads):
    _, encoder, last, entropy, shape = cache
    da, dW, db = affine_backward(cross_entropy_backward(dloss, entropy), last)
    grads.add(**{"top.W": dW, "top.b": db})
    small.backward(da.reshape(shape), encoder, grads.part("encoder"))


with_mean = init, forward, backward
init, forward, backward = flat_init, flat_forward, flat_backward
flat_params, _, flat_right = run(10)
seen = [float((flat_forward(flat_params, *train)[1][0].argmax(axis=1) == train[1]).mean())]
init, forward, backward = with_mean
seen.append(float((forward(params, *train)[1][0].argmax(axis=1) == train[1]).mean()))
print(f"{flat_params.flat.size} parameters; after one epoch {flat_right[0]:.3f} (with the mean {right[0]:.3f}),")
print(f"after ten {flat_right[-1]:.3f} ({right[-1]:.3f}), on the training photos {seen[0]:.3f} ({seen[1]:.3f})")
assert flat_params.flat.size == 11_604 and flat_right[0] > right[0] and flat_right[-1] < right[-1]
