"""What a comparison trains, what it merges again, and which budgets it refuses."""

import pytest
from etils import epath

from merit_jax.configs import common
from merit_jax.launch.experiments import runner
from merit_jax.launch.experiments.budgets import budget, check_budgets, check_tokens
from merit_jax.launch.experiments.methods import format_method, plan_comparison, training_of

ROOT = epath.Path("/nowhere")
AGAIN = 'merit2d:merge.method=ties,merge.options={"density":0.2,"scale":1}'


@pytest.fixture
def config():
    return common.with_method(common.get_config(), "merit2d")


def test_methods_that_differ_in_the_merge_alone_are_trained_once(config):
    found = plan_comparison(config, ["merit2d", AGAIN, "merit2d:merge.method=uniform", "joint", "wise"], ROOT)
    assert list(found.trained) == ["merit2d", "joint"]
    assert list(found.merged) == ["merit2d", AGAIN, "merit2d:merge.method=uniform", "joint", "wise"]
    assert [found.trainer[name] for name in found.merged] == ["merit2d"] * 3 + ["joint"] * 2
    branches = {name: task.config.merge.branches for name, task in found.merged.items()}
    home = str(found.trained["merit2d"].root)
    assert branches == {"merit2d": "", AGAIN: home, "merit2d:merge.method=uniform": home, "joint": ""} | {
        "wise": str(found.trained["joint"].root)
    }
    assert len({task.root for task in found.merged.values()}) == 5
    assert found.merged["wise"].config.merge.match == home
    assert found.merged[AGAIN].config.merge.options == '{"density":0.2,"scale":1}'


def test_a_method_that_is_merged_again_is_trained_whether_it_is_listed_or_not(config):
    found = plan_comparison(config, [AGAIN], ROOT)
    assert list(found.trained) == ["merit2d"]
    assert found.trained["merit2d"].root == plan_comparison(config, ["merit2d"], ROOT).trained["merit2d"].root


def test_the_branches_of_the_run_itself_are_not_trained_again(config):
    own = ROOT / "run"
    found = plan_comparison(config, ["merit2d", AGAIN, "merit2d:train.epochs=2", "joint", "wise"], ROOT, own=own)
    assert found.trained["merit2d"].root == own
    assert found.trained["merit2d:train.epochs=2"].root != own
    assert found.merged["merit2d"].root != own
    assert found.merged[AGAIN].config.merge.branches == found.merged["merit2d"].config.merge.branches == str(own)
    assert found.merged["wise"].config.merge.match == str(own)


def test_a_method_that_is_listed_twice_is_one(config):
    assert list(plan_comparison(config, ["joint", "random2", "joint"], ROOT).merged) == ["joint", "random2"]


def test_a_method_is_compared_with_any_partition_of_the_random_split_into_as_many_branches(config):
    found = runner.plans(plan_comparison(config, ["merit2d", "merit1d", "random4:partition.seed=3"], ROOT), ())
    assert list(found) == ["theta0", "merit2d", "merit1d", "random4"]
    assert [plan.random for plan in found.values()] == [None, "random4", None, None]


def test_a_method_is_compared_with_the_random_split_of_its_own_training_and_merge(config):
    long, ties = "merit2d:train.epochs=4", "merit2d:merge.method=ties"
    listed = ["merit2d", long, ties, "random4", "random4:train.epochs=4", "random4:partition.seed=1,train.epochs=4"]
    found = runner.plans(plan_comparison(config, listed, ROOT), listed[1:2])
    rivals = [found[name].random for name in ("merit2d", long, ties, "random4", "random4:train.epochs=4")]
    assert rivals == ["random4", "random4:train.epochs=4", "random4", None, None]
    found = runner.plans(plan_comparison(config, [*listed, "random4:merge.method=ties"], ROOT), ())
    assert found[ties].random == "random4:merge.method=ties"


