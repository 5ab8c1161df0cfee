"""Types, tree algebra, the loss, sharding and seeds: the foundation of every other package."""
