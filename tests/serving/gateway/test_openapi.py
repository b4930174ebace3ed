"""The OpenAPI document is right: what it allows and forbids is tried on the application."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from edgedit.editor import Editor
from serving.gateway.app import create_app
from serving.gateway.keys import EDIT, METRICS, add_key
from tests.serving.gateway.conftest import EditorBackend
from tests.serving.gateway.conftest import settings as limits

_EXAMPLES = 12
_ROUTES = [
    ("POST", "/v1/inversions"),
    ("POST", "/v1/edits"),
    ("POST", "/v1/faces"),
    ("GET", "/v1/directions"),
    ("GET", "/v1/model"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def secured(editor: Editor, tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, str]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    key = add_key(path, "fuzz", (EDIT, METRICS))
    return create_app(lambda: EditorBackend(editor), limits(api_keys=path, canary_timeout=60.0)), key


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does-not-fit"])
@pytest.mark.parametrize(("method", "path"), _ROUTES, ids=[path for _, path in _ROUTES])
def test_answers_are_as_the_document_says(
    secured: tuple[FastAPI, str], method: str, path: str, mode: GenerationMode
) -> None:
    app, key = secured
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]
    # Bytes and texts of the right type are seldom photos of faces, forms or names of directions: 4xx is right then. And
    # no header value of the wrong type is refused that this document calls a text.
    excluded = [positive_data_acceptance] if mode is GenerationMode.POSITIVE else [negative_data_rejection]

    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def check(case: Case) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        if _is_short(case.headers.get("X-Request-Timeout")):
            # The document allows a deadline that nothing meets.
            headers["X-Request-Timeout"] = "60"
        answer = case.call(headers=headers)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, excluded_checks=excluded, headers=headers)

    check()


def _is_short(seconds: object) -> bool:
    try:
        return 0 < float(str(seconds)) < 60
    except ValueError:
        return False


def test_the_document_is_complete(secured: tuple[FastAPI, str], editor: Editor) -> None:
    document = secured[0].openapi()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {path for _, path in _ROUTES}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["operationId"]
            assert ("security" in operation and operation["security"] != []) == (
                path.startswith("/v1/") or path == "/metrics"
            )
            for code, answer in operation["responses"].items():
                assert answer["content"], (path, code)
                if code != "200":
                    assert list(answer["content"]) == ["application/problem+json"]
    # Every reference leads somewhere.
    schemas = document["components"]["schemas"]

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    bodies = document["paths"]["/v1/edits"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "multipart/form-data"}
    assert set(schemas["EditForm"]["required"]) == {"photo", "edits"}
    open_document = create_app(lambda: EditorBackend(editor), limits()).openapi()
    assert "securitySchemes" not in open_document["components"]


def test_the_document_tells_nothing_of_this_machine(secured: tuple[FastAPI, str]) -> None:
    text = str(secured[0].openapi())
    assert str(Path(__file__).parents[3]) not in text and secured[1] not in text
