"""EfficientNet-Lite0: its sizes, the batch normalisation folded into its weights, and the features of the PyTorch port."""

import re
from dataclasses import replace

import numpy as np
import pytest

from satnp import checkpoint
from satnp.arrays.parameters import Parameters
from satnp.data.features import fingerprint
from satnp.data.split import Split
from satnp.encoders import efficientnet, squeezenet
from satnp.encoders.weights import BATCH_NORM, load_convolutions
from satnp.errors import InputError
from satnp.layers import conv2d_forward, depthwise_forward
from satnp.model import Model
from satnp.training.presets import PRESETS, find_preset, new_model, with_files

CONFIG = efficientnet.Config()
TRAIN = Split(("a",), ([["a", "dog"]],), (np.zeros((4, 4, 3), np.uint8),))


def test_the_published_sizes():
    params = Parameters(efficientnet.shapes(CONFIG))
    biases = sum(x.size for name, x in params.items() if name.endswith(".b"))
    classifier = 1281 * 1000
    assert params.flat.size + biases + classifier == 4_652_008  # the port has a scale and a shift for each channel
    assert len(efficientnet.BLOCKS) == 16 and efficientnet.BLOCKS["block15"] == (3, 1, 6, 192, 320)
    sizes = {size: replace(CONFIG, preprocessing=replace(CONFIG.preprocessing, size=size)).grid for size in (224, 320, 300)}
    assert sizes == {224: (7, 7), 320: (10, 10), 300: (10, 10)} and CONFIG.D == 1280


def test_an_earlier_layer_gives_the_annotations(rng):
    sizes = {layer: (config.grid, config.D) for layer in ("block15", "block10", "block11.expand", "stem")
             for config in [replace(CONFIG, layer=layer)]}  # fmt: skip
    assert sizes == {
        "block15": ((7, 7), 320), "block10": ((14, 14), 112), "block11.expand": ((14, 14), 672), "stem": ((112, 112), 32),
    }  # fmt: skip
    assert replace(CONFIG, layer="block10", preprocessing=replace(CONFIG.preprocessing, size=320)).grid == (20, 20)
    whole = replace(CONFIG, preprocessing=replace(CONFIG.preprocessing, size=40))
    params, images = efficientnet.init(whole, rng), rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    for layer, after in (("block15", "head"), ("block10", "block11")):
        config = replace(whole, layer=layer, scale=0.5)
        cut = params.before(after)
        assert efficientnet.shapes(config) == cut.shapes and efficientnet.layers(config)[-1] == layer
        wanted, _ = efficientnet.feature_map(params, whole, images, stop=after)
        found, _ = efficientnet.forward(cut, config, images)
        np.testing.assert_array_equal(found, 0.5 * wanted.reshape(2, -1, config.D))
        assert found.min() < 0  # linear


