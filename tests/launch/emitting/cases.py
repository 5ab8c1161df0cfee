"""Settings of a branch of a text model, and of a vision-language model whose decoder alone is trained."""

from merit_jax.launch.emitting.interface import Settings

SETTINGS = Settings(
    branch=1,
    model="/models/base",
    family="llama",
    parts=(),
    frozen=(),
    learning_rate=2e-5,
    schedule="cosine",
    warmup_steps=3,
    steps=100,
    epochs=2.0,
    batch=32,
    batch_examples=90,
    micro_batches=4,
    row_length=1024,
    max_length=512,
    optimizer="adamw",
    b1=0.9,
    b2=0.95,
    eps=1e-6,
    weight_decay=0.1,
    clip_norm=0.5,
    seed=7,
    bf16=True,
    checkpoint_every=50,
    log_every=10,
    end_of_turn="<|im_end|>",
    eos="<|im_end|>",
)

VISION = SETTINGS._replace(
    family="qwen2_5_vl", parts=("vision", "projector", "decoder"), frozen=("vision", "projector")
)
