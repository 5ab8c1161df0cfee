"""The README's merge command is the run's merge, as far as folders alone can be merged so."""

import shlex

import pytest

from docs.generate.commands import parse
from merit_jax.launch.emitting.readme import merge_command, unsaid_of_merge
from tests.support import world

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections


def asked(root, **changes):
    """(the flags of the command, what it does otherwise) for a config."""
    config = world.config(root, "random2")
    config.update_from_flattened_dict(changes)  # after the method, which sets the merge of the paper
    name, *words = shlex.split(merge_command(config, "/models/my base", 2).removeprefix("merit "))
    return parse(name, words), list(unsaid_of_merge(config))


def test_models_weigh_by_the_partition(tmp_path):
    flags, notes = asked(tmp_path)
    assert (flags["base"], flags["models"]) == ("/models/my base", ["branch-0/model-0", "branch-1/model-1"])
    assert (flags["partition"], flags["method"], notes) == ("partition.json", "token_weighted", [])


def test_another_method_keeps_its_options_and_takes_no_weights_that_it_does_not_use(tmp_path):
    flags, notes = asked(tmp_path, **{"merge.method": "ties", "merge.options": '{"density": 0.5}'})
    assert (flags["method"], flags["options"], flags["partition"], notes) == ("ties", '{"density": 0.5}', None, [])
    weighted = '{"weighted_mean": true}'
    assert asked(tmp_path, **{"merge.method": "ties", "merge.options": weighted})[0]["partition"] == "partition.json"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge.method": "fisher"}, "merge.method = 'fisher' needs more than the trained folders"),
        ({"merge.search_evaluations": 9}, "merge.search_evaluations = 9 needs more"),
        ({"merge.tokens": "all"}, "the partition counts supervised tokens"),
    ],
)
def test_what_folders_cannot_be_merged_by_is_said(tmp_path, changes, said):
    flags, (note,) = asked(tmp_path, **changes)
    assert said in note
    assert (flags["method"], flags["partition"]) == ("token_weighted", "partition.json")
