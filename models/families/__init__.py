"""Model families: a config and a table of weight names each."""
