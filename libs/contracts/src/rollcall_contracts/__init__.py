"""Every Rollcall message and the types of its model. Pure: parse and validate, nothing else."""
