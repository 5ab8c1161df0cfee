"""The reference has every command, flag, configuration key and manifest key, and its examples are right."""

import json
import re

import pytest

from docs.generate import api, commands, config_keys, mathml
from merit_jax.configs import common
from merit_jax.data import manifest
from merit_jax.data.column_map import IMAGES
from merit_jax.data.formats import FORMATS, TOOLS, VIDEOS, detect, to_record
from merit_jax.data.messages import FIELDS, REASONINGS, ROLES, TURN_FLAGS, UNUSED
from merit_jax.data.records import read_entry
from merit_jax.data.row_fields import MARKS, REFUSED
from merit_jax.merging import MERGERS
from merit_jax.merging.options import declared_options
from tests.support import hub_cache, pages

MANIFESTS = (pages.DOCS / "reference/manifest.md").read_text()
FORMATS_PAGE = (pages.DOCS / "reference/data_formats.md").read_text()


def test_every_command_and_flag_is_in_the_reference():
    page = commands.page()
    assert {path.stem for path in (pages.ROOT / "launch").glob("*.py")} - {"__init__"} == set(commands.COMMANDS)
    for name in commands.COMMANDS:
        section = page.partition(f"\n## merit {name}\n")[2].partition("\n## ")[0]
        assert "\nmerit " in section, name
        with commands.defined_flags(name) as own:
            assert [flag for flag in own if f"| `--{flag}` |" not in section] == [], name


