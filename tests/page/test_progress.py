"""The page of a training: its numbers, and when it reloads itself."""

import numpy as np
import pytest

from satnp.page.progress import POINTS, RELOAD, write_progress
from tests.page.pages import page_data


def records(steps=40):
    """Of a training whose loss falls by .01 a line, with a validation after every ten."""
    found = []
    for step in range(1, steps + 1):
        found.append({"kind": "train", "step": step, "epoch": step / 10, "loss": 5 - 0.01 * step, "alpha_entropy": 2.0})
        if step % 10 == 0:
            found.append({"kind": "val", "step": step, "epoch": step / 10, "nll": 4.0, "Bleu_4": step / 100, "CIDEr": 0.5,
                          "tokeniser": "coco"})  # fmt: skip
    return found


def lines(path):
    return {(chart["title"], line["name"]): line["points"] for chart in page_data(path)["charts"] for line in chart["lines"]}


def test_the_page_has_the_loss_and_the_scores_by_epoch(tmp_path):
    write_progress(tmp_path / "p.html", records(), "runs/soft", 40, 100, "running", best=20)
    found = lines(tmp_path / "p.html")
    assert found.keys() == {("Loss", "training"), ("Loss", "validation"), ("Validation scores", "BLEU-4"),
                            ("CIDEr", "validation"), ("Attention", "entropy of alpha")}  # fmt: skip
    assert found["Loss", "training"] == [[round(k / 10, 4), round(5 - 0.01 * k, 5)] for k in range(1, 41)]
    assert found["Validation scores", "BLEU-4"] == [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.4]]
    data = page_data(tmp_path / "p.html")
    assert data["columns"] == ["loss", "BLEU-4", "CIDEr"] and (data["step"], data["steps"]) == (40, 100)
    assert [row["best"] for row in data["rows"]] == [False, True, False, False]
    assert data["rows"][1]["scores"] == [4, 0.2, 0.5]


def test_many_points_are_averaged_and_all_of_them_count(tmp_path):
    write_progress(tmp_path / "p.html", records(3 * POINTS - 1), "x", 1, 1, "finished")
    points = np.array(lines(tmp_path / "p.html")["Loss", "training"])
    assert len(points) == POINTS
    np.testing.assert_allclose(points[0], [0.2, 4.98])  # of the steps 1 to 3
    np.testing.assert_allclose(points[-1], [119.85, 5 - 0.01 * 1198.5], atol=1e-4)


@pytest.mark.parametrize("state", ["running", "finished", "interrupted"])
def test_only_the_page_of_a_running_training_reloads_itself(tmp_path, state):
    write_progress(tmp_path / "p.html", [], "x", 0, 9, state)
    data = page_data(tmp_path / "p.html")
    assert data["reload"] == (RELOAD if state == "running" else None) and data["charts"] == []


def test_what_is_no_number_is_left_out_and_the_name_stays_text(tmp_path):
    odd = [{"kind": "train", "step": 1, "epoch": 0.5, "loss": float("nan")},
           {"kind": "val", "step": 1, "epoch": 0.5, "nll": "x"},
           {"kind": "train", "step": 2, "loss": 1.0}, {"kind": "val", "step": 2, "epoch": 1.0, "nll": 3.5}]  # fmt: skip
    write_progress(tmp_path / "p.html", odd, "</title><script>", 2, 2, "finished")
    assert lines(tmp_path / "p.html") == {("Loss", "validation"): [[1, 3.5]]}
    assert [row["scores"] for row in page_data(tmp_path / "p.html")["rows"]] == [[None], [3.5]]
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count("<script") == 2 and "<title>Training &lt;/title&gt;&lt;script&gt;</title>" in text
