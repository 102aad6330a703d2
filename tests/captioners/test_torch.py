"""An independent oracle: the whole model in PyTorch, its gradients by autograd. Skipped where there is no PyTorch."""

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.encoders import small
from satnp.encoders.photos import Preprocessing
from satnp.proof.captioners import F_ATT, GATES

torch = pytest.importorskip("torch")
F = torch.nn.functional

ENCODER = small.Config((4, 5, 6), Preprocessing(12))
N, T = 3, 4


def torch_loss(w, config, images, captions, mask, noise):
    """w {name: tensor}, images (N, 3, S, S) RGB 0-255, captions (N, T+1) -> loss, what to differentiate, annotations"""
    x = (images - 127.5) / 64
    for stage in range(3):
        if stage == 2:
            lines = [torch.linspace(-1, 1, n, dtype=x.dtype) for n in x.shape[2:]]
            rows, columns = torch.meshgrid(*lines, indexing="ij")
            x = torch.cat([x, torch.stack([columns, rows]).expand(len(x), -1, -1, -1)], dim=1)
        stride, padding = (2, 2) if stage == 0 else (1, 1)
        x = F.conv2d(x, w[f"W{stage}"].permute(3, 2, 0, 1), w[f"b{stage}"], stride, padding).relu()
        if stage == 1:
            x = F.max_pool2d(x, 2)
    a = x.flatten(2).transpose(1, 2)
    a.retain_grad()

    annotations, S = a, config.samples if config.hard else 1
    a, captions, mask = a.repeat(S, 1, 1), captions.repeat(S, 1), mask.repeat(S, 1)
    noise = [x.repeat(1, S, 1) for x in noise[:3]] + noise[3:]
    mean = a.mean(dim=1)
    h, c = torch.tanh(mean @ w["W_h0"] + w["b_h0"]), torch.tanh(mean @ w["W_c0"] + w["b_c0"])
    log_p, choices, looked = [], [], 0
    for t in range(captions.shape[1] - 1):
        if config.f_att == "additive":
            e = torch.tanh(a @ w["W_a"] + (h @ w["W_s"])[:, None] + w["b_a"]) @ w["v"] + w["c_a"]
        elif config.f_att == "general":
            e = torch.einsum("nld,dh,nh->nl", a, w["W_a"], h)
        else:
            e = torch.einsum("nld,nd->nl", a, h) / config.D**0.5
        alpha = look = e.softmax(dim=1)
        beta = torch.sigmoid(h @ w["W_beta"] + w["b_beta"])
        y = w["E"][captions[:, t]] * noise[0][t]

        def word(z, h=h, c=c, y=y, t=t):
            """log p(y_t) (N,) when z is seen, and the next h and c"""
            i, f, o, g = (y @ w["W_x"] + h @ w["W_h"] + z @ w["W_z"] + w["b"]).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hidden = torch.tanh(y + (h * noise[1][t]) @ w["L_h"] + z @ w["L_z"] + w["b_m"]) * noise[2][t]
            logits = hidden @ w["L_o"] + w["b_o"]
            return -F.cross_entropy(logits, captions[:, t + 1], reduction="none"), h, c

        if config.hard:
            s = (e + noise[3][t]).argmax(dim=1)
            sample = F.one_hot(s, e.shape[1]).to(e.dtype)
            if config.estimator == "gumbel_st":
                soft = ((e + noise[3][t]) / config.temperature).softmax(dim=1)
                sample = sample - soft.detach() + soft
            look = torch.where(noise[4].repeat(S)[:, None] > 0, alpha, sample)
            with torch.no_grad():
                ahead = torch.stack([word(beta * a[:, i])[0] for i in range(e.shape[1])], dim=1)
            choices.append((torch.distributions.Categorical(logits=e), s, (alpha * ahead).sum(dim=1)))
        said, h, c = word(beta * torch.einsum("nl,nld->nd", look, a))
        log_p.append(mask[:, t] * said)
        looked = looked + mask[:, t, None] * alpha
    loss = (config.penalty * ((1 - looked) ** 2).sum(dim=1) - torch.stack(log_p).sum(dim=0)).mean()
    surrogate = 0
    if config.hard:
        loss = loss - config.entropy_weight * sum(mask[:, t] * p.entropy() for t, (p, _, _) in enumerate(choices)).mean()
        surrogate = torch_surrogate(config, torch.stack(log_p).detach(), choices, mask.T, *noise[4:])
    return loss, loss + surrogate, annotations


