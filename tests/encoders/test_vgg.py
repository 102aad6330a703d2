"""VGG-19 on seeded weights: what PyTorch makes of them, from files of both forms, all the way to the annotations."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.encoders import vgg
from satnp.encoders.weights import read_weights
from tests.encoders.test_weights import FORMS, write_arrays

CONFIG = vgg.Config(replace(vgg.PREPROCESSING["torchvision"], size=64))
GOLDEN = Path(__file__).with_name("golden_vgg19.json")  # by PyTorch; test_the_golden_numbers_are_pytorchs makes them again


@pytest.fixture(scope="module")
def seeded():
    """(params, images, upstream) in float64: two photos of noise, and what their annotations' gradient shall be."""
    rng = np.random.default_rng(0)
    params = vgg.init(CONFIG, rng)
    params = params.on(params.flat.astype(np.float64))
    for name, x in params.items():
        if name.endswith(".b"):
            x[...] = 0.1 * rng.standard_normal(x.shape)
    return params, rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8), rng.standard_normal((2, 16, 512))


def torch_layout(params):
    """{torchvision's name: array in its layout}"""
    names = vgg.tensor_names(CONFIG)
    return {names[n]: np.ascontiguousarray(x.transpose(3, 2, 0, 1)) if x.ndim == 4 else x for n, x in params.items()}


def fingerprint(name, x):
    """Norm, and the products with three random arrays: equal for equal arrays, and hardly for others."""
    rng = np.random.default_rng(sum(name.encode()))
    return [float(np.linalg.norm(x)), *(float(np.vdot(rng.standard_normal(x.shape), x)) for _ in range(3))]


def ours(params, images, upstream):
    """{name: array}: the annotations and the gradient of each weight."""
    annotations, cache = vgg.forward(params, CONFIG, images)
    grads = params.zeros_like()
    vgg.backward(upstream.astype(params.flat.dtype), cache, grads)
    return {"annotations": annotations} | dict(grads.items())


def pytorchs(torch, params, images, upstream):
    """The same by torch.nn and autograd, in torchvision's order of layers, on the dtype of `params`."""
    weights = {n: torch.tensor(x, requires_grad=True) for n, x in torch_layout(params).items()}
    norm = CONFIG.preprocessing
    x = torch.tensor((images.astype(np.float64) - norm.mean) * norm.scale).to(weights["features.0.weight"].dtype)
    x, index = x.permute(0, 3, 1, 2), 0
    for filters in (64, 64, "pool", 128, 128, "pool", *4 * [256], "pool", *4 * [512], "pool", *4 * [512]):
        if filters == "pool":
            x, index = torch.nn.functional.max_pool2d(x, 2, 2), index + 1
            continue
        assert len(weights[f"features.{index}.bias"]) == filters
        x = torch.nn.functional.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
        x, index = x.relu(), index + 2
    annotations = x.flatten(2).transpose(1, 2)
    annotations.backward(torch.tensor(upstream, dtype=x.dtype))
    grads = {}
    for name, theirs in vgg.tensor_names(CONFIG).items():
        g = weights[theirs].grad.numpy()
        grads[name] = g.transpose(2, 3, 1, 0) if g.ndim == 4 else g
    return {"annotations": annotations.detach().numpy()} | grads


def assert_close(found, wanted, limit):
    assert found.keys() == wanted.keys()
    for name, y in wanted.items():
        assert np.linalg.norm(found[name] - y) <= limit * np.linalg.norm(y), name


@pytest.mark.slow
def test_annotations_and_every_gradient_are_the_golden_ones(seeded):
    golden, found = json.loads(GOLDEN.read_text()), ours(*seeded)
    assert found["annotations"].shape == (2, 16, 512) and found.keys() == golden.keys()
    for name, x in found.items():
        wanted = golden[name]
        np.testing.assert_allclose(fingerprint(name, x), wanted, rtol=1e-10, atol=1e-10 * wanted[0], err_msg=name)


def test_in_float32_the_annotations_are_as_near_as_its_digits_allow(seeded):
    params, images, _ = seeded
    wanted, _ = vgg.forward(params, CONFIG, images)
    found, _ = vgg.forward(params.on(params.flat.astype(np.float32)), CONFIG, images)
    assert found.dtype == np.float32
    assert_close({"annotations": found}, {"annotations": wanted}, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_of_pth_give_the_weights_and_the_classifier_is_left_where_it_is(seeded, tmp_path, form):
    params, _, _ = seeded
    classifier = {"classifier.0.weight": np.ones((7, 25088), np.float32), "classifier.0.bias": np.ones(7, np.float32)}
    path = write_arrays(tmp_path / "vgg19.pth", form, torch_layout(params) | classifier)
    loaded = vgg.load(path, CONFIG)
    assert loaded.shapes == params.shapes
    np.testing.assert_array_equal(loaded.flat, params.flat.astype(np.float32))
    assert not read_weights(path, vgg.tensor_names(CONFIG).values()).keys() & classifier.keys()


def test_the_published_files_indices_and_grid():
    names = list(vgg.tensor_names(CONFIG).values())
    assert names[::2] == [f"features.{i}.weight" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)]
    assert vgg.Config().grid == (14, 14) and vgg.Config().D == 512
    assert Parameters(vgg.shapes(vgg.Config())).flat.size == 20_024_384  # the convolutions of the published 143,667,240


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_annotations_and_every_gradient_are_pytorchs(seeded, dtype):
    torch = pytest.importorskip("torch")
    params, images, upstream = seeded
    params = params.on(params.flat.astype(dtype))
    limit = {"float32": 1e-5, "float64": 1e-10}[dtype]
    assert_close(ours(params, images, upstream), pytorchs(torch, params, images, upstream), limit)


def test_the_golden_numbers_are_pytorchs(seeded):
    torch = pytest.importorskip("torch")
    golden = json.loads(GOLDEN.read_text())
    for name, x in pytorchs(torch, *seeded).items():
        np.testing.assert_allclose(fingerprint(name, x), golden[name], rtol=1e-12, atol=1e-12 * golden[name][0])


def test_a_whole_photo_as_pytorch_sees_it(seeded):
    torch = pytest.importorskip("torch")
    params, _, _ = seeded
    params = params.on(params.flat.astype(np.float32))
    image = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    found, _ = vgg.forward(params, vgg.Config(), image)
    wanted = pytorchs(torch, params, image, np.zeros((1, 196, 512)))["annotations"]
    assert found.shape == (1, 196, 512)
    assert_close({"annotations": found}, {"annotations": wanted}, 1e-5)
