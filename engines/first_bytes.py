"""The kind of a file that came in place of the one asked for, from its first bytes, and what to do about it.

For every reader of others' files: weights, directions, mappers, statistics. No format that is read is named here.
"""

from __future__ import annotations

import re

LENGTH = 512
"""Bytes that are looked at."""

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
_OLD_PICKLE = re.compile(
    rb"""\(*(?:
        c[\w.]+\n\w+\n[pq(]          # a name: "cnumpy.core.multiarray\n_reconstruct\np0\n"
        | [ld]p\d+\n                 # a list or dictionary of protocol 0
        | [\]}]q.                    # and of protocol 1
    ) | \(+(?:F[-+.\d]|G.{8}[G(tq])  # a tuple of numbers
    """,
    re.VERBOSE | re.DOTALL,
)


def remedy(start: bytes) -> str | None:
    """The end of a sentence about a file that begins with `start`, such as "is empty; get it again".

    Args:
        start: the first `LENGTH` bytes, or all if there are fewer.

    Returns:
        None for a file that is none of those known here.
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "is empty; get it again"
    if not text.strip(b"\0"):
        return "begins with nothing but zeros or blanks, as an interrupted download does; get it again"
    if text.startswith(b"version https://git-lfs.github.com/"):
        return "is a Git LFS pointer, which stands in for the file; fetch the file itself with `git lfs pull`"
    if text.startswith(b"<"):
        return "is a web page that was saved in place of the file, often a notice; download the file itself"
    if packed := next((name for sign, name in _PACKED.items() if start.startswith(sign)), None):
        return f"is compressed with {packed}; unpack it and give the file inside"
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the file inside"
    if start.startswith(b"PK\x05\x06"):
        return "is an empty zip archive; get it again"
    if _OLD_PICKLE.match(start):
        return (
            "is a pickle of protocol 0 or 1, as Python 2 wrote them; such are not read: if you trust where it comes "
            "from, load it in Python and save its array with numpy.save"
        )
    return None
