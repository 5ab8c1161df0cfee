"""Writes any Orbax checkpoint of a run as a Hugging Face folder with tokenizer and model card.

merit export --config=quickstart --workdir=runs/quickstart --out=DIR               # the merged model
merit export --config=quickstart --workdir=runs/quickstart --out=DIR --branch=2    # one branch
merit export --config=mine.py --workdir=runs/mine --out=DIR --adapter              # what adapters have learned, for PEFT
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from merit_jax.checkpoints.readers import OverlayLeaves
from merit_jax.core.leaves import LeafReader
from merit_jax.evaluation.prompts import stop_tokens
from merit_jax.launch.console import app
from merit_jax.launch.wiring import basin, open_run
from merit_jax.launch.wiring.adapter_export import export_adapter
from merit_jax.launch.wiring.adapter_rank import check_rank
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.rounds import in_rounds, round_run
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_model_card import branch_card, merged_card
from merit_jax.pipeline.train_branches import branch_leaves

FLAGS = flags.FLAGS


def leaves_of(run: Run, branch: int | None) -> LeafReader:
    """Returns a reader of all parameters of the merged model, or of a branch (its trained ones and theta0's frozen ones)."""
    if branch is None:
        return merged_leaves(run.workdir)
    return OverlayLeaves(run.theta0.leaves(), branch_leaves(run, branch))


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_string("out", None, "Folder to make.", required=True)
    flags.DEFINE_integer(
        "branch", None, "Number of a branch, from 0, in rounds one of the last; left out: the merged model."
    )
    flags.DEFINE_boolean(
        "adapter", False, "Write the difference from theta0 as an adapter for PEFT; of a run with train.adapter."
    )
    flags.DEFINE_integer(
        "adapter_rank",
        0,
        "Rank of that adapter, truncated by SVD; what is lost is printed and recorded. 0: as high as makes it exact.",
        lower_bound=0,
    )


def main(argv: Sequence[str]) -> None:
    """Exports one checkpoint."""
    run = open_run.open_run(basin.prepare_theta0(app.config(), FLAGS.workdir), FLAGS.workdir)
    check_rank(FLAGS.adapter, FLAGS.adapter_rank)
    if FLAGS.adapter:
        export_adapter(run, FLAGS.branch, FLAGS.out, FLAGS.adapter_rank)
        return
    if FLAGS.branch is not None and in_rounds(run.config):
        run = round_run(run, run.config.rounds.count)
    card = merged_card(run) if FLAGS.branch is None else branch_card(run, FLAGS.branch)
    leaves, stop = leaves_of(run, FLAGS.branch), stop_tokens(run.tokenizer)
    run.theta0.export(leaves.read, epath.Path(FLAGS.out), card, stop)


if __name__ == "__main__":
    app.start(main, define_flags)
