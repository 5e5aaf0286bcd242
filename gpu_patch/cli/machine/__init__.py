"""``gpu-patch info`` without files: what this machine can use, and the one thing to fix."""

from gpu_patch.cli.machine.report import show

__all__ = ["show"]
