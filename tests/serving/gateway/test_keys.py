from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engines.errors import EdgeditError
from serving.gateway.keys import EDIT, METRICS, KeyRing, add_key
from serving.gateway.settings import GatewayError, GatewaySettings


def test_a_key_that_was_made_is_found_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    phone = add_key(path, "phone")
    monitor = add_key(path, "monitor", (METRICS,))
    ring = KeyRing(path)
    found = ring.find(phone)
    assert found is not None and (found.name, found.scopes) == ("phone", {EDIT})
    found = ring.find(monitor)
    assert found is not None and (found.name, found.scopes) == ("monitor", {METRICS})
    for wrong in ("", phone[:-1], phone + "x", phone.upper(), "é", "\udcff"):
        assert ring.find(wrong) is None


def test_the_file_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "phone")
    assert key not in path.read_text() and len(key) > 40
    assert path.stat().st_mode & 0o077 == 0
    # The digest itself is not a key.
    assert KeyRing(path).find(path.read_text().split()[1]) is None


def test_comments_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\nphone {hashlib.sha256(b'secret').hexdigest()} # of the phone\n")
    found = KeyRing(path).find("secret")
    assert found is not None and found.scopes == {EDIT}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("phone hunter2\n", "line 1"),
        ("phone " + "0" * 63, "line 1"),
        (f"phone {'0' * 64} edit,everything", "no scope 'everything'"),
        (f"a {'0' * 64}\na {'1' * 64}", "line 2: the name or key of a is there twice"),
        (f"a {'0' * 64}\nb {'0' * 64}", "there twice"),
    ],
)
def test_a_file_that_will_not_do_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(GatewayError, match=says) as caught:
        KeyRing(path)
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="cannot read keys"):
        KeyRing(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GatewayError, match="not text"):
        KeyRing(tmp_path / "binary")


def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old = add_key(path, "old")
    ring = KeyRing(path)
    new = add_key(path, "new")
    assert ring.find(new) is None
    ring.reload()
    assert ring.find(new) is not None
    path.write_text("nonsense")
    with pytest.raises(GatewayError):
        ring.reload()
    assert ring.find(old) is not None and ring.find(new) is not None


def test_names_are_given_once(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, "phone")
    before = path.read_bytes()
    for name in ("phone", "two words", "", "-x"):
        with pytest.raises(EdgeditError):
            add_key(path, name)
    with pytest.raises(EdgeditError, match="no scope"):
        add_key(path, "other", ("all",))
    assert path.read_bytes() == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_only_loopback_is_bound_without_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="only loopback"):
        GatewaySettings(host=host)
    GatewaySettings(host=host, api_keys=tmp_path / "keys")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert GatewaySettings(host=host).host == host


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0.0},
        {"running": 0},
        {"waiting": -1},
        {"timeout": float("nan")},
        {"timeout": 100.0, "max_timeout": 60.0},
        {"port": 70_000},
        {"megapixels": 65.0},
    ],
)
def test_limits_that_allow_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(GatewayError):
        GatewaySettings(**wrong)  # type: ignore[arg-type]
