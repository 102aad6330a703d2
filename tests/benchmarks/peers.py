"""The same work in PyTorch, as a good user would write it: eager, compiled, and as a popular port loops.

PEERS[peer][kind](inputs) -> run, with the names and numbers of workloads.py. PyTorch is only wanted here.
"""

import numpy as np
import torch
import torch.nn.functional as F

from tests.benchmarks.workloads import captions


def _tensors(params):
    """{name: leaf tensor}"""
    return {name: torch.tensor(x, requires_grad=True) for name, x in params.items()}


def _start(w, a):
    mean = a.mean(dim=1)
    return torch.tanh(mean @ w["W_h0"] + w["b_h0"]), torch.tanh(mean @ w["W_c0"] + w["b_c0"])


def _attend(w, a, keys, h):
    """z_t (N, D) and alpha_t (N, L)"""
    e = torch.tanh(keys + (h @ w["W_s"])[:, None]) @ w["v"] + w["c_a"]
    alpha = e.softmax(dim=1)
    context = torch.bmm(alpha[:, None], a)[:, 0]
    return torch.sigmoid(h @ w["W_beta"] + w["b_beta"]) * context, alpha


def _cell(gates, c):
    i, f, o, g = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _hoisted_loss(w, a, captions, masks, penalty):
    """The loss with everything outside the loop that does not depend on h_{t-1}."""
    N, T = captions.shape[0], captions.shape[1] - 1
    words = w["E"][captions[:, :-1].T] * masks[0]
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


def _looped_loss(w, a, captions, masks, penalty):
    """The loss as popular ports have it: keys, word inputs and the vocabulary in each step."""
    N, T = captions.shape[0], captions.shape[1] - 1
    h, c = _start(w, a)
    logits, alphas = [], []
    for t in range(T):
        word = w["E"][captions[:, t]] * masks[0][t]
        keys = a @ w["W_a"] + w["b_a"]
        z, alpha = _attend(w, a, keys, h)
        h, c = _cell(torch.cat([word, z], dim=1) @ torch.cat([w["W_x"], w["W_z"]]) + h @ w["W_h"] + w["b"], c)
        hidden = torch.tanh(word + (h * masks[1][t]) @ w["L_h"] + z @ w["L_z"] + w["b_m"]) * masks[2][t]
        logits.append(hidden @ w["L_o"] + w["b_o"])
        alphas.append(alpha)
    logits, alphas = torch.stack(logits, dim=1), torch.stack(alphas, dim=1)
    nll = F.cross_entropy(logits.reshape(N * T, -1), captions[:, 1:].reshape(-1), reduction="sum") / N
    return nll + penalty * ((1 - alphas.sum(1)) ** 2).sum() / N


def _step(loss_of, fused=True):
    def make(given):
        w = _tensors(given["params"])
        a, captions = torch.tensor(given["annotations"]), torch.tensor(given["captions"])
        noise, penalty, first = given["noise"], given["config"].penalty, {}
        masks = [torch.tensor(x) for x in (noise.words, noise.state, noise.hidden)]
        adam = torch.optim.Adam(w.values(), lr=1e-4, fused=fused)

        def run():
            adam.zero_grad(set_to_none=True)
            loss = loss_of(w, a, captions, masks, penalty)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(w.values(), 5.0)
            if not first:
                first.update({"loss": loss.detach(), "norm": norm} | {name: w[name].grad.clone() for name in ("W_h", "L_o")})
            adam.step()
            return first

        return run

    return make


def _features(compiled):
    def make(given):
        forward = _vgg if given["encoder"].__name__.endswith("vgg") else _squeezenet
        w = {}
        for name, x in given["params"].items():
            x = torch.tensor(x)
            if x.ndim == 4:
                x = x.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            w[name] = x
        norm = given["config"].preprocessing

        def features(images):
            x = images.float().permute(0, 3, 1, 2)
            if norm.channels == "BGR":
                x = x.flip(1)
            x = (x - torch.tensor(norm.mean)[:, None, None]) * torch.tensor(norm.scale).reshape(-1, 1, 1)
            return forward(w, x.contiguous(memory_format=torch.channels_last), given["config"])

        features = torch.compile(features) if compiled else features
        images = torch.tensor(given["images"])

        def run():
            with torch.inference_mode():
                return {"annotations": features(images).flatten(2).transpose(1, 2)}

        return run

    return make


def _vgg(w, x, config):
    from satnp.encoders.vgg import LAYERS, POOL_AFTER

    for name in LAYERS:
        x = F.conv2d(x, w[f"{name}.W"], w[f"{name}.b"], padding=1).relu_()
        if name in POOL_AFTER:
            x = F.max_pool2d(x, 2)
    return x


def _squeezenet(w, x, config):
    from satnp.encoders.squeezenet import LAYERS, POOL_AFTER

    for name in LAYERS:
        if name == "conv1":
            x = F.conv2d(x, w["conv1.W"], w["conv1.b"], stride=2).relu_()
        else:
            s = F.conv2d(x, w[f"{name}.squeeze.W"], w[f"{name}.squeeze.b"]).relu_()
            left = F.conv2d(s, w[f"{name}.expand1.W"], w[f"{name}.expand1.b"])
            right = F.conv2d(s, w[f"{name}.expand3.W"], w[f"{name}.expand3.b"], padding=1)
            x = torch.cat([left, right], dim=1).relu_()
        if name in POOL_AFTER:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return config.scale * (torch.sqrt(1 + x) - 1)


