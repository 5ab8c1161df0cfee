"""MERIT on a vision-language model, start to finish, in minutes: a rendered world of 32 small instruction datasets.

Claim:   theta0, joint training, WiSE, a random split, i.i.d. slices, and MERIT-2D without and with a common core, at one budget
         on 7 held-out suites, with the frontier between what is retained and what is learnt, in the paper's case: theta0 knows
         the answer forms, and all datasets teach one new skill. docs/results/map.md says what came out.
Cost:    8 minutes on 2 CPU cores, installation included; 3 GB of memory.
Command: make quickstart   (python -m merit_jax.examples.shapes.make --out=runs/shapes --shared=1 --parts mixture suites
         merit run --config=configs/quickstart.py --workdir=runs/quickstart)
Arg:     merit1d, merit2d, merit3d, random4, ...; see configs/common.py.

Every question of the mixture and of the skill suites has its words in reversed order (examples/shapes/README.md has the knobs
of the world). theta0 is shipped: examples/shapes/theta0_forms, a Qwen2.5-VL of 1.3 million parameters. `make theta0` makes it
again in about an hour: it pretrains the vision tower (examples/shapes/see.py), then trains the stages of the basin with the tower
frozen (--config.basin.rebuild=True).
"""

from merit_jax.configs import common


def get_config(method: str = "merit2d"):
    c = common.get_config()
    with c.unlocked():
        world(c)
        c.baselines = ("joint", "wise", "random4", "examples4", "merit2d:partition.core=0.25")
        c.model.path = common.shipped("examples/shapes/theta0_forms")
        c.mixture.path = "runs/shapes/mixture.json"
        c.basin.stages = tuple(common.shipped(f"configs/quickstart_stage{n}.py") for n in (1, 2, 3, 4))
        c.gradients.examples = 60
        c.train.trainable = ("^decoder/",)  # vision tower and projector are frozen, as in the paper
        c.train.epochs = 1.0
        c.train.learning_rate = 4e-4
        c.evaluate.mixture_examples = 5
        c.evaluate.suites = "runs/shapes/suites.json"
        c.evaluate.retained = ("describe", "converse")
        c.evaluate.max_suite_records = 60  # of the 200 of a suite that report
        c.frontier.scales = (0.35, 0.7, 1.0)
        c.frontier.max_records = 40  # of the 200 that choose
        c.diagnostics.examples = 5
    return common.with_method(c, method)


def world(c) -> None:
    """Sets the keys that basin and run have in common: examples of at most 95 tokens, 9 of them of the image."""
    c.mixture.max_length = 96
    c.train.row_length = 96
    c.train.image_tokens = 36
    c.train.batch_size = 12
    c.train.checkpoint_every = 1000
    c.gradients.buckets = (32, 64, 96)
    c.gradients.image_buckets = (9,)
    c.gradients.batch_size = 20
    c.evaluate.buckets = (64, 96)
    c.evaluate.image_buckets = (9,)
    c.evaluate.batch_size = 100
    c.evaluate.max_new_tokens = 48


def basin_stage(method: str, data: str, *, learning_rate: float, batch_size: int):
    """A stage of the basin: projector and decoder, once over one file of theta0's data."""
    c = common.get_config()
    with c.unlocked():
        world(c)
        c.model.path = "runs/shapes/seen"
        c.mixture.path = "runs/shapes/basin.json"
        c.mixture.include = (data,)
        c.train.trainable = ("^projector/", "^decoder/")
        c.train.epochs = 1.0
        c.train.learning_rate = learning_rate
        c.train.batch_size = batch_size
    return common.with_method(c, method)
