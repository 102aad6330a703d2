"""Captions, names and errors in any script reach any stdout, stderr and file; nothing of them moves the cursor."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import satnp
from satnp import figures
from satnp.checkpoint import load, save
from satnp.cli import RESERVED, _new_name, main
from satnp.data.by_name import read_guidance, read_regions
from satnp.data.captions import SPECIALS
from satnp.data.datasets import load_split
from satnp.data.split import Split
from satnp.decoding import beam_search
from satnp.encoders import ENCODERS
from satnp.encoders.photos import read_photo
from satnp.errors import InputError
from satnp.files import write_json
from satnp.terminal import LONGEST, printable, sentence
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import read_log
from tests.small_world import use_tiny_encoders

ROOT = Path(satnp.__file__).parents[1]
WORDS = {"Chinese": "照片", "emoji": "😀", "escapes": "\x1b[31m\n\0\u202e", "half a pair": "\ud800"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a photo, and for each of WORDS a captioner that says little else."""
    folder = tmp_path_factory.mktemp("terminal")
    Image.fromarray(np.full((12, 16, 3), 90, np.uint8)).save(folder / "x.jpg")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_encoders(patch)
        for name, word in WORDS.items():
            model = new_model(PRESETS["scenes"], Split(("x",), ([[word, "a"]],), (folder / "x.jpg",)))
            model.params["decoder.b_o"][len(SPECIALS) + model.vocabulary.words[len(SPECIALS) :].index(word)] = 9
            save(folder / f"{name}.npz", model)
    return folder


@pytest.fixture(autouse=True)
def three_words(monkeypatch):
    """Captions of at most three words, so that figures take less time."""
    short = {"max_length": 3}
    monkeypatch.setattr("satnp.model.beam_search", lambda *arguments, **more: beam_search(*arguments, **more | short))


def raw(text):
    """The characters of a printed text that a terminal obeys."""
    return [x for x in text if x != "\n" and printable(x) != x]


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "cp1252"},
        *(
            pytest.param(settings, marks=pytest.mark.slow) for settings in (
                {"PYTHONIOENCODING": "utf-16"},
                {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "1"},
            )
        ),
    ],
    ids=lambda settings: next(iter(settings.values())),
)  # fmt: skip
def test_a_caption_and_a_name_that_stdout_cannot_encode_are_escapes_there_and_whole_in_the_json(world, tmp_path, settings):
    photo = tmp_path / "照片.jpg"
    photo.write_bytes((world / "x.jpg").read_bytes())
    line = [sys.executable, "-m", "satnp", "caption", world / "Chinese.npz", photo, "--beam", "1"]
    files = ["--json", tmp_path / "o.json", "--results", tmp_path / "r.json"]
    child = subprocess.run([*line, *files], capture_output=True, cwd=ROOT, env={**os.environ, **settings})
    assert (child.returncode, child.stderr) == (0, b"")
    (row,) = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert "照片" in row["words"] and os.fsencode(row["photo"]) == os.fsencode(photo)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))[0]["caption"] == row["caption"]
    encoding = settings.get("PYTHONIOENCODING", "ascii")
    said = "照片" if encoding == "utf-16" else r"\u7167\u7247"
    assert f": {said} " in child.stdout.decode(encoding)


@pytest.mark.parametrize(
    "streams", [*(pytest.param(x, marks=pytest.mark.slow) for x in (">&-", "2>&-")), ">&- 2>&-", ">/dev/full"]
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the shell and the devices of Linux")
def test_the_json_is_written_where_nothing_can_be_printed(world, tmp_path, streams):
    line = f"'{sys.executable}' -m satnp caption {world}/Chinese.npz {world}/x.jpg --beam 1 --json {tmp_path}/o.json"
    child = subprocess.run(["bash", "-c", f"{line} {streams}"], capture_output=True, text=True, cwd=ROOT)
    assert "照片" in json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))[0]["words"]
    if streams == ">/dev/full":
        assert (child.returncode, child.stderr) == (2, "satnp: No space left on device; fix that and run again\n")
    else:
        assert (child.returncode, child.stderr) == (0, "")


