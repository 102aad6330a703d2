"""A model that captions photos: encoder, captioner, vocabulary and parameters."""

from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.arrays.shares import add_in_shares, shares_of
from satnp.arrays.threads import parallel
from satnp.captioners import CAPTIONERS
from satnp.captioners.contract import Batch
from satnp.data.captions import Vocabulary, pad
from satnp.decoding import MIN_LENGTH, LengthScore, beam_search
from satnp.early import EARLY
from satnp.encoders import ENCODERS
from satnp.encoders.clips import read_input
from satnp.encoders.photos import Preprocessing
from satnp.errors import InputError

NO_WORDS = "(no words)"  # shown in place of an empty caption


class Caption(NamedTuple):
    """words (T,); their log-probability in nats, including <end>, or None for a system that gives none; alpha (T, rows,
    columns), the attention at each word, or None for a captioner without attention."""

    words: list
    log_prob: float | None
    alpha: object

    def __str__(self):
        return " ".join(self.words)


def _joined(parts):
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def captioner_of(name):
    """The captioner, or the early system, of this name. Raises: KeyError."""
    return EARLY[name] if name in EARLY else CAPTIONERS[name]


@dataclass
class Model:
    """An encoder and a captioner, or an early system; the names in `params` are encoder.* and decoder.*

    Training does not change a frozen encoder or, with `finetune_from`, the layers before that one.
    """

    encoder: str
    encoder_config: Any
    captioner: str
    config: Any
    vocabulary: Vocabulary
    params: Parameters
    frozen: bool
    length_score: LengthScore
    finetune_from: str | None = None

    @property
    def grid(self):
        """(rows, columns) of the annotations."""
        return self.encoder_config.grid

    @property
    def has_sentinel(self):
        """True if a word may attend to a sentinel in place of the photo; alpha then sums to 1 - beta (contract.py)."""
        return getattr(self.config, "sentinel", False)

    @property
    def guidance(self):
        """The size of the guidance vector that the captioner reads from a file, or None."""
        return self.config.G if getattr(self.config, "guidance", None) == "file" else None

    @property
    def reads(self):
        """What the model reads of each photo from a file, as the beginning of an error, or None."""
        if self.encoder == "regions":
            return f"the model reads {self.grid[1]} regions of each photo from a file, with {self.encoder_config.D} features"
        if self.guidance is not None:
            return f"the model reads a guidance vector of {self.guidance} numbers for each photo from a file"
        return None

    @property
    def trainable(self):
        """The Parameters that training changes: all of them, those from a layer of the encoder on, or the decoder's."""
        if self.frozen:
            return self.params.since("decoder")
        return self.params.since(f"encoder.{self.finetune_from}" if self.finetune_from else "encoder")

    @property
    def keeps_features(self):
        """True if training does not change some layers of the encoder, so that their output can be stored."""
        return self.frozen or self.finetune_from is not None

    def on(self, xp):
        """Return the same model with its parameters in the memory of `xp`."""
        return replace(self, params=self.params.on(to_device(to_host(self.params.flat), xp)))

    def annotate(self, images):
        """images (N, S, S, 3) RGB 0-255, in the model's memory -> annotations (N, L, D)

        On the host each core takes a share of the images.
        """
        if self.encoder == "regions":
            raise InputError(f"{self.reads}; give it with --regions FILE.npz")
        return _joined(parallel(lambda rows: self._annotate(images[rows]), shares_of(len(images), xp_of(images))))

    def _annotate(self, images):
        encoder, params = ENCODERS[self.encoder], self.params.part("encoder")
        if not hasattr(encoder, "layers"):
            return encoder.forward(params, self.encoder_config, images)[0]
        last = encoder.layers(self.encoder_config)[-1]
        return encoder.forward(params, self.encoder_config, self._map_before(last, images), start=last)[0]

    def keepable(self, images):
        """What training does not change: images (N, S, S, 3) -> annotations (N, L, D), or the input of `finetune_from`."""
        return self.annotate(images) if self.finetune_from is None else self._map_before(self.finetune_from, images)

    def _map_before(self, layer, x):
        """Images x (N, S, S, 3) -> the input of `layer`, layer by layer, because VGG-19's caches together are 360 MiB."""
        encoder, params = ENCODERS[self.encoder], self.params.part("encoder")
        layers = encoder.layers(self.encoder_config)
        for start, stop in pairwise(layers[: layers.index(layer) + 1]):
            x = encoder.feature_map(params, self.encoder_config, x, start, stop)[0]
        return x

    def encode(self, kept):
        """The output of `keepable` (N, ...), or images if the whole encoder is trained -> annotations (N, L, D), cache

        On the host each core takes a share of the photos, except inside of a share of a minibatch. The cache of a frozen
        encoder, which has no backward pass, is None.
        """
        encoder, params, dtype = ENCODERS[self.encoder], self.params.part("encoder"), self.params.flat.dtype
        if self.frozen:
            return kept.astype(dtype, copy=False), None

        def forward(rows):
            if self.finetune_from is None:
                return encoder.forward(params, self.encoder_config, kept[rows])
            x = kept[rows].astype(dtype, copy=False)
            return encoder.forward(params, self.encoder_config, x, start=self.finetune_from)

        parts = shares_of(len(kept), xp_of(kept))
        annotations, caches = zip(*parallel(forward, parts), strict=True)
        return _joined(annotations), list(zip(parts, caches, strict=True))

    def encode_backward(self, dannotations, cache, grads):
        """dannotations (N, L, D), cache from `encode`: adds the gradients of the encoder's weights to `grads`."""

        def backward(share, grads):
            rows, cache = share
            ENCODERS[self.encoder].backward(dannotations[rows], cache, grads)

        add_in_shares(backward, grads, cache)

    def decode(self, annotations, beam=3, max_length=40, rng=None, min_length=MIN_LENGTH, every=False):
        """annotations (N, L, D) -> list of N decoding.Decoded; rng (default: seed 0) draws the random numbers.

        With `every`, of N lists: all captions that the beam finishes, best first. An early system has one caption.
        """
        if self.captioner in EARLY:
            found = EARLY[self.captioner].describe(self.params.part("decoder"), self.config, annotations)
            return [[decoded] for decoded in found] if every else found
        return beam_search(
            CAPTIONERS[self.captioner], self.params.part("decoder"), self.config, annotations, beam=beam,
            max_length=max_length, length_score=self.length_score, rng=rng or np.random.default_rng(0),
            min_length=min_length, every=every,
        )  # fmt: skip

    def loss(self, annotations, captions, mask, noise, given=None, smoothing=0.0):
        """Run the captioner's forward pass -> loss, cache; `given` and `smoothing` as in contract.Batch"""
        captioner, batch = CAPTIONERS[self.captioner], Batch(annotations, captions, mask, None, given, smoothing)
        return captioner.forward(self.params.part("decoder"), self.config, batch, noise)

    def caption(self, photo, beam=3, rng=None, min_length=MIN_LENGTH):
        """Caption one photo, as `encoders.photos.read_photo` takes it: a path, a PIL image, an RGB array, ... -> Caption

        A model of clips captions one clip, as `encoders.clips.read_clip` takes it.

        A list or a tuple of photos gives a list of Captions; they are captioned one after the other, so that each gets the
        caption that it gets alone. rng and min_length as in `decode`.
        Raises: InputError when a photo cannot be read, or when the model reads something of each photo from a file.
        """
        if isinstance(photo, list | tuple):
            return [self.caption(x, beam, rng, min_length) for x in photo]
        if self.reads:
            raise InputError(f"{self.reads}; call decode with the annotations of data.by_name")
        (decoded,) = self.decode(self.look(photo), beam, rng=rng, min_length=min_length)
        return self.describe(decoded)

    def look(self, photo):
        """A photo as in `caption` -> its annotations (1, L, D)"""
        image = read_input(self.encoder_config, photo)
        return self.annotate(to_device(image[None], xp_of(self.params.flat)))

    def channels(self, photo, words):
        """Which channels the captioner used for each word: a photo as in `caption`, words -> beta (T, D), maps (T, L, D)

        Host arrays: the weights of the channels, and the maps whose channels they weight; None for a captioner without
        channel attention.
        """
        find = getattr(captioner_of(self.captioner), "channels", None)
        if find is None:
            return None
        batch = self._batch(self.look(photo), [words])
        return tuple(to_host(x)[: len(words), 0] for x in find(self.params.part("decoder"), self.config, batch))

    def objects(self, photo):
        """The objects that the captioner found in a photo as in `caption`: [(words, box)], or None if it looks for none.

        Boxes are x0, y0, x1, y1 in shares of the photo's width and height.
        """
        find = getattr(captioner_of(self.captioner), "found_in", None)
        if find is None:
            return None
        (found,) = find(self.params.part("decoder"), self.config, self.look(photo))
        return [(self.vocabulary.decode(ids), box) for ids, box in found]

    def gates(self, annotations, captions):
        """The gate beta of each word of N captions of one photo: annotations (1, L, D), [words] -> [(T,)]

        None for a captioner without such a gate, and for hard attention that draws its locations: beta depends on them.
        """
        find = getattr(captioner_of(self.captioner), "gates", None)
        if find is None or getattr(self.config, "decoding", None) == "sampling":
            return None
        beta = to_host(find(self.params.part("decoder"), self.config, self._batch(annotations, captions)))
        return [beta[: len(words), n] for n, words in enumerate(captions)]

    def _batch(self, annotations, captions):
        """N captions of one photo: annotations (1, L, D), [words] -> Batch"""
        xp = xp_of(annotations)
        arrays = pad([self.vocabulary.encode(words) for words in captions])
        return Batch(xp.repeat(annotations, len(captions), axis=0), *(to_device(x, xp) for x in arrays))

    def describe(self, decoded):
        """decoding.Decoded -> Caption"""
        alpha = None if decoded.alphas is None else np.asarray(decoded.alphas).reshape(-1, *self.grid)
        log_prob = None if decoded.log_prob is None else float(decoded.log_prob)
        return Caption(self.vocabulary.decode(decoded.ids), log_prob, alpha)

    def header(self):
        """The description of the model for a checkpoint, as JSON values."""
        return {
            "encoder": self.encoder, "encoder_config": asdict(self.encoder_config),
            "captioner": self.captioner, "config": asdict(self.config),
            "vocabulary": self.vocabulary.words, "frozen": self.frozen,
            "length_score": asdict(self.length_score), "finetune_from": self.finetune_from,
        }  # fmt: skip

    @classmethod
    def from_header(cls, header):
        """Make the model that `header` describes, without parameters; `with_params` gives it some.

        Raises: InputError when this satnp does not know such a model; the caller adds the checkpoint's path in front.
        """
        try:
            encoder_config = dict(header["encoder_config"])
            if header["encoder"] != "regions":
                encoder_config["preprocessing"] = Preprocessing(**_tuples(encoder_config["preprocessing"]))
            if "length_score" in header:
                length_score = LengthScore(**header["length_score"])
            else:  # of an older satnp
                length_score = LengthScore(power=header["length_power"])
            model = cls(
                header["encoder"], ENCODERS[header["encoder"]].Config(**_tuples(encoder_config)),
                header["captioner"], captioner_of(header["captioner"]).Config(**header["config"]),
                Vocabulary(header["vocabulary"]), Parameters({}), header["frozen"], length_score,
                header.get("finetune_from"),
            )  # fmt: skip
            preprocessing = getattr(model.encoder_config, "preprocessing", None)
            for config in (preprocessing, model.encoder_config, model.config, length_score, model):
                if config is not None:
                    _check_types(config)
            model.shapes()
            if model.reads and not model.frozen:
                raise ValueError("its encoder is trained, but it reads a file")
            layers = getattr(ENCODERS[model.encoder], "layers", lambda config: ())(model.encoder_config)
            if model.finetune_from not in (None, *layers):
                raise LookupError(f"no layer {model.finetune_from!r}")
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"is of another version of satnp, or was changed by hand ({error})") from None
        if len(model.vocabulary) != model.config.V:
            raise InputError(f"has {len(model.vocabulary)} words in its vocabulary, but its config needs {model.config.V}")
        return model

    def with_params(self, params):
        """The same model with the Parameters `params`, in the order of `shapes`.

        Raises: InputError unless they have these shapes; the caller adds the checkpoint's path in front.
        """
        wanted = self.shapes()
        if wanted != params.shapes:
            wrong = next(n for n in wanted | params.shapes if wanted.get(n) != params.shapes.get(n))
            raise InputError(
                f"has {wrong} with shape {params.shapes.get(wrong)}, "
                f"but its config needs {wanted.get(wrong)} (None: no array)"
            )
        if list(wanted) != list(params.shapes):  # the file was written by something else: parts must lie side by side
            params = Parameters.of({name: params[name] for name in wanted})
        return replace(self, params=params)

    def shapes(self):
        """{name: shape} of the parameters, according to the configs."""
        parts = {
            "encoder": ENCODERS[self.encoder].shapes(self.encoder_config),
            "decoder": captioner_of(self.captioner).shapes(self.config),
        }
        return {f"{part}.{name}": tuple(shape) for part, names in parts.items() for name, shape in names.items()}


def _check_types(config):
    """Raise TypeError if a field of a dataclass has the wrong type or a number that is not finite."""
    for field in fields(config):
        value, wanted = getattr(config, field.name), (int, float) if field.type is float else field.type
        fits = wanted is Any or isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        if not fits or field.type is float and not isfinite(value):
            raise TypeError(f"{field.name} is {value!r}")


def _tuples(values):
    """Convert the lists of JSON to the tuples of the configs."""
    return {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
