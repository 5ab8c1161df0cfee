"""`recovery/`: the pruned model, trained on a share of the mixture as one branch; pruned heads stay closed."""

from merit_jax.core.heads import ByHead
from merit_jax.core.types import Dataset
from merit_jax.data.mixture_part import dataset_part
from merit_jax.pipeline.merge_branches import merge_branches
from merit_jax.pipeline.partition_mixture import partition_mixture
from merit_jax.pipeline.pruning.pruning_run import gated_run
from merit_jax.pipeline.pruning.score_heads import model_with_heads, scored_datasets
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import train_branches
from merit_jax.workdir.paths import Workdir


def recovery_run(run: Run, kept: ByHead, workdir: Workdir) -> Run:
    """Returns the run that trains the pruned model on the share `prune.recovery` of every dataset.

    Args:
        run: The run whose theta0 is pruned.
        kept: Part -> 1 for the heads that stay.
        workdir: Directory of its artifacts.
    """
    datasets = [_share(run, dataset) for dataset in scored_datasets(run)]
    return gated_run(run, model_with_heads(run), kept, datasets, workdir)


def _share(run: Run, dataset: Dataset) -> Dataset:
    """Returns a dataset with the share of its shuffled examples, one at least."""
    share = run.config.prune.recovery
    if share == 1:
        return dataset
    return dataset_part(dataset, 0, max(1, round(dataset.visit_count * share)), run.config.seed)


def recover(part: Run) -> bool:
    """Trains a recovery run, or resumes it; returns whether there was anything to do."""
    worked = [partition_mixture(part), train_branches(part), merge_branches(part)]
    return any(worked)
