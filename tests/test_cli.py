"""The command line, as a user types it."""

import argparse
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satnp import figures, load
from satnp.captioners.show_attend_tell import CHOICES
from satnp.checkpoint import save
from satnp.cli import _parser, _print_visual_words, main
from satnp.data import datasets
from satnp.data.captions import END
from satnp.data.datasets import load_split
from satnp.data.scenes import make_scenes, write_scene
from satnp.demo import peak_memory
from satnp.errors import InputError
from satnp.scores import evaluation
from satnp.scores.visual import visual, visual_words
from satnp.training.presets import find_preset, new_model
from satnp.training.trainer import read_log
from tests.page.pages import page_data
from tests.small_world import write_flickr8k

TINY = (
    'encoder = "small"\n[config]\nM = 12\nH = 16\nA = 8\ndropout = 0.0\n'
    "[recipe]\nepochs = 2\nbatch_size = 8\nlearning_rate = 0.01\nwarmup = 5\nmin_count = 1\n"
    "mirror = false\naveraging = 0.0\n"
)


@pytest.fixture(scope="module")
def world(encoders, tmp_path_factory):
    """A trained run: (folder, its data)."""
    folder = tmp_path_factory.mktemp("cli")
    root = write_flickr8k(folder / "data")
    (folder / "tiny.toml").write_text(TINY)
    assert main(train_line(folder, "run")) == 0
    return folder, root


def train_line(folder, out, *more):
    line = f"train --data flickr8k --root {folder / 'data'} --config {folder / 'tiny.toml'} --out {folder / out}"
    return [*line.split(), *more]


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_train_writes_its_files_and_can_be_resumed(world, capsys):
    folder, _ = world
    wanted = {"best.npz", "last.npz", "metrics.jsonl", "curves.png", "diagnostics.png", "progress.html"}
    assert wanted <= {p.name for p in (folder / "run").iterdir()}
    progress = page_data(folder / "run/progress.html")
    assert progress["state"] == "finished"
    assert progress["step"] == progress["steps"] == read_log(folder / "run/metrics.jsonl")[-1]["step"]
    assert progress["reload"] is None
    assert main(train_line(folder, "run")) == 2
    assert "--resume" in said(capsys)[1]
    best = min(r["nll"] for r in read_log(folder / "run/metrics.jsonl") if r["kind"] == "val")  # of six photos
    assert main(train_line(folder, "run", "--resume")) == 0
    out, _ = said(capsys)
    assert "resumed at step" in out
    assert f"best.npz, validation nll {best:.4f} with beam 1; Bleu_4 could not tell the epochs apart" in out


@pytest.mark.slow
def test_resume_without_a_checkpoint_starts_from_the_beginning_and_says_so(world, capsys):
    folder, _ = world
    assert main(train_line(folder, "fresh", "--resume")) == 0
    assert f"there is no {folder / 'fresh/last.npz'} yet: starting from the beginning" in said(capsys)[0]
    assert read_log(folder / "fresh/metrics.jsonl") == read_log(folder / "run/metrics.jsonl")


def test_caption_says_a_sentence_a_photo(world, capsys, tmp_path):
    folder, root = world
    photos = sorted((root / "Flicker8k_Dataset").glob("test-*.jpg"))[:2]
    arguments = ["caption", str(folder / "run/best.npz"), *map(str, photos), "--beam", "2"]
    assert main([*arguments, "--figures", str(tmp_path / "figures"), "--json", str(tmp_path / "out.json")]) == 0
    out, _ = said(capsys)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["photo"] for row in rows] == [str(p) for p in photos]
    for row, line in zip(rows, out.splitlines(), strict=True):
        assert row["caption"] in line and row["log_prob"] < 0
        assert np.array(row["alpha"]).shape[1:] == (8, 8)
    assert Image.open(tmp_path / "figures" / f"{photos[0].stem}.png").size[0] > 200
    caption = load(folder / "run/best.npz").caption(str(photos[0]), beam=2)
    assert str(caption) == rows[0]["caption"] and caption.log_prob == pytest.approx(rows[0]["log_prob"])


