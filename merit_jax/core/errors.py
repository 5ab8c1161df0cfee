"""Work that stopped for no mistake of the user's."""


class UnfinishedError(Exception):
    """The work was told to stop and has saved what it has, or another process is doing it; started again, it carries on."""
