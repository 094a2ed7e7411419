"""Makes, upgrades, restores and deletes the instances of one host."""