@pytest.mark.parametrize("captioner", ["show_attend_tell", "adaptive", "show_and_tell"])
def test_a_caption_without_words_is_shown_as_such(world, tmp_path, capsys, captioner):
    """Of a vocabulary without words; any other captioner says a word before <end>."""
    folder, root = world
    preset = replace(find_preset("flickr8k", captioner), encoder="small", config={"M": 8, "H": 8})
    photo, split = root / "Flicker8k_Dataset/test-00000.jpg", load_split("flickr8k", "train", root)
    for min_count, shown in ((10_000, "(no words)"), (1, None)):
        model = new_model(replace(preset, recipe=replace(preset.recipe, min_count=min_count)), split)
        output = "decoder.b_o" if captioner == "show_attend_tell" else "decoder.b_p"
        model.params[output][END] = 100.0
        save(tmp_path / "c.npz", model, step=1)
        files = f"--figures {tmp_path / 'figures'} --json {tmp_path / 'out.json'} --page {tmp_path / 'p.html'}"
        capsys.readouterr()
        assert main(f"caption {tmp_path / 'c.npz'} {photo} --beam 2 {files}".split()) == 0
        out, ((row,)) = said(capsys)[0], json.loads((tmp_path / "out.json").read_text())
        assert len(row["words"]) == (shown is None)
        said_on_page = page_data(tmp_path / "p.html")["photos"][0]["views"][0]["captions"][0]
        assert said_on_page["words"] == row["words"] and ("maps" in said_on_page) == (captioner != "show_and_tell")
        assert out.startswith(f"{photo}: {shown or row['caption']}  (log p ")
        line = f"evaluate {tmp_path / 'c.npz'} --data flickr8k --root {root} --split test --beam 1"
        assert main([*line.split(), "--results", str(tmp_path / "r.json")]) == 0
        assert all(bool(row["caption"]) == (shown is None) for row in json.loads((tmp_path / "r.json").read_text()))
    assert str(model.caption(str(photo), min_length=0)) == "" and len(model.caption(str(photo), min_length=3).words) == 3


def test_evaluate_scores_a_split_with_its_own_list_alone(world, capsys, tmp_path):
    folder, root = world
    (root / "Flickr8k_text/Flickr_8k.trainImages.txt").rename(tmp_path / "hidden")
    arguments = f"evaluate {folder}/run/best.npz --data flickr8k --root {root} --split test --beam 2".split()
    try:
        assert main([*arguments, "--json", f"{tmp_path}/s.json", "--results", f"{tmp_path}/r.json"]) == 0
    finally:
        (tmp_path / "hidden").rename(root / "Flickr8k_text/Flickr_8k.trainImages.txt")
    scores, results = (json.loads((tmp_path / name).read_text()) for name in ("s.json", "r.json"))
    assert {"Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr", "beam", "split", "tokeniser"} <= scores.keys()
    assert [row.keys() for row in results] == [{"image_id", "caption"}] * 4
    assert "beam 2" in said(capsys)[0]


def with_test_captions(world, tmp_path, names, say):
    """A copy of the data whose test photos are `names`, with say(word) in place of each word of their captions."""
    root = Path(shutil.copytree(world[1], tmp_path / "data")) / "Flickr8k_text"
    (root / "Flickr_8k.testImages.txt").write_text("".join(f"{name}.jpg\n" for name in names))
    lines = [line.partition("\t") for line in (root / "Flickr8k.token.txt").read_text().splitlines()]
    (root / "Flickr8k.token.txt").write_text("".join(
        f"{name}\t{' '.join(map(say, text.split())) if name.startswith('test') else text}\n" for name, _, text in lines
    ))  # fmt: skip
    return root.parent


@pytest.mark.parametrize(("names", "say", "notes"), [
    (["test-00000", "test-00001"], lambda word: word, []),
    (["test-00000"], lambda word: word, ["CIDEr of a single photo is 0 by definition, "]),
    (["test-00000", "test-00001"], lambda word: f"x{word} {word}", ["50% of the words of these captions are not in "]),
    (["test-00000", "test-00001"], lambda word: f"x{word} {word} {word}", []),
    (["test-00000"], "ein{}".format, ["CIDEr of a single photo is 0 by", "100% of the words of these captions are not in"]),
])  # fmt: skip
def test_evaluate_says_what_the_scores_cannot(world, tmp_path, capsys, names, say, notes):
    root = with_test_captions(world, tmp_path, names, lambda word: word if word == "." else say(word))
    line = f"evaluate {world[0]}/run/best.npz --data flickr8k --root {root} --split test --beam 1 --json {tmp_path}/s.json"
    capsys.readouterr()
    assert main(line.split()) == 0
    out, scores = said(capsys)[0], json.loads((tmp_path / "s.json").read_text())
    printed = [text.removeprefix("  note: ") for text in out.splitlines() if text.startswith("  note: ")]
    assert len(printed) == len(notes) and all(map(str.startswith, printed, notes)) and scores["notes"] == printed
    assert len(names) > 1 or scores["CIDEr"] == 0