def test_without_a_console_the_commands_work_and_leave_the_streams_as_they_were(world, tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        line = ["caption", f"{world}/Chinese.npz", f"{world}/x.jpg", "--beam", "1", "--json", f"{tmp_path}/o.json"]
        assert main(line) == 0 and (tmp_path / "o.json").is_file()
        assert main(["caption", f"{world}/Chinese.npz", "none.jpg"]) == 2
        with pytest.raises(SystemExit):
            main(["caption", "--beam"])
        assert sys.stdout is stream and sys.stderr is stream


def test_training_and_scoring_print_names_on_any_stdout(tmp_path, monkeypatch):
    encoding = "ascii"
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    root = tmp_path / "照\x1b片"
    root.mkdir()
    (root / "captions.tsv").write_text("".join(f"{n}.jpg\t照片 {n} .\n" for n in range(9)), encoding="utf-8")
    for n in range(9):
        Image.fromarray(np.full((9, 8, 3), 20 * n, np.uint8)).save(root / f"{n}.jpg")
    (root / "5.jpg").write_bytes(b"no photo")
    (tmp_path / "c.toml").write_text("[config]\nM = 4\nH = 5\nA = 3\n[recipe]\nepochs = 1\nmin_count = 1\n")
    data = f"--data folder --root {root}"
    use_tiny_encoders(monkeypatch)
    train = f"train {data} --config {tmp_path}/c.toml --encoder small --out {root}/run"
    status = main([*train.split(), "--skip-bad"])
    err.flush()
    assert status == 0, err.buffer.getvalue()
    assert main(f"evaluate {root}/run/best.npz {data} --split val --skip-bad --json {root}/s.json".split()) == 0
    out.flush()
    err.flush()
    printed = (out.buffer.getvalue() + err.buffer.getvalue()).decode(encoding)
    assert r"\u7167\x1b\u7247" in printed and not raw(printed.replace("\r", "\n"))
    assert (out.errors, err.errors) == ("strict", "strict")


@pytest.mark.parametrize("columns", ["0", "1", "7", "40", "1000"])
def test_help_fits_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    for command in ("demo", "gradcheck", "estimators", "features", "train", "compare", "caption", "evaluate"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0 and f"satnp {command}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["escapes", "half a pair"])
def test_words_of_a_vocabulary_do_not_reach_the_terminal_raw_and_stay_whole_in_the_files(world, tmp_path, capsys, name):
    line = ["caption", f"{world}/{name}.npz", f"{world}/x.jpg", "--beam", "1", "--json", f"{tmp_path}/o.json"]
    assert main([*line, "--figures", str(tmp_path / "f")]) == 0
    out, err = capsys.readouterr()
    assert not raw(out) and not err and printable(WORDS[name]) in out and out.count("\n") == 1
    assert WORDS[name] in json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))[0]["words"]
    assert (tmp_path / "f/x.png").is_file()


@pytest.mark.parametrize("name", ["a\x1b[31m\n\r\u202e\x9bb", "bad\udcff", "照片"])
def test_names_of_photos_do_not_reach_the_terminal_raw(world, tmp_path, capsys, name):
    photo = tmp_path / f"{name}.jpg"
    assert main(["caption", f"{world}/emoji.npz", str(photo)]) == 2
    assert capsys.readouterr().err == f"satnp: there is no photo {tmp_path}/{printable(name)}.jpg; check the name\n"
    photo.write_bytes((world / "x.jpg").read_bytes())
    line = ["caption", f"{world}/emoji.npz", str(photo), "--beam", "1", "--json", f"{tmp_path}/o.json"]
    assert main([*line, "--figures", str(tmp_path / "f")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path}/{printable(name)}.jpg: ") and not raw(out + err)
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))[0]["photo"] == str(photo)
    assert [path.name for path in (tmp_path / "f").iterdir()] == [f"{name}.png"]


def test_the_arguments_of_a_command_that_is_none_do_not_reach_the_terminal_raw(capsys):
    for line in (["caption", "c", "x", "--\x1b[31m" + 500 * "x"], ["caption", "c", "x", "--beam", "\x1b[31m"], ["\x1b"]):
        with pytest.raises(SystemExit):
            main(line)
        err = capsys.readouterr().err
        assert not raw(err) and r"\x1b" in err and len(err.splitlines()[-1]) < LONGEST + 30


