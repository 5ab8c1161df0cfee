"""The recipes of CONTRIBUTING.md work as they are written."""

import importlib.util
import re
import sys

import pytest

from merit_jax.configs import common
from merit_jax.merging import MERGERS
from merit_jax.models.families.decoders import DecoderFamily
from merit_jax.models.families.registry import FAMILIES, Family
from merit_jax.partition import PARTITIONERS, Partitioner
from tests.support import pages

TEXT = (pages.ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Makes the files of a recipe modules, and returns them by the last part of their name."""

    def add(heading):
        (files,) = pages.files(f"## {RECIPES[heading]}")
        found = {}
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            name = path.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, file)
            found[file.stem] = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, found[file.stem])
            spec.loader.exec_module(found[file.stem])
        return found

    return add


def line(heading, start):
    """The line of a recipe that goes into a table."""
    (found,) = re.findall(rf'^    r?"({start}.*),$', RECIPES[heading], re.MULTILINE)
    return found


def test_a_partitioner(added, monkeypatch):
    modules = added("A partitioner")
    assert line("A partitioner", 'stratified"').endswith("Partitioner(stratified.stratified, uses_gradients=True)")
    partitioner = Partitioner(modules["stratified"].stratified, uses_gradients=True)
    monkeypatch.setitem(PARTITIONERS, "stratified", partitioner)
    modules["test_stratified"].test_each_group_has_low_and_high_scores()
    monkeypatch.setitem(common.METHODS, r"stratified(\d+)", common.Method("stratified"))
    assert common.with_method(common.get_config().unlock(), "stratified4").partition.groups == 4


def test_a_merge_operator(added, monkeypatch):
    modules = added("A merge operator")
    monkeypatch.setitem(MERGERS, "median", modules["median"].MERGERS["median"])
    modules["test_median"].test_each_entry_is_that_of_the_middle_branch()


@pytest.mark.parity
def test_a_model_family(added, monkeypatch, tmp_path):
    from tests.models.families import test_parity

    module = added("A model family")["seed_oss"]
    assert line("A model family", 'seed_oss": Decoder').endswith("DecoderFamily(seed_oss.parse)")
    family = DecoderFamily(module.parse)
    monkeypatch.setitem(FAMILIES, "seed_oss", Family(family.parse, family.rows))
    case = eval(line("A model family", 'seed_oss": {').partition(": ")[2])
    monkeypatch.setitem(test_parity.CASES, "seed_oss", case)
    test_parity.test_logits_of_padded_rows_equal_pytorch(tmp_path, "seed_oss")


def test_a_config(added):
    module = added("A config")["qwen2_5_0_5b_mine"]
    assert module.get_config("random4").partition.method == "random"
    assert all(f"\n{part}:" in module.__doc__ for part in ("Claim", "Cost", "Command"))
