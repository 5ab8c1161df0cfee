"""Types, tree algebra, the loss, sharding and seeds: what every other package stands on."""