def test_the_files_of_an_evaluation_are_written_before_anybody_stops_to_read(world, tmp_path, monkeypatch):
    folder, root = world
    line = f"evaluate {folder}/run/best.npz --data flickr8k --root {root} --split test --json {tmp_path}/s.json"

    def closed(text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "write", closed)
        patch.setattr(evaluation, "meteor_or_reason", lambda *arguments: (None, "not asked"))
        patch.setattr(os, "dup2", lambda *handles: None)  # pytest's own stdout stays
        assert main(line.split()) == 141
    assert "Bleu_4" in json.loads((tmp_path / "s.json").read_text())


@pytest.mark.parametrize("there", [True, False])
def test_evaluate_has_meteor_or_names_it_as_missing(world, capsys, tmp_path, monkeypatch, there):
    folder, root = world
    asked = []

    def program(candidates, references):
        asked.extend(zip(candidates, references, strict=True))
        if not there:
            raise InputError("wants a thing")
        return 0.125, None

    monkeypatch.setattr(evaluation, "meteor", program)
    line = f"evaluate {folder}/run/best.npz --data flickr8k --root {root} --split test --json {tmp_path}/s.json"
    assert main(line.split()) == 0
    seen = f"{'METEOR':24} 0.1250" if there else "not computed: wants a thing"
    assert f"  {seen}\n" in said(capsys)[0]
    assert json.loads((tmp_path / "s.json").read_text())["METEOR"] == (0.125 if there else None)
    split = load_split("flickr8k", "test", root)
    assert [references for _, references in asked] == [[" ".join(words) for words in c] for c in split.captions]


@pytest.fixture(scope="module")
def hard(world):
    """A trained run with hard attention."""
    folder, _ = world
    assert main(train_line(folder, "hard", "--attention", "hard")) == 0
    return folder / "hard"


@pytest.mark.slow
def test_hard_attention_trains_from_its_own_preset(hard):
    config, preset = load(hard / "best.npz").config, find_preset("flickr8k", attention="hard")
    assert config.hard and config.estimator == preset.config["estimator"] and config.reward == preset.config["reward"]
    assert (config.M, config.dropout) == (12, 0.0)  # what the TOML file says stands over it
    assert (hard / "diagnostics.png").is_file()
    assert {"reward", "baseline", "expected"} <= read_log(hard / "metrics.jsonl")[0].keys()


def test_the_flag_stands_over_the_file_and_either_brings_the_preset(tmp_path):
    path = tmp_path / "hard.toml"
    path.write_text("[config]\nattention = 'hard'\n")
    from_file, from_flag = find_preset("scenes", path=path), find_preset("scenes", attention="hard")
    assert from_file == from_flag and from_flag.recipe.epochs != find_preset("scenes").recipe.epochs
    assert "estimator" not in find_preset("scenes").config
    assert find_preset("scenes", attention="soft", path=path) == replace(find_preset("scenes", attention="soft"))
    path.write_text("[config]\nattention = 'soft'\n[recipe]\nepochs = 2\n")
    hard = find_preset("scenes", attention="hard", path=path)
    assert hard == replace(from_flag, recipe=replace(from_flag.recipe, epochs=2))


def test_a_short_training_ends_with_its_figures(world, tmp_path):
    folder, _ = world
    (tmp_path / "quiet.toml").write_text(TINY + "log_every = 1000\n")
    line = train_line(folder, "quiet")
    line[line.index("--config") + 1] = str(tmp_path / "quiet.toml")
    assert main(line) == 0
    assert {"curves.png", "diagnostics.png"} <= {p.name for p in (folder / "quiet").iterdir()}


