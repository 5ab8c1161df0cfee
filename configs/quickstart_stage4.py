"""Stage 4 of the quickstart's basin, for a theta0 that knows the answer forms well: short answers in every form, among sentences.

Claim:   it answers in the form of each of the 32 datasets, about other pictures, and keeps its sentences.
Cost:    8 minutes on 2 CPU cores that have other work too.
Command: make theta0   (python -m merit_jax.examples.shapes.make --out=runs/shapes --shared=1 --forms=well
         merit run --config=configs/quickstart_stage4.py --workdir=runs/quickstart-basin/forms
         --stages=mixture,partition,train,merge,export)

It starts from the shipped theta0, which stage 3 made and which has met most of the forms a little.
"""

from merit_jax.configs import common
from merit_jax.configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    c = basin_stage(method, "forms", learning_rate=1e-3, batch_size=6)
    with c.unlocked():
        c.model.path = common.shipped("examples/shapes/theta0")
    return c
