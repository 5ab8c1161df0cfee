"""The quickstart where the answer forms are new: theta0 has hardly used them, and each is taught by a few datasets alone.

Claim:   the same methods where branches learn different things: what a single branch learns, an average takes away.
Cost:    8 minutes on 2 CPU cores; 3 GB of memory.
Command: merit run --config=configs/quickstart_new_forms.py --workdir=runs/quickstart-new-forms
         (after python -m merit_jax.examples.shapes.make --out=runs/shapes-new-forms --parts mixture suites)
Arg:     merit1d, merit2d, merit3d, random4, ...; see configs/common.py.

theta0 is shipped: examples/shapes/theta0, after three of the quickstart's four stages. Questions are in the usual order of words.
"""

from merit_jax.configs import common, quickstart


def get_config(method: str = "merit2d"):
    c = quickstart.get_config(method)
    with c.unlocked():
        c.model.path = common.shipped("examples/shapes/theta0")
        c.mixture.path = "runs/shapes-new-forms/mixture.json"
        c.evaluate.suites = "runs/shapes-new-forms/suites.json"
        c.basin.stages = c.basin.stages[:3]
        c.frontier.scales = (0.25, 0.5, 1.0, 2.0)
    return c
