"""satnp compare: one table and one figure of captioners that are trained alike, resumable model by model."""

import json
import re
import shlex
import signal
from dataclasses import asdict, replace

import pytest

from satnp import compare
from satnp.captioners import CAPTIONERS
from satnp.cli import main
from satnp.compare import table
from satnp.errors import InputError
from satnp.figures import comparison_figure
from satnp.training.trainer import Recipe, Trainer, read_log
from tests.captioners import toy
from tests.small_world import write_flickr8k

CAPTIONERS_COMPARED = "toy", "show_attend_tell:hard"
TIME = "seconds_a_step"


@pytest.fixture(scope="module")
def data(encoders, tmp_path_factory):
    """A folder with data, the settings of a training of seconds, and a trained encoder."""
    folder = tmp_path_factory.mktemp("compare")
    write_flickr8k(folder / "data")
    (folder / "tiny.toml").write_text(
        'encoder = "small"\n[config]\nM = 8\nH = 12\n[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\nmirror = false\n'
    )
    options = f"--root {folder / 'data'} --config {folder / 'tiny.toml'} --epochs 1 --out {folder / 'run'}"
    assert main(f"train --data flickr8k {options}".split()) == 0
    return folder


@pytest.fixture
def line(data, tmp_path, monkeypatch):
    """The command that compares the toy with hard attention."""
    monkeypatch.setitem(CAPTIONERS, "toy", toy.captioner)
    return (
        f"compare --data flickr8k --root {data / 'data'} --config {data / 'tiny.toml'} --init {data / 'run/best.npz'} "
        f"--features {data / 'features'} --out {tmp_path} --captioners {' '.join(CAPTIONERS_COMPARED)}"
    )


def rows_of(folder):
    """The rows without the time of a step."""
    return [{k: x for k, x in row.items() if k != TIME} for row in json.loads((folder / "compare.json").read_text())]


def test_captioners_are_trained_alike_and_compared(line, tmp_path, capsys):
    assert main(line.split()) == 0
    rows = rows_of(tmp_path)
    assert [row["captioner"] for row in rows] == list(CAPTIONERS_COMPARED)
    for row in rows:
        assert {"parameters", "nll", "Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr", "METEOR"} <= row.keys()
        assert len(row["captions"]) == compare.SHOWN and row["recipe"]["epochs"] == 2
    assert rows[0]["steps"] == rows[1]["steps"] and rows[0]["parameters"] != rows[1]["parameters"]
    said = capsys.readouterr().out
    assert all(name in said for name in CAPTIONERS_COMPARED) and "CIDEr" in said
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/best.npz")}
    assert len(written) == 2 and main(line.split()) == 0  # nothing is trained again
    assert rows_of(tmp_path) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/best.npz")} == written


def test_a_comparison_goes_on_where_it_was_interrupted(line, tmp_path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    line = line.replace(f"--out {tmp_path} ", "--out {} ")
    assert main(line.format(whole).split()) == 0

    train_step, steps = Trainer._train_step, []

    def stop_once(self, *arguments):
        if self.out.name == "show_attend_tell_hard" and self.step == 5 and not steps:
            steps.append(self.step)
            signal.raise_signal(signal.SIGINT)  # Ctrl-C
        return train_step(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_step", stop_once)
    assert main(line.format(cut).split()) == 130
    assert "run the same command again to continue" in capsys.readouterr().out
    assert [row["captioner"] for row in rows_of(cut)] == ["toy"] and steps == [5]
    assert main(line.format(cut).split()) == 0
    assert rows_of(cut) == rows_of(whole)
    assert len(read_log(cut / "toy/metrics.jsonl")) == len(read_log(whole / "toy/metrics.jsonl"))


def test_a_budget_gives_each_captioner_the_steps_of_its_minutes(line, tmp_path):
    assert main([*line.split(), "--budget", "0.002"]) == 0
    for row in json.loads((tmp_path / "compare.json").read_text()):
        assert row["steps"] == max(1, round(0.12 / row[TIME])) and row["budget"] == 0.002


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--captioners poet", "there is no captioner 'poet'"),
        ("--captioners toy:", "--attention chooses soft or hard for show_attend_tell; leave it out for toy"),
        ("--captioners show_attend_tell:", "attention is ''; choose soft or hard"),
        ("--captioners toy lrcn toy", "toy is named twice after --captioners; name each once"),
        ("--encoder small", "--init gives the encoder and its weights; leave out --encoder, --weights and --preprocessing"),
        ("--config {scst}", "compare trains each captioner from the beginning; leave out objective"),
        ("--out {run}", "holds a training; give another --out"),
        ("--captioners toy:hard", "--attention chooses soft or hard for show_attend_tell; leave it out for toy"),
        ("--budget 0", "'0' is not a number of minutes above 0"),
        ("--budget nan", "'nan' is not a number of minutes above 0"),
        ("--init nothing.npz", "nothing.npz"),
    ],
)
def test_bad_input_gets_one_sentence(line, data, tmp_path, capsys, more, sentence):
    (data / "scst.toml").write_text((data / "tiny.toml").read_text() + 'objective = "scst"\n')
    more = more.format(scst=data / "scst.toml", run=data / "run")
    try:
        status = main([*line.split(), *shlex.split(more)])
    except SystemExit as stop:  # argparse
        status = stop.code
    said = capsys.readouterr().err
    assert status == 2 and sentence in said and "Traceback" not in said
    assert not (tmp_path / "compare.json").exists()


