"""Stage 2 of the paper's 7B base: projector and decoder learn to follow instructions; the result is theta0 of MERIT.

Claim:   paper, final run on the base with these 0.7 million instructions: joint training 54.9 to 55.5, MERIT-2D 55.3 to 55.7
         (mean of 8 benchmarks, three seeds each).
Cost:    not run here. LLaVA-1.5-7B's stage 2 is reported at 10 hours on 8 A100.
Command: merit run --config=configs/llava_7b_stage2.py --workdir=runs/llava_7b/stage2
             --stages=mixture,partition,train,merge,export
         after the optional stage 1.5 with --config.model.path=runs/llava_7b/stage1_5/merged/hf --config.train.learning_rate=1e-5

From the paper: 0.7 million instructions. From LLaVA-1.5's published scripts: learning rate 2e-5, 128 examples per step, one
epoch, AdamW without decay, cosine with 3 % warm-up, 2048 tokens, projector and decoder trained; its llava_v1_5_mix665k.json is of
the paper's size. LLaVA-OneVision uses 1e-5 after a stage 1.5. Rows of 4096 tokens, of about 6 examples, are ours.
"""

from merit_jax.configs import common
from merit_jax.configs.llava_7b_stage1 import model_7b


def get_config(method: str = "joint"):
    c = common.get_config()
    with c.unlocked():
        model_7b(c)
        c.model.path = "runs/llava_7b/stage1/merged/hf"
        c.mixture.path = "llava/stage2.json"
        c.train.trainable = ("^projector/", "^decoder/")
        c.train.learning_rate = 2e-5
        c.train.row_length = 4096
        c.train.image_tokens = 3136
        c.train.batch_size = 24
        c.train.micro_batches = 3
    return common.with_method(c, method)
