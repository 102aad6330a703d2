"""The same workloads in PyTorch, as a good user would write them: eager, compiled, and with the loop of a popular port.

PEERS[peer][name](inputs) -> run, with the names and results of workloads.py. Only this module needs PyTorch.
"""

from functools import partial
from itertools import compress
from time import perf_counter

import torch
import torch.nn.functional as F

from satnp.data.captions import END, PAD, START, UNK
from satnp.encoders import efficientnet, squeezenet, vgg
from satnp.layers.conv import same_padding
from tests.benchmarks.workloads import CLIP, COMPARED, LONGEST, RATE, captions


def step(loss_of, given, fused=True, lstm=()):
    """A training step: forward, backward, clipping, Adam. `lstm` names the parameters that torch.lstm reads."""
    w = _tensors(given["params"])
    w = {name: (_for_lstm(x) if name in lstm else x).requires_grad_() for name, x in w.items()}
    a, captions = torch.tensor(given["annotations"]), torch.tensor(given["captions"])
    masks, penalty = [None if x is None else torch.tensor(x) for x in given["noise"][:3]], given["penalty"]
    adam = torch.optim.Adam(w.values(), lr=RATE, fused=fused)

    def run():
        adam.zero_grad(set_to_none=True)
        loss = loss_of(w, a, captions, masks, penalty)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), CLIP)
        adam.step()
        grads = {name: w[name].grad for name in COMPARED if name in w}
        return {"loss": loss.detach()} | {name: _from_lstm(x) if name in lstm else x for name, x in grads.items()}

    return run


def _for_lstm(x):
    """W (K, 4H) or b (4H,) with gates in the order i, f, o, g -> W (4H, K) or b (4H,) in PyTorch's order, i, f, g, o"""
    i, f, o, g = x.chunk(4, dim=-1)
    return torch.cat([i, f, g, o], dim=-1).mT.contiguous() if x.ndim == 2 else torch.cat([i, f, g, o])


def _from_lstm(W):
    i, f, g, o = W.chunk(4)
    return torch.cat([i, f, o, g]).mT


def hoisted_loss(w, a, captions, masks, penalty):
    """The loss, with everything that does not depend on h_{t-1} computed outside the loop."""
    N, T = captions.shape[0], captions.shape[1] - 1
    words = F.embedding(captions[:, :-1].T, w["E"]) * masks[0]
    word_gates = words @ w["W_x"] + w["b"]
    keys = a @ w["W_a"] + w["b_a"]
    h, c = _start(w, a)
    hs, zs, alphas = [], [], []
    for t in range(T):
        z, alpha = _attend(w, a, keys, h)
        h, c = _cell(torch.addmm(torch.addmm(word_gates[t], h, w["W_h"]), z, w["W_z"]), c)
        hs.append(h)
        zs.append(z)
        alphas.append(alpha)
    hidden = torch.tanh(words + (torch.stack(hs) * masks[1]) @ w["L_h"] + torch.stack(zs) @ w["L_z"] + w["b_m"]) * masks[2]
    logits = hidden.reshape(T * N, -1) @ w["L_o"] + w["b_o"]
    nll = F.cross_entropy(logits, captions[:, 1:].T.reshape(-1), reduction="sum") / N
    return nll + penalty * ((1 - torch.stack(alphas).sum(0)) ** 2).sum() / N


def looped_loss(w, a, captions, masks, penalty):
    """The loss as in popular ports, which project the annotations and predict the words in each step."""
    N, T = captions.shape[0], captions.shape[1] - 1
    words = F.embedding(captions[:, :-1].T, w["E"]) * masks[0]
    W_in = torch.cat([w["W_x"], w["W_z"]])  # the ports have one parameter
    logits, alphas = a.new_zeros(N, T, w["L_o"].shape[1]), a.new_zeros(N, T, a.shape[1])
    h, c = _start(w, a)
    for t in range(T):
        z, alpha = _attend(w, a, a @ w["W_a"] + w["b_a"], h, context=_plain_context)
        h, c = _cell(torch.cat([words[t], z], dim=1) @ W_in + h @ w["W_h"] + w["b"], c)
        hidden = torch.tanh(words[t] + (h * masks[1][t]) @ w["L_h"] + z @ w["L_z"] + w["b_m"]) * masks[2][t]
        logits[:, t] = hidden @ w["L_o"] + w["b_o"]
        alphas[:, t] = alpha
    nll = F.cross_entropy(logits.reshape(N * T, -1), captions[:, 1:].reshape(-1), reduction="sum") / N
    return nll + penalty * ((1 - alphas.sum(1)) ** 2).sum() / N


