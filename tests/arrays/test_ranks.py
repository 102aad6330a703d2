"""Several ranks: the same run as one, by threads in place of processes, and under mpiexec where that is there (slow)."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path
from queue import SimpleQueue
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace

import numpy as np
import pytest

from satnp.arrays import ranks, runtime, shares, threads
from satnp.arrays.backend import to_device, to_host
from satnp.arrays.ranks import ALONE, Mpi, Ranks
from satnp.cli import main
from satnp.data import features
from satnp.data.datasets import load_split
from satnp.data.features import feature_store
from satnp.encoders import squeezenet
from satnp.errors import InputError
from satnp.training.presets import PRESETS, find_preset, new_model
from satnp.training.trainer import Recipe, Trainer, read_log
from tests import strict
from tests.small_world import write_flickr8k, write_weights

CONFIG = {"M": 12, "H": 16, "A": 8, "penalty": 0.1, "dropout": 0.3}
HARD = {"attention": "hard", "samples": 2, "entropy_weight": 0.1}
CONFIGS = {
    "soft": {}, "hard": HARD,
    "leave one out": HARD | {"baseline": "leave_one_out"}, "one coin": HARD | {"coin": "minibatch"},
    "local expectation": HARD | {"estimator": "local_expectation", "reward": "mean"},
}  # fmt: skip
RECIPE = Recipe(  # Adam makes whole steps of rounding errors
    epochs=1, batch_size=8, optimiser="sgd", learning_rate=1e-2, warmup=5, min_count=1, averaging=0.9, mirror=True,
    save_every=4, log_every=3, validate_every=11,
)  # fmt: skip


class Threads(Ranks):
    """Ranks that are threads of this process: they meet at a barrier, and rank 0 has a queue of what each of them sent."""

    def __init__(self, rank, size, barrier, slots, sent):
        self.rank, self.size, self.barrier, self.slots, self.sent = rank, size, barrier, slots, sent

    def meet(self, value):
        """[value of each]"""
        self.slots[self.rank] = value
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

    def sum(self, x):
        x[...] = reduce(add, self.meet(x.copy()))

    def once(self, work):
        return self.meet(None if self.rank else work())[0]

    def gather(self, value):
        if self.rank:
            self.sent[self.rank].put(value)
            return ()
        return chain([value], map(self.receive, range(1, self.size)))

    def receive(self, rank):
        value = self.sent[rank].get(timeout=60)
        if value is LOST:
            raise BrokenBarrierError
        return value


LOST = object()


def on_ranks(size, work):
    """[work(ranks) of each of so many ranks]"""
    barrier, slots, sent = Barrier(size, timeout=60), [None] * size, [SimpleQueue() for _ in range(size)]

    def rank(k):
        try:
            return work(Threads(k, size, barrier, slots, sent))
        except BaseException:
            barrier.abort()
            sent[k].put(LOST)
            raise

    threads.cores()  # while BLAS still has its own threads
    with threads._blas().limit(limits=1), ThreadPoolExecutor(size) as pool:  # whoever leaves last restores this
        jobs = [pool.submit(rank, k) for k in range(size)]
    for error in (job.exception() for job in jobs):
        if error and not isinstance(error, BrokenBarrierError):
            raise error
    assert all(queue.empty() for queue in sent), "something was sent that rank 0 did not want"
    return [job.result() for job in jobs]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_flickr8k(tmp_path_factory.mktemp("ranks") / "data")


@pytest.fixture(scope="module")
def splits(encoders, root):
    return read_splits(root)


def read_splits(root):
    return {split: load_split("flickr8k", split, root) for split in ("train", "val")}


def trainer(splits, out, ranks=ALONE, config="soft", dtype=np.float64, weights=None, xp=np, **changes):
    """Of a whole network, or with the `weights` of an encoder that is frozen, on random features."""
    recipe, kept = replace(RECIPE, **changes), [None] * 3
    found = find_preset("flickr8k" if weights else "scenes", weights=weights)
    preset = replace(found, config=CONFIG | CONFIGS[config], recipe=recipe)
    model = new_model(preset, splits["train"], weights)
    model.params = model.params.on(to_device(model.params.flat.astype(dtype), xp))
    if weights:
        kept = np.random.default_rng(0).random((3, 24, 169, 512)).astype(np.float16)
    return Trainer(model, recipe, splits["train"], splits["val"], out, *kept, ranks=ranks)


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_shares_are_all_rows_once():
    for size in (1, 2, 3, 7):
        for count in (1, 2, 6, 7, 20):
            found = [Threads(rank, size, None, None, None).share(count) for rank in range(size)]
            rows = [row for mine, n in found for row in range(count)[mine][:n]]
            assert rows == list(range(count)) and all(len(range(count)[mine]) == max(n, 1) for mine, n in found)


@pytest.fixture(params=[1, 2])
def cores(request, monkeypatch):
    """Each rank has this number of cores, and gives each of them a share of its captions."""
    monkeypatch.setattr(threads, "cores", lambda: request.param)
    monkeypatch.setattr(shares, "LEAST", 1)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_minibatch_in_shares_has_the_gradient_of_the_whole(splits, tmp_path, cores, monkeypatch, config):
    def step(ranks, captions=7):
        t = trainer(splits, tmp_path, ranks, config, clip=1e-3)
        t.order, t.baseline = [np.arange(captions)], np.array(-3.0)
        passed, norm, N = t._train_step()
        found = passed.nll, passed.baseline, norm, passed.words, N, t._diagnostics(passed.tolds)
        return t.grads.flat, t.params.flat, *found

    for captions in (7, 2):  # of 2 not each rank has one
        with monkeypatch.context() as alone:
            alone.setattr(threads, "cores", lambda: 1)
            whole = step(ALONE, captions)
        for rank, part in enumerate(on_ranks(3, lambda ranks, captions=captions: step(ranks, captions))):
            for found, wanted in zip(part[:5], whole[:5], strict=True):
                assert apart(found, wanted) < 1e-12
            assert part[5:7] == whole[5:7] == (whole[5], captions)
            assert rank or part[7] == pytest.approx(whole[7], abs=1e-6)
    assert config == "soft" or whole[3] not in (0, -3)


@pytest.mark.parametrize("config", ["soft", "hard"])
def test_self_critical_training_in_shares_has_the_gradient_of_the_whole(splits, tmp_path, cores, monkeypatch, config):
    def step(ranks, photos=7):
        t = trainer(splits, tmp_path, ranks, config, clip=1e-3, objective="scst", samples=3)
        t.model.config = replace(t.model.config, decoding="sampling")
        t.order = [np.arange(photos)]
        passed, norm, N = t._train_step()
        return t.grads.flat, t.params.flat, passed.nll, norm, passed.words, t.rewards, N

    for photos in (7, 2):
        with monkeypatch.context() as alone:
            alone.setattr(threads, "cores", lambda: 1)
            whole = step(ALONE, photos)
        for part in on_ranks(3, lambda ranks, photos=photos: step(ranks, photos)):
            for found, wanted in zip(part, whole, strict=True):
                assert apart(found, wanted) < 1e-12
        assert whole[6] == photos and whole[5] > 0


def test_a_baseline_is_kept_where_no_image_is_sampled(splits, tmp_path):
    def step(ranks):
        t = trainer(splits, tmp_path, ranks, "hard")
        t.order, t.baseline = [np.arange(6)], np.array(-3.0)
        t.model.config = replace(t.model.config, coin_chance=1.0)
        passed, *_ = t._train_step()
        return t.baseline, t._diagnostics(passed.tolds)

    (baseline, found), (other, _) = on_ranks(2, step)
    assert baseline == other == pytest.approx(-3, rel=1e-12)
    assert found["reward"] == 0 and found["expected"] == 1


@pytest.mark.parametrize("config", ["soft", "hard"])
def test_shares_on_the_strict_device_have_the_same_gradient_and_wait_for_nothing(splits, tmp_path, config):
    def step(ranks, xp):
        t = trainer(splits, tmp_path, ranks, config, xp=xp)
        t.order = [np.arange(7)]
        passed, *_ = t._train_step()
        return t.grads.flat, passed.nll, passed.baseline

    with strict.no_sync():
        parts = on_ranks(2, lambda ranks: step(ranks, strict))
    for part in parts:
        for found, wanted in zip(part, step(ALONE, np), strict=True):
            np.testing.assert_allclose(to_host(found), wanted, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def whole(splits, tmp_path_factory):
    """{config: (a Trainer that ran alone, its log)}"""
    found = {}
    for config in ("soft", "hard"):
        t = trainer(splits, tmp_path_factory.mktemp("whole"), config=config)
        assert t.run()
        found[config] = t, read_log(t.out / "metrics.jsonl")
    return found


def assert_same_run(t, log, whole):
    alone, wanted = whole
    assert t.step == alone.step and (*t.best, t.bad) == pytest.approx((*alone.best, alone.bad))
    assert apart(t.params.flat, alone.params.flat) < 1e-12 and apart(t.average, alone.average) < 1e-12
    assert [record.keys() for record in log] == [record.keys() for record in wanted]
    for found, record in zip(log, wanted, strict=True):
        for name, x in record.items():
            assert found[name] == x if isinstance(x, str) else found[name] == pytest.approx(x, rel=1e-9, abs=2e-6), name


@pytest.mark.parametrize(("size", "config"), [(2, "soft"), pytest.param(4, "hard", marks=pytest.mark.slow)])
def test_many_ranks_give_the_run_of_one_and_rank_0_alone_writes(splits, whole, tmp_path, size, config):
    def run(ranks):
        t = trainer(splits, tmp_path / str(ranks.rank), ranks, config)
        assert t.run()
        return t

    trainers = on_ranks(size, run)
    assert [p.name for p in tmp_path.iterdir()] == ["0"]
    assert_same_run(trainers[0], read_log(tmp_path / "0/metrics.jsonl"), whole[config])
    for t in trainers[1:]:
        np.testing.assert_array_equal(t.params.flat, trainers[0].params.flat)
        assert t.baseline == trainers[0].baseline and (t.best, t.bad) == (trainers[0].best, trainers[0].bad)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 3), (2, 1)])
def test_a_training_goes_on_with_another_number_of_ranks(splits, whole, tmp_path, sizes):
    def run(ranks, until=None):
        t = trainer(splits, tmp_path, ranks, "hard")
        if until is None:
            t.resume()
            assert t.step == 7
        else:
            stop_at(t, until)
        assert t.run() == (until is None)
        return t

    on_ranks(sizes[0], lambda ranks: run(ranks, 7))
    assert_same_run(on_ranks(sizes[1], run)[0], read_log(tmp_path / "metrics.jsonl"), whole["hard"])


def stop_at(t, step):
    """Ctrl-C is seen by the last rank alone, in this step."""
    any_of = t.ranks.any
    t.ranks.any = lambda signals: any_of(t.step == step and t.ranks.rank == t.ranks.size - 1)


def test_all_ranks_stop_at_the_step_in_which_one_is_interrupted(splits, tmp_path):
    def run(ranks):
        t = trainer(splits, tmp_path, ranks)
        stop_at(t, 5)
        return t.run(), t.step

    assert on_ranks(3, run) == [(False, 5)] * 3
    assert (tmp_path / "last.npz").exists() and not (tmp_path / ".lock").exists()


def test_all_ranks_stop_early_together(splits, tmp_path):
    changes = {"epochs": 50, "learning_rate": 1e-12, "validate_every": 3, "patience": 2, "averaging": 0.0}
    steps = on_ranks(2, lambda ranks: (t := trainer(splits, tmp_path, ranks, **changes)).run() and t.step)
    assert steps == [9, 9]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_ranks_refuse_a_loss_that_is_no_number(splits, tmp_path):
    def run(ranks):
        with pytest.raises(InputError, match="the loss or its gradient is not finite at step") as stop:
            trainer(splits, tmp_path, ranks, learning_rate=1e300, log_every=1).run()
        return str(stop.value)

    assert len(set(on_ranks(2, run))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_features_in_shares_are_the_same_bytes(splits, tmp_path, monkeypatch, size):
    monkeypatch.setattr(features, "CHUNK", 5)
    split, keep, computed = splits["train"], features.keep, []
    model = new_model(PRESETS["scenes"], split)
    feature_store(tmp_path / "one", model, split, mirrored=True)

    def counted(*arguments):
        for row in keep(*arguments):
            computed.append(row)
            yield row

    monkeypatch.setattr(features, "keep", counted)
    stores = on_ranks(size, lambda ranks: feature_store(tmp_path / "many", model, split, True, ranks))
    assert len(computed) == 24 and len({store.filename for store in stores}) == 1
    one, many = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "many"))
    assert one == many
    on_ranks(size, lambda ranks: feature_store(tmp_path / "many", model, split, True, ranks))
    assert len(computed) == 24


@pytest.mark.parametrize("again", [1, 2, 3])
def test_features_go_on_with_any_number_of_ranks(splits, tmp_path, monkeypatch, again):
    monkeypatch.setattr(features, "CHUNK", 5)
    split, computed, read_image = splits["train"], [], features.read_image
    model = new_model(PRESETS["scenes"], split)
    feature_store(tmp_path / "whole", model, split)

    def dying(model, photo, mirrored):
        computed.append(photo)
        if photo == split.photos[13]:
            raise ZeroDivisionError
        return read_image(model, photo, mirrored)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(features, "read_image", dying)
        on_ranks(2, lambda ranks: feature_store(tmp_path / "parts", model, split, ranks=ranks))
    (note,) = (tmp_path / "parts").glob("*.json")
    assert json.loads(note.read_text())["done"] == 10
    on_ranks(again, lambda ranks: feature_store(tmp_path / "parts", model, split, ranks=ranks))
    whole, parts = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize("nccl", [False, True], ids=["through the host", "NCCL"])
def test_a_sum_on_a_device_is_nccls_or_goes_through_the_host(nccl):
    done, x = [], strict.asarray([1.0, 2.0])
    rank = Mpi.__new__(Mpi)

    def twice(how):
        def work(a, b):
            done.append(how)
            (b if how == "host" else a)[...] *= 2

        return work

    rank.MPI, rank.comm = SimpleNamespace(IN_PLACE=None), SimpleNamespace(Allreduce=twice("host"))
    rank.nccl = SimpleNamespace(all_reduce=twice("device")) if nccl else None
    rank.sum(x)
    assert x.get().tolist() == [2, 4] and done == ["device" if nccl else "host"]
    rank.sum(np.ones(3))
    assert done[-1] == "host"


def test_a_rank_without_a_gpu_says_so_to_those_that_have_one():
    said, rank = [], Mpi.__new__(Mpi)
    rank.MPI, rank.comm, rank.nccl = SimpleNamespace(LAND=all), SimpleNamespace(allreduce=lambda *x: said.append(x)), None
    rank.sum_on(np)
    assert said == [(False, all)] and rank.nccl is None


@pytest.mark.parametrize("what", ["mpi4py", "mpiexec"])
@pytest.mark.parametrize("line", ["train --data scenes --out", "features --data scenes --features"])
def test_ranks_without_mpi_are_refused_in_one_sentence(tmp_path, capsys, monkeypatch, what, line):
    found = {"mpi4py": "here", "mpiexec": "here"} | {what: None}
    monkeypatch.setattr(ranks, "inside", lambda: False)
    monkeypatch.setattr(ranks, "find_spec", found.get)
    monkeypatch.setattr(ranks, "which", lambda name, path: found[name])
    assert main([*line.split(), str(tmp_path / "out"), "--ranks", "2"]) == 2
    wanted = f'satnp: --ranks 2 needs {what}, which is not installed; pip install "satnp[mpi]"\n'
    assert capsys.readouterr().err == wanted and list(tmp_path.iterdir()) == []


def test_a_job_of_another_size_is_refused_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ranks, "inside", lambda: True)
    monkeypatch.setattr(ranks, "Mpi", Ranks)  # what an mpiexec of another MPI starts: each is alone
    assert main(["train", "--data", "scenes", "--out", str(tmp_path / "out"), "--ranks", "2"]) == 2
    assert capsys.readouterr().err.startswith("satnp: --ranks 2 was asked for, but mpiexec and mpi4py started 1;")
    assert list(tmp_path.iterdir()) == []


def test_one_rank_needs_no_mpi_and_imports_none(tmp_path):
    code = "import sys; from satnp.cli import main; print(main(sys.argv[1:]), 'mpi4py' in sys.modules)"
    line = f"train --data flickr8k --root {tmp_path / 'none'} --ranks 1 --out {tmp_path / 'out'}".split()
    child = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, env=without_mpi())
    assert child.stdout == "2 False\n" and child.stderr.startswith("satnp: there is no folder")


def without_mpi():
    return {name: x for name, x in os.environ.items() if not name.startswith(("PMI_", "OMPI_"))}


@pytest.mark.parametrize(
    ("env", "threads"),
    [({}, None), ({"MPI_LOCALNRANKS": "1"}, None), ({"MPI_LOCALNRANKS": "3"}, "2"), ({"MPI_LOCALNRANKS": "64"}, "1"),
     ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "4"), ({"MPI_LOCALNRANKS": "2", "OMP_NUM_THREADS": "7"}, "7")],
)  # fmt: skip
def test_ranks_on_a_machine_share_its_cores(monkeypatch, env, threads):
    monkeypatch.setattr(os, "environ", dict(env))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    runtime.share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_features_are_computed_ahead_of_the_training_that_uses_them(root, encoders, no_figures, tmp_path, capsys):
    weights, store = tmp_path / "w.npz", tmp_path / "kept"
    write_weights(weights, squeezenet, 0)
    (tmp_path / "tiny.toml").write_text("[config]\nM = 8\nH = 12\nA = 6\n[recipe]\nepochs = 1\nmin_count = 1\n")
    same = f"--data flickr8k --root {root} --weights {weights} --config {tmp_path / 'tiny.toml'} --features {store}"
    assert main(["features", *same.split(), "--encoder", "small"]) == 2
    assert main(["features", *same.replace(f"--weights {weights}", "--encoder small").split()]) == 2
    assert "no layer of this encoder is frozen" in capsys.readouterr().err and not store.exists()
    assert main(["features", *same.split()]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" photos: ")[0] for line in said] == ["24", "24", "6"] and said[1].endswith("-mirrored.npy")
    before = {p: p.stat().st_mtime_ns for p in store.iterdir()}
    assert len(before) == 6
    assert main(["train", *same.split(), "--out", str(tmp_path / "run")]) == 0
    assert {p: p.stat().st_mtime_ns for p in store.iterdir()} == before


# Under mpiexec


@pytest.fixture(scope="module")
def mpi():
    """Skips where there is none."""
    try:
        ranks.command(2, [])
    except InputError as missing:
        pytest.skip(str(missing))


def run(line, **options):
    env = without_mpi() | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, env=env, timeout=300, **options)


PARITY = """
import sys
from pathlib import Path
import numpy as np
from satnp.arrays.ranks import world
from tests.arrays.test_ranks import STEPS, read_splits, trainer
root, weights, out = map(Path, sys.argv[1:])
ranks, splits, found = world(), read_splits(root), {}
for name, changes in STEPS.items():
    single = {"dtype": np.float32, "weights": weights} if name.startswith("float32") else {}
    t = trainer(splits, out, ranks, epochs=20, averaging=0.0, **single, **changes)
    for step in range(50):
        t._train_step()
        if step == 0:
            found[name + " gradient"] = t.grads.flat.copy()
        t.step += 1
    if "adam" in name:  # the softmax forgets this bias: Adam makes whole steps of its gradient, a rounding error
        t.params["decoder.c_a"][...] = 0
    found[name] = t.params.flat
    bits = list(ranks.gather(t.params.flat.tobytes()))
    assert len(set(bits)) == (ranks.rank == 0), "the ranks are not alike"