def _conv_backward(compiled):
    def make(given):
        x, dout = (torch.tensor(given[k]).permute(0, 3, 1, 2) for k in ("x", "dout"))
        W = torch.tensor(given["W"]).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)

        def gradients():
            return torch.ops.aten.convolution_backward(
                dout, x, W, [256], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
            )  # fmt: skip

        gradients = torch.compile(gradients) if compiled else gradients

        def run():
            dx, dW, db = gradients()
            return {"dx": dx.permute(0, 2, 3, 1), "dW": dW.permute(2, 3, 1, 0), "db": db}

        return run

    return make


def _small_encoder(compiled):
    def make(given):
        w, config = _tensors(given["params"]), given["config"]
        dout = torch.tensor(given["dout"])

        def features(w, images):
            x = (images.float().permute(0, 3, 1, 2) - 127.5) / 64
            last = len(config.channels) - 1
            for stage in range(last + 1):
                if stage == last:
                    line = torch.linspace(-1, 1, x.shape[2])
                    rows, columns = torch.meshgrid(line, line, indexing="ij")
                    x = torch.cat([x, torch.stack([columns, rows]).expand(len(x), -1, -1, -1)], dim=1)
                stride, padding = (2, 2) if stage == 0 else (1, 1)
                x = F.conv2d(x, w[f"W{stage}"].permute(3, 2, 0, 1), w[f"b{stage}"], stride, padding)
                if 0 < stage < last:
                    x = F.max_pool2d(x, 2)
                x = x.relu()
            return x.flatten(2).transpose(1, 2)

        features = torch.compile(features) if compiled else features
        images = torch.tensor(given["images"])

        def run():
            annotations = features(w, images)
            grads = torch.autograd.grad(annotations, list(w.values()), dout)
            return {"annotations": annotations.detach(), **dict(zip(w, grads, strict=True))}

        return run

    return make


def _search(w, a, beam, start, end, longest=20):
    """Beam search over all photos and beams at once, keys formed once, as in satnp.decoding."""
    N, V = len(a), w["L_o"].shape[1]
    keys = a @ w["W_a"] + w["b_a"]
    h, c = _start(w, a)
    a, keys = (x.repeat_interleave(beam, 0) for x in (a, keys))
    h, c = h.repeat_interleave(beam, 0), c.repeat_interleave(beam, 0)
    total = torch.full((N, beam), -torch.inf, dtype=torch.float64)
    total[:, 0] = 0
    words, ids, done = torch.full((N * beam,), start), torch.zeros(N, beam, 0, dtype=torch.long), [[] for _ in range(N)]
    rows = torch.arange(N)[:, None]
    for t in range(1, longest + 1):
        z, _ = _attend(w, a, keys, h)
        y = w["E"][words]
        h, c = _cell(y @ w["W_x"] + h @ w["W_h"] + z @ w["W_z"] + w["b"], c)
        hidden = torch.tanh(y + h @ w["L_h"] + z @ w["L_z"] + w["b_m"])
        log_p = (hidden @ w["L_o"] + w["b_o"]).log_softmax(1).double()
        log_p[:, [0, start, 3]] = -torch.inf
        total, best = (total[:, :, None] + log_p.reshape(N, beam, V)).reshape(N, -1).topk(beam)
        parents, words = best // V, best % V
        places = beam - torch.tensor([len(x) for x in done])
        total[torch.arange(beam) >= places[:, None]] = -torch.inf
        ids = torch.cat([ids[rows, parents], words[:, :, None]], dim=2)
        ends = (words == end) | (t == longest)
        for n, k in torch.argwhere(ends & total.isfinite()).tolist():
            done[n].append((ids[n, k].tolist(), float(total[n, k])))
        total[ends] = -torch.inf
        best = torch.tensor([max((p for _, p in found), default=-torch.inf) for found in done], dtype=torch.float64)
        if (total.max(1).values <= best).all():
            break
        flat = (rows * beam + parents).reshape(-1)
        h, c, words = h[flat], c[flat], words.reshape(-1)
    return [max(found, key=lambda said: said[1]) for found in done]


def _beams(one_by_one):
    def make(given):
        w = {name: torch.tensor(x) for name, x in given["params"].items()}
        a, beam = torch.tensor(given["annotations"]), given["beam"]

        def run():
            with torch.inference_mode():
                photos = [a[n : n + 1] for n in range(len(a))] if one_by_one else [a]
                return captions([said for x in photos for said in _search(w, x, beam, given["start"], given["end"])])

        return run

    return make


def _compiled_step(given):
    return _step(torch.compile(_hoisted_loss))(given)


_CONVS = ("vgg19_b1", "vgg19_b8", "squeezenet_b1", "squeezenet_b8")
_STEPS, _BEAMS = ("step_paper", "step_flickr8k"), ("beam3", "beam5", "beam10")
PEERS = {
    "eager": dict.fromkeys(_STEPS, _step(_hoisted_loss)) | dict.fromkeys(_CONVS, _features(False))
    | dict.fromkeys(_BEAMS, _beams(False))
    | {"conv3x3_backward": _conv_backward(False), "small_encoder_step": _small_encoder(False)},
    "compile": dict.fromkeys(_STEPS, _compiled_step) | dict.fromkeys(_CONVS, _features(True))
    | {"conv3x3_backward": _conv_backward(True), "small_encoder_step": _small_encoder(True)},
    "port": dict.fromkeys(_STEPS, _step(_looped_loss, fused=False)) | dict.fromkeys(_BEAMS, _beams(True)),
}  # fmt: skip


def to_numpy(found):
    return {name: np.asarray(x) for name, x in found.items()}
