# %% [markdown]
# # Answers to lesson 06

# %% [markdown]
# ## 1
#
# - hint: $t_c = \tanh(0.25) = 0.24492$, and $1 - t_c^2 = 0.94001$.
# - hint: $dc = 0 + 1 \cdot 0.5 \cdot 0.94001 = 0.47001$.
# - hint: The derivative of the sigmoid at 0 is $0.5 \cdot 0.5 = 0.25$, and that of the tanh is 1.
#
# $da_i = dc \cdot g \cdot 0.25 = 0$, because g = 0. $da_f = dc \cdot 0.5 \cdot 0.25 = 0.0588$,
# $da_o = t_c \cdot 0.25 = 0.0612$, $da_g = dc \cdot 0.5 = 0.2350$ and $dc_{\mathrm{prev}} = dc \cdot 0.5 = 0.2350$.

# %%
_, cache = lstm_cell_forward(np.zeros((1, 4)), np.array([[0.5]]))
dgates, dc_prev = lstm_cell_backward((np.ones((1, 1)), np.zeros((1, 1))), cache)
print("dgates", dgates[0], " dc_prev", dc_prev[0])
assert (dgates.round(4) == [[0, 0.0588, 0.0612, 0.2350]]).all() and dc_prev.round(4) == 0.2350

# %% [markdown]
# ## 2
#
# - hint: `dh, dc = dout`. Begin with $do$ and the whole $dc$.
# - hint: The result is `np.concatenate` of four arrays, in the order i, f, o, g, and `dc_prev`.
#
# The code is the derivation, line by line.


# %%
def my_cell_backward(dout, cache):
    (dh, dc), (c_prev, i, f, o, g, tanh_c) = dout, cache
    do = dh * tanh_c
    dc = dc + dh * o * (1 - tanh_c**2)
    df, di, dg = dc * c_prev, dc * g, dc * i
    dgates = np.concatenate([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)], axis=1)
    return dgates, dc * f


gradients = backward(dh_out, forward(*inputs)[1], my_cell_backward)
for name, ours, number in zip(names, gradients, by_complex_step(J, inputs), strict=True):
    near(f"d{name}", ours, number, within=1e-12)

# %% [markdown]
# ## 3
#
# - hint: Line (3) is gone, and line (4) is $h = o \odot c$.
# - hint: c still has two users, h and the next step.
#
# $do = dh \odot c$ and $dc = dc_{\mathrm{next}} + dh \odot o$. The other lines do not change.


# %%
def without_tanh_forward(gates, c_prev):
    a_i, a_f, a_o, a_g = np.split(gates, 4, axis=1)
    i, f, o, g = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), np.tanh(a_g)
    c = f * c_prev + i * g
    return o * c, c, (c_prev, i, f, o, g, c)


def without_tanh_backward(dh, dc, cache):
    c_prev, i, f, o, g, c = cache
    do, dc = dh * c, dc + dh * o
    parts = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), do * o * (1 - o), dc * i * (1 - g**2)
    return np.concatenate(parts, axis=1), dc * f


def J_without_tanh(gates, c_prev):
    h, c, _ = without_tanh_forward(gates, c_prev)
    return (h * R_h).sum() + (c * R_c).sum()


gates, c_prev = rng.standard_normal((3, 16)), rng.standard_normal((3, 4))
gradients = without_tanh_backward(R_h, R_c, without_tanh_forward(gates, c_prev)[2])
for name, ours, number in zip(("gates", "c_prev"), gradients, by_complex_step(J_without_tanh, [gates, c_prev]), strict=True):
    near(f"d{name}", ours, number, within=1e-12)

# %% [markdown]
# ## 4
#
# - hint: $da_f$ is also the gradient of the product $p \odot c_{\mathrm{prev}}$, by the rule of the sum.
# - hint: What does this product send to $c_{\mathrm{prev}}$, and what to p, by the rule of the product?
# - hint: All N captions are users of the same p.
#
# $dc_{\mathrm{prev}} = dc \odot f + da_f \odot p$, and $dp = \sum_{n} da_f \odot c_{\mathrm{prev}}$, because all captions
# use the same p.