@pytest.mark.slow
def test_a_training_starts_from_another_ones_parameters(world, hard, tmp_path, capsys):
    folder, _ = world
    more = ["--attention", "hard", "--init", str(folder / "run/best.npz"), "--learning-rate", "1e-12"]
    assert main([*train_line(folder, "init"), *more]) == 0
    started, ended = (load(folder / run / "best.npz").params.flat for run in ("run", "init"))
    np.testing.assert_allclose(ended, started, atol=1e-6)
    (tmp_path / "wide.toml").write_text(TINY.replace("H = 16", "H = 17"))
    line = train_line(folder, "wide", "--init", str(hard / "best.npz"))
    line[line.index("--config") + 1] = str(tmp_path / "wide.toml")
    assert main(line) == 2
    assert "has other sizes than this training" in said(capsys)[1] and not (folder / "wide/last.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("decoding", CHOICES["decoding"])
def test_hard_attention_captions_and_is_scored_by_each_decoding(world, hard, capsys, tmp_path, decoding):
    _, root = world
    photos = sorted(map(str, (root / "Flicker8k_Dataset").glob("test-*.jpg")))
    more = ["--decoding", decoding, "--length-score", "gaussian", "--json", str(tmp_path / "out.json")]
    assert main(["caption", str(hard / "best.npz"), *photos, *more, "--figures", str(tmp_path)]) == 0
    alphas = [np.array(row["alpha"]) for row in json.loads((tmp_path / "out.json").read_text())]
    for alpha in alphas:
        np.testing.assert_allclose(alpha.sum(axis=(1, 2)), 1, atol=1e-3)
        assert (alpha.max(axis=(1, 2)) == 1).all() == (decoding != "expectation")
    line = f"evaluate {hard}/best.npz --data flickr8k --root {root} --split test --beam 2"
    assert main([*line.split(), *more]) == 0
    scores = json.loads((tmp_path / "out.json").read_text())
    assert (scores["attention"], scores["decoding"]) == ("hard", decoding) and scores["CIDEr"] >= 0
    assert scores["length_score"]["kind"] == "gaussian" and scores["length_score"]["mu"] > 1


@pytest.mark.parametrize(
    "line",
    ["caption {best} {photo} --json {out}", "evaluate {best} --data flickr8k --root {root} --split val --results {out}"],
)
def test_sampled_looks_follow_the_seed(hard, tmp_path, line):
    found, out, root = [], tmp_path / "out.json", hard.parent / "data"
    photo = next((root / "Flicker8k_Dataset").glob("test-*.jpg"))
    line = line.format(best=hard / "best.npz", photo=photo, root=root, out=out).split()
    for seed in ("3", "3", "4", "5", "6"):
        assert main([*line, "--decoding", "sampling", "--seed", seed]) == 0
        found.append(out.read_text())
    assert found[0] == found[1] and len(set(found)) > 1


def test_soft_attention_has_no_decoding_to_choose(world, capsys):
    folder, _ = world
    assert main(["caption", str(folder / "run/best.npz"), "x.jpg", "--decoding", "argmax"]) == 2
    assert "has soft attention, which looks everywhere; leave out --decoding" in said(capsys)[1]


def test_evaluate_on_scenes_scores_looking(world, capsys, monkeypatch):
    folder, _ = world
    monkeypatch.setitem(datasets.SCENES, "val", 12)
    assert main(f"evaluate {folder}/run/best.npz --data scenes --split val --beam 1".split()) == 0
    assert "pointing_accuracy" in said(capsys)[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("caption {run}/best.npz {folder}/none.jpg", "there is no photo"),
        ("caption {run}/none.npz {folder}/none.jpg", "there is no checkpoint"),
        ("evaluate {folder}/tiny.toml --data scenes --split val", "not a complete checkpoint"),
        ("caption {run}/best.npz {folder}/tiny.toml", "cannot be read as a photo"),
        ("caption {run}/best.npz {folder}/none.jpg --weights {folder}/w.npz", "leave out --weights"),
        ("train --data flickr8k --out {folder}/new", "--root"),
        ("train --data flickr8k --root {folder}/nowhere --out {folder}/new", "there is no folder"),
        ("train --data flickr8k --root {root} --encoder vgg19 --out {folder}/new", "--weights"),
        ("train --data flickr8k --root {root} --out {folder}/new --weights {folder}/w.npz", "no weights file"),
        ("train --data scenes --out {folder}/new --config {folder}/bad.toml", "did you mean 'dropout'"),
        ("train --data scenes --out {folder}/new --config {folder}/none.toml", "cannot read the config"),
        ("train --data scenes --out {folder}/new --epochs 0", "epochs is 0"),
        ("evaluate {run}/best.npz --data flickr8k --split val", "--root"),
        ("gradcheck nothing-of-this-name", "nothing-of-this-name"),
    ],
)
def test_bad_input_gets_one_sentence(world, capsys, line, words):
    folder, root = world
    (folder / "bad.toml").write_text("[config]\ndropuot = 0.3\n")
    assert main(line.format(run=folder / "run", folder=folder, root=root).split()) == 2
    out, err = said(capsys)
    assert words in err and err.startswith("satnp: ") and err.count("\n") == 1
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("dropout = 0.3", "'dropout' outside of its table; put it below a line [config]"),
        ("epochs = 3", "'epochs' outside of its table; put it below a line [recipe]"),
        ("[recipe]\nepochs = 2.5", "epochs = 2.5; give a whole number"),
        ("[recipe]\nepochs = true", "epochs = True; give a whole number"),
        ("[recipe]\nlearning_rate = '1e-3'", "learning_rate = '1e-3'; give a number"),
        ("[recipe]\nlearning_rate = nan", "learning_rate is nan"),
        ("[recipe]\nmirror = 1", "mirror = 1; give true or false"),
        ("[recipe]\noptimiser = 'adem'", "choose sgd, rmsprop or adam"),
        ("[recipe]\naveraging = 1.0", "averaging is 1.0"),
        ("[recipe]\nseed = -1", "seed is -1"),
        ("recipe = 3", "recipe = 3; give a table"),
        ("[config]\nH = 0", "H is 0"),
        ("[config]\nV = 9", "has the key 'V', which does not exist"),
        ("[config]\ndropout = 1", "dropout is 1"),
        ("[config]\npenalty = -0.5", "penalty is -0.5"),
        ("[config]\ngate = ['scalar']", "give a text in quotes"),
        ("[config]\nf_att = 'cosine'", "choose additive, general or dot"),
        ("[config]\nattention = 'hrad'", "choose soft or hard"),
        ("[config]\nattention = 'hard'\nsamples = 0", "samples is 0"),
        ("[config]\nattention = 'hard'\nbaseline = 'leave_one_out'", "choose samples of 2 or more"),
        ("[config]\nreward_weight = 1" + 400 * "0", "give a number below 1.8e+308"),
        ("[config]\nf_att = 'dot'", "f_att dot needs D = H"),
        ("[encoder]\nsize = 64", "give a text in quotes"),
        ("size = 64", "'size' outside of its table; put it below a line [encoder_config]"),
        ("[encoder_config]\nsize = 64.0", "size = 64.0; give a whole number"),
        ("[encoder_config]\nsize = 63", "photos of 63 pixels cannot be halved"),
        ("[encoder_config]\nsize = 0", "preprocessing has size 0"),
        ("[encoder_config]\nlayer = 'head'", "'layer', which does not exist in [encoder_config] of small; there are size"),
        ("encoder_config = 'head'", "encoder_config = 'head'; give a table"),
        ("epochs 3", "is not TOML"),
    ],
)
def test_a_config_with_a_bad_value_gets_one_sentence(world, capsys, tmp_path, toml, words):
    folder, root = world
    (tmp_path / "bad.toml").write_text(toml)
    line = f"train --data flickr8k --root {root} --encoder small --config {tmp_path}/bad.toml --out {tmp_path}/new"
    assert main(line.split()) == 2
    _, err = said(capsys)
    assert words in err and err.startswith("satnp: ") and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_photos_have_the_encoder_whose_weights_are_packaged_or_that_of_the_weights(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('encoder = "vgg19"\n')
    for kind in ("flickr8k", "flickr30k", "coco", "karpathy", "folder"):
        assert find_preset(kind).encoder == "efficientnet_lite0"
        assert find_preset(kind, weights="w.pth").encoder == "squeezenet1_1"
        assert find_preset(kind, weights="w.pth", path=path).encoder == "vgg19"
        assert find_preset(kind, weights="w.pth", path=path, encoder="small").encoder == "small"
    assert find_preset("scenes", weights="w.pth").encoder == find_preset("scenes").encoder == "small"


def test_an_unknown_encoder_in_a_config_is_refused(world, capsys, tmp_path):
    (tmp_path / "bad.toml").write_text("encoder = 'vgg16'")
    line = f"train --data flickr8k --root {world[1]} --config {tmp_path}/bad.toml --out {tmp_path}/new"
    assert main(line.split()) == 2
    assert "there is no encoder 'vgg16'; choose one of small, small_frames, small_cbam, squeezenet1_1" in said(capsys)[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("caption best.npz photo.jpg --beam 0", "argument --beam: '0' is not a whole number of 1 or more"),
        ("train --data scenes --out new --seed abc", "argument --seed: 'abc' is not a whole number of 0 or more"),
        ("demo --seed -1", "argument --seed"),
    ],
)
def test_a_bad_number_is_named(capsys, line, words):
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert words in said(capsys)[1]


