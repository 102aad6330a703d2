"""An independent oracle for the captioners on the frame: each in PyTorch, gradients by autograd. Skipped without PyTorch."""

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.captioners import CAPTIONERS
from satnp.captioners.contract import Batch
from satnp.proof.captioners import probable

torch = pytest.importorskip("torch")
F = torch.nn.functional
N, T, L = 3, 4, 6


def lstm(gates, c, tanh=True):
    i, f, o, g = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * (c.tanh() if tanh else c), c


def show_and_tell(w, config, a, words):
    """a (N, L, D), words (T, N, M) -> what the vocabulary layer reads (T, N, K), alphas (T, N, L) or None"""
    zeros = a.new_zeros(N, config.H)
    h, c = lstm((a.mean(dim=1) @ w["W_i"] + w["b_i"]) @ w["W_x"] + zeros @ w["W_h"] + w["b"], zeros, config.tanh)
    out = []
    for x in words:
        h, c = lstm(x @ w["W_x"] + h @ w["W_h"] + w["b"], c, config.tanh)
        out.append(h)
    return torch.stack(out), None


def neuraltalk(w, config, a, words):
    h, out, image = a.new_zeros(N, config.H), [], a.mean(dim=1) @ w["W_i"] + w["b_i"]
    for t, x in enumerate(words):
        h = (x @ w["W_x"] + h @ w["W_h"] + w["b"] + (image if t == 0 or config.each_step else 0)).relu()
        out.append(h)
    return torch.stack(out), None


def log_bilinear(w, config, a, words):
    v, out = a.mean(dim=1), []
    before = [w["b_0"].expand(N, -1)] * (config.n - 1)
    for t in range(T):
        window = torch.cat([*before, *words][t : t + config.n], dim=1)
        r = window @ w["C"] + w["b"]
        image = v @ w["C_m" if config.image == "bias" else "U_v"] + w["b_m"]
        out.append(r + image if config.image == "bias" else (r @ w["U_r"]) * image)
    return torch.stack(out), None


def m_rnn(w, config, a, words):
    r, out = a.new_zeros(N, config.M), []
    for x in words:
        r = (x + r @ w["W_h"]).relu()
        out.append(r)
    return torch.stack(out), None


def multimodal(w, a, words, r):
    inputs = torch.cat([words, r, a.mean(dim=1).expand(T, N, -1)], dim=2)
    return 1.7159 * torch.tanh(2 * (inputs @ torch.cat([w[n] for n in ("V_w", "V_r", "V_i")]) + w["b_m"]) / 3)


def lrcn(w, config, a, words):
    h1 = c1 = h2 = c2 = a.new_zeros(N, config.H)
    v, out, W2 = a.mean(dim=1), [], torch.cat([w[n] for n in ("U_h1", "U_v", "U_h2")])
    for x in words:
        h1, c1 = lstm(x @ w["W_x"] + h1 @ w["W_h"] + w["b"], c1)
        h2, c2 = lstm(torch.cat([h1, v, h2], dim=1) @ W2 + w["b_2"], c2)
        out.append(h2)
    return torch.stack(out), None


