"""Retrieval: neighbours, the consensus of their sentences, and an early system as one of the captioners."""

import json

import numpy as np
import pytest

from satnp import load
from satnp.cli import main
from satnp.data.captions import END, START
from satnp.early import EARLY, retrieval
from satnp.early.photos import Photos
from tests.page.pages import page_data
from tests.small_world import write_flickr8k

L, D, V = 4, 6, 12
TINY = {
    "ranking": "[config]\nM = 8\nK = 12\nbatch = 8\nepochs = 2\n", "every_picture": "[config]\nepochs = 2\n",
    "trim": "[config]\ndetecting = 2\n", "fang": "[config]\ndetecting = 2\nepochs = 2\nbeam = 4\nbest = 4\n",
}  # fmt: skip
LOOKS = {"fang"}  # says where its words are, and how probable its sentence is


def learned(rng, sentences, k=1, P=None):
    """Retrieval from random photos with these sentences (lists of word ids without <start> and <end>)."""
    annotations = rng.standard_normal((P or len(sentences), L, D)).astype(np.float16)
    captions = [[[START, *words, END] for words in said] for said in sentences]
    config = retrieval.Config(V=V, D=D, k=k)
    return annotations, retrieval.fit(config, Photos(annotations, captions, annotations[:0], [], []))


def test_a_training_photo_gets_one_of_its_own_sentences(rng):
    sentences = [[[4, 5]], [[6], [6, 7, 8, 9, 10]], [[9, 9, 9]]]
    annotations, (config, p) = learned(rng, sentences)
    for n, said in enumerate(retrieval.describe(p, config, annotations)):
        assert said.ids[:-1] in sentences[n] and said.ids[-1] == END
        assert said.log_prob is None and said.alphas is None


def test_scale_and_offset_of_the_features_do_not_matter(rng):
    sentences = [[[4 + n]] for n in range(8)]
    annotations = rng.standard_normal((8, L, D)).astype(np.float32)
    captions = [[[START, *words, END] for words in said] for said in sentences]
    found = []
    for scale, offset in ((1, 0), (rng.uniform(0.1, 10, D).astype(np.float32), 5)):
        seen = annotations * scale + offset
        config, p = retrieval.fit(retrieval.Config(V=V, D=D, k=1), Photos(seen, captions, seen, captions, []))
        near = (annotations + 0.3 * np.flip(annotations, axis=0)) * scale + offset
        found.append([x.ids for x in retrieval.describe(p, config, near)])
    assert found[0] == found[1]


def test_the_consensus_is_the_sentence_that_most_others_resemble(rng):
    common, other = [4, 5, 6, 7], [8, 9, 10, 11]
    sentences = [[common, [4, 5, 6]], [[5, 6, 7], [4, 5, 6, 7, 8]], [other]]
    annotations, (config, p) = learned(rng, sentences, k=3)
    assert all(x.ids == [*common, END] for x in retrieval.describe(p, config, annotations))


def test_sentences_are_as_similar_as_cider_says(rng):
    """With df and n-grams of CIDEr, the cosines are those of a plain computation with dictionaries."""
    sentences = [[list(rng.integers(4, V, rng.integers(1, 7))) for _ in range(3)] for _ in range(5)]
    _, (config, p) = learned(rng, sentences, k=5)
    flat = [words for said in sentences for words in said]

    def vector(words, n):
        grams = [tuple(words[t : t + n]) for t in range(len(words) - n + 1)]
        said_in = [{tuple(w[t : t + n]) for w in said for t in range(len(w))} for said in sentences]
        df = {g: sum(g in said for said in said_in) for g in grams}
        return {g: grams.count(g) * np.log(len(sentences) / df[g]) for g in grams}

    def cosine(a, b):
        norm = np.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
        return sum(x * b.get(g, 0) for g, x in a.items()) / norm if norm else 0.0

    similar = np.array([[sum(cosine(vector(a, n), vector(b, n)) for n in (1, 2, 3, 4)) for b in flat] for a in flat])
    totals = similar.sum(axis=1) - np.diag(similar)
    best = retrieval.consensus(p.sentences.astype(int), p.weights)
    assert totals[best] == pytest.approx(totals.max(), abs=1e-5)


