# %% [markdown]
# # 00 The map: a photo becomes a sentence
#
# time: 25 minutes
# cpu: 5 seconds
# before:
# equations: Xu et al. 2015, eqs. 1-7 and 13
# about: satnp.layers.lstm_cell_forward
#
# One short paragraph.

# %% [markdown]
# ## Run

# %%
import numpy as np

from satnp.layers import lstm_cell_forward

rng = np.random.default_rng(0)
gates = rng.standard_normal((2, 12))  # 2 captions
c = rng.standard_normal((2, 3))
print(f"two gates: {gates.shape}")

# %%
for k in range(2):
    (h, c), cache = lstm_cell_forward(gates, c, gates)
print(h.round(3))
