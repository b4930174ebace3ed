"""How stages are run: the run folder, the loop, checkpoints, processes, and the functions behind the commands."""
