"""Tables of the README and the documentation, from the results that they quote: `python -m bench.tables [--write]`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.errors import OutputError
from engines.store import write

__all__ = ["TABLES", "filled", "latency", "main", "portrait", "table5"]

RESULTS = Path(__file__).parent / "results"


def portrait(quality: dict[str, Any]) -> str:
    """Reconstruction and edits of the portrait bundle, of `portrait-quality.json`, in Markdown."""
    rows = [
        (name, f"{got['psnr']:.1f}", f"{got['lpips']:.3f}", f"{got['identity']:.3f}")
        for name, got in zip(
            ("this model", "e4e's code of W+ alone"),
            (quality["reconstruction"][key] for key in ("ours", "e4e_w_plus")),
            strict=True,
        )
    ]
    first = _table((f"reconstruction, {quality['photos']} photos", "PSNR (dB)", "LPIPS (Alex)", "identity"), rows)
    rows = [
        (
            f"{edit['direction']} {_signed(edit['strength'], 'g')}",
            _change(edit["attribute"], edit["ours"], room=True),
            f"{edit['ours']['identity']:.2f}",
            _change(edit["attribute"], edit["linear"]),
            f"{edit['linear']['identity']:.2f}",
        )
        for edit in quality["edits"]
    ]
    header = (f"edit, {quality['edited_photos']} photos", "change of the judge's score", "identity")
    return f"{first}\n\n{_table((*header, 'linear editing: change', 'identity'), rows)}"


def table5(counts: dict[str, Any], *times: dict[str, Any]) -> str:
    """The paper's Table 5 beside what was counted and timed here, of `table5-counts.json` and files of times, of which
    the first that has a method counts: each file's ratios are to its own e4e."""
    timed = {row["method"]: row for file in reversed(times) for row in file["rows"]}
    rows = []
    for row in counts["rows"]:
        name = _METHODS.get(row["method"], row["method"])
        if name is None:
            continue
        time = timed.get(row["method"], {})
        rows.append(
            (
                name,
                f"{_number(row['paper_params_m'], 1)} → {row['complete_params_m']:.1f}",
                f"{_number(row['paper_gmacs'], 1)} → {row['complete_gmacs']:.1f}",
                _number(time.get("paper_ratio"), 2),
                _number(time.get("ratio"), 2, "not timed"),
            )
        )
    return _table(
        (
            "method",
            "parameters, paper → complete (M)",
            "GMACs, paper → complete",
            "time to e4e, paper",
            "here",
        ),
        rows,
    )


def latency(measured: dict[str, Any]) -> str:
    """Milliseconds of a bundle's graphs in each runtime and how many times faster than the base that is, of
    `latency-portrait.json`, in Markdown."""
    times: dict[str, dict[str, str]] = {}
    for row in measured["rows"]:
        if row["batch"] == 1:
            cell = f"{row['median_ms']:.0f} ({row['speedup']:.1f}×)"
            times.setdefault(f"{row['runtime']}:{row['precision']}", {})[row["graph"]] = cell
    rows = [
        (
            start["name"],
            *(times[start["name"]][graph] for graph in measured["graphs"]),
            f"{start['picture_ms']['median_ms'] / 1e3:.1f}",
            f"{start['peak_bytes'] / 2**30:.2f}",
        )
        for start in measured["starts"]
    ]
    graphs = (f"{graph} (ms)" for graph in measured["graphs"])
    return _table(("runtime", *graphs, "first picture, cold (s)", "memory (GiB)"), rows)


_METHODS = {
    "Ours": "**ours** (the paper)",
    "Ours, light": "**ours, light** (`faces-1024-mobile`)",
    "Ours, no RGB skip": None,
}
"""Names of rows of the counts in the table; None leaves one out."""
_UNITS = {"age": ".1f years", "yaw": ".1f°", "pitch": ".1f°", "smile": ".2f p(happy)", "male": ".2f p(male)"}
"""The format and the unit of an attribute's change."""


def _change(attribute: str | None, got: dict[str, Any], room: bool = False) -> str:
    if attribute is None:
        return "not judged"
    form, _, unit = _UNITS.get(attribute, f".2f {attribute}").partition(" ")
    form, degree = form.removesuffix("°"), "°" if form.endswith("°") else ""
    value = _signed(got.get("change_with_room", got["change"]), form)
    if room and unit.startswith("p("):
        return f"{unit} {value}, of {got['faces_with_room']} faces with room for it"
    return f"{value}{degree}" if degree or unit.startswith("p(") else f"{value} {unit}".strip()


def _signed(value: float, form: str) -> str:
    return f"{value:+{form}}".replace("-", "−")


def _number(value: float | None, digits: int, absent: str = "–") -> str:
    return absent if value is None else f"{value:.{digits}f}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(header)}", *lines[1:]])


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "portrait": ("README.md", lambda: portrait(_result("portrait-quality.json"))),
    "latency": ("docs/cpu.md", lambda: latency(_result("latency-portrait.json"))),
    "table5": (
        "docs/table5.md",
        lambda: table5(*map(_result, ("table5-counts.json", "table5-times-cpu.json", "table5-times-cpu-light.json"))),
    ),
}
"""The page that has a marker, from the repository's root, and what stands between it and its end; by marker."""


def filled(page: str, name: str, table: str) -> str:
    """A page's text with a table between its markers `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        OutputError: if the page does not have the two markers, once.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise OutputError(f"the page must have {begin.strip()} and {end} once, each on a line of its own")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}{table}\n{end}", page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into their pages instead of printing them")
    writing = parser.parse_args().write
    for name, (page, table) in TABLES.items():
        if not writing:
            print(f"{page}, {name}:\n\n{table()}\n")
            continue
        path = RESULTS.parents[1] / page
        try:
            write(path, filled(path.read_text(), name, table()).encode())
        except OutputError as error:
            raise SystemExit(f"error: {page}: {error}") from None


if __name__ == "__main__":
    main()