def show_and_tell_loss(w, a, captions, masks, _):
    """One call of the LSTM that nn.LSTM calls: the photo is the first word."""
    words = F.embedding(captions[:, :-1].T, w["E"]) * masks[0]
    photo = torch.addmm(w["b_i"], a.mean(dim=1), w["W_i"])
    zeros = a.new_zeros(1, len(a), w["W_h"].shape[1])
    weights = [w["W_x"], w["W_h"], w["b"], torch.zeros_like(w["b"])]
    h, *_ = torch.lstm(torch.cat([photo[None], words]), (zeros, zeros), weights, True, 1, 0.0, True, False, False)
    return _nll(w, h[1:] * masks[1], captions)


def adaptive_loss(w, a, captions, masks, _):
    """nn.LSTM does not return m_t, which the sentinel needs, so the cells are a loop. The attention of all steps follows."""
    words = F.embedding(captions[:, :-1].T, w["E"]) * masks[0]
    v = (a @ w["W_a"] + w["b_a"]).relu()
    v_g = torch.addmm(w["b_b"], a.mean(dim=1), w["W_b"]).relu()
    gates = words @ w["W_x"] + torch.addmm(w["b"], v_g, w["W_vg"])
    h = m = a.new_zeros(len(a), len(w["W_h"]))
    hs, sentinels = [], []
    for of_step in gates:
        of_cell, of_sentinel = torch.addmm(of_step, h, w["W_h"]).split(4 * h.shape[1], dim=1)
        h, m = _cell(of_cell, m)
        hs.append(h)
        sentinels.append(of_sentinel.sigmoid() * m.tanh())
    h, s = torch.stack(hs), torch.stack(sentinels)
    query = h @ w["W_g"]
    e = torch.tanh(v @ w["W_v"] + query[:, :, None]) @ w["w"]
    e_s = torch.tanh(s @ w["W_s"] + query) @ w["w"]
    alpha = (torch.cat([e, e_s[:, :, None]], dim=2) + w["c_a"]).softmax(dim=2)
    z = torch.bmm(alpha[:, :, :-1].transpose(0, 1), v).transpose(0, 1) + alpha[:, :, -1:] * s
    return _nll(w, (z + h) * masks[1], captions)


def top_down_loss(w, a, captions, masks, _):
    words = F.embedding(captions[:, :-1].T, w["E"]) * masks[0]
    keys = a @ w["W_a"] + w["b_a"]
    gates = words @ w["W_x"] + torch.addmm(w["b"], a.mean(dim=1), w["W_v"])
    W1, W2 = torch.cat([w["W_h1"], w["W_h2"]]), torch.cat([w["U_z"], w["U_h1"], w["U_h2"]])
    h1 = c1 = h2 = c2 = a.new_zeros(len(a), len(w["W_h1"]))
    hs = []
    for of_step in gates:
        h1, c1 = _cell(torch.addmm(of_step, torch.cat([h1, h2], dim=1), W1), c1)
        alpha = (torch.tanh(keys + (h1 @ w["W_s"])[:, None]) @ w["w"] + w["c_a"]).softmax(dim=1)
        z = _batched_context(alpha, a)
        h2, c2 = _cell(torch.addmm(w["b_2"], torch.cat([z, h1, h2], dim=1), W2), c2)
        hs.append(h2)
    return _nll(w, torch.stack(hs) * masks[1], captions)


def _nll(w, hidden, captions):
    """hidden (T, N, K) -> nats a caption"""
    logits = torch.addmm(w["b_p"], hidden.flatten(0, 1), w["W_p"])
    return F.cross_entropy(logits, captions[:, 1:].T.reshape(-1), reduction="sum") / len(captions)


