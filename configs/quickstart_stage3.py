"""Stage 3 of the quickstart's basin: polish, at a lower rate, with a few short answers among the sentences.

Claim:   it keeps its sentences and has met most of the short forms.
Cost:    3 minutes on 2 CPU cores that have other work too.
Command: make theta0   (merit run --config=configs/quickstart_new_forms.py --config.basin.rebuild=True --stages=mixture
         trains stages 1 to 3)
"""

from merit_jax.configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    return basin_stage(method, "polish", learning_rate=1e-3, batch_size=6)
