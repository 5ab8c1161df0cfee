"""SmolLM2-135M-Instruct on BIG-bench tasks, at sizes for one large GPU: the config of `benchmarks/study_smollm2.py`.

Claim:   whether the split matters on real text, at equal tokens: what is learnt against what theta0 could do before.
Cost:    see benchmarks/study_smollm2.py; about 20 GB of GPU memory for each seed that runs at the same time.
Command: python -m benchmarks.study_smollm2 --data=FOLDER --out=runs/study-smollm2
Arg:     the method whose distance from theta0 the control WiSE takes
"""

from merit_jax.configs import smollm2_bigbench


def get_config(method: str = "merit2d"):
    c = smollm2_bigbench.get_config(method)
    c.mixture.max_length = 384
    c.mixture.max_train = 400
    c.mixture.max_held_out = 0
    c.gradients.examples = 100
    c.gradients.batch_size = 50
    c.gradients.buckets = (128, 384)
    c.gradients.datasets_per_step = 1
    c.train.row_length = 512
    c.train.batch_size = 8
    c.train.log_every = 50
    c.evaluate.batch_size = 160
    c.evaluate.buckets = (128, 384)
    c.evaluate.max_suite_records = 20
    c.evaluate.mixture_examples = 4
    c.frontier.scales = (0.125, 0.25, 0.5)
    c.frontier.max_records = 12
    return c
