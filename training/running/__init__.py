"""The running of stages: the run folder, the loop, checkpoints, processes, and the functions behind the commands."""