def test_printable_text_stays_and_what_a_terminal_obeys_is_an_escape():
    for text in ("照片 😀 👨‍👩‍👧 क्‍ष می‌خواهم", "tab, $x$, _y_ \\n", "e\u0301"):
        assert printable(text) == text
    for x, seen in {"\x1b": r"\x1b", "\0": r"\x00", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\x7f": r"\x7f", "\x9b": r"\x9b",
                    "\u202e": r"\u202e", "\u2066": r"\u2066", "\u2028": r"\u2028", "\ufeff": r"\ufeff", "\udc80": r"\udc80",
                    "\U000e0041": r"\U000e0041"}.items():  # fmt: skip
        assert printable(f"a{x}b") == f"a{seen}b"


def test_a_sentence_is_short_and_keeps_its_beginning_and_what_to_do():
    assert sentence("a; b") == "a; b" and sentence(300 * "x") == 300 * "x"
    long = sentence("the file is " + 9999 * "\x1b" + " odd; give another")
    assert len(long) == LONGEST and long.startswith(r"the file is \x1b\x1b") and long.endswith("odd; give another")
    error = str(InputError("x is " + 999 * "y" + "; give z"))
    assert len(f"satnp: skipped: {error}") == LONGEST and error.startswith("x is yy") and error.endswith("yy; give z")


def test_json_reads_back_to_the_same_strings(tmp_path):
    value = {"bad\udcff.jpg": ["照片", "\ud800x", "\x1b\0\n\u2028", "😀"]}
    write_json(tmp_path / "o.json", value)
    assert json.loads((tmp_path / "o.json").read_bytes().decode("utf-8")) == value


LONG = 300 * "x"


@pytest.mark.parametrize(
    "take",
    [
        lambda path: load(path), lambda path: read_photo(path), lambda path: satnp.load(path),
        lambda path: load_split("folder", "train", path), lambda path: load_split("folder", "train", Path(), captions=path),
        lambda path: read_regions(path), lambda path: read_guidance(path), lambda path: write_json(path, 1),
        lambda path: ENCODERS["squeezenet1_1"].load(path, ENCODERS["squeezenet1_1"].Config()),
        lambda path: save(path, new_model(PRESETS["scenes"], Split(("x",), ([["a"]],), ("x",)))),
        lambda path: figures.visual_figure([], np.zeros(0), path),
    ],
)  # fmt: skip
def test_a_name_of_300_letters_gets_one_sentence_in_python_too(tmp_path, take):
    for path in (tmp_path / f"{LONG}.npz", tmp_path / LONG / "x.npz"):
        with pytest.raises(InputError, match="xxx"):
            take(path)
    assert not list(tmp_path.iterdir()) and read_log(tmp_path / LONG) == []


def test_a_name_as_long_as_names_may_be_is_written(world, tmp_path):
    write_json(tmp_path / (250 * "x" + ".json"), 1)
    photo = tmp_path / (251 * "y" + ".jpg")
    photo.write_bytes((world / "x.jpg").read_bytes())
    assert main(["caption", f"{world}/emoji.npz", str(photo), "--beam", "1", "--figures", str(tmp_path / "f")]) == 0
    assert sorted(map(len, os.listdir(tmp_path))) == [1, 255, 255] and os.listdir(tmp_path / "f") == [200 * "y" + ".png"]


def test_figures_whose_names_a_file_system_may_take_for_one_get_a_number_each():
    taken = set(RESERVED)
    stems = "x", "X", "caf\u00e9", "cafe\u0301", "CAFE\u0301", "straße", "STRASSE", "con", "x.visual", "é" * 150
    names = [_new_name(stem, taken) for stem in stems]
    accents = ["caf\u00e9", "cafe\u0301-2", "CAFE\u0301-3"]
    assert names == ["x", "X-2", *accents, "straße", "STRASSE-2", "con-2", "x.visual-2", "é" * 100]


