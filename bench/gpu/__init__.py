"""Everything that waits for a GPU, in one command that fits into the minutes it is given and goes on where it ended.

    python -m bench.gpu --minutes 9 --out DIR --faces FACES --lpips FILE --identity FILE ...

queue.py        jobs in order, step by step: resume, time, what is skipped and why, results as JSON
jobs.py         the jobs latency and scaling; training, accuracy, runtimes and table5 have files of their own
rows.py         the rows of the latency table: a new row (another method or compiler) is one entry in ROWS
models.py       what is measured: the bundle's model, and a family with random weights
table5.py       the job of the paper's Table 5, measured by `bench.table5`
checkpoints.py  training checkpoints small enough to travel

With `--device cpu` and few passes the same code runs on any machine, which is how it is tested.
"""
