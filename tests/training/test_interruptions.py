"""What a kill, a power cut or a second process may do to a training: nothing."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest

from satnp import files
from satnp.checkpoint import load_training, save
from satnp.cli import main
from satnp.data import features
from satnp.data.datasets import load_split
from satnp.data.features import feature_store, keep
from satnp.data.split import readable
from satnp.errors import InputError
from satnp.files import lock, remove_leftovers, write_json
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import read_log
from tests.small_world import write_flickr8k

HOLD = "import sys; from satnp.files import lock\nwith lock(sys.argv[1]): print('inside', flush=True); sys.stdin.read()"


def start(program, *arguments, **options):
    """A Python process that runs `program`."""
    line = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of the folder tmp_path / "out"."""
    with start(HOLD, tmp_path / "out/.lock") as process:
        assert process.stdout.readline() == "inside\n"
        yield process
        process.kill()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_flickr8k(tmp_path_factory.mktemp("interruptions") / "data")


@pytest.mark.parametrize("line", ["train --data scenes --epochs 1", "train --data scenes --resume", "demo", "estimators"])
def test_a_second_process_in_the_folder_is_refused_in_one_sentence(holder, tmp_path, capsys, line):
    (tmp_path / "out/last.npz").write_bytes(b"of the first")
    assert main([*line.split(), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"process {holder.pid} is writing into {tmp_path / 'out'};" in said
    assert said.startswith("satnp: ") and said.count("\n") == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        ".lock": str(holder.pid).encode(), "last.npz": b"of the first",
    }  # fmt: skip


def test_the_lock_of_a_killed_process_is_no_lock(holder, tmp_path):
    path = tmp_path / "out/.lock"
    with pytest.raises(InputError), lock(path):
        pass
    holder.kill()
    holder.wait()
    assert path.read_text() == str(holder.pid)
    with lock(path):
        assert path.read_text() == str(os.getpid())


def test_a_lock_leaves_nothing_behind_and_may_be_asked_for_again_inside(tmp_path):
    with lock(tmp_path / "new/.lock"), lock(tmp_path / "new/.lock"):
        with start(HOLD, tmp_path / "new/.lock", stderr=subprocess.PIPE) as other:
            assert f"process {os.getpid()} is writing" in other.communicate("")[1]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), lock(tmp_path / ".lock"):
        1 / 0  # noqa: B018
    with lock(tmp_path / ".lock"):
        (tmp_path / "result").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_lock_file_that_its_holder_removes_at_the_last_moment_is_made_again(tmp_path, monkeypatch):
    path, flock, calls = tmp_path / ".lock", files.fcntl.flock, []

    def late(file, operation):
        if not calls:
            path.unlink()
        calls.append(flock(file, operation))

    monkeypatch.setattr(files.fcntl, "flock", late)
    with lock(path), start(HOLD, path, stderr=subprocess.PIPE) as other:
        assert "is writing into" in other.communicate("")[1]
    assert len(calls) == 2