def _tensors(params):
    return {name: torch.tensor(x) for name, x in params.items()}


def _start(w, a):
    mean = a.mean(dim=1)
    return torch.tanh(mean @ w["W_h0"] + w["b_h0"]), torch.tanh(mean @ w["W_c0"] + w["b_c0"])


def _batched_context(alpha, a):
    return torch.bmm(alpha[:, None], a)[:, 0]


def _plain_context(alpha, a):
    return (a * alpha[:, :, None]).sum(1)


def _attend(w, a, keys, h, context=_batched_context):
    """z_t (N, D) and alpha_t (N, L)"""
    e = torch.tanh(keys + (h @ w["W_s"])[:, None]) @ w["v"] + w["c_a"]
    alpha = e.softmax(dim=1)
    return torch.sigmoid(h @ w["W_beta"] + w["b_beta"]) * context(alpha, a), alpha


def _cell(gates, c):
    i, f, o, g = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def features(layers, compiled, given):
    """Compute the annotations of photos; layers(w, x, config) is the encoder after the preprocessing."""
    config, images = given["config"], torch.tensor(given["images"])
    order = torch.tensor([2, 1, 0] if config.preprocessing.channels == "BGR" else [0, 1, 2])
    mean, scale = (torch.tensor(x)[:, None, None] for x in (config.preprocessing.mean, config.preprocessing.scales))

    def in_layout(layout):
        w = _filters(given["params"], layout)

        def annotations():
            x = (images.permute(0, 3, 1, 2)[:, order].float() - mean) * scale
            return layers(w, x.contiguous(memory_format=layout), config).flatten(2).transpose(1, 2)

        return annotations

    annotations = torch.inference_mode()(_best_layout(in_layout, compiled))
    return lambda: {"annotations": annotations()}


def _filters(params, layout):
    """Convert W (K, K, C, F) to PyTorch's (F, C, K, K), and (K, K, C) of a depthwise convolution to (C, 1, K, K)."""
    w = _tensors(params)
    w |= {n: x[:, :, None] for n, x in w.items() if x.ndim == 3}
    return {n: x.permute(3, 2, 0, 1).contiguous(memory_format=layout) if x.ndim == 4 else x for n, x in w.items()}


def _best_layout(make, compiled):
    """Return make(memory layout), a function run, for the layout that is faster on this machine."""

    def seconds(layout):
        run, wait = make(layout), torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
        run()
        wait()
        started = perf_counter()
        run()
        run()
        wait()
        return perf_counter() - started

    run = make(min((torch.channels_last, torch.contiguous_format), key=seconds))
    return torch.compile(run) if compiled else run


def _vgg(w, x, config):
    for name in vgg.LAYERS:
        x = F.conv2d(x, w[f"{name}.W"], w[f"{name}.b"], padding=1).relu_()
        if name in vgg.POOL_AFTER:
            x = F.max_pool2d(x, 2)
    return x


def _squeezenet(w, x, config):
    def conv(name, x, **how):
        return F.conv2d(x, w[f"{name}.W"], w[f"{name}.b"], **how).relu_()

    for name in squeezenet.LAYERS:
        if name == "conv1":
            x = conv(name, x, stride=2)
        else:
            s = conv(f"{name}.squeeze", x)
            x = torch.cat([conv(f"{name}.expand1", s), conv(f"{name}.expand3", s, padding=1)], dim=1)
        if name in squeezenet.POOL_AFTER:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return config.scale * (torch.sqrt(1 + x) - 1)


def _efficientnet(w, x, config):
    def conv(name, x, K=1, stride=1, groups=1):
        (top, bottom), (left, right) = same_padding(x.shape[2], K, stride), same_padding(x.shape[3], K, stride)
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, w[f"{name}.W"], w[f"{name}.b"], stride, (top, left), groups=groups)

    def relu6(x):
        return F.hardtanh_(x, 0.0, 6.0)

    x = relu6(conv("stem", x, 3, 2))
    for name, block in efficientnet.BLOCKS.items():
        y = x if block.factor == 1 else relu6(conv(f"{name}.expand", x))
        y = conv(f"{name}.project", relu6(conv(f"{name}.depthwise", y, block.K, block.stride, y.shape[1])))
        x = x + y if x.shape == y.shape else y
    return config.scale * relu6(conv("head", x))


