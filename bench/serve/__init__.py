"""The time that Triton adds: the same edits in process and through the development server, in turns, in one run.

options.py     the options, and the command line that repeats a run
loop.py        a closed loop of callers, and the window in which it counts
targets.py     in process; model `edit` with tensors; `edit_session` through the SDK
statistics.py  percentiles, differences between rows, the aims
running.py     servers, rounds, rows
perf.py        NVIDIA's perf_analyzer on the same servers, as a cross-check
plot.py        latency and throughput over concurrency
"""
