"""CUDA kernels written by hand, each above the NumPy function that defines its result.

They exist only where one kernel per NumPy operation is too slow or not deterministic: the (N, L, A) tanh of attention is
never stored in memory, a softmax is one launch instead of four, and a sum with atomics adds in a different order each time.
Exactly one thread writes each output element, so results are deterministic. On the host, and for the complex numbers of a
gradient check, the NumPy function runs. In the sources, T is float or double; a warp is 32 threads that add up their sums.
"""

from functools import cache, wraps
from math import prod

import numpy as np

from satnp.arrays.backend import xp_of
from satnp.arrays.elementwise import write

THREADS = 128  # per block
WARP = 32

HEAD = """\
template<typename N> __device__ N warp_sum(N x)
{
    for (int far = 16; far > 0; far /= 2) x += __shfl_xor_sync(0xffffffffu, x, far);
    return x;
}
template<typename N> __device__ N warp_max(N x)
{
    for (int far = 16; far > 0; far /= 2) {
        N other = __shfl_xor_sync(0xffffffffu, x, far);
        x = other > x ? other : x;
    }
    return x;
}
#define THREAD (blockIdx.x * (long long)blockDim.x + threadIdx.x)
#define LANE (threadIdx.x % 32)
template<typename N> __device__ N warp_dot(const N* a, const N* b, int size)
{
    N sum = 0;
    for (int k = LANE; k < size; k += 32) sum += a[k] * b[k];
    return warp_sum(sum);
}
template<typename N> __device__ N tanh_slope(N x)
{
    N t = tanh(x);
    return 1 - t * t;
}
"""


