"""Commands: flags in, one function called."""
