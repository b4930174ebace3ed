"""Looking into engines: loading what a build left behind, a table for the terminal and a report for the browser.

Everything that is read here (names of layers, operators, reasons, certificates) was written by other tools and is
untrusted: it is cleaned for the terminal and escaped for HTML, and the sizes of what is read and written are bounded.
"""

from engines.inspector.compare import Comparison, compare
from engines.inspector.devices import Device, assume_device, find_device
from engines.inspector.inspection import Inspection, inspect
from engines.inspector.page import comparison_page, engine_page
from engines.inspector.subject import Subject, load
from engines.inspector.terminal import print_comparison, print_subject

__all__ = [
    "Comparison",
    "Device",
    "Inspection",
    "Subject",
    "assume_device",
    "compare",
    "comparison_page",
    "engine_page",
    "find_device",
    "inspect",
    "load",
    "print_comparison",
    "print_subject",
]
