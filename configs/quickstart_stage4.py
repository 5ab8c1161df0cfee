"""Stage 4 of the quickstart's basin: the open-ended answers again, all of them.

Claim:   it describes pictures without leaving things out.
Cost:    8 minutes on 2 CPU cores.
Command: make theta0   (launch.run --config=configs/quickstart.py --config.basin.rebuild=True, which trains all stages)
"""

from configs import common
from configs.quickstart import world


def get_config(method: str = "joint"):
    c = common.get_config()
    with c.unlocked():
        world(c)
        c.model.path = "runs/shapes/seen"
        c.mixture.path = "runs/shapes/basin.json"
        c.mixture.include = ("verbose",)
        c.train.trainable = ("^projector/", "^decoder/")
        c.train.epochs = 1.0
        c.train.learning_rate = 2e-3
    return common.with_method(c, method)
