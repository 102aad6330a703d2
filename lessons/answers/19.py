# %% [markdown]
# # Answers to lesson 19

# %% [markdown]
# ## 1
#
# - hint: For `xu_wrong`, copy `xu_backward`. Attention's backward comes first, and $dq_t W_s^\top$ goes to $dh_t$.
# - hint: In which line is the query's gradient computed, and what does it depend on?
# - hint: In Lu's order it depends on `dout` of the same step only. Does the bug change `dout`?
#
# In Lu's order $dq_t$ follows from the output of word $t$ alone, and the bug acts after it. So everything that gets its
# gradient through the attention is right: `W_g`, the keys' `W_v`, and `w`. In Xu's order the right $dz_t$ contains
# $d\mathrm{gates}_t$, which `xu_wrong` has not yet computed and leaves out. So `W_s`, `W_a` and `v` are wrong, and `W_h` and
# `W_z` because $d\mathrm{gates}_t$ is wrong.

# %%
def xu_wrong(p, dout, dstate, step, g, sums):
    """The query's gradient is added to h_t, before the LSTM's backward, as in Lu's order."""
    (dh_out, dz_out), (dh, dc), (h, z, look, cell) = dout, dstate, step
    dquery = look_backward(dz_out, look, sums)
    dgates, dc = lstm_cell_backward((dh_out + dh + dquery @ p.W_s.T, dc), cell)
    g.add(W_h=h.T @ dgates, W_z=z.T @ dgates, W_s=h.T @ dquery)
    return dgates, (dgates @ p.W_h.T, dc)


compare(xu, xu_wrong)
for order, wrong, weights, keys in ((xu, xu_wrong, ("W_h", "W_z", "W_s"), False), (lu, lu_wrong, ("W_g",), True)):
    _, _, upstream_and_steps = run(order)
    (_, g_1, sums_1), (_, g_2, sums_2) = (back(order, *upstream_and_steps, backward) for backward in (wrong, None))
    same = {name: np.allclose(g_1[name], g_2[name], atol=1e-12) for name in weights}
    same |= {name: np.allclose(sums_1[name], sums_2[name], atol=1e-12) for name in ("keys", "w")}
    print(same)
    assert set(same.values()) == {keys}

# %% [markdown]
# ## 2
#
# - hint: The new cell has a state of three arrays, `h, c, z`, and returns `(h_new, c, z)` as its new state.
# - hint: `SimpleNamespace(**vars(lu))` makes a copy of the order, whose `forward` and `state` you can replace.
#
# $z_s$ now enters the state of step $s + 1$, so all later words depend on it. Attention cannot be
# computed after the loop any more: $h_t$ needs $z_{t-1}$.

# %%
W_f = 0.7 * rng.standard_normal((H, 4 * H))


def feeding_forward(p, photo, x, state, nudge=0):
    h, c, z = state
    (h_new, c), cell = lstm_cell_forward(x + h @ p.W_h + z @ W_f, c)
    z, alpha, look = attend_forward(h_new @ p.W_g, photo.keys, photo.vectors, p.w, nudge)
    return (z + h_new,), (h_new, c, z), alpha, (h, h_new, look, cell)


feeding = SimpleNamespace(**vars(lu))
feeding.forward, feeding.state = feeding_forward, (*lu.state, np.zeros((N, H)))
table = reach(feeding)[1]
print(table)
assert np.array_equal(table > 0, np.tri(T) > 0)

# %% [markdown]
# ## 3
#
# - hint: Only the argument of `attend_forward` changes.
# - hint: Which of the two summands depends on the state?
#
# The query knows the last word, as in the other two orders. $x_t W_q$ does not depend on the state, so it is one product
# for all words before the loop, as $E[y] W_x$ is.

# %%
W_q = 0.7 * rng.standard_normal((4 * H, A))


def asking_forward(p, photo, x, state, nudge=0):
    h, c = state
    z, alpha, look = attend_forward(h @ p.W_s + x @ W_q, photo.keys, photo.vectors, p.v, nudge)
    (h_new, c), cell = lstm_cell_forward(x + h @ p.W_h + z @ p.W_z, c)
    return (h_new, z), (h_new, c), alpha, (h, z, look, cell)


asking = SimpleNamespace(**vars(xu))
asking.forward = asking_forward
table = reach(asking)[0]
print(table)
assert np.array_equal(table > 0, np.tri(T) > 0)

# %% [markdown]
# ## 4
#
# - hint: The keys are (N, L, A) and the queries (T, N, A). With which axes of size 1 does their sum have all four axes?
# - hint: Count the tanhs: N T L A of them, in both forms.
#
# With one photo an array has 64 x 64 numbers, and the calls themselves take much of the time: one call is cheaper than
# twelve. With 32 photos most of the time goes into the 1.6 million tanhs, which both forms compute.

# %%
from time import perf_counter  # noqa: E402


def lu_at_once(p, photo, hs):
    u = np.tanh(photo.keys + (hs @ p.W_g)[:, :, None])  # (T, N, L, A)
    alphas = softmax(u @ p.w)
    return np.matmul(alphas[:, :, None], photo.vectors)[:, :, 0] + hs, alphas


_, alphas, (_, _, steps) = run(lu)
near("alphas at once", lu_at_once(lu.p, lu.photo, np.stack([h_new for _, h_new, _, _ in steps]))[1], alphas)
normal = np.random.default_rng(3).standard_normal
for count in (1, 32):
    large = SimpleNamespace(W_g=normal((128, 64), dtype=np.float32), w=normal(64, dtype=np.float32))
    shapes_4 = {"keys": (count, 64, 64), "vectors": (count, 64, 128)}
    photo_4 = SimpleNamespace(**{name: normal(shape, dtype=np.float32) for name, shape in shapes_4.items()})
    hs, took = normal((12, count, 128), dtype=np.float32), {"at once": [], "step by step": []}
    for _ in range(25):
        started = perf_counter()
        at_once, _ = lu_at_once(large, photo_4, hs)
        took["at once"].append(perf_counter() - started)
        started = perf_counter()
        by_step = [attend_forward(h_t @ large.W_g, photo_4.keys, photo_4.vectors, large.w)[0] + h_t for h_t in hs]
        took["step by step"].append(perf_counter() - started)
    near("the two forms", np.stack(by_step), at_once, 1e-5)
    print(f"{count} photos:", ", ".join(f"{name} {1e3 * min(times):.2f} ms" for name, times in took.items()))

# %% [markdown]
# ## 5
#
# - hint: In Xu's order $z_t$ is read by the LSTM and by the output. Which of the two does `W_z` feed?
# - hint: By which layer is $z_t$ read in Top-Down?
#
# Without `W_z` $z_t$ goes to the output of its own word only: a diagonal. In Top-Down the second LSTM is the only reader of
# $z_t$, so without `U_z` the weights change no word, and the table is 0 everywhere.

# %%
for order, name, kept in ((xu, "W_z", np.eye(T)), (top, "U_z", np.zeros((T, T)))):
    before = order.p[name].copy()
    order.p[name][...] = 0
    table = reach(order)[1]
    order.p[name][...] = before
    print(name, table, sep="\n")
    assert np.array_equal(table > 0, kept > 0)
