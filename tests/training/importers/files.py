"""Files as the official code saves them, in any size: dictionaries of tensors by role, and NVIDIA's pickles."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import lzma
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engines.family import ModelFamily
from tests.training.importers import official as o
from tests.training.importers import official_methods as m
from training.importers.checkpoints import import_checkpoint
from training.importers.errors import CheckpointError

Values = Callable[[o.Shapes], dict[str, Tensor]]

SMALL = o.Sizes(64, style=32, mapping=2, base=1024, widest=32, width=4, head=32, input=128)
"""Every method fits, and StyleRes's and HyperStyle's blocks are of both sorts."""
KINDS = ("e4e", "fs", "hfgi", "clcae", "styleres", "sdic", "sfe", "hyperstyle")


def _zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _torchscript() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Of its being deprecated; files of it stay around.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), stream)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("e4e.pt"))
    return stream.getvalue()


STRAY = (
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2799\n", "is a Git LFS pointer.*`git lfs pull`"),
    (b"<!DOCTYPE html><html><body>Quota exceeded</body></html>", "is a web page.*download the file itself"),
    (b"\xef\xbb\xbf\r\n <html>", "is a web page"),
    (b"", "is empty; get it again"),
    (bytes(1000), "nothing but zeros.*get it again"),
    (b"Entry not found", "is a text, and not one of numbers alone"),
    (b'{"error": "not found"}', "is a text"),
    (gzip.compress(b"weights"), "is compressed with gzip; unpack it"),
    (bz2.compress(b"weights"), "is compressed with bzip2; unpack it"),
    (lzma.compress(b"weights"), "is compressed with xz; unpack it"),
    (_tar(), "is a tar archive; unpack it"),
    (_torchscript(), "is a TorchScript archive.*save its state_dict with torch.save"),
    (
        _zipped(**{"__MACOSX/._e4e.pt": b"", "readme.txt": b"", "models/e4e.pt": b"x"}),
        "around 'models/e4e.pt'; unpack it",
    ),
    (_zipped(**{"readme.txt": b""}), "a zip archive in which there is no checkpoint"),
    (_zipped(), "is an empty zip archive"),
    (_zipped(**{"archive/data.pkl": bytes(10_000)}), "is a compressed archive, which torch does not write"),
    (b"\xca\xfe\xba\xbe\0\0", "begins neither as torch's nor as NumPy's files nor as a pickle does"),
)
"""What comes in place of a file, and what every importer says of it."""


def mean_of(s: o.Sizes, rows: int, values: Values) -> Tensor:
    return values({"mean": (1, s.style)})["mean"].expand(rows, -1).clone()


def contents(kind: str, s: o.Sizes, values: Values) -> dict[str, dict[str, Any]]:
    """By role, as `torch.save` is given them."""
    options = {"encoder_type": "Encoder4Editing", "stylegan_size": 1024, "start_from_latent_avg": True}
    mean = mean_of(s, s.rows, values)
    stylegan2 = {"g_ema": values(o.generator(s)), "latent_avg": mean[0]}
    decoder = o.under("decoder", o.generator(s))
    encoder = o.under("encoder", o.e4e(s))
    main: dict[str, Any]
    match kind:
        case "stylegan2":
            return {"checkpoint": stylegan2}
        case "e4e":
            return {"checkpoint": {"state_dict": values(encoder | decoder), "latent_avg": mean, "opts": options}}
        case "fs":
            return {"checkpoint": values(o.fs(s)), "generator": stylegan2}
        case "hfgi":
            parts = o.under("residue", m.residue(s)) | o.under("grid_align", m.grid_align())
            main = {"state_dict": values(encoder | parts | decoder), "latent_avg": mean, "opts": options}
        case "clcae":
            main = {"state_dict": values(o.under("encoder", m.clcae(s)) | decoder), "opts": {}, "iter": 5}
            return {"checkpoint": main, "mean code": stylegan2}
        case "styleres":
            both = o.ada(s) | o.under("synthesis.b64", m.styleres_modules(s))
            main = {"e4e": values(o.e4e(s)), "generator_smooth": values(both), "latent_avg": mean[:1]}
        case "sdic":
            parts = o.under("DIP", m.dip()) | o.under("SAF", m.saf(s))
            main = {"state_dict": values(encoder | parts | decoder), "latent_avg": mean, "opts": options}
        case "sfe":
            parts = o.under("inverter.fs_backbone", o.fs(s)) | o.under("inverter.fuser", o.fuser(s.feature))
            main = {"state_dict": values(o.under("encoder", o.fuser(s.feature)) | parts)}
            other = {"state_dict": values(encoder | decoder), "latent_avg": mean + 1, "opts": options}
            return {"checkpoint": main, "generator": stylegan2, "e4e": other}
        case "hyperstyle":
            state = values(o.under("hypernet", m.hypernet(s)) | decoder)
            for name in state:
                if ".refinement_blocks." in name and ".hypernet." in name:
                    state[name] = state[f"hypernet.shared_weight_hypernet.{name.rpartition('.')[2]}"]
            main = {"state_dict": state, "latent_avg": mean, "opts": {}, "global_step": 3, "best_val_loss": 0.5}
            first = {"state_dict": values(o.under("encoder", o.w_encoder(s))), "latent_avg": mean, "opts": {}}
            return {"checkpoint": main, "W encoder": first}
        case _:
            raise KeyError(kind)
    return {"checkpoint": main}


def write(folder: Path, kind: str, s: o.Sizes = SMALL, values: Values = o.fill, **changes: Any) -> list[Path]:
    """The files of a kind; `changes` go into the top of the main one."""
    paths = []
    for index, (role, content) in enumerate(contents(kind, s, values).items()):
        path = folder / f"{kind}-{role.replace(' ', '-')}.pt"
        torch.save(content | (changes if index == 0 else {}), path)
        paths.append(path)
    if kind == "clcae":
        paths.append(folder / "mean.png")
        pixels = np.random.default_rng(0).integers(0, 256, (s.input, s.input, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return paths


class Persistent(nn.Module):
    """Pickles itself as NVIDIA's persistent classes do, with source text that leaves a mark if it is run."""

    mark = ""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        # A NumPy number among the attributes, as their gains are.
        self.weight_gain = np.sqrt(2.0)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        source = f"open({self.mark!r}, 'w').write('ran')\n" if self.mark else ""
        meta = {"type": "class", "version": 5, "module_src": source, "class_name": "Generator"}
        function = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj  # type: ignore[attr-defined]
        return function, (meta | {"state": self.__dict__},), None


