"""Packs: folders that install edgedit on a box without a network, and prove there that it works.

    SHA256SUMS          digest of every other file, in the format of `sha256sum`; the installer checks it first
    pack.json           for which machine the pack is, what is in it, and what its self-test must draw
    install.sh          or install.ps1 and install.cmd: makes a venv of what is here, and runs the self-test
    requirements.txt    every wheel, with its hash
    wheels/             edgedit's own, without the portrait bundle, and those of the lock
    bundle/             the bundle, whole, with the engines that were asked for
    expected.png        the edited face that the self-test draws
    README.txt, LICENSE, NOTICE

A digest finds damage, not malice: a pack is as trustworthy as the way by which it came.
"""

from edgedit.packing.manifest import PackError, PackInfo, verify_pack
from edgedit.packing.self_test import SelfTest, self_test
from edgedit.packing.writing import pack

__all__ = ["PackError", "PackInfo", "SelfTest", "pack", "self_test", "verify_pack"]