def glstm(w, config, a, words):
    R = -(-config.G // config.D) if config.guidance == "file" else 0
    v, zeros = a[:, : L - R].mean(dim=1), a.new_zeros(N, config.H)
    guidance = a[:, L - R :].flatten(start_dim=1)[:, : config.G] if R else v
    h, c = lstm((v @ w["W_i"] + w["b_i"]) @ w["W_x"] + w["b"], zeros, config.tanh)
    out = []
    for x in words:
        gates = torch.cat([x, h, guidance], dim=1) @ torch.cat([w["W_x"], w["W_h"], w["W_q"]]) + w["b"] + w["b_q"]
        h, c = lstm(gates, c, config.tanh)
        out.append(h)
    return torch.stack(out), None


def att_lstm(w, config, a, words):
    found = 1 - (1 - (a @ w["W_d"] + w["b_d"]).sigmoid()).prod(dim=1)
    x, zeros, out = found @ w["W_ea"] + w["b_ea"], a.new_zeros(N, config.H), []
    h, c = lstm(x @ w["W_x"] + w["b"], zeros)
    for word in words:
        h, c = lstm((word + x if config.each_step else word) @ w["W_x"] + h @ w["W_h"] + w["b"], c)
        out.append(h)
    return torch.stack(out), None


def top_down(w, config, a, words):
    h1 = c1 = h2 = c2 = a.new_zeros(N, config.H)
    absent = (a == 0).all(dim=2) & config.regions
    v, out, alphas = a.masked_fill(absent[..., None], 0).sum(dim=1) / (~absent).sum(dim=1, keepdim=True), [], []
    W1, W2 = (torch.cat([w[n] for n in names]) for names in (("W_h2", "W_v", "W_x", "W_h1"), ("U_z", "U_h1", "U_h2")))
    for x in words:
        h1, c1 = lstm(torch.cat([h2, v, x, h1], dim=1) @ W1 + w["b"], c1)
        e = torch.tanh(a @ w["W_a"] + w["b_a"] + (h1 @ w["W_s"])[:, None]) @ w["w"] + w["c_a"]
        alphas.append(e.masked_fill(absent, -torch.inf).softmax(dim=1))
        z = torch.einsum("nl,nld->nd", alphas[-1], a)
        h2, c2 = lstm(torch.cat([z, h1, h2], dim=1) @ W2 + w["b_2"], c2)
        out.append(h2)
    return torch.stack(out), torch.stack(alphas)


def adaptive(w, config, a, words):
    H, h, m = config.H, a.new_zeros(N, config.H), a.new_zeros(N, config.H)
    v = (a @ w["W_a"] + w["b_a"]).relu()
    v_g = (a.mean(dim=1) @ w["W_b"] + w["b_b"]).relu()
    W, out, alphas = torch.cat([w["W_x"], w["W_vg"], w["W_h"]]), [], []
    for x in words:
        gates = torch.cat([x, v_g, h], dim=1) @ W + w["b"]
        h, m = lstm(gates[:, : 4 * H], m)
        seen, keys = v, v @ w["W_v"]
        if config.sentinel:
            s = gates[:, 4 * H :].sigmoid() * m.tanh()
            seen, keys = torch.cat([v, s[:, None]], dim=1), torch.cat([keys, (s @ w["W_s"])[:, None]], dim=1)
        alpha = (torch.tanh(keys + (h @ w["W_g"])[:, None]) @ w["w"] + w["c_a"]).softmax(dim=1)
        out.append(torch.einsum("nl,nld->nd", alpha, seen) + h)
        alphas.append(alpha[:, :L])
    return torch.stack(out), torch.stack(alphas)


def sca_cnn(w, config, a, words):
    h = c = a.new_zeros(N, config.H)
    K, D, out, alphas, looked = config.kernel, config.D, [], [], {}

    def attend(X, h, kind, layer):
        W, b, W_h, v, c_0 = (w[f"{n}{kind}{layer}"] for n in ("W_", "b_", "W_h", "w_", "c_"))
        of_channels = kind == "c"
        features = X.mean(dim=1)[:, :, None] if of_channels else X
        weights = (torch.tanh(features @ W + b + (h @ W_h)[:, None]) @ v + c_0).softmax(dim=1)
        times = weights.shape[1] if config.scaled else 1
        return torch.einsum("nd,nld->nld" if of_channels else "nl,nld->nld", times * weights, X), weights

    for x in words:
        X = a
        for layer in ("", "2")[: config.layers]:
            if layer:
                F_ = w["F"].reshape(K, K, D, D).permute(3, 2, 0, 1)
                square = X.reshape(N, config.rows, -1, D).permute(0, 3, 1, 2)
                X = F.conv2d(square, F_, w["b_F"], padding="same").relu().flatten(2).mT
            for kind in config.order.lower().split("-"):
                X, weights = attend(X, h, kind, layer)
                looked[kind] = weights
        z = X.mean(dim=1) if config.scaled else X.sum(dim=1)
        h, c = lstm(torch.cat([x, h, z], dim=1) @ torch.cat([w[n] for n in ("W_x", "W_h", "W_z")]) + w["b"], c)
        out.append(h)
        alphas.append(looked["s"])
    return torch.stack(out), torch.stack(alphas)


def neural_baby_talk(w, config, a, words):
    """-> h2 (T, N, H), and the parts of the mixture that do not depend on its dropout"""
    h1 = c1 = h2 = c2 = a.new_zeros(N, config.H)
    absent, H = (a == 0).all(dim=2), config.H
    v = (a @ w["W_a"] + w["b_a"]).relu()
    v_mean, out, pointers = v.masked_fill(absent[..., None], 0).sum(dim=1) / (~absent).sum(dim=1, keepdim=True), [], []
    W1, W2 = (torch.cat([w[n] for n in names]) for names in (("W_h2", "W_m", "W_x", "W_h1"), ("U_z", "U_h1", "U_h2")))
    for x in words:
        h1, c1 = lstm(torch.cat([h2, v_mean, x, h1], dim=1) @ W1 + w["b"], c1)
        e = torch.tanh(v @ w["W_v"] + (h1 @ w["W_s"])[:, None]) @ w["w"] + w["c_a"]
        z = torch.einsum("nl,nld->nd", e.masked_fill(absent, -torch.inf).softmax(dim=1), v)
        gates = torch.cat([z, h1, h2], dim=1) @ W2 + w["b_2"]
        h2, c2 = lstm(gates[:, : 4 * H], c2)
        s = gates[:, 4 * H :].sigmoid() * c2.tanh()
        keys = torch.cat([v @ w["W_v"], (s @ w["W_t"])[:, None]], dim=1)
        e = torch.tanh(keys + (h2 @ w["W_q"])[:, None]) @ w["u"] + w["c_u"]
        out.append(h2)
        pointers.append(e.masked_fill(F.pad(absent, (0, 1)), -torch.inf).softmax(dim=1))
    return torch.stack(out), torch.stack(pointers)


def mixture(w, config, a, h, pointers):
    """The logarithm of the probabilities of all words: h (T, N, H), pointers (T, N, k+1) -> (T, N, V)"""
    v, P = (a @ w["W_a"] + w["b_a"]).relu(), a[:, :, -len(config.classes) :]
    x = (v @ w["F_v"] + w["b_f"] + (h @ w["F_h"])[:, :, None]).relu()
    fine, plural = x @ w["W_g"] + w["b_g"], (x @ w["W_n"] + w["b_n"])[..., 0]
    text, named, g = h @ w["W_p"] + w["b_p"], {}, 0
    for c, pairs in enumerate(config.words):
        shown = ((P.argmax(dim=2) == c) & (P.amax(dim=2) > 0)).any(dim=1)
        forms = {y: fine[..., g + n] + b * plural for n, pair in enumerate(pairs) for b, y in enumerate(pair) if y >= 0}
        total = sum(score.exp() for score in forms.values())
        for y, score in forms.items():
            named[y] = (pointers[..., :-1] * P[..., c] * score.exp() / total).sum(dim=2)
            text = torch.where(shown[:, None] & (torch.arange(config.V) == y), -torch.inf, text)
        if not forms:
            named[3] = (pointers[..., :-1] * P[..., c]).sum(dim=2)
        g += len(pairs)
    p = pointers[..., -1:] * text.softmax(dim=2)
    return torch.stack([p[..., y] + named.get(y, 0) for y in range(config.V)], dim=2).log()


def s2vt(w, config, a, words):
    h = c = a.new_zeros(N, config.H)
    before, out = a[:, 0], []
    for frame in a.unbind(dim=1):
        h, c = lstm(torch.cat([frame, frame - before, h], dim=1) @ torch.cat([w["U_a"], w["U_h"]]) + w["b_a"], c)
        before = frame
    for x in words:
        h, c = lstm(x @ w["W_x"] + h @ w["W_h"] + w["b"], c)
        out.append(h)
    return torch.stack(out), None


MODELS = {
    "show_and_tell": show_and_tell, "neuraltalk": neuraltalk, "lrcn": lrcn, "glstm": glstm, "top_down": top_down,
    "adaptive": adaptive, "att_lstm": att_lstm, "sca_cnn": sca_cnn, "log_bilinear": log_bilinear, "m_rnn": m_rnn,
    "neural_baby_talk": neural_baby_talk,
    "s2vt": s2vt,
}  # fmt: skip
OUTPUTS = {"m_rnn": multimodal}


@pytest.mark.parametrize("given", [False, True], ids=["", "own words"])
@pytest.mark.parametrize(("name", "option"), [(name, option) for name in MODELS for option in CAPTIONERS[name].CHECKS])
def test_loss_and_every_gradient_are_autograds(rng, name, option, given):
    captioner, config = CAPTIONERS[name], CAPTIONERS[name].CHECKS[option]
    shapes = captioner.shapes(config)
    params = Parameters(shapes, flat=0.5 * rng.standard_normal(Parameters(shapes).flat.size))
    annotations, captions = rng.standard_normal((N, L, config.D)), rng.integers(0, config.V, (N, T + 1))
    present = np.ones((N, L))
    if getattr(config, "regions", False):
        present[0, 4:], present[1, 2] = 0, 0
        annotations *= present[..., None]
    if getattr(config, "classes", ()):
        probable(annotations, config, rng)
    mask = np.ones((N, T))
    mask[1, 3:] = mask[2, 2:] = 0
    batch = Batch(annotations, captions, mask)
    if given:
        batch = batch._replace(weights=rng.standard_normal((N, T)), given=rng.integers(0, config.V, (N, T)), smoothing=0.2)
    noise = captioner.draw_noise(config, T, N, L, rng)
    noise = captioner.Noise(*(None if x is None else x.astype(float) for x in noise))
    loss, cache = captioner.forward(params, config, batch, noise)
    grads = params.zeros_like()
    ours = {"annotations": captioner.backward(cache, grads)} | dict(grads.items())

    w = {name: torch.tensor(x, requires_grad=True) for name, x in params.items()}
    a = torch.tensor(annotations, requires_grad=True)
    read = torch.tensor(captions[:, :-1] if batch.given is None else batch.given).T
    masks = [1 if x is None else torch.tensor(x) for x in noise[:3]]
    words = w["E"][read] * masks[0]
    hidden, alphas = MODELS[name](w, config, a, words)
    hidden = hidden * masks[1]
    if name in OUTPUTS:
        hidden = OUTPUTS[name](w, a, words, hidden) * masks[2]
    logits = mixture(w, config, a, hidden, alphas) if name == "neural_baby_talk" else hidden @ w["W_p"] + w["b_p"]
    true, options = torch.tensor(captions[:, 1:]), {"reduction": "none", "label_smoothing": batch.smoothing}
    said = F.cross_entropy(logits.permute(1, 2, 0), true, **options)
    theirs = (torch.tensor(mask / N if batch.weights is None else batch.weights) * said).sum()
    if getattr(config, "penalty", 0):
        looked = torch.einsum("nt,tnl->nl", torch.tensor(mask), alphas)
        theirs = theirs + config.penalty * (torch.tensor(present) * (1 - looked) ** 2).sum(dim=1).mean()
    theirs.backward()

    assert loss == pytest.approx(theirs.item(), rel=1e-12)
    for name, g in {"annotations": a.grad, **{n: x.grad for n, x in w.items()}}.items():
        g = g.numpy()
        assert np.linalg.norm(ours[name] - g) <= 1e-10 * max(np.linalg.norm(g), 1e-3), name
