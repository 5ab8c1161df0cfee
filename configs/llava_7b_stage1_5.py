"""Stage 1.5 of the paper's larger 7B base, optional: projector and decoder read long captions (LLaVA-OneVision's recipe).

Claim:   paper, final run on the base with these 2.9 million examples: 60.9 -> 61.5 (mean of 8 benchmarks); without, about 55.
Cost:    not run here; days on 8 accelerators of 80 GB, at five times the examples of stage 1 and with the decoder trained.
Command: merit run --config=configs/llava_7b_stage1_5.py --workdir=runs/llava_7b/stage1_5
             --stages=mixture,partition,train,merge,export
         (or in a chain: list it between the other two in basin.stages of llava_7b_merit.py)

From the paper: 2.9 million re-captioned examples (LLaVA-ReCap-CC3M is of that size; LLaVA-OneVision adds other sets at this
stage). From the script of LLaVA-OneVision's next stage: learning rate 1e-5 and 256 examples per step for a 7B model, cosine
with 3 % warm-up, one epoch. It trains the vision tower too, at 2e-6; here the tower stays that of Qwen2.5-VL, as in the other
stages.
"""

from merit_jax.configs import common
from merit_jax.configs.llava_7b_stage1 import model_7b


def get_config(method: str = "joint"):
    c = common.get_config()
    with c.unlocked():
        model_7b(c)
        c.model.path = "runs/llava_7b/stage1/merged/hf"
        c.mixture.path = "llava/stage1_5.json"
        c.train.trainable = ("^projector/", "^decoder/")
        c.train.learning_rate = 1e-5
        c.train.row_length = 2048  # about 4 examples
        c.train.image_tokens = 1568
        c.train.batch_size = 64
        c.train.micro_batches = 8
    return common.with_method(c, method)