def test_the_command_expands_a_pattern(world, capsys):
    folder, root = world
    photos = root / "Flicker8k_Dataset"
    assert main(["caption", str(folder / "run/best.npz"), str(photos / "test-*.jpg"), "--beam", "1"]) == 0
    named = [line.partition(": ")[0] for line in said(capsys)[0].splitlines()]
    assert named == [str(photos / f"test-{k:05d}.jpg") for k in range(4)]
    assert main(["caption", str(folder / "run/best.npz"), str(photos / "none-*.jpg")]) == 2
    assert "none-*.jpg" in said(capsys)[1]


def test_brackets_in_the_name_of_a_photo_are_no_pattern(world, capsys, tmp_path):
    folder, root = world
    for source, name in (("test-00000", "a1"), ("test-00001", "a[1]")):
        shutil.copy(root / f"Flicker8k_Dataset/{source}.jpg", tmp_path / f"{name}.jpg")
    assert main(["caption", str(folder / "run/best.npz"), str(tmp_path / "a[1].jpg"), "--beam", "1"]) == 0
    assert said(capsys)[0].startswith(f"{tmp_path}/a[1].jpg: ")


def test_photos_of_one_name_get_a_figure_each(world, tmp_path, monkeypatch):
    folder, root = world
    photos = [tmp_path / name for name in ("a/x.jpg", "b/x.jpg", "c/x-2.jpg")]
    for photo in photos:
        photo.parent.mkdir()
        shutil.copy(root / "Flicker8k_Dataset/test-00000.jpg", photo)
    drawn = []
    monkeypatch.setattr(figures, "attention_figure", lambda *arguments, title: drawn.append(arguments[-1].name))
    assert main(["caption", str(folder / "run/best.npz"), *map(str, photos), "--figures", str(tmp_path)]) == 0
    assert drawn == ["x.png", "x-2.png", "x-2-2.png"]


