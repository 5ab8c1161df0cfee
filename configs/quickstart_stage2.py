"""Stage 2 of the quickstart's basin: open-ended answers in full sentences, in one turn and in two.

Claim:   it describes pictures and objects, places and colours, and tells what is not there.
Cost:    14 minutes on 2 CPU cores that have other work too.
Command: make theta0   (merit run --config=configs/quickstart_new_forms.py --config.basin.rebuild=True --stages=mixture
         trains stages 1 to 3)
"""

from merit_jax.configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    return basin_stage(method, "verbose", learning_rate=1.5e-3, batch_size=6)
