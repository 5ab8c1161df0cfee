"""Stage 2 of the quickstart's basin: open-ended answers in full sentences, single and two turns; everything is trained.

Run by `--config=configs/quickstart.py --config.basin.rebuild=True`, which see.
"""

from configs import common
from configs.quickstart import world


def get_config(method: str = "joint"):
    c = common.get_config()
    with c.unlocked():
        world(c)
        c.model.path = "runs/shapes/theta0"
        c.mixture.path = "runs/shapes/basin.json"
        c.mixture.include = ("verbose",)
        c.train.trainable = (".*",)
        c.train.epochs = 1.0
        c.train.learning_rate = 2e-3
    return common.with_method(c, method)
