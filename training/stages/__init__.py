"""How stages are defined: what each trains, on what and by which losses, and the options of each."""