def by_hand(outputs, sizes, threads, source):
    """Attach the CUDA kernel in `source` to the decorated NumPy function of the same name, which defines its result.

    Called with the arguments of the function, outputs(*args) returns the shapes of the results, sizes(*args) the integer
    arguments that follow the kernel's arrays, and threads(*args) the number of threads. The decorated function takes `out`:
    for each result a contiguous array, or None to allocate one.
    """

    def decorate(definition):
        @wraps(definition)
        def call(*args, out=None):
            xp = xp_of(*args)
            arrays = [x for x in args if hasattr(x, "dtype")]
            if xp is np or any(x.dtype.kind == "c" for x in arrays):
                return definition(*args) if out is None else write(definition(*args), out)
            T, *others = {x.dtype.char for x in arrays if x.dtype.kind == "f"}
            if others or T not in "fd" or any(x.dtype != np.int64 for x in arrays if x.dtype.kind != "f"):
                kinds = ", ".join(str(x.dtype) for x in arrays)
                raise TypeError(f"{definition.__name__} needs float32 or float64 and int64 arrays on a device, not {kinds}")
            if hasattr(xp, "run_by_hand"):  # the tests' stand-in for CuPy
                return xp.run_by_hand(definition, args, out)
            arrays = [xp.ascontiguousarray(x) for x in arrays]
            shapes = outputs(*args)
            outs = [
                xp.empty(shape, dtype=arrays[0].dtype) if x is None else x
                for shape, x in zip(shapes, out or (None,) * len(shapes), strict=True)
            ]
            blocks = -(-threads(*args) // THREADS)
            integers = [np.int32(n) for n in sizes(*args)]
            _compiled(xp, call, T)((blocks,), (THREADS,), (*arrays, *outs, *integers))
            return outs[0] if len(outs) == 1 else tuple(outs)

        call.source, call.outputs, call.sizes, call.threads = source, outputs, sizes, threads
        return call

    return decorate


def code(kernel, T):
    """Return the complete CUDA source of a kernel for type T, "float" or "double"."""
    return f"typedef {T} T;\n{HEAD}{kernel.source}"


@cache
def _compiled(xp, kernel, char):
    return xp.RawKernel(code(kernel, "float" if char == "f" else "double"), kernel.__name__)


@by_hand(
    lambda keys, query, v, c: [keys.shape[:2]],
    lambda keys, query, v, c: keys.shape,
    lambda keys, query, v, c: WARP * prod(keys.shape[:2]),
    """
extern "C" __global__ void scores(const T* keys, const T* query, const T* v, const T* c, T* out, int N, int L, int A)
{   // a warp for each location
    long long nl = THREAD / 32, n = nl / L;
    if (n >= N) return;
    T sum = 0;
    for (int a = LANE; a < A; a += 32) sum += v[a] * tanh(keys[nl * A + a] + query[n * A + a]);
    sum = warp_sum(sum);
    if (LANE == 0) out[nl] = sum + c[0];
}
""",
)
def scores(keys, query, v, c):
    """e_i = v . tanh(keys_i + query) + c: keys (N, L, A), query (N, A), v (A,), c (1,) -> (N, L)"""
    N, L, A = keys.shape
    return (xp_of(keys).tanh(keys + query[:, None, :]).reshape(N * L, A) @ v).reshape(N, L) + c


@by_hand(
    lambda dscores, keys, query, v: [query.shape],
    lambda dscores, keys, query, v: keys.shape,
    lambda dscores, keys, query, v: query.size,
    """
extern "C" __global__ void query_gradient(const T* dscores, const T* keys, const T* query, const T* v, T* dquery,
                                          int N, int L, int A)
{   // a thread for each feature of the query
    long long na = THREAD, n = na / A, a = na % A;
    if (n >= N) return;
    T q = query[na], sum = 0;
    for (int l = 0; l < L; l++) sum += dscores[n * L + l] * tanh_slope(keys[(n * L + l) * A + a] + q);
    dquery[na] = sum * v[a];
}
""",
)
def query_gradient(dscores, keys, query, v):
    """Gradient of `scores` with respect to query: dscores (N, L), keys (N, L, A), query (N, A), v (A,) -> dquery (N, A)"""
    t = xp_of(keys).tanh(keys + query[:, None, :])
    return (dscores[:, :, None] * (1 - t * t)).sum(axis=1) * v


@by_hand(
    lambda dalpha, alpha, keys, query, v: [alpha.shape, query.shape],
    lambda dalpha, alpha, keys, query, v: keys.shape,
    lambda dalpha, alpha, keys, query, v: query.size,
    """
extern "C" __global__ void look_gradient(const T* dalpha, const T* alpha, const T* keys, const T* query, const T* v,
                                         T* dscores, T* dquery, int N, int L, int A)
{   // a thread for each feature of the query; each recomputes the gradient of the scores and writes a part of it
    long long na = THREAD, n = na / A, a = na % A;
    if (n >= N) return;
    T q = query[na], mean = 0, sum = 0;
    for (int l = 0; l < L; l++) mean += alpha[n * L + l] * dalpha[n * L + l];
    for (int l = 0; l < L; l++) {
        T d = alpha[n * L + l] * (dalpha[n * L + l] - mean);
        sum += d * tanh_slope(keys[(n * L + l) * A + a] + q);
        if (l % A == a) dscores[n * L + l] = d;
    }
    dquery[na] = sum * v[a];
}
""",
)
def look_gradient(dalpha, alpha, keys, query, v):
    """`softmax_gradient` followed by `query_gradient`

    dalpha (N, L), alpha (N, L), keys (N, L, A), query (N, A), v (A,) -> dscores (N, L), dquery (N, A)
    """
    dscores = softmax_gradient(dalpha, alpha)
    return dscores, query_gradient(dscores, keys, query, v)


@by_hand(
    lambda dscores, keys, queries, v: [keys.shape, queries.shape[1:]],
    lambda dscores, keys, queries, v: (len(dscores), *keys.shape),
    lambda dscores, keys, queries, v: queries[0].size,
    """
extern "C" __global__ void keys_gradient(const T* dscores, const T* keys, const T* queries, const T* v, T* dkeys, T* dv,
                                         int S, int N, int L, int A)
{   // a thread for each feature of the keys of a photo; S steps
    long long na = THREAD, n = na / A, a = na % A;
    if (n >= N) return;
    T dv_n = 0;
    for (int l = 0; l < L; l++) {
        T key = keys[(n * L + l) * A + a], sum = 0;
        for (int s = 0; s < S; s++) {
            T d = dscores[((long long)s * N + n) * L + l], t = tanh(key + queries[((long long)s * N + n) * A + a]);
            sum += d * (1 - t * t);
            dv_n += d * t;
        }
        dkeys[(n * L + l) * A + a] = sum * v[a];
    }
    dv[na] = dv_n;
}
""",
)
def keys_gradient(dscores, keys, queries, v):
    """Gradients of `scores` with respect to keys and v, summed over T steps; dv is not summed over photos.

    dscores (T, N, L), keys (N, L, A), queries (T, N, A), v (A,) -> dkeys (N, L, A), dv (N, A)
    """
    xp = xp_of(keys)
    dkeys, dv = xp.zeros_like(keys), xp.zeros_like(queries[0])
    for d, query in zip(dscores, queries, strict=True):
        t = xp.tanh(keys + query[:, None, :])
        dv += (d[:, :, None] * t).sum(axis=1)
        dkeys += d[:, :, None] * (1 - t * t)
    return dkeys * v, dv


@by_hand(
    lambda x, vectors: [vectors.shape[:2]],
    lambda x, vectors: vectors.shape,
    lambda x, vectors: WARP * prod(vectors.shape[:2]),
    """
extern "C" __global__ void vector_products(const T* x, const T* vectors, T* out, int N, int L, int D)
{   // a warp for each vector
    long long nl = THREAD / 32, n = nl / L;
    if (n >= N) return;
    T sum = warp_dot(x + n * D, vectors + nl * D, D);
    if (LANE == 0) out[nl] = sum;
}
""",
)
def vector_products(x, vectors):
    """out_nl = x_n . vectors_nl: x (N, D), vectors (N, L, D) -> (N, L)"""
    return (vectors @ x[:, :, None])[:, :, 0]


@by_hand(
    lambda x, vectors, plus: [vectors.shape[:2]],
    lambda x, vectors, plus: vectors.shape,
    lambda x, vectors, plus: WARP * prod(vectors.shape[:2]),
    """
extern "C" __global__ void vector_products_plus(const T* x, const T* vectors, const T* plus, T* out, int N, int L, int D)
{   // a warp for each vector
    long long nl = THREAD / 32, n = nl / L;
    if (n >= N) return;
    T sum = warp_dot(x + n * D, vectors + nl * D, D);
    if (LANE == 0) out[nl] = sum + plus[nl];
}
""",
)
def vector_products_plus(x, vectors, plus):
    """out_nl = x_n . vectors_nl + plus_nl: x (N, D), vectors (N, L, D), plus (N, L) -> (N, L)"""
    return vector_products(x, vectors) + plus


@by_hand(
    lambda alpha, vectors: [(len(alpha), vectors.shape[2])],
    lambda alpha, vectors: vectors.shape,
    lambda alpha, vectors: len(alpha) * vectors.shape[2],
    """
extern "C" __global__ void weighted_sum(const T* alpha, const T* vectors, T* out, int N, int L, int D)
{   // a thread for each feature
    long long nd = THREAD, n = nd / D, d = nd % D;
    if (n >= N) return;
    T sum = 0;
    for (int l = 0; l < L; l++) sum += alpha[n * L + l] * vectors[(n * L + l) * D + d];
    out[nd] = sum;
}
""",
)
def weighted_sum(alpha, vectors):
    """out_n = sum_l alpha_nl vectors_nl: alpha (N, L), vectors (N, L, D) -> (N, D)"""
    return (alpha[:, None, :] @ vectors)[:, 0]


@by_hand(
    lambda scores, annotations: [scores.shape, (len(scores), annotations.shape[2])],
    lambda scores, annotations: annotations.shape,
    lambda scores, annotations: len(scores) * annotations.shape[2],
    """
extern "C" __global__ void soft_attention(const T* scores, const T* annotations, T* alpha, T* context, int N, int L, int D)
{   // a thread for each feature of the context; each recomputes the softmax and writes a part of it
    long long nd = THREAD, n = nd / D, d = nd % D;
    if (n >= N) return;
    T largest = scores[n * L], total = 0, sum = 0;
    for (int l = 0; l < L; l++) largest = scores[n * L + l] > largest ? scores[n * L + l] : largest;
    for (int l = 0; l < L; l++) total += exp(scores[n * L + l] - largest);
    for (int l = 0; l < L; l++) {
        T weight = exp(scores[n * L + l] - largest) / total;
        sum += weight * annotations[(n * L + l) * D + d];
        if (l % D == d) alpha[n * L + l] = weight;
    }
    context[nd] = sum;
}
""",
)
def soft_attention(scores, annotations):
    """alpha = softmax(scores), context = sum_i alpha_i a_i

    scores (N, L), annotations (N, L, D) -> alpha (N, L), context (N, D)
    """
    alpha = softmax(scores)
    return alpha, weighted_sum(alpha, annotations)


@by_hand(
    lambda x: [x.shape],
    lambda x: (x.size // x.shape[-1], x.shape[-1]),
    lambda x: WARP * (x.size // x.shape[-1]),
    """
extern "C" __global__ void softmax(const T* x, T* out, int N, int L)
{   // a warp for each row
    long long n = THREAD / 32;
    if (n >= N) return;
    T largest = x[n * L], sum = 0;
    for (int l = LANE; l < L; l += 32) largest = x[n * L + l] > largest ? x[n * L + l] : largest;
    largest = warp_max(largest);
    for (int l = LANE; l < L; l += 32) sum += out[n * L + l] = exp(x[n * L + l] - largest);
    sum = warp_sum(sum);
    for (int l = LANE; l < L; l += 32) out[n * L + l] /= sum;
}
""",
)
def softmax(x):
    """exp(x) / sum of exp(x) over the last axis, shifted by the maximum so that nothing overflows."""
    exp = xp_of(x).exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


@by_hand(
    lambda dalpha, alpha: [alpha.shape],
    lambda dalpha, alpha: (alpha.size // alpha.shape[-1], alpha.shape[-1]),
    lambda dalpha, alpha: WARP * (alpha.size // alpha.shape[-1]),
    """
extern "C" __global__ void softmax_gradient(const T* dalpha, const T* alpha, T* out, int N, int L)
{   // a warp for each row
    long long n = THREAD / 32;
    if (n >= N) return;
    T mean = warp_dot(alpha + n * L, dalpha + n * L, L);
    for (int l = LANE; l < L; l += 32) out[n * L + l] = alpha[n * L + l] * (dalpha[n * L + l] - mean);
}
""",
)
def softmax_gradient(dalpha, alpha):
    """alpha * (dalpha - sum of alpha * dalpha over the last axis)"""
    return alpha * (dalpha - (alpha * dalpha).sum(axis=-1, keepdims=True))


@by_hand(
    lambda dz, context, beta: [(len(dz), 1)],
    lambda dz, context, beta: (*dz.shape, beta.shape[1]),
    lambda dz, context, beta: WARP * len(dz),
    """
extern "C" __global__ void gate_gradient(const T* dz, const T* context, const T* beta, T* out, int N, int D, int G)
{   // a warp for each row
    long long n = THREAD / 32;
    if (n >= N) return;
    T sum = warp_dot(dz + n * D, context + n * D, D);
    if (LANE == 0) out[n] = sum * beta[n * G] * (1 - beta[n * G]);
}
""",
)
def gate_gradient(dz, context, beta):
    """Gradient with respect to the scalar gate before its sigmoid

    dz (N, D), context (N, D), beta (N, 1 or more equal columns) -> (N, 1)
    """
    beta = beta[:, :1]
    return (dz * context).sum(axis=1, keepdims=True) * beta * (1 - beta)


@by_hand(
    lambda rows, words, order, V: [(V, rows.shape[1])],
    lambda rows, words, order, V: (len(words), rows.shape[1], V),
    lambda rows, words, order, V: V * rows.shape[1],
    """
extern "C" __global__ void segment_sum(const T* rows, const long long* words, const long long* order, T* out,
                                       int K, int M, int V)
{   // a thread for each element of the result; a binary search finds the rows of its word
    long long vm = THREAD, v = vm / M, m = vm % M;
    if (v >= V) return;
    int k = 0, end = K;
    while (k < end) {
        int middle = (k + end) / 2;
        if (words[middle] < v) k = middle + 1; else end = middle;
    }
    T sum = 0;
    for (; k < K && words[k] == v; k++) sum += rows[order[k] * M + m];
    out[vm] = sum;
}
""",
)
def segment_sum(rows, words, order, V):
    """out_v = sum of rows[order[k]] over all k with words[k] = v; words is sorted

    rows (K, M), words (K,), order (K,) -> (V, M)
    """
    xp = xp_of(rows)
    out = xp.zeros((V, rows.shape[1]), dtype=rows.dtype)
    xp.add.at(out, words, rows[order])
    return out


@by_hand(
    lambda logits, b, targets: [logits.shape, targets.shape],
    lambda logits, b, targets: logits.shape,
    lambda logits, b, targets: WARP * len(logits),
    """
extern "C" __global__ void word_errors(const T* logits, const T* b, const long long* targets, T* error, T* log_p,
                                       int N, int V)
{   // a warp for each row
    long long n = THREAD / 32;
    if (n >= N) return;
    const T* x = logits + n * V;
    T *p = error + n * V, largest = x[0] + b[0], sum = 0;
    for (int v = LANE; v < V; v += 32) largest = x[v] + b[v] > largest ? x[v] + b[v] : largest;
    largest = warp_max(largest);
    for (int v = LANE; v < V; v += 32) sum += p[v] = exp(x[v] + b[v] - largest);
    sum = warp_sum(sum);
    for (int v = LANE; v < V; v += 32) p[v] = p[v] / sum - (v == targets[n] ? 1 : 0);
    if (LANE == 0) log_p[n] = x[targets[n]] + b[targets[n]] - largest - log(sum);
}
""",
)
def word_errors(logits, b, targets):
    """error = softmax(logits + b) - onehot(targets),  log_p = log softmax(logits + b)[targets]

    logits (N, V), b (V,), targets (N,) -> error (N, V), log_p (N,)
    """
    xp, places = xp_of(logits), (xp_of(logits).arange(len(targets)), targets)
    x = logits + b
    x -= x.max(axis=1, keepdims=True)
    error = xp.exp(x)
    total = error.sum(axis=1)
    error /= total[:, None]
    error[places] -= 1
    return error, x[places] - xp.log(total)


KERNELS = [x for x in list(globals().values()) if hasattr(x, "source")]
