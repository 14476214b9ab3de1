"""``doctor``: what this machine brings to a federation."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from importlib.metadata import version

import torch

from healthfm_client.commands import Command, say
from healthfm_core.kernels.ct_attention import ops
from healthfm_core.kernels.ct_attention.cpu import compiled


def configure(parser: ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(arguments: Namespace) -> int:
    """Say what is installed and how fast the model's attention runs here."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("healthfm", "torch", "flwr"))
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    say(f"packages    Python {platform.python_version()}, {packages}")
    say(f"processors  {processors} {platform.machine()}, {torch.get_num_threads()} threads in use")
    say(f"attention   {ops.implementation(torch.device('cpu'), torch.float32)}")
    for n in range(torch.cuda.device_count()):
        named = f"{torch.cuda.get_device_name(n)}: "
        say(f"            {named}{ops.implementation(torch.device('cuda', n), torch.bfloat16)}")
    reason = compiled.why_absent()
    if reason is not None:
        say(f"            the compiled kernel, several times faster, is missing: {reason};")
        say("            install the wheel of your coordinator, or g++ and the package again")
    return 0


COMMAND = Command("doctor", "what is installed here, and how fast it runs", configure, run)
