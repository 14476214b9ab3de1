"""How much of its computer a site lends."""

from __future__ import annotations

import os
import sys

from pydantic import Field

from healthfm_core.config.base import Schema


class ComputerLimits(Schema):
    """Bounds on the process that trains; without one the computer's own holds."""

    threads: int | None = Field(None, ge=1, le=1024, description="processors used at once")
    memory_gb: float | None = Field(
        None, gt=0, le=65536, description="memory; more is refused to the process that trains"
    )
    gpu: bool = Field(True, description="whether a GPU that is there may be used")


def apply(resources: ComputerLimits) -> None:
    """Hold this process to `resources`; called before it first looks for a GPU."""
    if resources.threads is not None:
        import torch  # seconds, which a command that only reads the policy need not wait

        torch.set_num_threads(resources.threads)
    if not resources.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if resources.memory_gb is not None and sys.platform != "win32":
        import resource  # not on Windows

        most = int(resources.memory_gb * 2**30)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
