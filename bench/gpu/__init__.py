"""Everything that waits for a GPU, in one command that fits into the seconds it is given and goes on where it ended.

    python -m bench.gpu --budget 540 --out DIR --faces FACES --lpips FILE --identity FILE ...

queue.py        jobs in order, step by step: resume, time, what is skipped and why, results as JSON
jobs.py         latency, the slider's step, the remaining precisions, scaling; training, accuracy, runtimes and table5
                have files of their own
rows.py         the rows of PyTorch: a new row (another method or compiler) is one entry in ROWS
floors.py       what the card can do at most in every precision, and how far each row is from it
models.py       what is measured: the bundle's model, and a family with random weights
table5.py       the job of the paper's Table 5, measured by `bench.table5`
report.py       files for `edgedit bench report`, its page, the largest gap to a floor, and the aims
checkpoints.py  training checkpoints small enough to travel
carried.py      the portrait bundle's generator, for machines that cannot fetch it

With `--device cpu` and few passes the same code runs on any machine, which is how it is tested. A machine that only has
PyTorch's own packages also needs pydantic, tyro, platformdirs, psutil, onnx-ir, pytorch_optimizer and rich; of the
runtimes it measures those that are installed.
"""
