"""A model repository in small, and a stand-in for trtexec, which cannot run here: it needs a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

from onnx import TensorProto, helper

from serving.deploy.builders import Builder

TRTEXEC = '''#!{python}
"""Takes trtexec's arguments, writes what it was given as the "plan", and keeps a list of its runs."""
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
flags = dict(a.partition("=")[::2] for a in sys.argv[1:])
with (here / "runs").open("a") as runs:
    runs.write(" ".join([os.environ.get("CUDA_VISIBLE_DEVICES", "-"), *sys.argv[1:]]) + "\\n")
time.sleep(float((here / "seconds").read_text()) if (here / "seconds").exists() else 0)
if (here / "fail").exists():
    pathlib.Path(flags["--saveEngine"]).write_bytes(b"half")
    print("[I] === Model Options ===")
    print("[E] Error[4]: no tactic for Conv_12")
    print("&&&& FAILED TensorRT.trtexec")
    sys.exit(1)
graph = pathlib.Path(flags["--onnx"])
pathlib.Path(flags["--saveEngine"]).write_bytes(b"plan of " + graph.read_bytes())
'''


def stand_in(folder: Path, gpus: tuple[str, ...] = ("sm90",), version: str = "11.2.0.5") -> Builder:
    """A builder whose trtexec is the program above; files beside it steer it, `runs` lists what it was asked."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "trtexec"
    program.write_text(TRTEXEC.replace("{python}", sys.executable))
    program.chmod(0o755)
    return Builder(version, gpus, program)


def runs(builder: Builder) -> list[str]:
    """The command lines so far, the visible GPU first."""
    assert builder.trtexec is not None
    path = builder.trtexec.parent / "runs"
    return path.read_text().splitlines() if path.exists() else []


def graph(folder: Path, name: str = "model.plan.onnx", channels: int = 2) -> Path:
    """A graph x [n, channels] -> y with its weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[channels], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="g.weights")
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [out], [weight])
    )
    path = folder / name
    path.write_bytes(model.SerializeToString())
    (folder / "g.weights").write_bytes(bytes(4 * channels))
    return path


def repository(root: Path) -> Path:
    """Models `edit` (TensorRT) and `edit_session` (Python), as `edgedit serve repo` lays them out."""
    graph(root / "edit" / "1")
    (root / "edit" / "1" / "model.onnx").write_bytes(b"for the CPU")
    (root / "edit" / "config.pbtxt").write_text(
        'name: "edit"\nbackend: "tensorrt"\nmax_batch_size: 8\ndefault_model_filename: "model.plan"\n'
        'cc_model_filenames {\n  key: "8.9"\n  value: "model_sm89.plan"\n}\n'
    )
    (root / "edit" / "configs").mkdir()
    (root / "edit" / "configs" / "cpu.pbtxt").write_text('backend: "onnxruntime"\n')
    (root / "edit_session" / "1").mkdir(parents=True)
    (root / "edit_session" / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
    (root / "edit_session" / "config.pbtxt").write_text('name: "edit_session"\nbackend: "python"\n')
    (root / "repository.json").write_text("{}\n")
    return root
