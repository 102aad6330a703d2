# %% [markdown]
# # Answers to lesson 05

# %% [markdown]
# ## 1
#
# - hint: After 10 steps $f^{10}$ of the cell is left.
# - hint: The inverse of the sigmoid is $\log(f / (1 - f))$.
#
# $f = 2^{-1/10} = 0.933$, and the bias is $\log(f / (1 - f)) = 2.634$. With $i \odot g = 0$ each step multiplies the cell by
# f and does nothing else.

# %%
f = 0.5**0.1
bias = np.log(f / (1 - f))
c = np.ones((1, 1))
for _t in range(10):
    (h, c), _ = lstm_cell_forward(np.array([[0.0, bias, 0.0, 0.0]]), c)
print(f"f {f:.3f}, bias {bias:.3f}, left after 10 steps {c[0, 0]:.3f}")
assert round(bias, 3) == 2.634 and round(c[0, 0], 3) == 0.5

# %% [markdown]
# ## 2
#
# - hint: First the gates: $\sigma(1) = 0.73106$, $\sigma(2) = 0.88080$, $\sigma(0) = 0.5$, $\tanh(-1) = -0.76159$.
# - hint: Then $c = f \cdot 0.5 + i \cdot g$, and h from c.
#
# $c = 0.88080 \cdot 0.5 - 0.73106 \cdot 0.76159 = -0.11637$ and $h = 0.5 \cdot \tanh(-0.11637) = -0.05792$.

# %%
(h, c), _ = lstm_cell_forward(np.array([[1.0, 2.0, 0.0, -1.0]]), np.array([[0.5]]))
print(f"c {c[0, 0]:.5f}, h {h[0, 0]:.5f}")
assert (round(c[0, 0], 5), round(h[0, 0], 5)) == (-0.11637, -0.05792)

# %% [markdown]
# ## 3
#
# - hint: Each of the three matrices and the bias has 4H columns.
# - hint: How many rows do they have together?
#
# M + H + D + 1 = 2025 rows (the bias is one) of 4H = 4000 numbers.

# %%
print(f"{(512 + 1000 + 512 + 1) * 4 * 1000:,}")
assert (512 + 1000 + 512 + 1) * 4 * 1000 == 8_100_000

# %% [markdown]
# ## 4
#
# - hint: p is 1 if exactly one of "x or p" and "x and p" is true, which is the exclusive or of x and the old p.
# - hint: $20 x + 20 p - 10$ is positive if x or p is 1; $20 x + 20 p - 30$ is positive only if both are.
# - hint: $20 p = (20 / \tanh 1) h_A - (20 / \tanh 1) h_B$, so the columns of $W_h$ for $a_i$ hold $20 / \tanh 1$ and
#   $-20 / \tanh 1$, for A and B alike.
#
# The columns of `gates` are i of A, i of B, f of A, f of B, and so on. All weights of f, o and g are 0; their biases -100,
# 100 and 20 close f, open o and set g to 1.

# %%
W_x_odd, W_h_odd = np.zeros((1, 8)), np.zeros((2, 8))
W_x_odd[0, :2] = 20
W_h_odd[:, :2] = np.array([[20], [-20]]) / np.tanh(1)
b_odd = np.array([-10.0, -30, -100, -100, 100, 100, 20, 20])
bits = np.array([1.0, 0, 1, 1, 0, 1]).reshape(6, 1, 1)
h_odd, _, _ = sequence(bits, np.zeros((1, 2)), np.zeros((1, 2)), W_x_odd, W_h_odd, b_odd)
p = (h_odd[:, 0, 0] - h_odd[:, 0, 1]) / np.tanh(1)
print("p", p)
assert np.abs(p - [1, 1, 0, 1, 1, 0]).max() < 0.001

# %% [markdown]
# ## 5
#
# - hint: `gates` has two blocks, one for u and one for the tanh.
# - hint: $\sigma(-100)$ is 4e-44. satnp's sigmoid rounds it to exactly 0.
#
# With u = 0 the new state is $1 \cdot h_{t-1} + 0$, so $h_T = h_0$, and its derivative with respect to $h_0$ is 1.


# %%
def gru(x, h, W_x, W_h, b):
    """x (T, N, M), h (N, H), W_x (M, 2H), W_h (H, 2H), b (2H,) -> the last h (N, H)"""
    for x_t in x:
        a_u, a_g = np.split(x_t @ W_x + h @ W_h + b, 2, axis=1)
        u = sigmoid(a_u)
        h = (1 - u) * h + u * np.tanh(a_g)
    return h


def closed(W):
    return np.concatenate([np.zeros((len(W), H)), W[:, :H]], axis=1)  # no weights for u


weights = closed(W_x), closed(W_h), np.concatenate([np.full(H, -100.0), np.zeros(H)])  # a_u is -100
assert (gru(x, h0, *weights) == h0).all()
slopes = numeric_gradient(lambda h0: gru(x, h0, *weights).sum(), h0)
near("dh_T/dh_0", slopes, np.ones((N, H)), within=1e-14)
