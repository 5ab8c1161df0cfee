"""The paper's text study: Qwen2.5-3B on 66 FLAN tasks, r = 1 or 2 (MERIT §4, text-only FLAN).

Claim:   paper, mean of 8 text benchmarks: theta0 56.7, joint 57.6, random-2/4 58.2/58.3, MERIT-1D/2D 58.1/58.4.
Cost:    one branch fits 8 accelerators of 80 GB with the mesh below; plan on the scale of the paper's 3B runs (hours).
Command: merit run --config=configs/qwen2_5_3b_flan.py:merit2d --workdir=gs://BUCKET/flan/merit2d
         --config.model.path=/models/Qwen2.5-3B --config.mixture.path='/data/flan/*.train.jsonl'
Arg:     joint, merit1d, merit2d, random2, random4, conflict4, soup2, ...

From the paper: the model, 66 tasks (one JSON Lines file each, FLAN's `inputs` and `targets`), r, 200 calibration examples,
AdamW, one epoch; its stride of 5 is --config.gradients.reduction=stride. The paper does not state
learning rate, batch size, schedule or row length for this study; ours are the usual values for full fine-tuning of a 3B model.
"""

from merit_jax.configs import common


def get_config(method: str = "merit2d"):
    c = common.get_config()
    c.model.path = "Qwen2.5-3B"
    c.model.remat = "full"
    c.mixture.path = "flan/*.train.jsonl"
    c.mixture.max_length = 2048
    c.train.learning_rate = 1e-5
    c.train.batch_size = 64
    c.train.micro_batches = 8
    c.train.row_length = 2048
    return common.with_method(c, method)
