"""Shows the branches of a run as a table that follows them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from merit_jax.launch.console.branch_status import BranchStatus
from merit_jax.launch.console.terminal import terminal

COLUMNS = ("branch", "state", "step", "loss", "tokens/s", "host", "restarts", "time left")


@contextlib.contextmanager
def live_table(read: Callable[[], Sequence[BranchStatus]], failed: Mapping[int, str]) -> Iterator[Callable[[], None]]:
    """Yields a function that shows the branches: in place in a terminal, elsewhere whenever a state has changed.

    Args:
        read: Returns the present status of every branch.
        failed: Branch -> reason why it is not started any more.
    """
    console = terminal()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda: live.update(branch_table(read(), failed), refresh=True)
        return
    shown: list[tuple[str, int, bool]] = []

    def show() -> None:
        found = read()
        states = [(each.state, each.restarts, each.branch in failed) for each in found]
        if states != shown:
            shown[:] = states
            console.print(branch_table(found, failed))

    yield show


def branch_table(statuses: Sequence[BranchStatus], failed: Mapping[int, str]) -> Table:
    """Returns a table with a line for each branch.

    Args:
        statuses: The branches.
        failed: Branch -> reason why it is not started any more.
    """
    table = Table(title="Branches", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("state", "host") else "right")
    for each in statuses:
        table.add_row(
            str(each.branch),
            "[red]failed" if each.branch in failed else each.state,
            f"{each.step}" if each.steps is None else f"{each.step}/{each.steps}",
            "" if each.loss is None else f"{each.loss:.3f}",
            "" if each.rate is None else f"{each.rate:,.0f}",
            escape(each.host),
            str(each.restarts),
            "" if each.seconds is None else duration(each.seconds),
        )
    return table


def duration(seconds: float) -> str:
    """Returns hours, minutes and seconds as text.

    Examples:
        >>> duration(3723.4)
        '1:02:03'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