@pytest.fixture(scope="module")
def sentinel(world):
    """Checkpoints of an untrained adaptive captioner, with and without its sentinel: function(sentinel) -> path"""
    folder, root = world
    train = load_split("flickr8k", "train", root)

    def write(with_sentinel):
        preset = find_preset("flickr8k", "adaptive")
        config = {"M": 8, "H": 12, "A": 6, "sentinel": with_sentinel}
        recipe = replace(preset.recipe, min_count=1)
        model = new_model(replace(preset, encoder="small", config=config, recipe=recipe), train)
        rng = np.random.default_rng(0)
        model.params.flat[...] += 0.1 * rng.standard_normal(model.params.flat.shape)  # words differ in beta
        model.params["decoder.b_p"][END] = -3  # long captions
        save(folder / f"sentinel-{with_sentinel}.npz", model)
        return folder / f"sentinel-{with_sentinel}.npz"

    return write


def test_evaluate_prints_and_writes_the_most_and_least_visual_words(world, sentinel, capsys, tmp_path, monkeypatch):
    _, root = world
    path = sentinel(True)
    line = f"evaluate {path} --data flickr8k --root {root} --split test --beam 1 --json {tmp_path}/s.json"
    captions, score = [], evaluation.evaluate

    def keep(*arguments, **more):
        scores, said = score(*arguments, **more)
        captions.extend(said)
        return scores, said

    monkeypatch.setattr(evaluation, "evaluate", keep)
    assert main(line.split()) == 0
    wanted = visual_words(captions)
    table = json.loads((tmp_path / "s.json").read_text())["visual_words"]
    assert [(row["word"], row["visual"], row["count"]) for row in table] == wanted and wanted
    out = said(capsys)[0]
    title = "from most to least visual" if len(wanted) < 20 else "most visual"
    assert f"1 - beta of the words that were said 10 times or more\n  {title}:\n" in out
    for word, value, count in wanted[:10]:
        assert 0 < value < 1 and f"    {word:22} {value:.4f}  ({count} times)\n" in out


