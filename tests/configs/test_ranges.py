"""Every configuration key has a range, and a value outside it is refused by name before anything is read."""

import math

import pytest

from merit_jax.configs import common
from merit_jax.configs.common import variant
from merit_jax.configs.schema import check as checks
from merit_jax.configs.schema.keys import Key, ranges
from merit_jax.launch.experiments.methods import plan_comparison

KEYS = {
    f"{name}.{inner}" if hasattr(part, "items") else name: key
    for name, part in common.declared().items()
    for inner, key in (part.items() if hasattr(part, "items") else [("", part)])
}
OF_TYPE = {
    bool: (1, "yes", None),
    int: (-2, True, 1.5, 10**400 * -1, math.nan),
    float: (math.inf, -math.inf, math.nan, -1.0, True, "1"),
    str: ("a\nb", "a\0b", "\x1b[31m", 3, None),
    tuple: (3, "abc", (None,), ((),), ("a\nb",), ({},)),
}
"""Type of a default -> values that no key of the type takes."""

WRONG = {
    "model.dtype": ("float8", "float16", ""),
    "model.attention": ("flash", ""),
    "model.remat": ("all",),
    "model.scan_unroll": (0,),
    "mesh.data": (0, -1),
    "mesh.fsdp": (0, -2),
    "mixture.include": ("",),
    "mixture.max_length": (0, 1),
    "gradients.examples": (0, -1),
    "gradients.buckets": ((), (0,), (64, 32), (64, 64), (-1, 4)),
    "gradients.image_buckets": ((0,), (9, 3)),
    "gradients.width": (0, 2**31),
    "gradients.reduction": ("sketch",),
    "conflict.similarity": ("dot",),
    "partition.method": ("median", ""),
    "partition.groups": (0,),
    "train.trainable": ((), ("",), ("(",), ("[",), ("*",)),
    "train.no_decay": (("(",),),
    "train.epochs": (0.0, 0),
    "train.learning_rate": (0.0,),
    "train.optimizer": ("lbfgs", "Adam", ""),
    "train.schedule": ("step",),
    "train.warmup": (1.0, 2.0),
    "train.b1": (1.0,),
    "train.b2": (1.0, 2.0),
    "train.eps": (0.0,),
    "train.micro_batches": (0,),
    "train.checkpoint_every": (0,),
    "train.log_every": (0,),
    "train.held_out_every": (-1,),
    "train.held_out_examples": (0,),
    "train.patience": (-1,),
    "train.trackers": (("comet",),),
    "merge.method": ("average",),
    "merge.tokens": ("some",),
    "loss.chunk": (0,),
    "evaluate.buckets": ((),),
    "evaluate.max_new_tokens": (0,),
    "frontier.scales": ((math.nan,), (math.inf,)),
    "diagnostics.points": (2,),
    "diagnostics.grid": (1,),
    "diagnostics.sigmas": ((), (0.0,), (0.1, 0.05)),
    "diagnostics.calibration_sizes": ((), (20, 10)),
    "diagnostics.bootstrap": (1,),
    "diagnostics.reliability": (0.0, 1.0),
}
"""Key -> further values that it does not take."""
HOSTILE = [(name, value) for name, key in KEYS.items() for value in (*OF_TYPE[type(key.default)], *WRONG.get(name, ()))]


def test_every_key_is_declared_with_a_range_that_holds_its_default():
    assert all(isinstance(key, Key) for key in KEYS.values())
    assert list(ranges(common.declared())) == list(KEYS)
    assert [name for name, key in KEYS.items() if not key.range.holds(key.default)] == []
    assert set(WRONG) <= set(KEYS)


