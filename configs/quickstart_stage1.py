"""Stage 1 of the quickstart's basin: look-ups in crowded pictures, four to a picture, at a place or for a thing.

Claim:   a fresh decoder learns to find what the pretrained tower sees.
Cost:    14 minutes on 2 CPU cores that have other work too.
Command: make theta0   (merit run --config=configs/quickstart_new_forms.py --config.basin.rebuild=True --stages=mixture
         trains stages 1 to 3)

Many short look-ups among many things teach this several times faster than sentences do.
"""

from merit_jax.configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    return basin_stage(method, "look", learning_rate=1.5e-3, batch_size=12)