def test_few_words_are_one_list_and_of_many_the_ten_most_and_least_visual_are_printed(capsys):
    for size in (0, 7, 19, 20, 40):
        _print_visual_words([(f"word{k}", 1 - k / size, 10) for k in range(size)])
        first, *lines = said(capsys)[0].splitlines()
        assert first == "1 - beta of the words that were said 10 times or more" + ": there are none" * (size == 0)
        found = [int(number[1]) if (number := re.search(r"word(\d+)", line)) else line.strip() for line in lines]
        few = ["from most to least visual:", *range(size)] if size else []
        many = ["most visual:", *range(10), "least visual:", *range(size - 10, size)]
        assert found == (few if size < 20 else many)


@pytest.mark.parametrize("other", ["spatial", "show_attend_tell"])
def test_a_captioner_without_a_sentinel_has_no_table_and_no_figure_of_visual_words(
    world, sentinel, capsys, tmp_path, other
):
    folder, root = world
    path = sentinel(False) if other == "spatial" else folder / "run/best.npz"
    line = f"evaluate {path} --data flickr8k --root {root} --split test --beam 1 --json {tmp_path}/s.json"
    assert main(line.split()) == 0
    assert "beta" not in said(capsys)[0] and "visual_words" not in json.loads((tmp_path / "s.json").read_text())
    photo = root / "Flicker8k_Dataset/test-00000.jpg"
    assert main(["caption", str(path), str(photo), "--figures", str(tmp_path / "figures")]) == 0
    assert [x.name for x in (tmp_path / "figures").iterdir()] == ["test-00000.png"]