FILL = """
    import sys
    from satnp.data import features
    from satnp.data.datasets import load_split
    from satnp.training.presets import PRESETS, new_model
    split, keep = load_split("flickr8k", "train", sys.argv[1]), features.keep
    def slow(*arguments):
        for row in keep(*arguments):
            print("a row", flush=True)
            sys.stdin.readline()  # until it is let go on
            yield row
    features.keep, features.CHUNK = slow, 5
    features.feature_store(sys.argv[2], new_model(PRESETS["scenes"], split), split)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["left alone", "killed"])
def test_a_second_process_waits_for_the_features_and_computes_what_is_missing(root, tmp_path, monkeypatch, capsys, killed):
    split = load_split("flickr8k", "train", root)
    model, computed = new_model(PRESETS["scenes"], split), []
    whole = feature_store(tmp_path / "alone", model, split)

    def counted(*arguments):
        for row in keep(*arguments):
            computed.append(row)
            yield row

    monkeypatch.setattr(features, "keep", counted)
    with start(FILL, root, tmp_path / "shared") as first:
        print("\n" * 5, file=first.stdin, flush=True)
        for _ in range(7):
            assert first.stdout.readline() == "a row\n"
        if killed:
            first.kill()
        monkeypatch.setattr(files, "sleep", lambda seconds: first.stdin.close() or time.sleep(seconds))
        store = feature_store(tmp_path / "shared", model, split)
    np.testing.assert_array_equal(store, whole)
    assert len(computed) == (24 - 5 if killed else 0)
    waited = f"process {first.pid} is writing into {tmp_path / 'shared'}: waiting"
    assert killed or waited in capsys.readouterr().err
    assert {p.suffix for p in (tmp_path / "shared").iterdir()} == {".npy", ".json"}


def test_a_second_process_waits_for_the_note_of_photos_that_cannot_be_read(root, tmp_path, monkeypatch):
    split = load_split("flickr8k", "train", root)
    path = tmp_path / f"photos-{split.digest}.json"

    def end_the_first(seconds):
        write_json(path, {"photos": 24, "bad": {split.names[0]: "it is cut"}})
        first.communicate("")

    monkeypatch.setattr(files, "sleep", end_the_first)
    with start(HOLD, path.with_suffix(".lock")) as first:
        assert first.stdout.readline() == "inside\n"
        assert readable(split, tmp_path).names == split.names[1:]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_kill_left_half_written_is_removed_at_the_next_start(tmp_path):
    mine = [".gitignore", "photo.tmp.jpg", ".tmp", "last.npz"]
    for name in [*mine, ".last.npz.tmp.npz", ".metrics.jsonl.tmp.jsonl"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(mine)


# where the process is when it is killed: np.savez writes the file, os.fsync follows, then os.replace
DIE = """
    import os, signal, sys
    import numpy as np
    from satnp import checkpoint
    path, stage = sys.argv[1:]
    def die(*arguments, **named):
        os.kill(os.getpid(), signal.SIGKILL)
    def half(file, **arrays):
        savez(file, **arrays)
        os.truncate(file, os.path.getsize(file) // 2)
        die()
    def renamed(*paths):
        replace(*paths)
        die()
    savez, replace = np.savez, os.replace
    model = checkpoint.load(path)
    model.params.flat[...] = 2
    module, name, patch = {
        "before the write": (np, "savez", die), "half-way": (np, "savez", half), "before fsync": (os, "fsync", die),
        "before the rename": (os, "replace", die), "after the rename": (os, "replace", renamed),
    }[stage]
    setattr(module, name, patch)
    checkpoint.save(path, model, step=2)
"""
STAGES = ["before the write", "half-way", "before fsync", "before the rename", "after the rename"]


def test_a_kill_at_any_stage_of_a_write_leaves_a_whole_checkpoint(root, tmp_path):
    model = new_model(PRESETS["scenes"], load_split("flickr8k", "val", root))
    model.params.flat[...] = 1
    writers = {}
    for stage in STAGES:  # all at once: most of their time is the start of Python
        save(tmp_path / stage / "last.npz", model, step=1)
        writers[stage] = start(DIE, tmp_path / stage / "last.npz", stage)
    for stage, process in writers.items():
        process.communicate()
        assert process.returncode == -signal.SIGKILL, stage
        found, _, notes = load_training(tmp_path / stage / "last.npz")
        wanted = 2 if stage == "after the rename" else 1
        assert notes["step"] == wanted and (found.params.flat == wanted).all(), stage
        left = {p.name for p in (tmp_path / stage).iterdir()} - {"last.npz"}
        assert left == (set() if stage in (STAGES[0], STAGES[-1]) else {".last.npz.tmp.npz"}), stage
        save(tmp_path / stage / "last.npz", model, step=3)  # the next write is not in the way of what is left
        assert [p.name for p in (tmp_path / stage).iterdir()] == ["last.npz"]
        assert load_training(tmp_path / stage / "last.npz")[2]["step"] == 3


def test_a_rename_is_followed_by_a_sync_of_its_folder(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def noted(number):
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("rename") or replace(*paths))
    write_json(tmp_path / "x.json", 1)
    assert done == ["file", "rename", "folder"]
    assert json.loads((tmp_path / "x.json").read_text()) == 1


KILLS = 50
TINY = """
encoder = "small"
[config]
M = 6
H = 8
A = 4
[recipe]
epochs = 10
batch_size = 8
min_count = 1
averaging = 0.9
patience = 0
log_every = 1
save_every = 3
validate_every = 7
"""
# moments to be killed in, and how much later at most, in seconds
MOMENTS = {"start-up": 1.5, "steps": 0.02, "validation": 0.02, "writing": 0.002}


def half_written(folder):
    """Checkpoints that are being written, or were when they were left: {(name, when)}"""
    found = set()
    for path in folder.glob(".*.npz.tmp.npz"):
        with suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def run_and_kill(line, folder, wanted, rng):
    """Start a training and kill it a little after it is seen in the moment `wanted`, some steps on.

    -> the moment that it was killed in, None where it had come to its end.
    """
    log, old = folder / "metrics.jsonl", half_written(folder)
    before = read_log(log)
    records, delay = len(before) + rng.integers(1, 9), rng.random() * MOMENTS[wanted]

    def moment():
        now = read_log(log)
        if half_written(folder) - old:
            return "writing"
        if now == before[: len(now)]:
            return "start-up"
        return "validation" if now[-1]["kind"] == "train" and now[-1]["step"] % 7 == 0 else "steps"

    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while wanted != "start-up" and process.poll() is None and time.monotonic() < deadline:
        if moment() == wanted and len(read_log(log)) >= records:
            break
        time.sleep(0.0003)
    time.sleep(delay)
    process.kill()
    return moment() if process.wait() == -signal.SIGKILL else None


def assert_same_training(folder, whole):
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    for name in ("last.npz", "best.npz"):
        with np.load(whole / name) as wanted, np.load(folder / name) as found:
            assert wanted.files == found.files
            for key in wanted.files:
                np.testing.assert_array_equal(found[key], wanted[key], err_msg=f"{name} {key}", strict=True)


@pytest.mark.slow
def test_killed_at_fifty_moments_and_resumed_to_the_same_bits(tmp_path):
    root, rng = write_flickr8k(tmp_path / "data", train=12), np.random.default_rng(0)
    (tmp_path / "tiny.toml").write_text(TINY)
    line = f"-m satnp train --data flickr8k --root {root} --config {tmp_path / 'tiny.toml'} --resume --out".split()
    line, whole, folder = [sys.executable, *line], tmp_path / "whole", tmp_path / "0"
    subprocess.run([*line, whole], check=True, capture_output=True)
    kills, ends = Counter(), 0
    while kills.total() < KILLS:
        moment = run_and_kill([*line, folder], folder, rng.choice(list(MOMENTS)), rng)
        if moment is None:  # it was over before: another one
            assert_same_training(folder, whole)
            ends += 1
            folder = tmp_path / str(ends)
        else:
            kills[moment] += 1
    subprocess.run([*line, folder], check=True, capture_output=True)
    assert_same_training(folder, whole)
    assert kills.keys() == MOMENTS.keys() and min(kills.values()) >= 3, kills
