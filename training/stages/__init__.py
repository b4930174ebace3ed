"""The definitions of stages: what each trains, on what and by which losses, and the options of each."""
