"""SmolLM2-135M-Instruct on the 16 BIG-bench tasks of this repository.

Claim:   a real model and a real mixture through all of MERIT on a laptop; small enough to repeat with any method.
Cost:    on 2 CPU cores see docs/results/index.md; about 9 GB of memory.
Command: merit run --config=configs/smollm2_bigbench.py:merit2d --workdir=runs/bigbench/merit2d
Arg:     joint, merit1d, merit2d, merit3d, random4, kmeans4, conflict4, soup2, examples4, ... (configs/common.py)
"""

from merit_jax.configs import common


def get_config(method: str = "merit2d"):
    c = common.get_config()
    with c.unlocked():
        c.model.path = "smollm2-135m-instruct"
        c.mixture.path = common.shipped("examples/bigbench/*.train.jsonl")
        c.mixture.max_length = 256
        c.mixture.max_train = 32
        c.mixture.max_held_out = 12
        c.gradients.examples = 16
        c.gradients.buckets = (80, 160, 256)
        c.train.row_length = 256
        c.train.batch_size = 2
        c.train.learning_rate = 1e-4
        c.evaluate.buckets = (80, 160, 256)
        c.evaluate.max_new_tokens = 48
    return common.with_method(c, method)