def test_caption_draws_how_visual_each_word_is(world, sentinel, tmp_path, monkeypatch):
    _, root = world
    photos = [tmp_path / name for name in ("x.visual.jpg", "x.jpg")]
    for photo in photos:
        shutil.copy(root / "Flicker8k_Dataset/test-00000.jpg", photo)
    drawn, draw = [], figures.visual_figure
    monkeypatch.setattr(figures, "visual_figure", lambda *arguments: (drawn.append(arguments), draw(*arguments)))
    line = ["caption", str(sentinel(True)), *map(str, photos), "--figures", f"{tmp_path}/f", "--json", f"{tmp_path}/c.json"]
    assert main(line) == 0
    names = ["x-2.png", "x-2.visual.png", "x.visual.png", "x.visual.visual.png"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == names
    rows = json.loads((tmp_path / "c.json").read_text())
    for (words, shares, _, title), row in zip(drawn, rows, strict=True):
        assert words == row["words"] and len(words) > 0 and title == row["caption"]
        np.testing.assert_allclose(shares, np.sum(row["alpha"], axis=(1, 2))[: len(words)], atol=1e-3)


def test_the_page_has_what_each_checkpoint_says_and_where_it_looked(world, sentinel, tmp_path, capsys):
    folder, root = world
    photos = sorted(map(str, (root / "Flicker8k_Dataset").glob("test-*.jpg")))[:2]
    write_scene(tmp_path / "scene.png", make_scenes(1, "test", 0)[0])
    photos.append(str(tmp_path / "scene.png"))
    line = ["caption", str(folder / "run/best.npz"), *photos, "--beam", "3", "--json", f"{tmp_path}/c.json"]
    more = ["--with", str(sentinel(True)), "--with", str(folder / "run/best.npz")]
    capsys.readouterr()
    assert main([*line, "--page", f"{tmp_path}/p.html", *more]) == 0
    data, printed = page_data(tmp_path / "p.html"), said(capsys)[0]
    rows = json.loads((tmp_path / "c.json").read_text())
    assert main(line) == 0 and said(capsys)[0] == printed and json.loads((tmp_path / "c.json").read_text()) == rows
    assert [x["label"] for x in data["captioners"]] == ["run/best.npz", f"{folder.name}/sentinel-True.npz", "run/best.npz"]
    assert [x["grid"] for x in data["captioners"]] == 3 * [[8, 8]] and data["captioners"][1]["sentinel"]
    assert [photo["name"] for photo in data["photos"]] == ["test-00000.jpg", "test-00001.jpg", "scene.png"]
    assert [len(photo["objects"]) for photo in data["photos"]] == [0, 0, 3]
    models = [load(folder / "run/best.npz"), load(sentinel(True))]
    for row, photo, path in zip(rows, data["photos"], photos, strict=True):
        first, second, again = photo["views"]
        assert first == again and 1 < len(first["captions"]) <= 3
        best = first["captions"][0]
        assert (best["words"], best["log_prob"]) == (row["words"], round(row["log_prob"], 6))
        alpha = np.reshape(row["alpha"][: len(row["words"])], (-1, 64))
        maps = np.frombuffer(b64decode(best["maps"]), np.uint8).reshape(alpha.shape)
        np.testing.assert_allclose(maps / 255, alpha / alpha.max(axis=1, keepdims=True), atol=0.003)
        (gates,) = models[0].gates(models[0].look(path), [row["words"]])
        assert best["strength"] == [round(float(x), 3) for x in gates] and 0 < min(gates) and max(gates) < 1
        caption = models[1].caption(path, beam=3)
        assert second["captions"][0]["words"] == caption.words
        np.testing.assert_allclose(second["captions"][0]["strength"], visual(caption), atol=5e-4)


def test_photos_that_are_skipped_are_not_on_the_page_and_no_page_is_half_written(world, tmp_path, capsys):
    folder, root = world
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    photos = [str(tmp_path / "bad.jpg"), str(root / "Flicker8k_Dataset/test-00000.jpg")]
    line = ["caption", str(folder / "run/best.npz"), *photos, "--page", str(tmp_path / "new/p.html")]
    assert main(line) == 2 and not (tmp_path / "new").exists()
    assert main([*line, "--skip-bad"]) == 0
    assert [photo["name"] for photo in page_data(tmp_path / "new/p.html")["photos"]] == ["test-00000.jpg"]
    before = (tmp_path / "new/p.html").read_bytes()
    assert main(line[:-1] + [str(tmp_path / "new/p.html")]) == 2
    assert (tmp_path / "new/p.html").read_bytes() == before and len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize(("options", "words"), [
    ("--page {tmp}", "--page names {tmp}; give a file whose name ends with .html"),
    ("--page {tmp}/folder.html", "{tmp}/folder.html is a folder; give the name of a file"),
    ("--page {tmp}/file/p.html", "--page {tmp}/file/p.html cannot be written: {tmp}/file is not a folder that takes files"),
    ("--page {tmp}/file/a/p.html", "cannot be written: {tmp}/file is not a folder"),
    ("--json {tmp}/file/c.json", "--json {tmp}/file/c.json cannot be written"),
    ("--page {tmp}/p.html --json {tmp}/p.html", "--json and --page both name {tmp}/p.html; give each of them"),
    ("--page {tmp}/a/../p.html --results {tmp}/p.html", "--results and --page both name {tmp}/p.html"),
    ("--page photo.jpg", "--page names photo.jpg; give a file whose name ends with .html"),
    ("--page {tmp}/p.html --with none.npz", "there is no checkpoint none.npz"),
    ("--page {tmp}/p.html --with {tmp}/file", "{tmp}/file is not a complete checkpoint"),
    ("--with {best}", "--with {best} is for the page; add --page FILE.html, or leave out --with"),
])  # fmt: skip
def test_a_page_that_cannot_be_gets_one_sentence_before_any_photo_is_read(world, tmp_path, capsys, options, words):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("mine")
    names = {"tmp": tmp_path, "best": world[0] / "run/best.npz"}
    assert main(f"caption {names['best']} no-photo.jpg {options.format(**names)}".split()) == 2
    err = said(capsys)[1]
    assert words.format(**names) in err and err.startswith("satnp: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
    assert (tmp_path / "file").read_text() == "mine"


def test_help_has_an_example_for_each_command(capsys):
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert {"demo", "train", "compare", "release"} <= commands.choices.keys()
    for command in commands.choices:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert f"satnp {command}" in said(capsys)[0].split("example:")[1]


def test_gradcheck_json_and_status(capsys, tmp_path):
    assert main(["gradcheck", "layers/affine", "--json", str(tmp_path / "g.json")]) == 0
    rows = json.loads((tmp_path / "g.json").read_text())
    assert rows and rows[0].keys() == {"name", "method", "error", "passed"} and all(row["passed"] for row in rows)


@pytest.mark.slow
def test_peak_memory_is_that_of_this_process_and_not_of_its_parent():
    held = np.ones(50_000_000)
    line = [sys.executable, "-c", "from satnp.demo import peak_memory; print(peak_memory())"]
    child = int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert 10e6 < child < held.nbytes < peak_memory() < 100e9


def test_help_waits_for_no_library_that_it_does_not_need():
    code = "import sys, satnp.cli; sys.exit(', '.join({'matplotlib', 'tqdm', 'cupy', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