if ranks.rank == 0:
    np.savez(out, **found)
"""
STEPS = {  # in float32 a rounding error may turn a ReLU of the encoder round, and the next steps with it: that is frozen
    "soft": {}, "hard": {"config": "hard"}, "batches of three": {"batch_size": 3},
    "float32": {}, "float32 adam": {"optimiser": "adam"},
}  # fmt: skip


@pytest.mark.slow
def test_under_mpi_fifty_steps_are_those_of_one_rank(root, tmp_path, mpi):
    found, weights = {}, tmp_path / "weights.npz"
    write_weights(weights, squeezenet, 0)
    for size in (1, 2, 4):
        line = ranks.command(size, ["-c", PARITY, root, weights, tmp_path / f"{size}.npz"])
        done = run(line, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr
        found[size] = np.load(tmp_path / f"{size}.npz")
    for size in (2, 4):
        for name, wanted in found[1].items():
            print(size, name, apart(found[size][name], wanted))
            limit = 1e-12 if wanted.dtype == np.float64 else 1e-4 if name == "float32 adam" else 1e-6
            assert apart(found[size][name], wanted) < limit, (size, name)


TINY = """
encoder = "small"
[config]
M = 12
H = 16
A = 8
[recipe]
epochs = 6
batch_size = 8
min_count = 1
patience = 0
mirror = true
averaging = 0.9
log_every = 5
save_every = 5
"""


@pytest.fixture(scope="module")
def job(root, tmp_path_factory, mpi):
    """(folder, line that trains there on 2 ranks into the --out to come)"""
    folder = tmp_path_factory.mktemp("job")
    (folder / "tiny.toml").write_text(TINY)
    line = f"-m satnp train --data flickr8k --root {root} --config {folder / 'tiny.toml'} --ranks 2 --out"
    line = [sys.executable, *line.split()]
    done = run([*line, folder / "whole"])
    assert done.returncode == 0, done.stderr
    return folder, line


def stopped(line, out, number, whom):
    """Start the training, send a signal to process whom(launcher) after some lines of its log -> status, output, seconds"""
    env = without_mpi() | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        list(map(str, [*line, out])), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(read_log(out / "metrics.jsonl")) < 6 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(whom(process.pid), number)
        started = time.monotonic()
        said = process.communicate(timeout=60)
        return process.returncode, said, time.monotonic() - started


def last_rank(launcher):
    """The process id of a rank: launcher > mpiexec > its proxy > the ranks."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = stat.read_text().split(" ", 1)[0], stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just gone
            continue
        parents.setdefault(int(rest[1]), []).append(int(number))
    (mpiexec,) = parents[launcher]
    (proxy,) = parents[mpiexec]
    return max(parents[proxy])


