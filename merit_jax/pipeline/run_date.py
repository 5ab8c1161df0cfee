"""The date that a chat template shows, one for all stages of a run, whichever day they are run on."""

import datetime
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from merit_jax.data.template_source import fix_date, shows_date
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir


def fix_run_date(tokenizer: Any, workdir: Workdir) -> None:
    """Lets a chat template that shows the date show the one of the run: that of its records, or today's for a new run.

    Args:
        tokenizer: A `chat_template.Tokenizer`; its template is replaced where it asks for the date.
        workdir: The run's; `Run.text_inputs` carries the date into the records of its mixture, partition and branches.
    """
    if shows_date(tokenizer):
        fix_date(tokenizer, recorded_date(workdir) or _today())


def recorded_date(workdir: Workdir) -> datetime.date | None:
    """Returns the date that a partition or mixture was made with; None without a record of one."""
    for path in (workdir.partition, workdir.mixture):
        try:
            return datetime.date.fromisoformat(read_json(path)["inputs"]["text"]["date"])
        except (OSError, ValueError, KeyError, TypeError):  # no record, or one that its own stage refuses
            continue
    return None


def _today() -> datetime.date:
    """Returns today's date, for all processes that of the first."""
    today = datetime.date.today()
    if jax.process_count() == 1:
        return today
    return datetime.date.fromordinal(int(multihost_utils.broadcast_one_to_all(np.int32(today.toordinal()))))
