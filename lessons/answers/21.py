# %% [markdown]
# # Answers to lesson 21

# %% [markdown]
# ## 1
#
# - hint: The locations come last, so begin with them. What map do they multiply?
# - hint: $d\beta_d = \sum_i dX'_{id} X_{id}$, and $dX'_{id} = \alpha_i dz_d$.
#
# The map after the channels is ((2, 0), (1, 3)), so $d\alpha$ is the sum of each row, (2, 4). For the channels
# $dX' = ((1/4, 1/4), (3/4, 3/4))$, so $d\beta = (4 \cdot 1/4 + 2 \cdot 3/4, \, 6 \cdot 3/4)$.

# %%
X_1, beta_1, alpha_1, dz_1 = np.array([[4.0, 0], [2, 6]]), np.array([0.5, 0.5]), np.array([0.25, 0.75]), np.ones(2)
near("dalpha", (dz_1 * beta_1 * X_1).sum(axis=1), [2.0, 4.0])
near("dbeta", (alpha_1[:, None] * dz_1 * X_1).sum(axis=0), [2.5, 4.5])

# %% [markdown]
# ## 2
#
# - hint: The two functions work in any order. Call the forward with "s" first, then with "c".
# - hint: The backward calls come in the reverse order: "c", then "s".
#
# Nothing else changes. The results differ, because the second attention computes its keys from another map.

# %%
def s_c(X):
    middle, _, cache_s = attention_forward(p, "s", X, h)
    out, _, cache_c = attention_forward(p, "c", middle, h)
    return out.sum(axis=1), cache_s, cache_c


X_2 = rng.standard_normal((N, L, D))
z_2, cache_s2, cache_c2 = s_c(X_2)
dmiddle, _ = attention_backward(p, "c", np.repeat(dz[:, None], L, axis=1), cache_c2, p.zeros_like())
dX_2, _ = attention_backward(p, "s", dmiddle, cache_s2, p.zeros_like())
near("dX", dX_2, numeric_gradient(lambda X: (s_c(X)[0] * dz).sum(), X_2))
c_s = attention_forward(p, "s", attention_forward(p, "c", X_2, h)[0], h)[0].sum(axis=1)
print("S-C", z_2[0], "C-S", c_s[0])
assert np.abs(z_2 - c_s).max() > 1e-3

# %% [markdown]
# ## 3
#
# - hint: Subtract the mean of channel 1 and add that of channel 0.
# - hint: The keys are `v[:, :, None] * W_c[0] + b_c`. Adding P gives each channel another function of $v_d$.
#
# P is added to the keys, so $dP$ is $dk$, summed over the photos and the steps: `dkeys.sum(axis=0)` in
# `attention_backward`. With P the weight depends on which channel it is.

# %%
X_3 = X_2.copy()
X_3[:, :, 1] += (X_3[:, :, 0].mean(axis=1) - X_3[:, :, 1].mean(axis=1))[:, None]
beta_3 = attention_forward(p, "c", X_3, h)[1]
near("beta of two channels with the same mean", beta_3[:, 0], beta_3[:, 1])
P = rng.standard_normal((D, A))
keys_3 = X_3.mean(axis=1)[:, :, None] * p.W_c[0] + p.b_c + P
beta_P = softmax(np.tanh(keys_3 + (h @ p.W_hc)[:, None]) @ p.w_c)
print("with P", beta_P[:, :2])
assert np.abs(beta_P[:, 0] - beta_P[:, 1]).min() > 1e-3

# %% [markdown]
# ## 4
#
# - hint: With a kernel of 1 each cell is multiplied by the same matrix F, on its own.
# - hint: With a kernel of 3 a cell of the output mixes nine cells with nine different weights.
#
# $(\alpha_i X_i) F = \alpha_i (X_i F)$, because $\alpha_i$ is a number. So such a convolution could run once a photo, if
# only the locations had weights before it, and if the ReLU came after the sum over the locations. The weights of the
# channels stand on the other side: $\sum_d \beta_d X_{id} F_d$ needs the product again for each $\beta$.

# %%
X_4, alpha_4 = X_2.reshape(N, ROWS, COLUMNS, D), rng.random((N, ROWS, COLUMNS, 1))
for K in (1, 3):
    F_4, b_4 = rng.standard_normal((K, K, D, D)), np.zeros(D)
    before, after = conv2d(alpha_4 * X_4, F_4, b_4, 1, K // 2), alpha_4 * conv2d(X_4, F_4, b_4, 1, K // 2)
    error = np.linalg.norm(before - after) / np.linalg.norm(after)
    print(f"kernel of {K}: relative difference {error:.1e}")
    assert (error < 1e-12) == (K == 1)

# %% [markdown]
# ## 5
#
# - hint: Keys: L locations, each D x A. Convolution: L cells, each $K^2$ products D x D.
# - hint: Outside of the loop its input does not depend on the word.
#
# Inside the loop it runs twelve times, once a word, and outside of it once a photo. The same holds for its backward pass,
# which has two convolutions of the same size, for the map and for F.

# %%
keys_5, convolution_5 = 14 * 14 * 512 * 512, 14 * 14 * 9 * 512 * 512
print(f"{keys_5 / 1e6:.0f} and {convolution_5 / 1e6:.0f} million")
assert round(keys_5 / 1e6) == 51 and round(convolution_5 / 1e6) == 462
