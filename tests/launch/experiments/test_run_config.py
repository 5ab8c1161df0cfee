"""A run's own choices of training and merge are checked before its first stage."""

import pytest

from merit_jax.launch.experiments.run_config import run_config
from tests.support import world


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge.tokens": "some"}, r"merge\.tokens = 'some'; expected one of supervised, all"),
        ({"train.average": "row"}, r"train\.average = 'row'; expected one of token, example"),
        ({"merge.options": '{"depth": 1}'}, r"unknown \['depth'\]"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_is_computed(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        run_config(world.config(tmp_path, **changes), str(tmp_path / "run"), (), overwrite=False)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
