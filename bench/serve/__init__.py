"""What Triton adds: the same edits in process and through the development server, in turns, in one run.

options.py     what is measured, and the command line that repeats it
loop.py        a closed loop of callers, and the window in which it counts
targets.py     in process; model `edit` with tensors; `edit_session` through the SDK
statistics.py  percentiles, what is added to what, the aims
running.py     servers, rounds, rows
perf.py        NVIDIA's perf_analyzer on the same servers, as a cross-check
plot.py        latency and throughput over concurrency
"""
