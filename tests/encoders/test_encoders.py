"""Photos to annotations: preprocessing, the small CNN and SqueezeNet."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from satnp.arrays.backend import to_device, to_host
from satnp.encoders import small, squeezenet
from satnp.encoders.photos import Preprocessing, read_photo
from satnp.errors import InputError
from satnp.proof.encoders import encoder_case
from satnp.proof.gradcheck import check_gradients

CONFIG = small.Config((4, 6, 8), Preprocessing(12))
TINY = squeezenet.Config(Preprocessing(39, "BGR", (104.0, 117.0, 123.0), 1.0))


def make(encoder, config, xp, N=2, seed=0):
    """Parameters and photos on a device."""
    rng, size = np.random.default_rng(seed), config.preprocessing.size
    params = encoder.init(config, rng)
    images = rng.integers(0, 256, (N, size, size, 3), dtype=np.uint8)
    return params.on(to_device(params.flat, xp)), to_device(images, xp)


def test_preprocessing(xp):
    images = to_device(np.array([[[[10, 20, 250]]]], np.uint8), xp)
    plain = Preprocessing(1)(images, np.float32)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(to_host(plain)[0, 0, 0], (np.array([10, 20, 250]) - 127.5) / 64)
    swapped = Preprocessing(1, "BGR", (104.0, 117.0, 123.0), 1.0)(images, np.float64)
    np.testing.assert_allclose(to_host(swapped)[0, 0, 0], [250 - 104, 20 - 117, 10 - 123])
    assert to_host(images)[0, 0, 0].tolist() == [10, 20, 250]


def test_preprocessing_does_not_write_to_photos_of_its_own_dtype(xp):
    images = xp.ones((1, 2, 2, 3), dtype=xp.float32)
    Preprocessing(2)(images, np.float32)
    assert (to_host(images) == 1).all()


@pytest.mark.parametrize(("encoder", "config"), [(small, CONFIG), (squeezenet, TINY)])
def test_shapes_dtypes_and_photos_one_by_one(xp, encoder, config):
    params, images = make(encoder, config, xp)
    annotations, cache = encoder.forward(params, config, images)
    rows, columns = config.grid
    assert annotations.shape == (2, rows * columns, config.D) and annotations.dtype == np.float32
    assert to_host(annotations).std() > 0
    alone, _ = encoder.forward(params, config, images[1:])
    together = to_host(annotations)[1]  # BLAS sums in another order for another number of photos
    np.testing.assert_allclose(to_host(alone)[0], together, rtol=1e-4, atol=1e-5 * max(1, together.max()))
    grads = params.zeros_like()
    encoder.backward(xp.ones_like(annotations), cache, grads)
    once = to_host(grads.flat.copy())
    assert once.dtype == np.float32 and all(to_host(g).any() for _, g in grads.items())
    encoder.backward(xp.ones_like(annotations), cache, grads)
    np.testing.assert_allclose(to_host(grads.flat), 2 * once, rtol=1e-5)


def test_the_small_encoder_knows_where_a_cell_is(xp):
    params, images = make(small, CONFIG, xp)
    annotations, _ = small.forward(params, CONFIG, images * 0)
    assert len(np.unique(to_host(annotations)[0].round(5), axis=0)) == 9
    planes = to_host(small.coordinates(2, 3, 5, xp, np.float32))
    assert planes.shape == (2, 3, 5, 2) and planes.dtype == np.float32
    np.testing.assert_allclose(planes[1, 2, :, 0], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(planes[1, :, 4, 1], [-1, 0, 1])


def test_grids():
    assert small.Config().grid == (8, 8) and small.Config().D == 128
    assert squeezenet.Config().grid == (13, 13) and TINY.grid == (2, 2)


@pytest.mark.parametrize("config", [((4, 6, 8), Preprocessing(14)), ((4,), Preprocessing(12))])
def test_a_size_that_cannot_be_halved_is_refused(config):
    with pytest.raises(InputError, match="cannot be halved"):
        small.Config(*config)


def test_squeezenet_gives_the_golden_features(xp, shared_data):
    config = squeezenet.Config()
    params = squeezenet.load(shared_data / "cnn" / "squeezenet1_1.safetensors", config)
    params = params.on(to_device(params.flat, xp))
    with np.load(shared_data / "cnn" / "golden_squeezenet1_1.npz") as golden:
        names = sorted({key.partition("/")[0] for key in golden.files})
        images = np.stack([golden[f"{name}/rgb_uint8"] for name in names])
        wanted = np.stack([golden[f"{name}/fire9"].transpose(1, 2, 0) for name in names])
    features, _ = squeezenet.feature_map(params, config, to_device(images, xp))
    annotations, _ = squeezenet.forward(params, config, to_device(images, xp))
    for name, x, y in zip(names, to_host(features), wanted, strict=True):
        assert np.linalg.norm(x - y) <= 1e-5 * np.linalg.norm(y), name
    wanted = (np.sqrt(1 + wanted.reshape(-1, 169, 512)) - 1) / 4
    np.testing.assert_allclose(to_host(annotations), wanted, atol=1e-3)


def test_squeezenets_gradients_on_a_photo_with_the_real_weights(shared_data):
    config = squeezenet.Config()
    params = squeezenet.load(shared_data / "cnn" / "squeezenet1_1.safetensors", config)
    with np.load(shared_data / "cnn" / "golden_squeezenet1_1.npz") as golden:
        image = next(golden[key] for key in golden.files if key.endswith("/rgb_uint8"))
    case = encoder_case("photo", squeezenet, config, direction=True)

    def photo(rng):
        return {name: x.astype(float) for name, x in params.items()} | {"images": image[None].astype(float)}

    result = check_gradients(replace(case, make=photo))
    assert result.passed and result.error <= 1e-10


def test_the_whole_frame_of_a_photo_is_squashed(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 30:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    photo = read_photo(tmp_path / "wide.png", 10)
    assert photo.shape == (10, 10, 3) and photo.dtype == np.uint8
    assert (photo[:, :4] < 30).all() and (photo[:, 6:] > 225).all()
    np.testing.assert_array_equal(photo, read_photo(wide, 10))
    assert read_photo(tmp_path / "wide.png").shape == (20, 60, 3)


@pytest.mark.parametrize(
    "photo",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["float64", "grey", "RGBA", "empty"],
)
def test_an_array_that_is_no_photo_is_refused(photo):
    with pytest.raises(InputError) as refusal:
        read_photo(photo)
    assert str(photo.shape) in str(refusal.value) and str(photo.dtype) in str(refusal.value)
