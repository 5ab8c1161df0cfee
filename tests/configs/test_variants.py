"""A baseline is the run's own config with another method, and with the keys it names."""

import pytest

from merit_jax.configs import common


@pytest.fixture
def config():
    c = common.get_config()
    with c.unlocked():
        c.train.epochs = 3.0
        c.seed = 5
    return common.with_method(c, "merit2d")


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        ("joint:train.learning_rate=1e-3", "learning_rate", 1e-3),
        ("joint:train.epochs=2", "epochs", 2.0),
        ("joint:train.schedule=linear", "schedule", "linear"),
        ("joint:train.batch_size=16", "batch_size", 16),
        ("joint", "epochs", 3.0),
        ("joint:train.no_decay=('bias',)", "no_decay", ("bias",)),
    ],
)
def test_an_override_has_the_type_of_its_key(config, spec, key, value):
    train = common.variant(config, spec).train
    assert train[key] == value
    assert type(train[key]) is type(value)


def test_several_keys_are_overridden_and_all_others_are_the_runs(config):
    variant = common.variant(config, "random2:partition.seed=7,train.epochs=0.5,merge.method=uniform")
    assert (variant.method, variant.partition.method, variant.partition.groups) == ("random2", "random", 2)
    assert (variant.partition.seed, variant.train.epochs, variant.merge.method) == (7, 0.5, "uniform")
    assert variant.seed == 5
    assert variant.is_locked
    assert (config.method, config.partition.groups, config.train.epochs) == ("merit2d", 4, 3.0)
    assert config.is_locked


def test_the_method_sets_partition_and_merge_alone(config):
    same, changed = config.to_dict(), common.variant(config, "wise").to_dict()
    assert (changed["partition"]["method"], changed["merge"]["method"]) == ("joint", "interpolate")
    for section in ("method", "conflict", "partition", "merge"):
        same.pop(section)
        changed.pop(section)
    assert changed == same


def test_joint_training_has_no_rounds_unless_it_asks_for_them(config):
    rounds = common.variant(config, "merit2d:rounds.count=4,rounds.warm=0.1,rounds.split=once")
    assert rounds.rounds.to_dict() | {"count": 4, "warm": 0.1, "split": "once"} == rounds.rounds.to_dict()
    for spec in ("joint", "wise"):
        assert common.variant(rounds, spec).rounds.count == 1
        assert common.variant(rounds, spec).rounds.warm == 0
    assert common.variant(rounds, "random4").rounds.count == 4
    assert common.variant(rounds, "joint:rounds.count=2").rounds.count == 2


def test_the_options_of_an_operator_may_have_commas(config):
    spec = 'merit2d:merge.method=interpolate,merge.options={"scale": 0.5,"other":1},train.epochs=2'
    variant = common.variant(config, spec)
    assert variant.merge.options == '{"scale": 0.5,"other":1}'
    assert (variant.merge.method, variant.train.epochs) == ("interpolate", 2.0)


@pytest.mark.parametrize(
    ("method", "representation"),
    [
        *(("merit2d", ("cosine", "columns")), ("gram1d", ("gram", "columns")), ("double3d", ("cosine", "double"))),
        *(("raw2d", ("gram", "double")), ("kmeans4:conflict.similarity=gram", ("gram", "columns"))),
        *(
            ("curvature2d", ("curvature", "columns")),
            ("conflict4:conflict.similarity=curvature", ("curvature", "columns")),
        ),
    ],
)
def test_a_method_names_its_representation_whatever_the_runs_is(config, method, representation):
    with config.unlocked():
        config.conflict.update({"similarity": "gram", "centring": "double"})
    found = common.variant(config, method).conflict
    assert (found.similarity, found.centring) == representation


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("joint:train.rate=1", r"method 'joint:train\.rate=1': cannot override 'train\.rate'; use a key of"),
        (
            "joint:model.path=x",
            r"cannot override 'model\.path'; use a key of conflict, partition, rounds, train or merge",
        ),
        ("joint:seed=1", r"cannot override 'seed'; use"),
        ("joint:train=1", r"cannot override 'train'; use"),
        ("joint:train.batch_size=many", r"train\.batch_size = 'many': .* casted to type <class 'int'>"),
        ("joint:train.batch_size=1.5", r"train\.batch_size = '1\.5': .* casted to type <class 'int'>"),
        ("joint:train.epochs", r"train\.epochs = '': "),
        ("jiont", "unknown method 'jiont'; known: joint"),
    ],
)
def test_a_mistake_is_named(config, spec, said):
    with pytest.raises(ValueError, match=said):
        common.variant(config, spec)
