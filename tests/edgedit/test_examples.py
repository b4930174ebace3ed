"""The examples under every --help and in the docstrings of the Python API: they parse, and the cheap ones run."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import shlex
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

import edgedit
from edgedit import editor as editor_module
from edgedit.batching.edits import EXAMPLE
from edgedit.cli import Verb, parse
from edgedit.commands.directions import spelt_out
from edgedit.commands.examples import EXAMPLES
from tests.edgedit.conftest import Cli
from tests.engines.engine_folders import write_keys
from tests.random_bundle import RANDOM_BUNDLE

BUNDLES = ("edit", "batch", "reconstruct", "demo", "doctor")
"""Verbs that would run the portrait bundle, which takes longer than the tests' own."""
RUN = (
    "edit",
    "batch",
    "reconstruct",
    "directions list",
    "demo",
    "info",
    "import direction interfacegan",
    "estimate",
    "build",
    "inspect",
    "serve repo",
    "serve key",
    "sign",
    "verify",
    "credentials",
    "doctor",
    "completion",
)
"""Verbs whose example runs here: the others need a GPU, a training run, files of others or a server, or take long."""
PARSED = (
    "AsyncClient",
    "Client",
    "calibrate_directions",
    "evaluate",
    "export",
    "fit_directions",
    "import_mapper",
    "import_weights",
    "pack",
    "refit",
    "train",
)
"""Names whose example is only read, for the same reasons."""


def verbs(union: Any = Verb, path: str = "") -> Iterator[tuple[str, type]]:
    """Every verb's words and class, groups included."""
    for choice in get_args(union):
        cls, found = get_args(choice)[0], f"{path} {choice.__metadata__[0].name}".strip()
        yield found, cls
        if "verb" in {field.name for field in dataclasses.fields(cls)}:
            yield from verbs(typing.get_type_hints(cls, include_extras=True)["verb"], found)


CLASSES = dict(verbs())


def words(verb: str) -> list[str]:
    program, *rest = shlex.split(EXAMPLES[verb])
    assert program == "edgedit"
    return rest


def test_every_verb_has_its_example() -> None:
    assert set(EXAMPLES) == {"", *CLASSES}
    for verb in EXAMPLES:
        assert words(verb)[: len(verb.split())] == verb.split()


@pytest.mark.parametrize("verb", EXAMPLES)
def test_examples_stand_under_the_help_and_parse(cli: Cli, verb: str) -> None:
    done = cli(*verb.split(), "--help")
    assert done.out.endswith(f"example: {EXAMPLES[verb]}\n")
    parsed = parse(spelt_out(words(verb)))
    assert type(parsed) in CLASSES.values() and hasattr(parsed, "run")
    if verb in RUN:
        assert type(parsed) is CLASSES[verb]


@pytest.fixture(scope="module")
def place(bundle_path: Path, head_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(bundle_path, folder / "BUNDLE")
    Image.open(head_path).save(folder / "photo.jpg", quality=95)
    Image.open(head_path).save(folder / "smiling.png")
    np.save(folder / "age.npy", np.ones((1, 512), np.float32))
    (folder / "photos").mkdir()
    shutil.copy(head_path, folder / "photos")
    (folder / "edits.yaml").write_text(EXAMPLE)
    return folder


@pytest.mark.parametrize("verb", RUN)
def test_cheap_examples_run(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.chdir(place)
    line = words(verb)
    if verb in BUNDLES:
        line += ["-b", "BUNDLE"]
    if verb in ("sign", "verify"):
        pytest.importorskip("model_signing", reason="signatures need the sign extra")
        if verb == "sign":
            private, public = write_keys(place)
            private.rename("private.pem"), public.rename("public.pem")
    if verb == "import direction interfacegan":
        # The official file is not ours to give away.
        line = [word.replace("age.pt", "age.npy") for word in line] + ["--licence", "MIT", "--range", "-3", "3"]
    done = cli(*line)
    assert done.status == 0, done.err


def documented(name: str) -> str:
    """The docstring of a name of the API; a constant's is the text that follows it."""
    if name == "PORTRAIT_BUNDLE":
        body = ast.parse(inspect.getsource(editor_module)).body
        place = next(i for i, node in enumerate(body) if isinstance(node, ast.Assign) and node.targets[0].id == name)
        return ast.literal_eval(body[place + 1].value)
    return inspect.getdoc(getattr(edgedit, name)) or ""


@pytest.mark.parametrize("name", edgedit.__all__)
def test_every_name_has_an_example(
    name: str, bundle_path: Path, head_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if name in ("AsyncClient", "Client"):
        pytest.importorskip("tritonclient", reason="the clients need the serve extra")
    text = documented(name)
    assert "Example:\n" in text
    monkeypatch.chdir(tmp_path)
    np.save("age.npy", np.ones((1, 512), np.float32))
    (tmp_path / "faces").mkdir()
    Image.open(head_path).resize((64, 64)).save("faces/a.png")
    known: dict[str, Any] = {"edgedit": edgedit, "np": np, "photo": head_path, "faces": tmp_path / "faces"}
    # A certificate is held against the networks, which the hand-made graphs are not of.
    known["bundle"] = shutil.copytree(RANDOM_BUNDLE if name == "certify" else bundle_path, "bundle")
    test = doctest.DocTestParser().get_doctest(text, known, name, None, None)
    assert test.examples and f"edgedit.{'Editor' if name in ('Inversion', 'Portrait') else name}" in text
    if name in PARSED:
        for example in test.examples:
            for call in (node for node in ast.walk(ast.parse(example.source)) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "edgedit":
                    takes = inspect.signature(getattr(edgedit, call.func.attr))
                    takes.bind(*call.args, **{word.arg: word.value for word in call.keywords if word.arg})
        return
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)
