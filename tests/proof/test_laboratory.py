"""The laboratory: the table is what enumeration says, and the command writes all of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from satnp.cli import main
from satnp.data import datasets
from satnp.proof import laboratory
from satnp.training.presets import PRESETS
from satnp.training.trainer import read_log

UNBIASED = "reinforce", "reward_to_go", "local_expectation"
FIGURES = "variance.png", "curves.png", "soft_and_hard.png", "nwgm.png"


@pytest.fixture(scope="module")
def rows():
    return laboratory.table()


def find(rows, estimator, baseline="none", S=2):
    (row,) = (r for r in rows if (r.estimator, r.baseline, r.samples) == (estimator, baseline, S))
    return row


@pytest.mark.slow
def test_every_estimator_has_its_rows(rows):
    assert {row.estimator for row in rows} == {*UNBIASED, "reinforce_coin", "gumbel_st", "soft", "reinforce_whole"}
    assert {row.baseline for row in rows} == {"none", "moving_average", "leave_one_out"}
    assert min(row.samples for row in rows if row.baseline == "leave_one_out") == 2
    assert len({row[:2] + row[-1:] for row in rows}) == len(rows)
    for row in rows:
        assert (row.bias_ci is None) == (row.bias_kind == "exact") == (row.estimator != "gumbel_st")


@pytest.mark.slow
def test_bias_is_where_it_should_be(rows):
    for row in rows:
        if row.estimator in UNBIASED:
            assert row.bias <= 1e-12
    assert find(rows, "reinforce_coin").bias == pytest.approx(find(rows, "soft", S=1).bias / 2, rel=1e-9)
    assert 1e-3 < find(rows, "reinforce_whole").bias < find(rows, "gumbel_st").bias < find(rows, "soft", S=1).bias < 1
    assert find(rows, "soft", S=1).variance == 0


@pytest.mark.slow
def test_variance_falls_with_S_and_with_a_baseline(rows):
    for estimator in (*UNBIASED, "gumbel_st"):
        assert find(rows, estimator, S=32).variance == pytest.approx(find(rows, estimator, S=1).variance / 32, rel=1e-9)
    for estimator in UNBIASED:
        left = [find(rows, estimator, "leave_one_out", S).variance * S for S in (2, 4, 8, 16, 32)]
        assert left == sorted(left, reverse=True)  # the others' mean comes nearer to E[r]
        assert left[0] < 0.1 * find(rows, "reinforce", S=1).variance
    # one coin for all S samples of an image
    assert find(rows, "reinforce_coin", S=32).variance > find(rows, "reinforce_coin", S=1).variance / 32


@pytest.mark.slow
def test_the_sampled_bias_has_an_honest_interval(rows, monkeypatch):
    row = find(rows, "gumbel_st")
    low, high = row.bias_ci
    assert low < row.bias < high < 1.05 * low
    monkeypatch.setattr(laboratory, "DRAWS", (1000, 100))
    world = laboratory.small_world(estimator="gumbel_st")
    other = laboratory._gumbel_rows(world, laboratory.exact_gradient(world), seed=5)[0]
    assert other.bias == pytest.approx(row.bias, abs=4 * (high - low))
    assert other.variance == pytest.approx(find(rows, "gumbel_st", S=1).variance, rel=0.2)


@pytest.mark.slow
def test_the_error_of_a_mean_falls_as_one_over_the_root_of_S():
    assert laboratory.convergence() == pytest.approx(-0.5, abs=0.05)


@pytest.mark.slow
def test_the_report_fits_a_terminal(rows):
    lines = list(laboratory.report(rows))
    assert len(lines) == 1 + 3 * 4 + 3 + 3 and max(map(len, lines)) <= 80
    assert lines[1].split()[:2] == ["reinforce", "none"] and lines[1].endswith(" 1.0000")


@pytest.mark.slow
def test_the_command_writes_everything(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(laboratory, "table", lambda seed: rows)
    monkeypatch.setattr(laboratory, "convergence", lambda seed: -0.49)
    small = replace(PRESETS["scenes"], config=PRESETS["scenes"].config | {"M": 8, "H": 12, "A": 6})
    monkeypatch.setitem(PRESETS, "scenes", small)
    monkeypatch.setattr(datasets, "SCENES", {"train": 16, "val": 6, "test": 2})
    monkeypatch.setattr(laboratory, "DRAWS", (20, 50))
    starts, make = [], laboratory.new_model

    def noted(preset, train):
        model = make(preset, train)
        starts.append((model.config, model.params.flat.copy()))
        return model

    monkeypatch.setattr(laboratory, "new_model", noted)
    assert main(["estimators", "--out", str(tmp_path)]) == 0
    for (config, flat), (name, choices) in zip(starts, laboratory.CURVES.items(), strict=True):
        np.testing.assert_array_equal(flat, starts[0][1])
        assert config.hard == (name != "soft") and (config.coin == "none") == (name not in ("soft", "reinforce_coin"))
        assert config.estimator == choices.get("estimator", config.estimator)
    assert len(json.loads((tmp_path / "nwgm.json").read_text())) == 4
    written = json.loads((tmp_path / "estimators.json").read_text())
    assert {tuple(row) for row in written} == {laboratory.Row._fields}
    assert all(np.isfinite([row["bias"], row["variance"]]).all() for row in written)
    for name in FIGURES:
        assert min(Image.open(tmp_path / name).size) > 200
    logs = [read_log(tmp_path / "curves" / name / "metrics.jsonl") for name in laboratory.CURVES]
    assert all(records[-1]["kind"] == "val" for records in logs)
    monkeypatch.setattr(laboratory, "CURVES", {name: laboratory.CURVES[name] for name in ("soft", "reinforce")})
    assert main(["estimators", "--out", str(tmp_path)]) == 0  # it may be run again
    out = capsys.readouterr().out
    assert "falls as S^-0.49" in out and "soft_and_hard.png" in out


def test_the_command_leaves_the_trainings_of_others_alone(tmp_path, capsys):
    (tmp_path / "curves").mkdir()
    assert main(["estimators", "--out", str(tmp_path)]) == 2
    assert "curves was not written by this command; give another folder with --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["curves"]
