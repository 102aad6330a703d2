"""What runs differently on the host for speed: the same numbers as the plain formula."""

import numpy as np
import pytest

from satnp import layers
from satnp.arrays import products
from satnp.arrays.backend import to_device, to_host
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.word_gates import WordGates
from satnp.layers import attention, vocabulary
from tests import strict


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(attention, "BLOCK", 30)
        monkeypatch.setattr(vocabulary, "BLOCK", 30)


def scores_world(rng, dtype=float):
    """keys, query, v, c and dscores of additive scores."""
    return [rng.standard_normal(shape).astype(dtype) for shape in ((5, 7, 4), (5, 4), (4,), (1,), (5, 7))]


def scores_and_gradients(keys, query, v, c, dscores, F=None):
    scores, cache = layers.additive_scores_forward(keys, query, v, c, F)
    return scores, *layers.additive_scores_backward(dscores, cache)


def on_the_stand_in(*arrays):
    return [x.get() for x in scores_and_gradients(*map(strict.asarray, arrays))]


@pytest.mark.parametrize("ratio", [False, True])
def test_the_scores_and_their_gradients_are_the_printed_ones(rng, blocks, ratio):
    world = scores_world(rng)
    F, wanted = layers.exponentials(world[0]) if ratio else None, on_the_stand_in(*world)
    for keys in (world[0], None) if ratio else (world[0],):
        for x, y in zip(scores_and_gradients(keys, *world[1:], F), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_float32_ratios_are_within_2e_7_of_tanh(rng):
    k = np.linspace(-20, 20, 2001, dtype=np.float32)
    for q in np.float32([-20, -3, 0, 0.1, 20]):
        x, y, ratio = attention.summands(k, q[None], layers.exponentials(k))
        R = attention.saturation(x, y, ratio, np.empty_like(k))
        assert ratio and np.abs(1 - 2 * R - np.tanh(k.astype(float) + float(q))).max() < 3e-7


@pytest.mark.parametrize("largest", [19.9, 20.1, 1e4])
@pytest.mark.parametrize("which", [0, 1])
def test_keys_and_queries_too_large_for_exponentials_get_a_tanh(rng, largest, which):
    world = scores_world(rng, dtype=np.float32)
    world[which] *= largest / np.abs(world[which]).max()
    world[which].flat[0], world[1 - which].flat[0] = largest, -largest / 2  # which cancel in part
    F = layers.exponentials(world[0])
    assert (attention.summands(*world[:2], F)[2]) == (largest < 20)
    wanted = on_the_stand_in(*(x.astype(float) for x in world))
    for keys in (world[0],) if F is None else (world[0], None):
        for x, y in zip(scores_and_gradients(keys, *world[1:], F), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * max(1, np.abs(y).max()))


def test_the_steps_together_give_the_sum_of_each(rng, blocks):
    keys, query, v, c, dscores = scores_world(rng)
    _, cache = layers.additive_scores_forward(keys, query, v, c, layers.exponentials(keys))
    queries, d = rng.standard_normal((3, *query.shape)), rng.standard_normal((3, *dscores.shape))
    together = layers.additive_keys_backward(d, queries, cache)
    each = [layers.additive_keys_backward(d[t : t + 1], queries[t : t + 1], cache) for t in range(3)]
    for x, parts in zip(together, zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(x, sum(parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ratio", [False, True])
def test_attention_at_all_steps_is_that_of_each_step(xp, rng, blocks, ratio):
    T, N, L = 3, 5, 7
    keys, _, v, c, _ = (xp.asarray(x) for x in scores_world(rng))
    queries, d, a, dz = (xp.asarray(rng.standard_normal((T, N, size))) for size in (4, L, L, 6))
    vectors, F = xp.asarray(rng.standard_normal((N, L, 6))), layers.exponentials(keys) if ratio else None
    assert (F is not None) == (ratio and xp is np)
    scores, cache = layers.additive_steps_forward(keys if F is None else None, queries.reshape(T * N, -1), v, c, F)
    found = [scores, *layers.additive_steps_backward(d.reshape(T * N, L), cache)]
    found += layers.context_forward(a.reshape(T * N, L), vectors)[0], layers.context_weights_backward(
        dz.reshape(T * N, -1), vectors, a.reshape(T * N, L))  # fmt: skip
    each = []
    for t in range(T):
        scores, cache = layers.additive_scores_forward(keys, queries[t], v, c)
        dkeys, dquery, *summed = layers.additive_scores_backward(d[t], cache)
        weights = layers.context_weights_backward(dz[t], vectors, a[t])
        each.append([scores, dkeys, dquery, *summed, layers.context_forward(a[t], vectors)[0], weights])
    for k, (x, parts) in enumerate(zip(found, zip(*each, strict=True), strict=True)):
        wanted = sum(map(to_host, parts)) if k in (1, 3, 4) else np.concatenate([*map(to_host, parts)])  # dkeys, dv, dc
        np.testing.assert_allclose(to_host(x), wanted, rtol=1e-12, atol=1e-12)


def test_the_vocabulary_is_an_affine_map_and_its_cross_entropy(xp, rng, blocks):
    hidden, W, b, weights = (xp.asarray(rng.standard_normal(s)) for s in ((9, 3), (3, 20), (20,), (9,)))
    targets = xp.asarray(rng.integers(0, 20, 9))
    loss, cache = layers.vocabulary_forward(hidden, W, b, targets, weights)
    logits, affine = layers.affine_forward(hidden, W, b)
    wanted, entropy = layers.cross_entropy_forward(logits, targets, weights)
    grads = layers.vocabulary_backward(xp.ones(()), cache)
    wanted_grads = layers.affine_backward(layers.cross_entropy_backward(xp.ones(()), entropy), affine)
    for x, y in zip((loss, cache.log_p, *grads), (wanted, entropy.log_p, *wanted_grads), strict=True):
        np.testing.assert_allclose(*(getattr(z, "get", lambda z=z: z)() for z in (x, y)), rtol=1e-12, atol=1e-13)


def test_label_smoothing_is_the_cross_entropy_with_smoothed_targets(xp, rng, blocks):
    hidden, W, b, weights = (rng.standard_normal(s) for s in ((9, 3), (3, 20), (20,), (9,)))
    targets = rng.integers(0, 20, 9)
    loss, cache = layers.vocabulary_forward(*map(xp.asarray, (hidden, W, b, targets, weights)), smoothing=0.3)
    grads = layers.vocabulary_backward(xp.ones(()), cache)
    logits = hidden @ W + b
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smoothed = 0.7 * np.eye(20)[targets] + 0.3 / 20
    error = weights[:, None] * (np.exp(log_p) - smoothed)
    wanted = -(weights * (smoothed * log_p).sum(axis=1)).sum(), error @ W.T, hidden.T @ error, error.sum(axis=0)
    for x, y in zip((loss, *grads), wanted, strict=True):
        np.testing.assert_allclose(getattr(x, "get", lambda x=x: x)(), y, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(getattr(cache.log_p, "get", lambda: cache.log_p)(), log_p[np.arange(9), targets], rtol=1e-11)


def test_logits_of_any_size_stay_numbers(rng):
    hidden, W = np.float32([[1e4], [-1e4], [0]]), np.float32([[1, -1, 0.5]])
    loss, cache = layers.vocabulary_forward(hidden, W, np.zeros(3, np.float32), np.array([1, 1, 2]), np.ones(3, np.float32))
    assert float(loss) == pytest.approx(2e4 + np.log(3)) and np.isfinite(cache.error).all()


def test_the_logits_are_held_once():
    """Of a pass whose logits are by far the largest: one array of them, and the weights' gradient."""
    import tracemalloc

    rng, (N, M, V) = np.random.default_rng(0), (400, 2, 5000)
    hidden, W, b = (rng.standard_normal(s, dtype=np.float32) for s in ((N, M), (M, V), (V,)))
    targets, weights = rng.integers(0, V, N), np.ones(N, np.float32)
    tracemalloc.start()
    _, cache = layers.vocabulary_forward(hidden, W, b, targets, weights)
    layers.vocabulary_backward(np.float32(1), cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * 4 * N * V


@pytest.fixture
def small_kernels(monkeypatch):
    """As on a processor with AVX-512, in products of a few numbers."""
    monkeypatch.setattr(products, "small_kernels", lambda: True)
    monkeypatch.setattr(products, "on_one_core", lambda: True)
    for name, value in {"SMALL": 200, "ROWS": 2, "COLUMNS": 3, "SUMMED": 2, "LARGE": 1, "FEW": range(1, 10)}.items():
        monkeypatch.setattr(products, name, value)


@pytest.fixture
def counted(monkeypatch):
    """The products that NumPy was asked for, by the shapes of their factors."""
    seen, matmul = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda x, y, out=None: seen.append((x.shape, y.shape)) or matmul(x, y, out=out))
    return seen


# rows of x: fewer than a piece has, whole pieces, some left over
@pytest.mark.parametrize("M", [3, 4, 20, 23])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_a_product_in_pieces_is_a_product(rng, small_kernels, counted, M, lead):
    x, W = rng.standard_normal((*lead, M, 5)), rng.standard_normal((*lead, 5, 9))
    wanted = np.einsum("...mk,...kn->...mn", x, W)
    turned, wide = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2), np.zeros((*lead, M, 12))
    for x_ in (x, turned):
        np.testing.assert_allclose(products.tall_product(x_, W), wanted, rtol=1e-12, atol=1e-13)
    assert products.tall_product(x, W, out=wide[..., 2:11]).base is wide
    np.testing.assert_allclose(wide, np.pad(wanted, [(0, 0)] * (len(lead) + 1) + [(2, 1)]), rtol=1e-12, atol=1e-13)
    assert (((*lead, M // 4, 4, 5), (*lead, 1, 5, 9)) in counted) == (M >= 4)
    if not lead:
        out = np.empty((9, M))
        np.testing.assert_allclose(products.wide_product(W.T, x.T, out), wanted.T, rtol=1e-12, atol=1e-13)
        assert ((9, 5), (M // 3, 5, 3)) in counted
    y = rng.standard_normal((*lead, M, 9))
    summed = np.einsum("...mk,...mn->...kn", x, y).sum(axis=tuple(range(len(lead))))
    np.testing.assert_allclose(products.summed_product(x, y), summed, rtol=1e-12, atol=1e-13)
    assert (((*lead, M // 4, 5, 4), (*lead, M // 4, 4, 9)) in counted) == (M > 4)


@pytest.mark.parametrize("N", [1, 3, 8, 9])
def test_a_packed_matrix_multiplies_as_it_did(rng, small_kernels, counted, N):
    W = rng.standard_normal((5, N))
    times = products.packed(W)
    for M in (1, 20, 23):
        x = rng.standard_normal((M, 5))
        np.testing.assert_allclose(times(x), x @ W, rtol=1e-12, atol=1e-13)
    rows = 200 // (5 * 3) // 2 * 2
    assert ((20 // rows, rows, 5), (-(-N // 3), 1, 5, 3)) in counted


@pytest.mark.parametrize(
    ("columns", "M", "panels"), [(8, 9, False), (9, 9, True), (18, 9, False), (18, 10, True)]
)  # too small; small; large, for few_rows_product; large, with more rows than that takes
def test_a_matrix_is_packed_for_the_rows_of_a_recurrence(rng, small_kernels, counted, monkeypatch, columns, M, panels):
    monkeypatch.setattr(products, "WORTH", 6 * 9)
    monkeypatch.setattr(products, "LARGE", 6 * 9)
    x, W = rng.standard_normal((M, 6)), rng.standard_normal((6, columns))
    np.testing.assert_allclose(products.packed(W, M)(x), x @ W, rtol=1e-12, atol=1e-13)
    assert any(y[-2:] == (6, 3) for _, y in counted) == panels
    assert bool(counted) == (columns > 8)
    monkeypatch.setattr(products, "on_one_core", lambda: False)
    counted.clear()
    np.testing.assert_allclose(products.packed(W, M)(x), x @ W, rtol=1e-12, atol=1e-13)
    assert not counted


def test_decoding_multiplies_each_word_once(rng):
    config = sat.Config(V=9, D=5, M=4, H=6, A=3, dropout=0)
    p, said = sat.init(config, rng), []
    gates = WordGates(p)
    gates.product = lambda x: said.append(len(x)) or x @ p.W_x
    for words in ([1, 1, 1], [4, 1, 5, 4], [5, 4], [0, 5, 8]):
        np.testing.assert_allclose(gates(np.array(words)), p.E[words] @ p.W_x + p.b, rtol=1e-6)
    assert said == [1, 2, 2]


def test_numbers_of_another_kind_are_multiplied_whole(rng, small_kernels, counted):
    x, W = rng.standard_normal((20, 5)), rng.standard_normal((5, 9))
    for x_, W_ in ((x + 1j * x, W.astype(complex)), (x.astype(np.float32), W), (x, rng.standard_normal((5, 300)))):
        wanted = np.einsum("mk,kn->mn", x_, W_)
        np.testing.assert_allclose(products.tall_product(x_, W_), wanted, rtol=1e-12, atol=1e-13)
        out = np.empty(wanted.T.shape, wanted.dtype)
        np.testing.assert_allclose(products.wide_product(W_.T, x_.T, out), wanted.T, rtol=1e-12, atol=1e-13)
        y = np.repeat(W_, 4, axis=0)
        np.testing.assert_allclose(products.summed_product(x_, y), np.einsum("mk,mn->kn", x_, y), rtol=1e-12, atol=1e-13)
    assert all(len(shape) == 2 for shapes in counted for shape in shapes)


@pytest.mark.parametrize(("N", "K", "R"), [(5, 12, 31), (7, 40, 9), (1, 3, 2), (3, 37, 50)])
def test_a_product_of_few_rows_is_a_product(monkeypatch, rng, small_kernels, N, K, R):
    x, W = rng.standard_normal((N, K)), rng.standard_normal((R, K))
    turned = np.asfortranarray(W)
    for small in (N * 8, N * K * 2, N * K * 8, N * K * R * 2):  # a row in many parts, in some, whole, all rows at once
        monkeypatch.setattr(products, "SMALL", small)
        for x_, W_ in ((x, W), (np.asfortranarray(x), W), (np.repeat(x, 2, axis=1)[:, ::2], W), (x, turned)):
            np.testing.assert_allclose(products.few_rows_product(x_, W_), x @ W.T, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("why", ["no even parts", "no kernels for it"])
def test_a_product_of_few_rows_can_go_the_plain_way(monkeypatch, rng, small_kernels, counted, why):
    x, W = rng.standard_normal((8, 2003)), rng.standard_normal((30, 2003))  # a prime
    monkeypatch.setattr(products, "SMALL", 8 * 2003)
    if why == "no kernels for it":
        x, W = x[:, :2000].copy(), W[:, :2000].copy()
        monkeypatch.setattr(products, "small_kernels", lambda: False)
    np.testing.assert_allclose(products.few_rows_product(x, W), x @ W.T, rtol=1e-12, atol=1e-13)
    assert all(len(shape) == 2 for shapes in counted for shape in shapes)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_noisy_or_is_right_for_scores_of_any_size(xp, dtype):
    """z = +-800: p is a probability, and loss and gradients are those of the mathematics, not 0 / 0."""
    L, z = 6, np.zeros((4, 6, 2), dtype)
    z[0], z[1] = 800, -800
    z[2, :, 0], z[2, 0, 0] = -800, 800  # at one location only
    with np.errstate(all="raise", under="ignore"):
        p, cache = layers.noisy_or_forward(to_device(z, xp))
        dz = to_host(layers.noisy_or_backward(to_device(np.ones((4, 2), dtype), xp), cache))
        p = to_host(p)
        np.testing.assert_allclose(p, [[1, 1], [0, 0], [1, 1 - 0.5**L], [1 - 0.5**L] * 2], rtol=1e-6)
        assert np.isfinite(dz).all() and (p >= 0).all() and (p <= 1).all() and p.dtype == dtype
        np.testing.assert_allclose(dz[3], 0.5 ** (L + 1), rtol=1e-6)
        for said, losses in ((1, [0, 800 - np.log(L)]), (0, [800 * L, 0])):
            for n, wanted in enumerate(losses):
                loss, cache = layers.noisy_or_loss_forward(*(to_device(x, xp) for x in (
                    z[n : n + 1, :, :1], np.full((1, 1), said, dtype))))  # fmt: skip
                dz = to_host(layers.noisy_or_loss_backward(1.0, cache))
                assert float(to_host(loss)) == pytest.approx(wanted, rel=1e-6, abs=1e-30)
                # said, but far from every location: together they are moved by 1; not said, but everywhere: each by 1
                np.testing.assert_allclose(dz, {(1, 1): -1 / L, (0, 0): 1}.get((said, n), 0), rtol=1e-4)
