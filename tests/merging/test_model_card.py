"""Model cards keep every fact, their header is valid YAML, and names show as they are."""

import json

import pytest
from huggingface_hub import ModelCard

from merit_jax.merging.merger import UsedWeights
from merit_jax.merging.model_card import branch_card, escape, folder_card, merged_card

NAMES = ["on", "1.0", "a: b", "- c", "d|e", "*f*", "[g](h)", "<i>", "'j\"", "---", "{k}", "null", "long " * 40]
"""Names that mean something else in YAML or Markdown."""

CONFIG = {"partition": {"method": "merit2d"}, "seed": 3, "model": {"path": "models/base: 1|2/"}}
RECORD = {
    "config": CONFIG,
    "partition": {"branches": [{"shares": [[name, 0, 1]]} for name in NAMES]},
    "theta0": "abc",
    "versions": {"python": "3.11"},
}


def header(files):
    """The parsed header of a card."""
    return ModelCard(files["README.md"]).data.to_dict()


def test_a_merged_folder_names_its_models_weights_and_options():
    used = UsedWeights((0.1,) * len(NAMES), mean=False)
    files = folder_card("root/base/", [f"root/{name}" for name in NAMES], "ties", used, {"density": 0.5})
    assert header(files) == {"base_model": "base", "library_name": "transformers", "tags": ["merit", "merge"]}
    text, record = files["README.md"], json.loads(files["merit.json"])
    assert record["models"] == [name.rstrip("/").rsplit("/", 1)[-1] for name in NAMES]
    assert (record["base"], record["merge"], record["options"]) == ("base", "ties", {"density": 0.5})
    assert '`ties` with the options `{"density": 0.5}`' in text
    for name in record["models"]:
        assert f"| {escape(name)} | 0.1 |" in text
    assert "| d\\|e | 0.1 |" in text
    assert "not the weighted mean" in text
    assert all(package in text for package in record["versions"])


def test_a_card_shows_no_weights_where_the_method_uses_none():
    files = folder_card("base", ["a", "b"], "ties", UsedWeights(None, mean=False), {})
    assert json.loads(files["merit.json"])["weights"] is None
    assert "| model |\n| --- |\n| a |\n| b |\n\nThe method uses no weights." in files["README.md"]
    mean = folder_card("base", ["a", "b"], "uniform", UsedWeights((0.5, 0.5), mean=True), {})["README.md"]
    assert "| a | 0.5 |" in mean
    assert "weighted mean" not in mean


def test_a_merge_weighed_by_all_tokens_shows_them():
    record = {
        **RECORD,
        "partition": {"branches": [{"shares": [["on", 0, 1]]}, {"shares": [["null", 0, 1]]}]},
        "weights": [0.25, 0.75],
        "weighted_mean": True,
        "tokens": [5, 6],
        "all_tokens": [100, 300],
        "merge": "token_weighted",
        "missing": {"branches": [], "shares": []},
    }
    text = merged_card(record, ["on", "null"])["README.md"]
    assert "| branch | weight | supervised tokens | all tokens | datasets |" in text
    assert "| 1 | 0.7500 | 6 | 300 | null |" in text
    assert "and averaged once" in text
    text = merged_card({**record, "weights": None, "weighted_mean": False}, ["on", "null"])["README.md"]
    assert "| 1 | 6 | 300 | null |" in text
    assert "and merged once" in text


def test_a_runs_header_has_its_datasets_as_they_are_called():
    record = {
        **RECORD,
        "weights": [1 / len(NAMES)] * len(NAMES),
        "weighted_mean": True,
        "tokens": list(range(len(NAMES))),
        "merge": "uniform",
        "missing": {"branches": [], "shares": []},
    }
    found = header(merged_card(record, NAMES))
    assert found == {
        "base_model": "base: 1|2",
        "datasets": NAMES,
        "library_name": "transformers",
        "tags": ["merit", "merge"],
    }
    text = merged_card(record, NAMES)["README.md"]
    assert "| 4 | 0.0769 | 4 | d\\|e |" in text
    for fact in ("Split: `merit2d`; merge: `uniform`; seed: 3.", "fingerprint: `abc`", "python 3.11", "2606.01717"):
        assert fact in text
    assert "Incomplete" not in text


def test_an_incomplete_merge_names_what_it_lacks():
    record = {
        **RECORD,
        "partition": {"branches": RECORD["partition"]["branches"][:5]},
        "weights": [0.0, 0.2, 0.3, 0.5, 0.0],
        "weighted_mean": True,
        "tokens": [0] * 5,
        "merge": "uniform",
        "missing": {"branches": [0, 4], "shares": [["on", 0, 1], ["d|e", 1, 2]]},
    }
    text = merged_card(record, NAMES)["README.md"]
    assert "branches (numbered from 0), 0, 4 had not finished. Missing datasets: on, d\\|e (2 of 2)." in text
    assert "3 copies of" in text
    assert "\n| 2 | 0.3000 |" in text
    assert "\n| 0 |" not in text


def test_a_branchs_card_lists_its_shares():
    record = {**RECORD, "inputs": {}, "branch": 6, "tokens": 12, "steps": 5}
    files = branch_card(record, NAMES)
    assert "12 supervised tokens in 5 steps of\n\n* \\[g\\](h)\n" in files["README.md"]
    assert "Branch 6 of the split `merit2d`" in files["README.md"]
    assert json.loads(files["merit.json"]) == record


PLACES = {
    "/home/me/models/base": "base",
    "/home/me/my models/base/": "base",
    "~/base": "base",
    "~me/base": "base",
    "C:\\me\\base": "base",
    "gs://bucket/me/base": "base",
    "file:///home/me/a.json": "a.json",
}
KEPT = ["models/base", "https://host/page", "/no_think", "a / b", "/", "", "~", "line /a/b"]


def test_no_card_says_where_on_a_machine_a_file_was():
    for place, name in PLACES.items():
        config = {**CONFIG, "model": {"path": place}, "data": {"train": [place], "kept": KEPT, "n": 1}}
        files = branch_card({**RECORD, "config": config, "inputs": {}, "branch": 6, "tokens": 1, "steps": 1}, NAMES)
        record = json.loads(files["merit.json"])
        assert record["config"]["data"] == {"train": [name], "kept": KEPT, "n": 1}
        assert record["config"]["model"]["path"] == name
        assert place.rstrip("/") not in "".join(files.values())


@pytest.mark.parametrize(
    ("name", "shown"), [("a_b", "a_b"), ("a\nb", "a b"), ("`x`|\\", "\\`x\\`\\|\\\\"), ("a\x1b[2J", r"a\\x1b\[2J")]
)
def test_names_are_escaped(name, shown):
    assert escape(name) == shown