def test_values_outside_a_range_are_not_held_by_it():
    assert len(HOSTILE) > 400
    assert [(name, value) for name, value in HOSTILE if KEYS[name].range.holds(value)] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.epochs", math.inf, r"train\.epochs = inf; expected a number above 0"),
        ("train.b2", 2.0, r"train\.b2 = 2\.0; expected a number of at least 0 and below 1"),
        ("gradients.examples", -1, r"gradients\.examples = -1; expected a whole number of at least 1"),
        (
            "gradients.buckets",
            (),
            r"gradients\.buckets = \(\); expected a tuple, not empty and rising, with each value a whole",
        ),
        (
            "train.trainable",
            ("(",),
            r"train\.trainable = \('\(',\); expected a tuple, not empty, with each value a regular",
        ),
        ("model.dtype", "float8", r"model\.dtype = 'float8'; expected one of auto, float32, bfloat16"),
        ("mixture.path", "a\nb", r"mixture\.path = 'a\\nb'; expected text without control characters"),
        ("train.micro_batches", 3, r"train\.batch_size = 8 cannot be split into train\.micro_batches = 3"),
        ("partition.groups", 3, r"partition\.groups = 3; median_split halves the mixture: expected a power of two"),
        ("partition.core", 1.5, r"partition\.core = 1\.5; expected a number"),
        ("partition.softness", -0.1, r"partition\.softness = -0\.1; expected a number"),
        ("merge.options", "{", r"merge\.options = '\{' is not JSON"),
        ("merge.options", '{"depth": 2}', r"unknown \['depth'\]"),
        ("merge.match", "runs/other", r"merge\.match = 'runs/other' decides a scale, and token_weighted takes none"),
        ("diagnostics.calibration_sizes", (5, 10), r"expected multiples of diagnostics\.calibration_block = 10"),
        (
            "diagnostics.eigenvectors",
            51,
            r"diagnostics\.eigenvectors = 51; expected at most diagnostics\.iterations = 50",
        ),
        (
            "train.schedule_span",
            (0.5, 0.5),
            r"train\.schedule_span = \(0\.5, 0\.5\); expected a tuple, of at least 2 and rising",
        ),
        ("train.schedule_span", (0.0, 0.5, 1.0), r"train\.schedule_span = .*expected two shares"),
        ("rounds.schedule", "none", r"rounds\.schedule = 'none'; expected one of each, whole"),
        ("rounds.momentum", 1.0, r"rounds\.momentum = 1\.0; expected"),
        ("rounds.warm", 1.0, r"rounds\.warm = 1\.0; expected"),
        ("rounds.split", "never", r"rounds\.split = 'never'; expected one of again, once"),
        ("basin.rebuild", True, r"basin\.rebuild is set, but basin\.stages is empty"),
        (
            "baselines",
            ("joint:train.epochs=-1",),
            r"baselines: 'joint:train\.epochs=-1': train\.epochs = -1\.0; expected",
        ),
        ("baselines", ("mystery",), r"baselines: 'mystery': unknown method 'mystery'"),
    ],
)
def test_a_refusal_names_the_key_its_value_and_what_is_expected(name, value, said):
    config = common.with_method(common.get_config(), "merit2d").unlock()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=said):
        checks.check(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rounds.count": 3, "rounds.part": "epochs"},
            r"train\.epochs = 1 cannot be split into rounds\.count = 3 equal parts",
        ),
        (
            {"rounds.warm": 0.1, "merge.branches": "runs/a"},
            r"merge\.branches = 'runs/a' merges branches that are trained",
        ),
        (
            {"rounds.count": 2, "merge.method": "interpolate", "merge.match": "runs/a"},
            r"merge\.match = 'runs/a' takes a distance from theta0, and rounds start elsewhere",
        ),
    ],
)
def test_what_does_not_go_together_with_rounds(changes, said):
    config = common.with_method(common.get_config(), "merit2d").unlock()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=said):
        checks.check(config)


def test_a_sound_config_is_returned_as_it_is():
    config = common.with_method(common.get_config(), "merit2d")
    assert checks.check(config) is config


def test_methods_of_an_experiment_are_checked_like_the_config(tmp_path):
    config = common.with_method(common.get_config(), "merit2d")
    with pytest.raises(ValueError, match=r"train\.learning_rate = -1"):
        plan_comparison(config, ["random4:train.learning_rate=-1"], tmp_path)


def test_a_soft_split_of_a_method_that_has_none_is_refused():
    config = common.get_config().unlock()
    config.partition.update({"method": "kmeans", "softness": 0.2})
    with pytest.raises(ValueError, match=r"kmeans has no soft form: expected 0, or one of median_split, random"):
        checks.check_keys(config)
    config.partition.update({"method": "examples"})
    checks.check_keys(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patience": 2}, r"train\.patience = 2 counts evaluations.*set train\.held_out_every"),
        (
            {"patience": 2, "held_out_every": 5, "keep_second_moment": True},
            r"train\.patience = 2 may keep an earlier state.*keep_second_moment to False",
        ),
        ({"optimizer": "schedule_free_adamw"}, r"train\.schedule = 'cosine'; schedule_free_adamw .*'constant'"),
        (
            {"optimizer": "schedule_free_sgd", "schedule": "constant", "b1": 0.0},
            r"train\.b1 = 0; schedule_free_sgd .*expected a number above 0",
        ),
    ],
)
def test_keys_of_training_that_do_not_go_together_are_refused(changes, said):
    config = common.get_config()
    config.train.update(changes)
    with pytest.raises(ValueError, match=said):
        checks.check(config)


def test_agreement_without_suites_is_refused():
    config = common.get_config().unlock()
    config.evaluate.agreement = ("qa",)
    with pytest.raises(ValueError, match=r"evaluate\.agreement = \('qa',\) is of suites, .*set evaluate\.suites"):
        checks.check_keys(config)


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (
            "merit2d",
            {"partition.core": 0.25},
            r"partition\.core = 0\.25 deals a share of every dataset .*core_datasets",
        ),
        ("merit2d", {}, r"partition\.sites = 'joined' takes the sites that merit join found; set mixture\.elsewhere"),
        (
            "merit2d",
            {"partition.like": "runs/other"},
            r"partition\.like = 'runs/other' takes over groups that may cross",
        ),
        (
            "merit2d",
            {"rounds.warm": 0.1},
            r"rounds\.warm = 0\.1 trains one model on the data of all sites; set it to 0",
        ),
        ("joint", {}, r"partition\.sites = \('joined',\), and joint with 1 groups"),
        ("examples4", {}, r"and examples with 4 groups trains branches on the data of all sites"),
    ],
)
def test_sites_that_a_method_would_cross_are_refused(method, changes, said):
    config = common.with_method(common.get_config().unlock(), method)
    config.update_from_flattened_dict({"partition.sites": ("joined",), **changes})
    with pytest.raises(ValueError, match=said):
        checks.check_keys(config)


@pytest.mark.parametrize("control", ["joint", "examples4", "soup2"])
def test_controls_that_have_all_data_in_one_place_know_no_sites(control):
    config = common.with_method(common.get_config().unlock(), "merit2d")
    config.update_from_flattened_dict({"partition.sites": ("a=x", "b=y")})
    checks.check_keys(variant(config, control))
