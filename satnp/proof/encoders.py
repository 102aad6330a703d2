"""Gradient checks of the encoders, and the mistakes that they must catch."""

from dataclasses import replace

from satnp.arrays.parameters import Parameters
from satnp.encoders import ENCODERS, clips, efficientnet, small, squeezenet, vgg
from satnp.encoders.photos import Preprocessing
from satnp.layers import cbam
from satnp.proof.cases import pack, random_weights, unpack
from satnp.proof.gradcheck import Case
from satnp.proof.planting import Bug


def encoder_case(name, encoder, config, direction, start=None):
    """The Case of an encoder on two random photos: the gradients of its parameters, or of those from layer `start` on."""
    shapes, size = encoder.shapes(config), config.preprocessing.size
    taken_up = {} if start is None else {"start": start}
    if taken_up:
        below = Parameters(shapes).before(start).shapes
        shapes = {name: shape for name, shape in shapes.items() if name not in below}

    def make(rng):
        frames = (config.frames,) if hasattr(config, "frames") else ()
        images = rng.uniform(0, 255, (2, *frames, size, size, 3))
        if taken_up:
            params = pack(below, random_weights(below, rng).values())
            images, _ = encoder.feature_map(params, config, images, stop=start)
        return random_weights(shapes, rng) | {"images": images}

    def forward(*inputs):
        *weights, images = inputs
        params = pack(shapes, weights)
        annotations, cache = encoder.forward(params, config, images, **taken_up)
        return annotations, (params, cache)

    def backward(dannotations, cache):
        params, cache = cache
        grads = params.zeros_like()
        encoder.backward(dannotations, cache, grads)
        return unpack(grads)

    return Case(f"encoders/{name}", make, forward, backward, ("images",), direction)


SMALL = small.Config((2, 3, 5), Preprocessing(12))
CLIPS = clips.Config(SMALL.channels, SMALL.preprocessing, frames=4)
SQUEEZENET = squeezenet.Config(replace(squeezenet.PREPROCESSING["caffe"], size=39))
VGG = vgg.Config(replace(vgg.PREPROCESSING["torchvision"], size=32), (2, 3, 4, 5, 6))
EFFICIENTNET = efficientnet.Config(replace(efficientnet.PREPROCESSING["tensorflow"], size=40))
UP_TO_BLOCK15, UP_TO_EXPAND = (replace(EFFICIENTNET, layer=layer, scale=0.5) for layer in ("block15", "block11.expand"))
SQUEEZENET_CBAM, VGG_CBAM = ENCODERS["squeezenet1_1_cbam"], ENCODERS["vgg19_cbam"]

CASES = [
    encoder_case("small", small, SMALL, direction=False),
    encoder_case("small direction", small, small.Config(preprocessing=Preprocessing(24)), direction=True),
    encoder_case("small_frames", clips, CLIPS, direction=False),
    encoder_case("small_cbam", ENCODERS["small_cbam"], SMALL, direction=False),
    encoder_case("squeezenet1_1 direction", squeezenet, SQUEEZENET, direction=True),
    encoder_case("squeezenet1_1 from fire8 direction", squeezenet, SQUEEZENET, direction=True, start="fire8"),
    encoder_case("efficientnet_lite0 direction", efficientnet, EFFICIENTNET, direction=True),
    encoder_case("efficientnet_lite0 from block14 direction", efficientnet, EFFICIENTNET, direction=True, start="block14"),
    encoder_case("efficientnet_lite0 up to block15 direction", efficientnet, UP_TO_BLOCK15, direction=True, start="block14"),
    encoder_case("efficientnet_lite0 up to block11.expand direction", efficientnet, UP_TO_EXPAND, direction=True),
    encoder_case("vgg19 direction", vgg, VGG, direction=True),
    encoder_case("vgg19 from conv4_2", vgg, VGG, direction=False, start="conv4_2"),
    encoder_case("squeezenet1_1_cbam direction", SQUEEZENET_CBAM, SQUEEZENET, direction=True),
    encoder_case("squeezenet1_1_cbam from fire9 direction", SQUEEZENET_CBAM, SQUEEZENET, direction=True, start="fire9"),
    encoder_case("vgg19_cbam from conv5_4", VGG_CBAM, VGG, direction=False, start="conv5_4"),
    encoder_case("vgg19_cbam from cbam", VGG_CBAM, VGG, direction=False, start="cbam"),
]

BUGS = [
    Bug("encoder's coordinate planes not cut off", small.backward,
        "dx[..., :-2]", "dx[..., 2:]", "encoders/small", {"term"}),
    Bug("change's gradient into the frame before lost", clips.backward,
        "dF[:, :-1] -= dstep", "pass", "encoders/small_frames", {"term"}),
    Bug("sign of the change forgotten", clips.backward,
        "sign * dchange", "dchange", "encoders/small_frames", {"block", "term"}),
    Bug("first moments' gradients in the wrong order", clips.backward,
        "zip(dparts, cache.places,", "zip(dparts, cache.places[[0, 2, 1]],", "encoders/small_frames", {"block", "term"}),
    Bug("pretrained encoder cut off behind the block", cbam.cbam_backward,
        "channel_gate_backward(dx, cache.channels)", "channel_gate_backward(0 * dx, cache.channels)",
        "encoders/vgg19_cbam from conv5_4", {"zero"}),
]  # fmt: skip
