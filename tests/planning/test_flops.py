"""FLOPs against closed forms."""

from merit_jax.core import tree
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from merit_jax.models.processing.image_shapes import image_work
from merit_jax.planning.flops import RowShape, row_flops, row_work
from merit_jax.planning.shapes import Architecture, BlockStack, ImageWork
from tests.launch.test_plan import ARCHITECTURES
from tests.support import small_plan

T, D, L, MLP, V, Q = 64, 64, 4, 192, 512, 64
KERNELS = L * (4 * D * Q + 3 * D * MLP)


def test_training_everything_takes_six_flops_per_weight_and_token_and_twelve_per_pair_and_channel():
    found = row_flops(small_plan.architecture(), RowShape(T, T), (".*",))
    assert found == 6 * KERNELS * T + 12 * L * T**2 * Q + 6 * V * D * T


def test_a_forward_pass_takes_a_third_and_only_supervised_positions_have_logits():
    assert (
        row_flops(small_plan.architecture(), RowShape(T, 5), ()) == 2 * KERNELS * T + 4 * L * T**2 * Q + 2 * V * D * 5
    )


def test_frozen_weights_get_no_gradient_but_pass_one_on():
    found = row_work(small_plan.architecture(), RowShape(T, T), ("mlp/down",))
    down = L * MLP * D
    assert found["decoder"].backward == 2 * KERNELS * T + 8 * L * T**2 * Q + 2 * down * T
    assert found["unembedding"].backward == 2 * V * D * T


def test_a_frozen_tower_is_only_looked_through():
    model = ConfigOnlyCheckpoint(ARCHITECTURES / "Qwen2.5-VL-3B-Instruct").model
    vision, tokens = model.config.vision, 784
    images = ImageWork(*image_work(model.config, tokens))
    tower = BlockStack(32, 1280, 1280, 1280, 16, 3420)
    decoder = BlockStack(36, 2048, 2048, 256, 16, 11008)
    work = row_work(
        Architecture(model.abstract, decoder, 151936, tower, images, 2), RowShape(1024, 1024, images), ("^decoder/",)
    )
    assert (work["vision"].backward, work["projector"].backward) == (0, 0)
    patches = 4 * tokens
    weights = 3 * 2 * 14 * 14 * 1280 + 32 * (4 * 1280**2 + 3 * 1280 * 3420)
    pairs = 4 * patches**2 + 28 * patches * 3 * 64
    assert (vision.window**2 * vision.patches_per_token, images.pairs) == (64, pairs)
    assert work["vision"].forward == 2 * weights * patches + 4 * pairs * 1280
    joined = 4 * 1280
    assert work["projector"].forward == 2 * (joined**2 + joined * 2048) * tokens
    assert row_work(small_plan.architecture(), RowShape(T, T), (".*",))["decoder"].backward == 2 * (
        row_work(small_plan.architecture(), RowShape(T, T), ())["decoder"].forward
    )


def test_the_counted_weights_of_a_published_model_are_its_parameters_but_tables_norms_and_biases():
    model = ConfigOnlyCheckpoint(ARCHITECTURES / "Qwen2.5-3B").model
    flat = tree.flatten(model.abstract)
    decoder = BlockStack(36, 2048, 2048, 256, 16, 11008)
    found = row_flops(Architecture(model.abstract, decoder, 151936, None, ImageWork(), 2), RowShape(1, 0), ())
    rest = sum(leaf.size for path, leaf in flat.items() if not path.endswith("kernel"))
    assert found == 2 * (3_085_938_688 - rest) + 4 * 36 * 2048
