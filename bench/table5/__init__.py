"""The paper's Table 5 on the reader's own machine.

`python -m bench.table5 --counts` counts parameters and GMACs of every row in seconds, without weights.
"""