def test_every_configuration_key_has_its_default_and_a_meaning():
    page, config = config_keys.page(), common.get_config()
    flat = {
        f"{section}.{key}" if hasattr(inner, "items") else section: value
        for section, inner in config.items()
        for key, value in (inner.items() if hasattr(inner, "items") else [("", inner)])
    }
    for name, value in flat.items():
        row = re.search(rf"^\| `{re.escape(name)}` \| `([^|]*)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
        assert row, f"{name} is not in the reference, or has no comment in configs/common.py"
        assert row[1] == repr(value)
    assert page.count("\n| `") == len(flat) + len(common.METHODS)


def test_every_method_is_in_the_reference_and_the_guide():
    guide = (pages.DOCS / "guides/experiments.md").read_text()
    names = re.findall(r"`(\w+)`", guide.partition("## Methods")[2].partition("## Budgets")[0])
    for pattern in common.METHODS:
        assert any(re.fullmatch(pattern, name) for name in names), pattern


def test_every_manifest_key_is_documented():
    keys = {*manifest.OUR_KEYS, *manifest.OTHER_KEYS, *manifest.REMOTE_KEYS, *manifest.COLUMNS, *manifest.TAGS}
    rows = "\n".join(line.split("|")[1] for line in MANIFESTS.splitlines() if line.startswith("|"))
    assert [key for key in sorted(keys) if f"`{key}`" not in rows] == []


def hub_of(files, cache):
    """A cache with the datasets of the hub that a manifest names alone, each with a row in its splits."""
    import yaml

    for name in files.keys() & {"mixture.yaml", "dataset_info.json"}:
        for entry in yaml.safe_load(files[name]).values():
            if "file_name" not in entry:
                splits = {split: f"{split}.jsonl" for split in (entry["split"], entry["eval_split"])}
                data = [{"split": split, "path": file} for split, file in splits.items()]
                card = yaml.safe_dump({"configs": [{"config_name": entry["subset"], "data_files": data}]})
                found = dict.fromkeys(splits.values(), b'{"inputs": "a", "targets": "b"}\n')
                found["README.md"] = f"---\n{card}---\n".encode()
                hub_cache.add(
                    cache, entry["hf_hub_url"], found, kind="dataset", ref=entry["hf_revision"], listed=tuple(found)
                )


def written(files, folder):
    """The manifest among the files, all of them written."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (name,) = files.keys() & {"mixture.yaml", "dataset_info.json"}
    return str(folder / name)


@pytest.mark.parametrize("files", pages.files(MANIFESTS), ids=lambda files: ",".join(files))
def test_an_example_of_a_manifest_is_read(files, tmp_path, monkeypatch):
    hub_of(files, hub_cache.use(tmp_path / "hub", monkeypatch))
    entries = manifest.read_manifest(written(files, tmp_path))
    assert entries
    for entry in entries:
        assert read_entry(entry)
        assert not entry.held_out_files or read_entry(entry._replace(files=entry.held_out_files))


def test_every_manifest_key_is_in_an_example():
    import yaml

    used = set()
    for files in pages.files(MANIFESTS):
        for name in files.keys() & {"mixture.yaml", "dataset_info.json"}:
            for entry in yaml.safe_load(files[name]).values():
                used |= {*entry, *entry.get("columns", ()), *entry.get("tags", ())}
    known = {*manifest.OUR_KEYS, *manifest.OTHER_KEYS, *manifest.REMOTE_KEYS, *manifest.COLUMNS, *manifest.TAGS}
    assert used == known


def test_every_format_has_an_example_that_is_read():
    for name in set(FORMATS) - {"openai"}:
        section = FORMATS_PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        (example,) = re.findall(r"^```json\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        row = json.loads(example)
        assert to_record(name, row, "page:1") == to_record(detect(row, "page:1"), row, "page:1")


def test_examples_of_turns_are_read():
    section = FORMATS_PAGE.partition("\n## Turns\n")[2].partition("\n## ")[0]
    rows = [json.loads(example) for example in re.findall(r"^```json\n(.*?)^```", section, re.DOTALL | re.MULTILINE)]
    called, flagged = (to_record(detect(row, "page:1"), row, "page:1") for row in rows)
    assert called.tools == (rows[0]["tools"][0],)
    assert called.messages[1]["tool_calls"][0]["function"]["arguments"] == {"town": "Bergen"}
    assert [message.get("train", True) for message in flagged.messages] == [True, False, True, True]


def test_every_field_that_is_read_or_refused_is_documented():
    names = {*TURN_FLAGS, *REASONINGS, *REFUSED, *MARKS, *ROLES, *UNUSED, *VIDEOS, *IMAGES, *TOOLS}
    names |= {name for fields in FIELDS.values() for name in fields}
    assert [name for name in sorted(names) if f"`{name}`" not in FORMATS_PAGE] == []


def test_examples_of_a_runs_files_are_json_and_name_what_a_run_writes(finished):
    text = (pages.DOCS / "reference/files.md").read_text()
    for example in re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        json.loads(example)
    workdir = finished.workdir
    written = {
        "## mixture.json": json.loads(workdir.mixture.read_text()),
        "## gradients/index.json": json.loads(workdir.gradient_index.read_text()),
        "## partition.json": json.loads(workdir.partition.read_text()),
        "## merged/merge.json": json.loads(workdir.merge_record.read_text()),
        "## projection.json": json.loads(workdir.projection.read_text()),
        "## evaluation.json": json.loads(workdir.evaluation.read_text()),
        "`metrics.jsonl`, one line:": json.loads(workdir.branch_metrics(0).read_text().splitlines()[0]),
        "`host.json`:": json.loads(workdir.branch_host(0).read_text()),
        "`done.json`:": json.loads(workdir.branch_done(0).read_text()),
    }
    for heading, content in written.items():
        example = json.loads(re.search(r"^```json\n(.*?)^```", text.partition(heading)[2], re.DOTALL | re.MULTILINE)[1])
        assert shape(example) <= shape(content), heading


def shape(value, path=""):
    """Paths of the keys of nested objects, names of datasets, models and branches left out."""
    if isinstance(value, list):
        return set().union(*(shape(item, path) for item in value))
    if not isinstance(value, dict):
        return set()
    named = ("datasets", "models", "questions", "loss_by_dataset", "count_by_dataset")
    own = {key: "*" if path.rsplit("/", 1)[-1] in named else key for key in value}
    return {f"{path}/{key}" for key in own.values()}.union(*(shape(v, f"{path}/{own[k]}") for k, v in value.items()))


def test_every_package_has_a_page_of_the_python_api():
    for name in api.PACKAGES:
        assert f"::: merit_jax.{name}." in api.package(name)


def test_mathematics_becomes_mathml():
    page = r'a <span class="arithmatex">\(x &lt; y\)</span> b <div class="arithmatex">\[\sum_k w_k\]</div>'
    assert mathml.render(page).count("<math") == 2
    assert "arithmatex" not in mathml.render(page)
    assert mathml.render("no mathematics") == "no mathematics"


def test_every_merge_operator_is_documented_with_its_options():
    text = (pages.DOCS / "concepts/merge_operators.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", text, re.MULTILINE))
    assert set(MERGERS) <= set(rows)
    for name, merger in MERGERS.items():
        inherited = "those of both" in rows[name]
        assert inherited or all(f"`{option}`" in rows[name] for option in declared_options(merger.leaf)), name
