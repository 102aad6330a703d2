"""The benchmarks compare what they say they compare, in sizes that take no time."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from satnp.arrays.backend import find_device
from satnp.arrays.parameters import Parameters
from satnp.captioners import CAPTIONERS
from satnp.data.captions import END
from tests import strict
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import family, gpu, growth, worker, workloads
from tests.benchmarks.loops import LOOPS
from tests.benchmarks.workloads import FAMILY, WORKLOADS

STEP = {"N": 3, "L": 5, "T": 4, "V": 30, "D": 8, "M": 6, "H": 7, "A": 5}
OF_FAMILY = STEP | {"L": 6, "K": 6, "classes": ["a", "b", "c"], "words": [[[4, 5]], [[8, -1], [9, 10]], []]}
PEERED = [name for name in FAMILY if {"eager", "compile"} <= set(WORKLOADS[name]().peers)]
SMALL = {
    "step_paper": STEP, "step_flickr8k": STEP, "squeezenet_b1": {}, "efficientnet_b1": {},
    "conv3x3_backward": {"N": 2, "side": 6, "C": 8}, "small_encoder_step": {"N": 2},
    **dict.fromkeys(("beam3", "beam10"), {"N": 4, "L": 6, "V": 40, "H": 16, "A": 8}), **dict.fromkeys(PEERED, OF_FAMILY),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_every_peer_in_pytorch_has_our_numbers(name):
    pytest.importorskip("torch")
    from tests.benchmarks.peers import PEERS

    workload = WORKLOADS[name](**SMALL[name])
    ours = {key: np.asarray(x) for key, x in workload.ours(workload.inputs())().items()}
    for peer in set(workload.peers) - {"compile", "frame", "loop"}:
        theirs = {key: np.asarray(x) for key, x in PEERS[peer][name](workload.inputs())().items()}
        assert benchmarks.difference(ours, theirs) < 1e-5, peer


def test_no_choice_of_the_small_encoder_is_a_matter_of_rounding():
    workload = WORKLOADS["small_encoder_step"]()
    given, rng = workload.inputs(), np.random.default_rng(1)

    def gradients(relative):
        arrays = {name: x * (1 + relative * rng.standard_normal(x.shape)) for name, x in given["params"].items()}
        found = workload.ours(given | {"params": Parameters.of(arrays), "dout": given["dout"].astype(float)})()
        return {name: np.array(x) for name, x in found.items()}

    assert benchmarks.difference(gradients(1e-6), gradients(0)) < 1e-5  # 4e-3 if one choice changes


def test_a_busy_process_uses_a_core_until_its_limit():
    code = "from time import process_time as t; from tests.benchmarks.busy import main; a = t(); main(0.5); print(t() - a)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert float(process.stdout.read()) > 0.05  # and nearly .5 on an idle machine
        assert process.wait(20) == 0


def test_a_busy_process_ends_when_its_parent_is_killed():
    code = (
        "import subprocess, sys, time\n"
        "busy = [sys.executable, '-c', 'from tests.benchmarks.busy import main; print(1, flush=True); main(60)']\n"
        "subprocess.Popen(busy, stdin=subprocess.PIPE); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"1\n"
        parent.kill()
        parent.communicate(timeout=20)  # the pipe is open until the busy process, which writes to it too, has ended


def test_beside_a_busy_process_there_is_the_peer_with_one_thread(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks, "find_spec", lambda name: True)
    assert benchmarks.peers("beam5", 1) == ("eager", "port", "one") and benchmarks.peers("scores", 1) == ("none",)
    assert "one" not in benchmarks.peers("beam5")
    started = MagicMock()
    monkeypatch.setattr(benchmarks.subprocess, "Popen", started)
    for side in ("ours", "one"):
        benchmarks.Worker("beam5", side, tmp_path, {}).said.close()
    ours, one = (call.kwargs["env"] for call in started.call_args_list)
    assert ours == os.environ and one == os.environ | {"OMP_NUM_THREADS": "1"}


def test_a_row_has_no_numbers_if_its_busy_process_has_ended(monkeypatch):
    monkeypatch.setattr(benchmarks, "command", lambda name: {"ours_s": 1})
    running, ended = (SimpleNamespace(poll=lambda rc=rc: rc) for rc in (None, 1))
    assert benchmarks.row("startup", "none", [running])["ours_s"] == benchmarks.row("startup", "none")["ours_s"] == 1
    row = benchmarks.row("startup", "none", [running, ended])
    assert row["beside"] == 2 and row["ours_s"] is None and "ended before" in row["reason"]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_written_by_hand_has_every_gradient_of_the_frame(name, monkeypatch):
    workload = WORKLOADS[name](**OF_FAMILY)
    given = workload.inputs()
    monkeypatch.setattr(workloads, "COMPARED", [x for x in given["params"] if x != "c_a"])  # its gradient is 0
    ours, loop = workload.ours(given)(), LOOPS[name](workload.inputs())()
    assert len(ours) > 7 and benchmarks.difference(ours, loop) < 1e-5


@pytest.mark.parametrize("name", FAMILY)
def test_every_captioner_has_a_workload(name):
    workload = WORKLOADS[name](**OF_FAMILY)
    found = workload.ours(workload.inputs())()
    if name.startswith("step"):
        assert {"loss", "E"} < set(found) and all(np.linalg.norm(x) > 0 for x in found.values())
    else:
        assert END not in found["ids"][:, : OF_FAMILY["T"] - 1] and np.isfinite(found["log_prob"]).all()


def test_the_table_of_the_family_has_a_line_for_each_captioner(capsys, monkeypatch, tmp_path):
    def compare(name, peer, most=31):
        if peer == "compile":
            raise benchmarks.Failed("no compiler")
        alone = {"ours_s": 12.3456 if name.startswith("step") else 9.87654, "peak_memory_bytes": 2**30}
        return alone if peer == "none" else alone | {"ratio": 0.5, "spread": 0.01, "max_relative_error": 1e-6}

    monkeypatch.setattr(benchmarks, "compare", compare)
    monkeypatch.setattr(benchmarks, "find_spec", lambda name: True)
    monkeypatch.setattr(family, "machine", str)
    family.main(["--json", str(tmp_path / "rows.json")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == ["captioner", *CAPTIONERS]
    (top_down,) = (line for line in lines if line.startswith("top_down"))
    assert top_down.split()[1:] == ["12,345.6", "1,024", "9,876.5", "0.50", "-", "0.50", "0.01", "1e-06"]
    assert "    step_top_down, compile: no compiler" in lines
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["name"] for row in rows} == set(FAMILY) and all(tuple(row) == benchmarks.FIELDS for row in rows)


def test_the_table_of_the_family_refuses_an_unknown_captioner(capsys):
    with pytest.raises(SystemExit):
        family.main(["show_and_sell"])
    assert "there is no captioner 'show_and_sell'; choose from show_attend_tell, " in capsys.readouterr().err


@pytest.mark.slow
def test_a_loop_written_by_hand_is_compared_in_a_process_of_its_own():
    found = benchmarks.compare("step_show_and_tell", "loop", 2, 2, **OF_FAMILY)
    assert found["ratio"] > 0 and found["max_relative_error"] < 1e-5


@pytest.mark.slow
def test_a_workload_alone_has_time_rate_and_memory():
    found = benchmarks.compare("step_paper", "none", 2, 2, **STEP)
    assert found["ours_s"] > 0 and found["gflops"] > 0 and found["sgemm_share"] > 0
    assert found["peak_memory_bytes"] is None or 0 < found["peak_memory_bytes"] < 1e8


def test_what_is_missing_or_fails_is_said_in_the_row(monkeypatch):
    monkeypatch.setattr(benchmarks, "find_spec", lambda name: None)
    assert benchmarks.peers("step_paper") == ("eager", "compile", "port", "frame", "none")
    row = benchmarks.row("step_paper", "eager")
    assert tuple(row) == benchmarks.FIELDS and "bench" in row["reason"] and row["ratio"] is None
    monkeypatch.setattr(benchmarks, "find_spec", lambda name: True)
    monkeypatch.setattr(benchmarks.shutil, "which", lambda name: None)
    assert "g++" in benchmarks.row("step_paper", "compile")["reason"]
    monkeypatch.setattr(benchmarks.sys, "executable", "false")
    assert "without a message" in benchmarks.row("scores", "none")["reason"]


def test_other_numbers_are_no_comparison():
    x = {"a": np.ones(3), "b": np.ones(4)}
    assert benchmarks.difference(x, x) == 0
    for other in ({"a": np.ones(3)}, x | {"b": np.array([1, 1, 1, 1.01])}, x | {"a": np.full(3, np.nan)}):
        with pytest.raises(benchmarks.Failed, match="different results"):
            benchmarks.difference(x, other)


def test_operations_are_those_of_the_plain_sums():
    assert WORKLOADS["vgg19_b8"]().flops == 8 * WORKLOADS["vgg19_b1"]().flops == pytest.approx(8 * 2 * 19.51e9, rel=1e-3)
    assert WORKLOADS["step_paper"]().flops == pytest.approx(126e9, rel=5e-3)
    photo = 32**2 * (25 * 3 * 16 + 9 * 16 * 32) + 16**2 * 9 * 32 * 64 + 8**2 * 9 * 66 * 128
    assert WORKLOADS["small_encoder_step"]().flops == 2 * 32 * (3 * photo - 32**2 * 25 * 3 * 16)


def test_captions_of_the_beam_search_end_by_themselves_at_several_lengths():
    workload = WORKLOADS["beam3"](N=8, V=40, H=16, A=8)
    ends = [row.tolist().index(END) for row in workload.ours(workload.inputs())()["ids"]]
    assert 5 < min(ends) < max(ends) < 19


def test_growth_finds_the_exponents_of_what_it_measures(monkeypatch, tmp_path):
    def compare(name, peer, least, most, N, L, T, V, H):
        return {"ours_s": 1e-3 * N * T**0.5, "theirs_s": 1e-3 * V**2}

    monkeypatch.setattr(growth, "compare", compare)
    monkeypatch.setattr(growth, "peers", lambda name: ("eager",))
    growth.main(growth.PAPER, tmp_path)
    said = (tmp_path / "growth.md").read_text().replace("-0.00", "0.00")
    for row in ("N | 16, 128 | 1.00 | 0.00 |", "T | 5, 40 | 0.50 | 0.00 |", "V | 2,500, 20,000 | 0.00 | 2.00 |"):
        assert row in said
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_command_writes_its_rows(tmp_path):
    line = [sys.executable, "-m", "tests.benchmarks", "startup", "--beside", "1", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "startup" in done.stdout and "1 busy beside" in done.stdout
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert tuple(row) == benchmarks.FIELDS and row["name"] == "startup" and row["beside"] == 1 and 0 < row["ours_s"] < 60


def test_an_unknown_name_and_fewer_than_no_processes_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmarks.main(["step"])
    assert "step_paper" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmarks.main(["startup", "--beside", "-1"])
    assert "--beside is -1; choose 0 to" in capsys.readouterr().err


def test_the_gpus_benchmark_says_in_a_sentence_that_there_is_none():
    if find_device("auto")[0] is not np:
        pytest.skip("there is a GPU here")
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.gpu"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("--device cuda was asked for, but ") and done.stderr.count("\n") == 1


def test_the_gpus_benchmark_measures_the_stand_in_too(monkeypatch):
    monkeypatch.setitem(WORKLOADS, "step_paper", partial(WORKLOADS["step_paper"], **STEP))
    monkeypatch.setattr(gpu, "_rates", lambda xp: (1e9, 1e9))
    pool = SimpleNamespace(total_bytes=lambda: 2**21, free_all_blocks=lambda: None)
    xp = SimpleNamespace(asarray=strict.asarray, cuda=MagicMock(), get_default_memory_pool=lambda: pool)
    row = gpu.measure(xp, "step_paper", "ours")
    line = gpu.shown("step_paper", "ours", "0", row, row["norms"])
    assert re.fullmatch(r"\| step_paper \| satnp, float32 \| [\d.]+ \| [\d,]+ \| 0\.\d\d \| 2 \|", line)
    assert set(row["norms"]) == {"loss", "W_h", "L_o", "W_a", "E"}
    of_another = gpu.shown("step_paper", "eager", "1", row, row["norms"] | {"E": 1.1 * row["norms"]["E"]})
    assert of_another == "| step_paper | PyTorch, eager, TF32 | different results: E | | | |"
    numbers = re.findall(r"\d+\.\d\d", gpu.sent_anew(xp))
    assert len(numbers) == 4 and all(float(x) > 0 for x in numbers)


@pytest.mark.parametrize("name", ["step_paper", "small_encoder_step", "beam3"])
def test_a_workload_runs_on_a_device_as_it_does_here(name):
    workload = WORKLOADS[name](**SMALL[name])
    here = workload.ours(workload.inputs())()
    there = workload.ours(gpu.on_device(workload.inputs(), strict))()
    there = {key: x.get() if isinstance(x, strict.ndarray) else x for key, x in there.items()}
    assert benchmarks.difference({key: np.asarray(x) for key, x in here.items()}, there) < 1e-5


@pytest.mark.parametrize("numbers", ["", ".npz", "numbers"])
def test_a_worker_refuses_a_file_without_a_name(numbers, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="give the name of an .npz file"):
        worker.main("conv3x3_backward", "ours", numbers)
    assert not list(tmp_path.iterdir())
