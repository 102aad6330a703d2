"""The backward pass of a cell's operations in two halves: one inside the time loop, one after it.

    now        gradients that step t - 1 needs:         dx_t = dout_t W^T,      dquery_t,      dalpha_t
    deferred   gradients of the weights and the photo:  dW = sum_t x_t^T dout_t = X^T D,       dkeys,      dvectors

A method below computes the first half inside the loop and keeps (x_t, dout_t). The second half is one product over all
steps, after the loop: finish() for the weights, keys() and vectors() for the Locations, sums for the photo.

    forward                                             now, in the loop                          after the loop
    x @ p.W + p.b                                       product(dout, x, "W", bias="b")           finish()
    hz @ p.stacked("W_h", "W_z")                        product(dout, hz, "W_h", "W_z")           finish()
    attend_forward(locations, query, v, c)              attend(dcontext, dalpha, cache)           keys("v", "c"), vectors()
    scores_forward(locations, query, v, c)              scores(dscores, cache)                    keys("v", "c")
      second attention to the same keys                 scores(dscores, cache, "name")            keys("v", "c", "name")
    context_of(locations, alpha)                        context(dcontext, alpha, vectors)         vectors()
    x + photo.gates                                     sum(gates=dgates)                         sums["gates"]
"""

from satnp.arrays.backend import xp_of
from satnp.arrays.products import few_rows_product
from satnp.layers import (
    additive_keys_backward,
    additive_look_backward,
    additive_query_backward,
    context_weights_backward,
    rows,
)


class Deferred:
    """Records one backward pass. `p` are the parameters; finish() and keys() add to the gradients `g`.

    The methods keep the arrays that they are given: do not write to these afterwards.
    """

    def __init__(self, p, g):
        self.p, self.g = p, g
        self.sums = {}
        self._steps, self._bias, self._scores_cache = {}, {}, {}

    def product(self, dout, x, *names, bias=None):
        """out = x W + b: dout (N, K), x (N, H) -> dx (N, H). W is p[name], or p.stacked(*names) for several names."""
        self._bias[names] = bias
        self._keep(names, x, dout)
        return few_rows_product(dout, self.p.stacked(*names))

    def attend(self, dcontext, dalpha, cache):
        """attend_forward: dcontext (N, D), dalpha (N, L) from elsewhere (the penalty) or None -> dquery (N, A)"""
        dalpha = self.context(dcontext, cache.alpha, cache.vectors, dalpha)
        dscores, dquery = additive_look_backward(dalpha, cache.alpha, cache.scores)
        self._keep_scores("scores", dscores, cache.scores)
        return dquery

    def scores(self, dscores, cache, name="scores"):
        """scores_forward: dscores (N, L) -> dquery (N, A)"""
        self._keep_scores(name, dscores, cache)
        return additive_query_backward(dscores, cache)

    def context(self, dcontext, alpha, vectors, dalpha=None):
        """context_of: dcontext (N, D), alpha (N, L), vectors (N, L, D), dalpha (N, L) from elsewhere -> dalpha (N, L)

        Of all steps at once: dcontext (T*N, D), alpha (T*N, L), dalpha (T*N, L) -> dalpha (T*N, L)
        """
        self._keep("vectors", *(x.reshape(-1, len(vectors), x.shape[1]) for x in (alpha, dcontext)))
        return context_weights_backward(dcontext, vectors, dalpha)

    def sum(self, **arrays):
        """Add the gradients of arrays that all steps share: `sums[name]` is the sum over the steps."""
        for name, x in arrays.items():
            if name in self.sums:
                self.sums[name] += x
            else:
                self.sums[name] = x.copy()  # x itself may be kept by `product`

    def finish(self):
        """Add dW = X^T D and db = sum of D of every product to the gradients."""
        for names, bias in self._bias.items():
            x, dout = map(rows, self._stacked(names))
            self.g.add_product(x, dout, *names)
            if bias:
                self.g.add(**{bias: dout.sum(axis=0)})

    def keys(self, v, c, name="scores"):
        """Add dv and dc to the gradients of these names -> dkeys (N, L, A), summed over the steps"""
        dkeys, dv, dc = additive_keys_backward(*self._stacked(name), self._scores_cache[name])
        self.g.add(**{v: dv, c: dc})
        return dkeys

    def vectors(self):
        """-> dvectors (N, L, D), summed over the steps"""
        alphas, dcontexts = (x.reshape(-1, *x.shape[2:]) for x in self._stacked("vectors"))
        return alphas.transpose(1, 2, 0) @ dcontexts.transpose(1, 0, 2)

    def _keep_scores(self, name, dscores, cache):
        self._scores_cache[name] = cache
        self._keep(name, dscores, cache.query)

    def _keep(self, name, *arrays):
        self._steps.setdefault(name, []).append(arrays)

    def _stacked(self, name):
        """The arrays kept under `name`, each (T, ...), the first step first."""
        steps = reversed(self._steps.pop(name))  # the loop ran backwards
        return [xp_of(arrays[0]).stack(arrays) for arrays in zip(*steps, strict=True)]