def conv_backward(compiled, given):
    def in_layout(layout):
        x, dout = (torch.tensor(given[n]).permute(0, 3, 1, 2).contiguous(memory_format=layout) for n in ("x", "dout"))
        W = _filters({"W": given["W"]}, layout)["W"]
        return lambda: torch.ops.aten.convolution_backward(
            dout, x, W, [len(W)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
        )

    gradients = _best_layout(in_layout, compiled)

    def run():
        dx, dW, db = gradients()
        return {"dx": dx.permute(0, 2, 3, 1), "dW": dW.permute(2, 3, 1, 0), "db": db}

    return run


def small_encoder(compiled, given):
    images, dout = torch.tensor(given["images"]), torch.tensor(given["dout"])
    last = len(given["config"].channels) - 1

    def features(w, layout):
        x = ((images.permute(0, 3, 1, 2).float() - 127.5) / 64).contiguous(memory_format=layout)
        for stage in range(last + 1):
            if stage == last:
                line = torch.linspace(-1, 1, x.shape[2])
                rows, columns = torch.meshgrid(line, line, indexing="ij")
                x = torch.cat([x, torch.stack([columns, rows]).expand(len(x), -1, -1, -1)], dim=1)
            stride, padding = (2, 2) if stage == 0 else (1, 1)
            x = F.conv2d(x, w[f"W{stage}"], w[f"b{stage}"], stride, padding)
            if 0 < stage < last:
                x = F.max_pool2d(x, 2)
            x = x.relu()
        return x.flatten(2).transpose(1, 2)

    features = torch.compile(features) if compiled else features

    def in_layout(layout):
        w = {name: x.requires_grad_() for name, x in _filters(given["params"], layout).items()}

        def run():
            annotations = features(w, layout)
            grads = torch.autograd.grad(annotations, list(w.values()), dout)
            found = {name: g.permute(2, 3, 1, 0) if g.ndim == 4 else g for name, g in zip(w, grads, strict=True)}
            return {"annotations": annotations.detach(), **found}

        return run

    return _best_layout(in_layout, compiled=False)


def beams(search, given):
    w, a = _tensors(given["params"]), torch.tensor(given["annotations"])
    return torch.inference_mode()(lambda: captions(search(w, a, given["beam"])))


def _next_word(w, a, keys, h, c, words, t):
    """log p (N, V) of the words that may be said, h, c"""
    z, _ = _attend(w, a, keys, h)
    y = w["E"][words]
    h, c = _cell(y @ w["W_x"] + h @ w["W_h"] + z @ w["W_z"] + w["b"], c)
    hidden = torch.tanh(y + h @ w["L_h"] + z @ w["L_z"] + w["b_m"])
    logits = hidden @ w["L_o"] + w["b_o"]
    logits[:, [PAD, START, UNK, END] if t == 1 else [PAD, START, UNK]] = -torch.inf
    return logits.log_softmax(1).double(), h, c


def batched_search(w, a, beam):
    """All photos and beams in one batch; the keys are computed once; a photo is dropped when none of its beams can win."""
    N, V = len(a), w["L_o"].shape[1]
    keys = a @ w["W_a"] + w["b_a"]
    h, c, a, keys = (x.repeat_interleave(beam, 0) for x in (*_start(w, a), a, keys))
    total = torch.full((N, beam), -torch.inf, dtype=torch.float64)
    total[:, 0] = 0
    words, ids = torch.full((N * beam,), START), torch.zeros(N, beam, 0, dtype=torch.long)
    photos, done = range(N), [[] for _ in range(N)]
    for t in range(1, LONGEST + 1):
        log_p, h, c = _next_word(w, a, keys, h, c, words, t)
        total, best = (total[:, :, None] + log_p.reshape(-1, beam, V)).flatten(1).topk(beam)
        parents, words = best // V, best % V
        places = beam - torch.tensor([len(done[n]) for n in photos])
        total[torch.arange(beam) >= places[:, None]] = -torch.inf
        ids = torch.cat([ids.gather(1, parents[:, :, None].expand(-1, -1, t - 1)), words[:, :, None]], dim=2)
        ends = (words == END) | (t == LONGEST)
        ended = torch.where(ends & total.isfinite())
        for n, said, log_p in zip(*(x.tolist() for x in (ended[0], ids[ended], total[ended])), strict=True):
            done[photos[n]].append((said, log_p))
        total[ends] = -torch.inf
        best = torch.tensor([max((p for _, p in done[n]), default=-torch.inf) for n in photos], dtype=torch.float64)
        open_ = total.amax(1) > best
        still = open_.tolist()
        if not any(still):
            break
        rows = (torch.arange(len(photos))[:, None] * beam + parents)[open_].flatten()
        if not all(still):
            a, keys = (x.unflatten(0, (-1, beam))[open_].flatten(0, 1) for x in (a, keys))
        h, c, words = h[rows], c[rows], words[open_].flatten()
        photos, total, ids = list(compress(photos, still)), total[open_], ids[open_]
    return [max(found, key=lambda said: said[1]) for found in done]


def one_by_one(w, a, beam):
    """As in popular ports: one photo at a time, its annotations copied and projected for each beam in each step, until all
    beams have ended."""
    return [_port_search(w, photo, beam) for photo in a]


def _port_search(w, a, beam):
    V = w["L_o"].shape[1]
    a = a.expand(beam, -1, -1)
    h, c = _start(w, a)
    words, total, ids, done = torch.full((beam,), START), torch.zeros(beam, 1), torch.zeros(beam, 0, dtype=torch.long), []
    for t in range(1, LONGEST + 1):
        log_p, h, c = _next_word(w, a, a @ w["W_a"] + w["b_a"], h, c, words, t)
        scores = (total + log_p)[:1] if t == 1 else total + log_p
        total, best = scores.flatten().topk(beam - len(done))
        parents, words = best // V, best % V
        ids = torch.cat([ids[parents], words[:, None]], dim=1)
        ends = (words == END) | (t == LONGEST)
        done += zip(ids[ends].tolist(), total[ends].tolist(), strict=True)
        if ends.all():
            break
        words, ids, total, parents = words[~ends], ids[~ends], total[~ends, None], parents[~ends]
        a, h, c = a[parents], h[parents], c[parents]
    return max(done, key=lambda said: said[1])


def _compiled_step(loss_of, given, **how):
    return step(torch.compile(loss_of), given, **how)


def _steps(step):
    return {
        **dict.fromkeys((*_STEPS, "step_show_attend_tell"), partial(step, hoisted_loss)),
        "step_show_and_tell": partial(step, show_and_tell_loss, lstm=("W_x", "W_h", "b")),
        "step_adaptive": partial(step, adaptive_loss), "step_top_down": partial(step, top_down_loss),
    }  # fmt: skip


def _convolutions(compiled):
    return {
        "vgg19_b1": partial(features, _vgg, compiled), "vgg19_b8": partial(features, _vgg, compiled),
        "squeezenet_b1": partial(features, _squeezenet, compiled),
        "squeezenet_b8": partial(features, _squeezenet, compiled),
        "efficientnet_b1": partial(features, _efficientnet, compiled),
        "efficientnet_b8": partial(features, _efficientnet, compiled),
        "conv3x3_backward": partial(conv_backward, compiled), "small_encoder_step": partial(small_encoder, compiled),
    }  # fmt: skip


_STEPS, _BEAMS = ("step_paper", "step_flickr8k", "step_efficientnet"), ("beam3", "beam5", "beam10")
PEERS = {
    "eager": _steps(step) | dict.fromkeys(_BEAMS, partial(beams, batched_search))
    | _convolutions(False),
    "compile": _steps(_compiled_step) | _convolutions(True),
    "port": dict.fromkeys(_STEPS, partial(step, looped_loss, fused=False))
    | dict.fromkeys(_BEAMS, partial(beams, one_by_one)),
}  # fmt: skip
