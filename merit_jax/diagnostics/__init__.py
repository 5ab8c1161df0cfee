"""Why a split and merge works or does not: pure functions of a loss, parameters and batches (MERIT §4, App. F)."""