def persistent(tensors: Mapping[str, Tensor], **attributes: Any) -> Persistent:
    """A tree of modules with these tensors: buffers by the names that are buffers there, others parameters."""
    root = Persistent(**attributes)
    for name, tensor in tensors.items():
        module = root
        *path, leaf = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, Persistent())
            module = module._modules[part]
        if leaf in ("w_avg", "resample_filter", "noise_const"):
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor))
    return root.requires_grad_(False)


@contextmanager
def nvidia_modules() -> Iterator[type]:
    """NVIDIA's module names, importable while a pickle is written; yields its dictionary class."""
    persistence, dnnlib, util = (types.ModuleType(n) for n in ("torch_utils.persistence", "dnnlib", "dnnlib.util"))

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("reading called it")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    util.EasyDict = easy  # type: ignore[attr-defined]
    names = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": dnnlib,
        "dnnlib.util": util,
    }
    sys.modules.update(names)
    try:
        yield easy
    finally:
        for name in names:
            del sys.modules[name]


def write_ada(path: Path, tensors: Mapping[str, Tensor], *, protocol: int = 4, mark: str = "") -> Path:
    """A training snapshot with these tensors in its averaged generator."""
    with nvidia_modules() as easy:
        generator = persistent(
            tensors, z_dim=512, c_dim=0, img_channels=3, init=easy(mapping_kwargs=easy(num_layers=2))
        )
        generator.mark = mark
        other = persistent({"b4.weight": torch.zeros(2)})
        other.add_module("plain", nn.Sequential(nn.Linear(2, 2)))
        data = {
            "G": other,
            "D": other,
            "G_ema": generator,
            "training_set_kwargs": easy(path="data.zip", use_labels=False),
            "augment_pipe": None,
            "state": collections.OrderedDict(a=1),
        }
        path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


def message(kind: str, *paths: Path, family: ModelFamily | None = None) -> str:
    """The one line with which files are refused."""
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(kind, paths, family)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1200
    return text
