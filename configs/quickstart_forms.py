"""The quickstart in the paper's case: theta0 knows the answer forms, and what is to be learnt is common to all datasets.

Claim:   theta0, joint training, WiSE, a random split, i.i.d. slices and MERIT-2D at one budget, where branches learn the same
         skill of different datasets.
Cost:    10 minutes on 2 CPU cores; 3 GB of memory.
Command: python -m launch.run --config=configs/quickstart_forms.py --workdir=runs/quickstart-forms
         (after python -m examples.shapes.make --out=runs/shapes-shared --shared=1 --parts mixture suites)
Arg:     merit1d, merit2d, merit3d, random4, ...; see configs/common.py.

theta0 is shipped: examples/shapes/theta0_forms, the quickstart's after a fourth stage (`make theta0`). Every question of the
mixture and of the skill suites has its words in reversed order; examples/shapes/README.md has the knobs of the world.
"""

from configs import quickstart


def get_config(method: str = "merit2d"):
    c = quickstart.get_config(method)
    with c.unlocked():
        c.model.path = "examples/shapes/theta0_forms"
        c.mixture.path = "runs/shapes-shared/mixture.json"
        c.evaluate.suites = "runs/shapes-shared/suites.json"
        c.basin.stages = (*c.basin.stages, "configs/quickstart_stage4.py")
    return c
