"""Stage 1 of the quickstart's basin: look-ups. A fresh decoder learns to speak of what a pretrained tower sees.

Claim:   it tells what is in any cell of a picture.
Cost:    3 minutes on 2 CPU cores.
Command: make theta0   (launch.run --config=configs/quickstart.py --config.basin.rebuild=True, which trains all stages)
"""

from configs.quickstart import basin_stage


def get_config(method: str = "joint"):
    return basin_stage(method, "look", learning_rate=2e-3)
