"""The paper's Table 5 on the reader's own machine: what `edgedit bench count` and `edgedit bench time` do.

counts.py    parameters and GMACs of every row in seconds, without weights, by the rules of counter.py; the paper's rows
times.py     time and memory of every row in one run, in turns
subjects.py  a method that can be timed: in PyTorch, or as graphs in ONNX Runtime
alone.py     a method in a process of its own: its export, its peak memory
report.py    the table of times; plot.py draws them against GMACs
"""