def torch_surrogate(config, log_p, choices, mask, expected, moving_average):
    """What autograd makes the score function of, rewards held: log_p (T, S*N), choices T of (p, s, E log p of the word)"""
    if config.estimator == "gumbel_st":
        return 0
    words, S, terms = mask.sum(dim=0), config.samples, []
    scale = words if config.reward == "mean" else torch.ones_like(words)
    for t, (p, s, expected_log_p) in enumerate(choices):
        first = {"reinforce": 0, "reward_to_go": t, "local_expectation": t + 1}[config.estimator]
        r = log_p[first:].sum(dim=0) / scale
        if config.baseline == "moving_average":
            r = r - moving_average * mask[first:].sum(dim=0) / words
        if config.baseline == "leave_one_out":
            r = torch.cat([own - sum(r.chunk(S)[:k] + r.chunk(S)[k + 1 :]) / (S - 1) for k, own in enumerate(r.chunk(S))])
        term = r * p.log_prob(s)
        if config.estimator == "local_expectation":
            term = term + expected_log_p / scale
        terms.append(mask[t] * (1 - expected.repeat(S)) * term)
    return -config.reward_weight * torch.stack(terms).sum(dim=0).mean()


HARD = [
    {"attention": "hard", "estimator": estimator, "baseline": baseline, "reward": reward}
    for estimator in sat.CHOICES["estimator"] for baseline in sat.CHOICES["baseline"] for reward in sat.CHOICES["reward"]
]  # fmt: skip


@pytest.mark.parametrize("f_att", F_ATT)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("choices", [{}, *HARD], ids=lambda choices: "-".join(choices.values()) or "soft")
def test_loss_and_every_gradient_are_autograds(rng, f_att, gate, choices):
    config = sat.Config(
        V=11, D=6, M=5, H=6 if f_att == "dot" else 8, A=7, f_att=f_att, gate=gate, penalty=0.7, dropout=0.4,
        reward_weight=0.6, entropy_weight=0.3, temperature=0.7, samples=2, **choices,
    )  # fmt: skip
    encoder, decoder = (
        Parameters(shapes, flat=0.4 * rng.standard_normal(Parameters(shapes).flat.size))
        for shapes in (small.shapes(ENCODER), sat.shapes(config))
    )
    images = rng.integers(0, 256, (N, 12, 12, 3), dtype=np.uint8)
    captions, mask = rng.integers(0, config.V, (N, T + 1)), np.ones((N, T))
    mask[1, 3:] = mask[2, 2:] = 0
    noise = sat.draw_noise(config, T, N, 9, rng)
    if config.hard:
        noise = noise._replace(expected=np.array([0, 1, 0]), baseline=np.array(-3.0))
    noise = sat.Noise(*(x.astype(float) for x in noise if x is not None))

    annotations, seen = small.forward(encoder, ENCODER, images)
    loss, said = sat.forward(decoder, config, Batch(annotations, captions, mask), noise)
    encoder_grads, grads = encoder.zeros_like(), decoder.zeros_like()
    dannotations = sat.backward(said, grads)
    small.backward(dannotations, seen, encoder_grads)
    ours = dict(encoder_grads.items()) | dict(grads.items()) | {"annotations": dannotations}

    weights = {
        name: torch.tensor(x, requires_grad=True) for name, x in (dict(encoder.items()) | dict(decoder.items())).items()
    }
    pixels = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    masks = [torch.tensor(x) for x in noise if x is not None]
    theirs, surrogate, a = torch_loss(weights, config, pixels, torch.tensor(captions), torch.tensor(mask), masks)
    surrogate.backward()
    wanted = {name: x.grad.numpy() for name, x in weights.items()} | {"annotations": a.grad.numpy()}

    assert loss == pytest.approx(theirs.item(), rel=1e-12)
    np.testing.assert_allclose(annotations, a.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert ours.keys() == wanted.keys()
    for name, g in wanted.items():
        assert np.linalg.norm(ours[name] - g) <= 1e-10 * max(np.linalg.norm(g), 1e-3), name