@pytest.mark.parametrize(
    ("spec", "methods", "training"),
    [
        ("wise", ["joint:train.epochs=2", "joint", "wise"], "joint"),
        ("wise", ["joint:train.epochs=2", "wise"], "joint:train.epochs=2"),
        ("wise:train.learning_rate=1e-3", ["joint", "wise"], "joint:train.learning_rate=1e-3"),
        ("soup2:merge.method=token_weighted,train.epochs=2", [], "soup2:train.epochs=2"),
    ],
)
def test_whose_branches_a_method_merges(spec, methods, training):
    assert training_of(spec, methods) == training


def test_wise_trains_by_the_recipe_of_its_joint_run_and_matches_the_model_it_names(config):
    specs = ["joint:train.learning_rate=0.5", "random4", "merit2d", "wise", "wise:merge.match=random4"]
    found = plan_comparison(config, specs, ROOT)
    assert found.merged["wise"].config.train.learning_rate == 0.5
    assert found.merged["wise:merge.match=random4"].config.merge.match == str(found.merged["random4"].root)
    fixed = plan_comparison(config, ["joint", 'wise:merge.options={"scale": 0.5}'], ROOT)
    assert fixed.merged['wise:merge.options={"scale": 0.5}'].config.merge.match == ""


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["joint", "wise"], r"method 'wise' moves theta0 as far as 'merit2d' does, which is not among .* one of joint"),
        (["merit2d", "wise"], r"list 'joint' among the methods"),
        (["joint", "wise:merge.match=random4"], r"as far as 'random4' does, which is not among the methods"),
    ],
)
def test_a_wise_control_that_lacks_something_is_refused(config, specs, said):
    with pytest.raises(ValueError, match=said):
        plan_comparison(config, specs, ROOT)


def test_a_method_in_rounds_has_a_training_of_its_own_for_every_merge(config):
    specs = ["merit2d", "merit2d:rounds.count=2", "merit2d:rounds.count=2,merge.method=uniform", "joint", "wise"]
    found = plan_comparison(config, specs, ROOT, own=ROOT / "run")
    assert list(found.trained) == specs[:4]
    assert [found.trainer[name] for name in specs] == [*specs[:4], "joint"]
    assert found.trained["merit2d"].root == ROOT / "run"
    for name in specs[1:3]:
        assert (
            found.trained[name].root
            == found.merged[name].root
            == plan_comparison(config, [name], ROOT).merged[name].root
        )
        assert found.merged[name].config.merge.branches == ""
    check_budgets({name: task.config for name, task in found.merged.items()})
    plans = runner.plans(plan_comparison(config, [*specs, "random4", "random4:rounds.count=2"], ROOT), ())
    assert plans["merit2d"].random == "random4"
    assert plans["merit2d:rounds.count=2"].random == "random4:rounds.count=2"
    assert plans["merit2d:rounds.count=2"].passes == plans["joint"].passes


def test_a_run_in_rounds_has_joint_training_without_them_as_its_baseline(config):
    rounds = common.variant(config, "merit2d:rounds.count=4")
    found = plan_comparison(rounds, ["joint", "wise", "merit2d:rounds.count=1"], ROOT, own=ROOT / "run")
    assert {name: task.config.rounds.count for name, task in found.merged.items()} == dict.fromkeys(found.merged, 1)
    assert found.merged["wise"].config.merge.match == str(ROOT / "run")
    assert all(task.root != ROOT / "run" for task in found.trained.values())
    with pytest.raises(
        ValueError, match=r"'wise:rounds\.count=2' moves theta0 towards the branch of 'joint:rounds\.count=2'"
    ):
        plan_comparison(config, ["joint", "merit2d", "wise:rounds.count=2"], ROOT)


def test_methods_have_folders_of_their_own(config):
    specs = [f"merit2d:merge.branches=a{mark}b" for mark in "!?*/"]
    specs += ["random4:partition.seed=1", "merit2d:" + ",".join(f"train.eps=1e-{i}" for i in range(40))]
    names = [task.root.name for task in plan_comparison(config, specs, ROOT).merged.values()]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 130
    assert all(task.root.parent == ROOT for task in plan_comparison(config, specs, ROOT).merged.values())