def test_an_encoder_without_weights_needs_a_training(line, capsys):
    assert main([word for word in line.split() if word != "--init" and not word.endswith("best.npz")]) == 2
    assert "compare does not train the encoder small; give a checkpoint that has it" in capsys.readouterr().err


def test_another_setting_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps([{"captioner": "toy", "split": "val", "beam": 3}]))
    with pytest.raises(InputError, match="a comparison of toy with other options: .* none, now .* more; leave"):
        compare.run(tmp_path, {}, replace(Recipe(), seed=1), {}, tmp_path)


@pytest.mark.parametrize("text", ["[{", "3", "[3]", '{"captioner": "toy"}', '[{"split": "val"}]'])
def test_a_file_that_is_not_a_comparison_is_kept_and_refused(tmp_path, text):
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(InputError, match="compare.json is not a comparison; move it away, or give another --out"):
        compare.run(tmp_path, {}, Recipe(), {}, tmp_path)
    assert (tmp_path / "compare.json").read_text() == text


ROW = {"captioner": "toy", "parameters": 3, "seconds_a_step": 0.5, "CIDEr": 0.1, "captions": {"a.jpg": "a dog"}}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": None}, {"parameters": "3"}, {"seconds_a_step": "0.5"}, {"CIDEr": None}, {"captions": ["a dog"]},
        {"captions": {"a.jpg": None}}, {"nll": "2.5"}, {"true_captions": []},
    ],
)  # fmt: skip
def test_a_row_without_what_the_table_shows_is_refused(tmp_path, change):
    digest = compare._digest({})
    setting = {"data": digest, "split": "val", "beam": 3, "budget": None, "recipe": asdict(Recipe())}
    text = json.dumps([ROW | setting | change])
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(InputError, match="compare.json is not a comparison; move it away, or give another --out"):
        compare.run(tmp_path, {}, Recipe(), {}, tmp_path)
    assert (tmp_path / "compare.json").read_text() == text


@pytest.mark.parametrize(
    "pace",
    [
        None, [], 3, {}, {"seconds_a_step": "0.5", "steps": 0}, {"seconds_a_step": 0.5, "steps": "0"},
        {"seconds_a_step": -0.5, "steps": 0}, {"seconds_a_step": float("nan"), "steps": 0},
        {"seconds_a_step": 0.5, "steps": 7},
    ],
)  # fmt: skip
def test_a_pace_that_is_damaged_is_measured_again(pace):
    assert not compare._is_pace(pace, None)
    assert compare._is_pace({"seconds_a_step": 0.5, "steps": 0}, None)
    assert compare._is_pace({"seconds_a_step": 0.5, "steps": 7}, 10.0)
    assert not compare._is_pace({"seconds_a_step": 0.5, "steps": 0}, 10.0)


def test_other_data_in_the_same_folder_are_refused(line, tmp_path, capsys):
    line = line.replace("toy show_attend_tell:hard", "toy")
    assert main(line.split()) == 0
    root = write_flickr8k(tmp_path / "more", train=25)
    assert main([*line.split(), "--root", str(root)]) == 2
    assert re.search(r"of toy with other options: data \w{16}, now \w{16}; leave", capsys.readouterr().err)


