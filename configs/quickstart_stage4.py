"""Stage 4 of the quickstart's basin: the open-ended answers again, all of them.

Claim:   it describes pictures without leaving things out.
Cost:    8 minutes on 2 CPU cores.
Command: make theta0   (launch.run --config=configs/quickstart.py --config.basin.rebuild=True, which trains all stages)
"""

from configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    return basin_stage(method, "verbose", learning_rate=2e-3)