def test_the_expansion_of_a_block_gives_the_annotations(rng):
    config = replace(CONFIG, layer="block11.expand", preprocessing=replace(CONFIG.preprocessing, size=40))
    params, images = efficientnet.init(config, rng), rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    x, _ = efficientnet.feature_map(params, config, images, stop="block11.expand")
    wanted = (x.reshape(-1, 112) @ params["block11.expand.W"][0, 0] + params["block11.expand.b"]).clip(0, 6)
    found, _ = efficientnet.forward(params, config, images)
    np.testing.assert_allclose(found.reshape(-1, 672), config.scale * wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", ["block16", "block0.expand", "classifier", "", "block1.project"])
def test_an_unknown_layer_is_refused(layer):
    with pytest.raises(InputError, match=f"no layer '{layer}'; choose head, stem, block0 to block15, or block1.expand"):
        efficientnet.Config(layer=layer)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_factor_is_refused(scale):
    for encoder in (efficientnet, squeezenet):
        with pytest.raises(InputError, match=f"scale is {scale}; choose a number above 0"):
            encoder.Config(scale=scale)


def test_the_weights_of_layers_that_are_not_computed_are_not_read(tmp_path, rng):
    config = replace(CONFIG, layer="block2")
    tensors = {}
    for name, shape in efficientnet.shapes(config).items():
        if name.endswith(".W"):
            weight, norm = efficientnet.tensors(config)[name[:-2]]
            W = rng.standard_normal(shape).astype(np.float32)
            tensors[weight] = W.transpose(3, 2, 0, 1) if W.ndim == 4 else W.transpose(2, 0, 1)[:, None]
            tensors |= {f"{norm}.{part}": np.full(shape[-1], 1 - 1e-3, np.float32) for part in BATCH_NORM}
    np.savez(tmp_path / "weights.npz", **tensors)
    assert efficientnet.load(tmp_path / "weights.npz", config).shapes == efficientnet.shapes(config)
    with pytest.raises(InputError, match=r"_blocks\.3\._expand_conv\.weight is missing; .*give a file"):
        efficientnet.load(tmp_path / "weights.npz", CONFIG)


@pytest.fixture(scope="module")
def small_model():
    """A function: a Model on 40 px whose encoder ends at block2, trained from a layer on."""

    def make(finetune_from=None, layer="block2", scale=0.5):
        said = {"layer": layer, "size": 40, "scale": scale}
        preset = replace(PRESETS["flickr8k"], encoder="efficientnet_lite0", encoder_config=said, config={"M": 4, "H": 5})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(efficientnet, "load", lambda path, config: efficientnet.init(config, np.random.default_rng(0)))
            return new_model(preset, TRAIN, "weights.pth", finetune_from=finetune_from)

    return make


def test_a_model_of_an_earlier_layer(small_model, tmp_path, rng):
    images = rng.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    model = small_model()
    wanted, _ = efficientnet.forward(model.params.part("encoder"), model.encoder_config, images)
    assert fingerprint(model) != fingerprint(small_model(scale=1)) == fingerprint(small_model(scale=1.0))
    assert wanted.shape == (2, 100, 24) and model.grid == (10, 10) and model.config.D == 24 and model.frozen
    np.testing.assert_array_equal(model.annotate(images), wanted)
    np.testing.assert_array_equal(model.keepable(images), wanted)
    tuned = small_model("block1")
    kept = tuned.keepable(images)
    assert kept.shape == (2, 20, 20, 16) and next(iter(tuned.trainable)) == "encoder.block1.expand.W"
    np.testing.assert_array_equal(tuned.encode(kept)[0], wanted)
    checkpoint.save(tmp_path / "best.npz", tuned)
    loaded = checkpoint.load(tmp_path / "best.npz")
    assert loaded.encoder_config == tuned.encoder_config and loaded.finetune_from == "block1"
    np.testing.assert_array_equal(loaded.annotate(images), wanted)


def test_a_checkpoint_from_before_the_layer_has_the_head(small_model):
    model = small_model(layer="head")
    header = model.header()
    assert header["encoder_config"].pop("layer") == "head"
    assert Model.from_header(header).encoder_config == model.encoder_config
    for layer in ("block16", 3, ["head"], None):
        header["encoder_config"]["layer"] = layer
        with pytest.raises(InputError, match="another version of satnp, or was changed by hand"):
            Model.from_header(header)


def test_training_from_a_layer_that_is_not_there_is_refused(small_model):
    with pytest.raises(InputError, match="has no layer 'block3'; choose one of stem, block0, block1, block2"):
        small_model("block3")
    header = small_model("block1").header() | {"finetune_from": "block3"}
    with pytest.raises(InputError, match="no layer 'block3'"):
        Model.from_header(header)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("layer = 'block16'", "no layer 'block16'; choose head, stem, block0 to"),
        ("layer = 15", "layer = 15; give a text in quotes"),
        ("scale = 0.0", "scale is 0.0; choose a number above 0"),
        ("scale = nan", "scale is nan; choose a number above 0"),
        ("size = 10001", "preprocessing has size 10001"),
        ("laeyr = 'head'", "'laeyr', which does not exist in [encoder_config] of efficientnet_lite0; did you mean 'layer'?"),
        ("preprocessing = 'caffe'", "the key 'preprocessing', which does not exist"),
    ],
)  # fmt: skip
def test_a_table_encoder_config_with_a_bad_value_is_refused(table, words, tmp_path):
    (tmp_path / "c.toml").write_text(f"encoder = 'efficientnet_lite0'\n[encoder_config]\n{table}\n")
    with pytest.raises(InputError, match=re.escape(words)):
        new_model(find_preset("flickr8k", path=tmp_path / "c.toml"), TRAIN, "weights.pth")


def test_a_table_encoder_config(tmp_path):
    (tmp_path / "c.toml").write_text("[encoder_config]\nlayer = 'block15'\nsize = 320\nscale = 1\n")
    preset = find_preset("flickr8k", path=tmp_path / "c.toml", encoder="efficientnet_lite0")
    assert preset.encoder_config == {"layer": "block15", "size": 320, "scale": 1}
    with pytest.raises(InputError, match="'layer', which does not exist in .* of squeezenet1_1; there are size, scale"):
        find_preset("flickr8k", path=tmp_path / "c.toml", encoder="squeezenet1_1")
    with pytest.raises(InputError, match="--regions takes the place of an encoder; leave out .encoder_config."):
        with_files(replace(preset, captioner="top_down"), regions=True)
    (tmp_path / "c.toml").write_text("[encoder_config]\nk = 3\n")
    with pytest.raises(InputError, match="the key 'k', which does not exist in .encoder_config. of regions; leave it out"):
        find_preset("flickr8k", path=tmp_path / "c.toml", encoder="regions")


def test_a_size_that_leaves_no_cell_is_refused():
    preset = replace(PRESETS["flickr8k"], encoder="squeezenet1_1", encoder_config={"size": 2})
    with pytest.raises(InputError, match="size is 2, too small for the encoder squeezenet1_1; choose more pixels"):
        new_model(preset, TRAIN, "weights.pth")


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


def test_features_are_those_of_the_pytorch_port(shared_data):
    reason = 'the PyTorch port is not installed: pip install -e ".[bench]"'
    torch, port = (pytest.importorskip(name, reason=reason) for name in ("torch", "efficientnet_lite_pytorch"))
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
    with pytest.raises(InputError, match="no weights with the preprocessing 'caffe'; it has tensorflow"):
        new_model(preset, TRAIN, "weights.pth", "caffe")
