"""The paper's values are read from a file that names methods as an experiment does."""

import json

import pytest

from merit_jax.launch.experiments.paper_values import read_paper_values
from tests.support.pages import ROOT


def test_numbers_and_texts_are_shown_as_they_are_written(tmp_path):
    content = {"theta0": 53.7, "merit2d": "55.7", "merit2d:merge.method=ties": 50.0, "kmeans4": "56.4 (MERIT-2D: 56.6)"}
    (tmp_path / "paper.json").write_text(json.dumps(content))
    assert read_paper_values(tmp_path / "paper.json") == {
        **content,
        "theta0": "53.7",
        "merit2d:merge.method=ties": "50.0",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is no JSON object"),
        ('{"merrit2d": 1}', "unknown method 'merrit2d'"),
        ('{"joint": [1]}', r"joint: expected a number or a text, got \[1\]"),
        ('{"joint": true}', "joint: expected a number or a text, got True"),
    ],
)
def test_a_mistake_names_the_file_and_the_method(tmp_path, text, message):
    (tmp_path / "paper.json").write_text(text)
    with pytest.raises(ValueError, match=rf"--paper: .*paper\.json.*{message}"):
        read_paper_values(tmp_path / "paper.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--paper: there is no file .*none\.json"):
        read_paper_values(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["paper_3b.json", "paper_7b_operators.json"])
def test_the_values_that_are_shipped_can_be_read(name):
    assert read_paper_values(ROOT / "docs" / "results" / name)