@pytest.fixture
def coco(tmp_path, world):
    """A folder of two photos, and COCO's list of them -> (folder, list)"""
    names = ["COCO_test2014_000000000042.jpg", "COCO_test2014_000000000007.jpg"]
    for name in names:
        (tmp_path / name).write_bytes((world / "x.jpg").read_bytes())
    images = [{"id": int(name[-16:-4]), "file_name": name, "height": 12, "width": 16} for name in names]
    path = tmp_path / "image_info_test2014.json"
    path.write_text(json.dumps({"info": {}, "images": images, "licenses": [], "categories": []}))
    return tmp_path, path


def test_results_have_the_image_ids_of_coco(world, coco, tmp_path, capsys):
    folder, path = coco
    results = tmp_path / "r.json"
    line = ["caption", f"{world}/Chinese.npz", "--beam", "1", "--results", str(results)]
    said = str(load(world / "Chinese.npz").caption(world / "x.jpg", beam=1))
    wanted = [{"image_id": i, "caption": said} for i in (42, 7)]
    assert main([*line, str(path), "--root", str(folder)]) == 0
    assert json.loads(results.read_text(encoding="utf-8")) == wanted
    assert main([*line, *map(str, sorted(folder.glob("COCO*.jpg"))), str(world / "x.jpg")]) == 0
    assert json.loads(results.read_text(encoding="utf-8")) == [*wanted[::-1], {"image_id": "x", "caption": said}]
    path = path.rename(folder / "LIST.JSON")
    assert main([*line, str(path), "--root", str(folder)]) == 0
    assert json.loads(results.read_text(encoding="utf-8")) == wanted
    assert main([*line, *2 * [str(world / "x.jpg")]]) == 2
    assert "have the same image id, x; give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "root", "words"),
    [
        (None, None, "lists photos; give the folder that has them with --root DIR"),
        ([{"id": 1, "file_name": "a.jpg"}], "{t}", "1 of the 1 photos of {l} (the first is a.jpg) are not in {t}; add them"),
        ([{"id": 1, "file_name": "X.JPG"}, {"id": 2, "file_name": "y.jpg"}], "{w}",
         "is x.jpg, which differs from X.JPG in small and capital letters: write both alike"),
        ([{"id": 1, "file_name": "../a.jpg"}], "{t}", "(../a.jpg is not a name in a folder)"),
        ([{"id": 1, "file_name": "/etc/passwd"}], "{t}", "(/etc/passwd is not a name in a folder)"),
        ([{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "{t}", "(it lists no photos, or one of them twice)"),
        ([], "{t}", "(it lists no photos, or one of them twice)"),
        ([{"id": "x", "file_name": "a"}], "{t}", "is not a list of COCO's photos ("),
        (3, "{t}", "is not a list of COCO's photos ("),
    ],
)
def test_a_list_of_photos_that_cannot_be_used_gets_one_sentence(world, coco, tmp_path, capsys, images, root, words):
    path = coco[1]
    if images is not None:
        path.write_text(json.dumps({"images": images}))
    more = ["--root", root.format(t=tmp_path, w=world)] if root else []
    assert main(["caption", f"{world}/emoji.npz", str(path), *more, "--results", f"{tmp_path}/r.json"]) == 2
    err = capsys.readouterr().err
    if len(words := words.format(t=tmp_path, l=path)) < 150:
        assert words in err
    assert err.startswith("satnp: ") and err.count("\n") == 1 and not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("command", ["caption {}/emoji.npz {}/x.jpg", "evaluate {}/emoji.npz --data scenes --split val"])
def test_one_file_for_captions_and_for_results_is_refused(world, tmp_path, capsys, command):
    line = [word.format(world) for word in command.split()]
    assert main([*line, "--json", f"{tmp_path}/r.json", "--results", f"{tmp_path}/x/../r.json"]) == 2
    assert f"satnp: --json and --results both name {tmp_path}/r.json; give each" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_root_without_a_list_is_refused(world, capsys):
    assert main(["caption", f"{world}/emoji.npz", f"{world}/x.jpg", "--root", str(world)]) == 2
    assert "--root is the folder of the photos that a COCO file lists, and there is none" in capsys.readouterr().err