# %%
def peephole_forward(gates, c_prev, p):
    seen = np.concatenate([0 * c_prev, p * c_prev, 0 * c_prev, 0 * c_prev], axis=1)
    return lstm_cell_forward(gates + seen, c_prev)


def peephole_backward(dh, dc, cache, p):
    dgates, dc_prev = lstm_cell_backward((dh, dc), cache)
    da_f = np.split(dgates, 4, axis=1)[1]
    return dgates, dc_prev + da_f * p, (da_f * cache.c_prev).sum(axis=0)


def J_peephole(gates, c_prev, p):
    (h, c), _ = peephole_forward(gates, c_prev, p)
    return (h * R_h).sum() + (c * R_c).sum()


p = rng.standard_normal(4)
gradients = peephole_backward(R_h, R_c, peephole_forward(gates, c_prev, p)[1], p)
numbers = by_complex_step(J_peephole, [gates, c_prev, p])
for name, ours, number in zip(("gates", "c_prev", "p"), gradients, numbers, strict=True):
    near(f"d{name}", ours, number, within=1e-12)

# %% [markdown]
# ## 5
#
# - hint: $h_{\mathrm{new}}$ and $c_{\mathrm{new}}$ are the outputs of the cell. They get $m_t \odot dh_t$ and
#   $m_t \odot dc_t$.
# - hint: $h_{t-1}$ is used by line (5) and by the new line; the new line sends $(1 - m_t) \odot dh_t$ to it.
# - hint: After the end of a caption the gradients of its gates are 0. What does line (5) send back then?
#
# With $dh = dh_t^{\mathrm{out}} + dh_{\mathrm{next}}$: the cell's backward pass gets $(m_t \odot dh, m_t \odot dc)$; then
# $dh_{t-1} = d\text{gates}_t W_h^{\top} + (1 - m_t) \odot dh$ and $dc_{t-1} = dc_{\mathrm{prev}} + (1 - m_t) \odot dc$.


# %%
def masked_forward(m, x, h, c, W_x, W_h, b):
    hs, caches = [], []
    for x_t, m_t in zip(x, m, strict=True):
        (h_new, c_new), cell = lstm_cell_forward(x_t @ W_x + h @ W_h + b, c)
        caches.append((cell, h))
        h, c = m_t * h_new + (1 - m_t) * h, m_t * c_new + (1 - m_t) * c
        hs.append(h)
    return np.stack(hs), caches


def masked_backward(dh_out, m, x, W_x, W_h, caches):
    dh = dc = np.zeros(dh_out.shape[1:])
    dx, dW_x, dW_h, db = np.zeros_like(x), 0, 0, 0
    for t in reversed(range(len(x))):
        (cell, h_before), dh = caches[t], dh_out[t] + dh
        dgates, dc_prev = lstm_cell_backward((m[t] * dh, m[t] * dc), cell)
        dx[t], dW_x, dW_h, db = dgates @ W_x.T, dW_x + x[t].T @ dgates, dW_h + h_before.T @ dgates, db + dgates.sum(axis=0)
        dh, dc = dgates @ W_h.T + (1 - m[t]) * dh, dc_prev + (1 - m[t]) * dc
    return dx, dh, dc, dW_x, dW_h, db


m = (np.arange(6)[:, None] < [6, 3, 1]).astype(float)[:, :, None]  # (T, N, 1)
_, caches = masked_forward(m, *inputs)
gradients = masked_backward(dh_out, m, inputs[0], inputs[3], inputs[4], caches)
numbers = by_complex_step(lambda *a: (masked_forward(m, *a)[0] * dh_out).sum(), inputs)
for name, ours, number in zip(names, gradients, numbers, strict=True):
    near(f"d{name}", ours, number, within=1e-12)
assert (gradients[0][m[:, :, 0] == 0] == 0).all()