@pytest.fixture
def folder(encoders, tmp_path):
    write_flickr8k(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(
        'encoder = "small"\n[config]\nM = 8\nH = 12\ndropout = 0.1\n[recipe]\nepochs = 1\nbatch_size = 8\nmin_count = 1\n'
        "mirror = false\n"
    )
    line = f"train --data flickr8k --root {tmp_path / 'data'} --config {tmp_path / 'tiny.toml'} --out {tmp_path / 'run'}"
    assert main(line.split()) == 0
    for name in EARLY:
        (tmp_path / f"{name}.toml").write_text(f"{TINY.get(name, '')}\n[recipe]\nmin_count = 1\n")
    return tmp_path


def test_an_early_system_is_trained_evaluated_shown_compared_and_released_by_its_name(folder, capsys):
    data = f"--data flickr8k --root {folder / 'data'}"
    start = f"--init {folder / 'run/best.npz'} --config {folder}/{{}}.toml"
    (photo, *_) = sorted((folder / "data/Flicker8k_Dataset").glob("test-*.jpg"))
    for name in EARLY:
        out = folder / name
        line = f"train {data} {start.format(name)} --captioner {name} --out {out}".split()
        assert main(line) == 0
        assert "validation BLEU-4" in capsys.readouterr().out
        assert any(out.glob("features/*-mirrored.npy")) == (name == "ranking")
        assert main(line) == 2 and "does not resume" in capsys.readouterr().err
        assert main(f"evaluate {out / 'best.npz'} {data} --split test --json {out / 's.json'}".split()) == 0
        assert "CIDEr" in json.loads((out / "s.json").read_text())
        files = f"--json {out / 'c.json'} --page {out / 'p.html'} --figures {out / 'f'} --with {folder / 'run/best.npz'}"
        capsys.readouterr()
        assert main(f"caption {out / 'best.npz'} {photo} {files}".split()) == 0
        said, ((row,)) = capsys.readouterr().out, json.loads((out / "c.json").read_text())
        log_p = "" if row["log_prob"] is None else f"  (log p {row['log_prob']:.2f})"
        assert said == f"{photo}: {row['caption']}{log_p}\n"
        assert (row["log_prob"] is None) == (row["alpha"] is None) == (name not in LOOKS)
        assert (load(out / "best.npz").objects(photo) is not None) == (name == "babytalk")
        (caption,) = page_data(out / "p.html")["photos"][0]["views"][0]["captions"]
        assert caption["words"] == row["words"] and ("maps" in caption) == (name in LOOKS)
        assert main(f"release {out / 'best.npz'} --out {out / 'small.npz'}".split()) == 0
        assert str(load(out / "small.npz").caption(photo)) == str(load(out / "best.npz").caption(photo)) == row["caption"]
    line = f"compare {data} {start.format('retrieval')} --captioners retrieval show_and_tell --out {folder / 'both'}"
    assert main(line.split()) == 0
    rows = json.loads((folder / "both/compare.json").read_text())
    assert [row["captioner"] for row in rows] == ["retrieval", "show_and_tell"]
    assert all(row["nll"] is None and row["CIDEr"] >= 0 for row in rows[:-1])
    assert main(line.split()) == 0  # nothing is learned again
    assert json.loads((folder / "both/compare.json").read_text()) == rows


def test_an_early_system_needs_an_encoder_that_is_not_trained(folder, capsys):
    line = f"train --data flickr8k --root {folder / 'data'} --captioner retrieval --encoder small --out {folder / 'new'}"
    assert main(line.split()) == 2
    assert "retrieval does not train the encoder small; give a checkpoint that has it" in capsys.readouterr().err
    assert not (folder / "new/best.npz").exists()


def test_an_early_system_refuses_what_it_would_not_use(folder, capsys):
    data = f"--data flickr8k --root {folder / 'data'} --init {folder}/run/best.npz"
    line = f"train {data} --captioner retrieval --out {folder}/new"
    assert main([*line.split(), "--epochs", "2"]) == 2
    assert "retrieval takes no --epochs; leave it out" in capsys.readouterr().err
    (folder / "scst.toml").write_text('[recipe]\nobjective = "scst"\n')
    assert main([*line.split(), "--config", f"{folder / 'scst.toml'}"]) == 2
    assert "retrieval has no recipe for objective; what it learns with is under [config]" in capsys.readouterr().err
    assert not (folder / "new/best.npz").exists()
