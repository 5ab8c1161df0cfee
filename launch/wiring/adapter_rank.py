"""The flag `--adapter_rank` of commands that write adapters."""


def check_rank(adapter: bool, rank: int) -> None:
    """Refuses `--adapter_rank` without `--adapter`, which it is the rank of."""
    if rank and not adapter:
        raise ValueError("--adapter_rank is the rank of an adapter; give --adapter too, or leave it out")