def test_another_config_or_encoder_in_the_same_folder_is_refused(line, data, tmp_path, capsys):
    line = line.replace("toy show_attend_tell:hard", "toy")
    assert main(line.split()) == 0
    rows = (tmp_path / "compare.json").read_bytes()
    (data / "other.toml").write_text((data / "tiny.toml").read_text().replace("H = 12", "H = 13"))
    assert main(line.replace("tiny.toml", "other.toml").split()) == 2
    assert "options: config.H 12, now 13; leave" in capsys.readouterr().err
    more = f"train --data flickr8k --root {data / 'data'} --config {data / 'tiny.toml'} --seed 1 --out {tmp_path / 'run'}"
    assert main(more.split()) == 0
    assert main(line.replace(str(data / "run"), str(tmp_path / "run")).split()) == 2
    assert "options: encoder_weights " in capsys.readouterr().err
    assert main([*line.split(), "--beam", "2", "--epochs", "5"]) == 2
    assert "options: beam 3, now 2; recipe.epochs 2, now 5; leave" in capsys.readouterr().err
    assert (tmp_path / "compare.json").read_bytes() == rows


def row(name, **values):
    return {"captioner": name, "parameters": 1_500_000, TIME: 0.5, "CIDEr": 1.25, "Bleu_4": 0.0625, "captions": {}} | values


def test_the_table_has_the_columns_that_have_values():
    lines = table([row("toy", METEOR=None), row("top_down", CIDEr=0.5, nll=2.5)])
    assert [line.split() for line in lines] == [
        ["captioner", "params", "s/step", "nll", "B-4", "CIDEr"],
        ["toy", "1.50M", ".500", ".062", "1.250"],
        ["top_down", "1.50M", ".500", "2.500", ".062", ".500"],
    ]
    assert len({len(line) for line in lines}) == 1
    values = dict.fromkeys(compare.COLUMNS, 0.5) | {"parameters": 99_000_000, "captioner": "show_attend_tell:hard"}
    assert len(table([values])[0]) <= 80


def test_the_figure_draws_scores_and_captions(tmp_path, monkeypatch, rng):
    drawn = []
    monkeypatch.setattr("satnp.figures._save", lambda figure, path: drawn.append(figure))
    photos = [(name, rng.integers(0, 255, (30, 40, 3), dtype="uint8")) for name in "ab"]
    rows = [row("toy", captions={"a": "a red square", "b": "a dog"}), row("top_down", CIDEr=0.5, captions={"a": "a cat"})]
    comparison_figure(rows, photos, tmp_path / "figure.png")
    (figure,) = drawn
    for ax, name in zip(figure.axes, ("parameters", TIME), strict=False):
        points = [(float(x), float(y)) for drawn in ax.lines for x, y in zip(*drawn.get_data(), strict=True)]
        assert points == [(r[name], r["CIDEr"]) for r in rows]
    assert {"toy", "top_down", "a red square", "a dog", "a cat"} <= {text.get_text() for text in figure.texts}
    rows = [r | {"true_captions": 0.5} for r in rows]
    comparison_figure(rows, photos, tmp_path / "figure.png")
    assert [float(line.get_ydata()[0]) for line in drawn[1].axes[0].lines] == [0.5, 0.5]
    comparison_figure([row("toy", captions={"a": "", "b": "a dog"})], photos, tmp_path / "figure.png")
    assert [text.get_text() for text in drawn[2].texts] == ["toy", "(no words)", "a dog"]
    with pytest.raises(InputError, match="no captioners to compare"):
        comparison_figure([], photos, tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("values", "parameters", "seconds"),
    [
        ((46_427, 572_187), "50k 100k 200k 500k", "0.05 0.1 0.2 0.5"),
        ((234_000, 235_000), "200k 500k", "0.2 0.5"),
        ((234_000,), "", ""),
        ((30_500, 2_600_000), "50k 100k 200k 500k 1M 2M", "0.05 0.1 0.2 0.5 1 2"),
        ((900, 5e6), "1k 10k 100k 1M", "0.001 0.01 0.1 1"),
        ((2, 5e9), "1 100 10k 1M 100M 10G", ""),
    ],
)
def test_log_axes_have_plain_labels_that_do_not_touch(tmp_path, monkeypatch, values, parameters, seconds):
    drawn = []
    monkeypatch.setattr("satnp.figures._save", lambda figure, path: drawn.append(figure))
    comparison_figure([row("toy", parameters=n, **{TIME: n / 1e6}) for n in values], [], tmp_path / "figure.png")
    drawn[0].draw_without_rendering()
    for ax, wanted, scale in zip(drawn[0].axes, (parameters, seconds), (1, 1e6), strict=True):
        low, high = ax.get_xlim()
        assert low * scale <= min(values) and max(values) <= high * scale
        labels = ax.get_xticklabels()
        assert not ax.get_xticklabels(minor=True)
        assert len(labels) >= 2 and (not wanted or " ".join(label.get_text() for label in labels) == wanted)
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 + 4 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