def assert_same_bits(out, whole):
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    for name in ("last.npz", "best.npz"):
        with np.load(out / name) as found, np.load(whole / name) as wanted:
            for key in wanted.files:
                np.testing.assert_array_equal(found[key], wanted[key], err_msg=key)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc that says which processes the ranks are")
def test_a_job_ends_with_a_killed_rank_and_goes_on_to_the_same_bits(job):
    folder, line = job
    status, (_, said), seconds = stopped(line, folder / "killed", signal.SIGKILL, last_rank)
    assert status not in (0, 2) and seconds < 10
    assert "satnp: a rank was lost, and the job ended with it" in said.splitlines()[-1]
    assert run([*line, folder / "killed", "--resume"]).returncode == 0
    assert_same_bits(folder / "killed", folder / "whole")


@pytest.mark.slow
def test_ctrl_c_stops_a_job_that_goes_on_to_the_same_bits(job):
    folder, line = job
    status, (said, complaints), _ = stopped(line, folder / "stopped", signal.SIGINT, int)
    assert status == 130 and said.count("interrupted at step") == 1 and "Traceback" not in complaints
    assert not (folder / "stopped/.lock").exists()
    assert run([*line, folder / "stopped", "--resume"]).returncode == 0
    assert_same_bits(folder / "stopped", folder / "whole")


@pytest.mark.slow
def test_what_many_ranks_say_is_said_once(job):
    folder, line = job
    done = run([*line, folder / "whole"])
    assert done.returncode == 2 and done.stderr.count("holds a training already") == 1 and not done.stdout
    done = run([*line, folder / "whole", "--resume"])
    assert done.returncode == 0 and done.stdout.count("resumed at step") == done.stdout.count("best:") == 1


@pytest.mark.slow
def test_features_of_two_ranks_are_the_bytes_of_one(root, tmp_path, mpi):
    weights = tmp_path / "w.npz"
    write_weights(weights, squeezenet, 0)
    line = f"-m satnp features --data flickr8k --root {root} --weights {weights}".split()
    for size in (1, 2):
        done = run([sys.executable, *line, "--features", tmp_path / str(size), "--ranks", size])
        assert done.returncode == 0, done.stderr
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / size).iterdir()} for size in "12")
    assert one == two and len(one) == 6