def configs(config, specs):
    return {name: task.config for name, task in plan_comparison(config, specs, ROOT).merged.items()}


def test_budgets_that_differ_are_refused_by_name(config):
    found = configs(config, ["joint", "merit2d", "wise", "joint:train.epochs=2", "random4:train.epochs=0.5"])
    said = (
        r"0\.5 for random4:train\.epochs=0\.5; 1 for joint, merit2d, wise; 2 for joint:train\.epochs=2\. .*--controls"
    )
    with pytest.raises(ValueError, match=said):
        check_budgets(found)
    check_budgets(found, ["joint:train.epochs=2", "random4:train.epochs=0.5"])


def test_partitions_that_cover_different_tokens_are_refused_by_name():
    check_tokens({"joint": 1200.0, "random4": 1200.0})
    with pytest.raises(ValueError, match=r"in supervised tokens: joint 1,200, random4 1,199"):
        check_tokens({"joint": 1200.0, "random4": 1199.0})


def test_an_operator_that_does_not_exist_is_refused(config):
    with pytest.raises(ValueError, match=r"merge\.method = 'tiess'; expected one of "):
        plan_comparison(config, ["merit2d:merge.method=tiess"], ROOT)


def test_another_count_of_tokens_merges_the_same_branches_and_an_unknown_one_is_refused(config):
    specs = ["merit2d", "merit2d:merge.tokens=all", "merit2d:merge.method=uniform"]
    found = plan_comparison(config, specs, ROOT)
    assert list(found.trained) == ["merit2d"]
    assert [found.merged[spec].config.merge.tokens for spec in specs] == ["supervised", "all", "supervised"]
    assert found.merged[specs[1]].config.merge.branches == str(found.trained["merit2d"].root)
    with pytest.raises(ValueError, match=r"merge\.tokens = 'some'; expected one of supervised, all"):
        plan_comparison(config, ["merit2d:merge.tokens=some"], ROOT)
    with pytest.raises(ValueError, match=r"train\.average = 'row'; expected one of token, example"):
        plan_comparison(config, ["merit2d:train.average=row"], ROOT)


def test_wrong_options_of_an_operator_are_refused_before_anything_is_trained(config):
    with pytest.raises(ValueError, match="unknown \\['dense'\\]"):
        plan_comparison(config, ['merit2d:merge.method=ties,merge.options={"dense":0.2}'], ROOT)
    with pytest.raises(ValueError, match="density"):
        plan_comparison(config, ['merit2d:merge.method=ties,merge.options={"density":2}'], ROOT)


def test_a_soup_has_the_budget_of_its_runs(config):
    found = configs(config, ["joint", "soup3", "examples8", "merit2d", "joint:train.batch_size=32"])
    check_budgets(found)
    assert [budget(one) for one in found.values()] == [1, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("joint,random4", ["joint", "random4"]),
        ("joint:train.epochs=2,train.eps=1e-6,random4", ["joint:train.epochs=2,train.eps=1e-6", "random4"]),
        (f"{AGAIN},merit1d", [AGAIN, "merit1d"]),
        ("", []),
    ],
)
def test_a_list_of_methods_may_have_overrides_with_commas(text, expected):
    assert runner.parse_methods(text) == expected
    assert all(format_method(*common.parse(spec)) == spec for spec in expected)


def test_random_splits_are_repeated_and_stay_one_method():
    found = list(
        runner.repeat_random_splits(
            ["theta0", "joint", "random4", "random2:partition.seed=5", "random2:train.eps=1"], 3
        )
    )
    assert found == [
        *("joint", "random4", "random4:partition.seed=1", "random4:partition.seed=2", "random2:partition.seed=5"),
        *("random2:train.eps=1", "random2:partition.seed=1,train.eps=1", "random2:partition.seed=2,train.eps=1"),
    ]
    labels = [runner.label(spec) for spec in found]
    assert labels == ["joint", *["random4"] * 3, "random2", *["random2:train.eps=1"] * 3]
