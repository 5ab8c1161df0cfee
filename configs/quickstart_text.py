"""The whole of MERIT on a real language model and eight real tasks, in minutes, on any laptop.

Claim:   every step runs: theta0 evaluation, gradients, conflict, partition, four branches, merge, the joint baseline at the
         same token budget, evaluation, export. Far too little training for a verdict on the method: see docs/results/index.md.
Cost:    under 20 minutes on 2 CPU cores, 7 GB of memory, 4 GB of disk.
Command: make quickstart-text   (merit run --config=configs/quickstart_text.py --workdir=runs/quickstart-text)
"""

from merit_jax.configs import smollm2_bigbench


def get_config(method: str = "merit2d"):
    c = smollm2_bigbench.get_config(method)
    c.baselines = ("joint",)
    c.mixture.include = (
        "hyperbaton",
        "fact_checker__fever",
        "implicatures",
        "logical_fallacy_detection",
        "metaphor_boolean",
        "goal_step_wikihow__goal_inference",
        "periodic_elements__subtask_1",
        "elementary_math_qa__mathematical_hint_only",
    )
    c.mixture.max_train = 24
    c.mixture.max_held_out = 12
    c.gradients.examples = 8
    c.evaluate.max_new_tokens = 16
    return c
