"""Stage 1 of the paper's 7B base: a fresh projector learns to speak to the decoder, from captions (MERIT §4, LLaVA's recipe).

Claim:   the composed model describes images afterwards; vision tower and decoder keep every bit.
Cost:    not run here. LLaVA-1.5-7B's stage 1 is reported at 3.5 hours on 8 A100.
Command: merit compose --out=runs/llava_7b/start --dtype=bfloat16 --like=Qwen2.5-VL-7B-Instruct
             --vision=Qwen2.5-VL-7B-Instruct --text=Qwen2.5-7B-Instruct
         merit run --config=configs/llava_7b_stage1.py --workdir=runs/llava_7b/stage1
             --stages=mixture,partition,train,merge,export
         (or all stages at once, see llava_7b_merit.py)

From the paper: the parts, and that the base is built in LLaVA's stages with the projector tuned on the way. From LLaVA-1.5's
published scripts: 558 thousand captions (blip_laion_cc_sbu_558k.json), learning rate 1e-3, 256 examples per step, one epoch,
AdamW without decay, cosine with 3 % warm-up, 2048 tokens. Ours: images up to 784x784 as in the paper's 3B study ("max_pixels":
614656 in runs/llava_7b/start/preprocessor_config.json), and rows of 2048 tokens into which about 8 examples are packed.
"""

from merit_jax.configs import common


def get_config(method: str = "joint"):
    c = common.get_config()
    with c.unlocked():
        model_7b(c)
        c.model.path = "runs/llava_7b/start"
        c.mixture.path = (
            "llava/stage1.json"  # {"captions": {"file_name": ..., "formatting": "llava", "image_root": ...}}
        )
        c.train.trainable = ("^projector/",)
        c.train.learning_rate = 1e-3
        c.train.row_length = 2048
        c.train.image_tokens = 1792
        c.train.batch_size = 32
        c.train.micro_batches = 4
    return common.with_method(c, method)


def model_7b(c) -> None:
    """Sets the keys that stages and final run of the 7B model have in common; one image takes at most 784 tokens."""
    c.model.remat = "full"
    c.mixture.max_length = 2048
    c.gradients.buckets = (512, 1024, 2048)
    c.gradients.image_buckets = (256, 400, 784, 2048)
    c.evaluate.buckets = (512, 1024, 2048)
    c.evaluate.image_buckets = (256, 400, 784, 2048)
