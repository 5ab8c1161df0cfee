"""Inputs of a search of merge weights that the config decides; the branches are the others."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from merit_jax.data.elsewhere import elsewhere_inputs
from merit_jax.pipeline.evaluators import compared_suites, digests_of_suites
from merit_jax.pipeline.run import Run


def searches(run: Run) -> bool:
    """Returns whether the merge weights of a run are searched."""
    return run.config.merge.search_evaluations > 0


def search_problems(config: Any) -> Iterator[str]:
    """Yields a sentence for what does not go together with a search."""
    cfg, evaluate = config.merge, config.evaluate
    if cfg.search_evaluations and cfg.method != "token_weighted":
        yield (
            f"merge.search_evaluations = {cfg.search_evaluations} searches the weights of an average, and merge.method = "
            f"{cfg.method!r}; set merge.method to 'token_weighted', or merge.search_evaluations to 0"
        )
    if cfg.search_evaluations and find_spec("cmaes") is None:
        yield f"merge.search_evaluations = {cfg.search_evaluations} needs cmaes: pip install 'merit-jax[search]'"
    if cfg.search_blocks and not cfg.search_evaluations:
        yield (
            f"merge.search_blocks = {cfg.search_blocks} is for a search of weights; set merge.search_evaluations, or "
            "merge.search_blocks to 0"
        )
    if cfg.search_evaluations and not (evaluate.suites or evaluate.mixture_examples):
        yield (
            "merge.search_evaluations: there is nothing to score merge weights on; set evaluate.suites, whose choosing half "
            "then chooses, or evaluate.mixture_examples, for the loss on training examples"
        )


def search_settings(run: Run) -> dict[str, Any]:
    """Returns everything that decides a search but theta0, the branches and the number of evaluations, as JSON values.

    Raises:
        ValueError: There is nothing that candidates can be scored on, or keys do not go together.
    """
    cfg = run.config
    for problem in search_problems(cfg):
        raise ValueError(problem)
    if cfg.evaluate.suites:
        scored_on = {
            "suites": digests_of_suites(run),
            **compared_suites(run),
            "max_records": cfg.frontier.max_records,
            "max_new_tokens": cfg.evaluate.max_new_tokens,
        }
    else:
        scored_on = {"mixture_examples": cfg.evaluate.mixture_examples, "datasets": run.digests()}
        scored_on |= elsewhere_inputs(run.datasets)
    return {
        "blocks": cfg.merge.search_blocks,
        "seed": cfg.merge.search_seed,
        "text": run.text_inputs,
        **scored_on,
        "dtype": run.compute_dtype,
    }
