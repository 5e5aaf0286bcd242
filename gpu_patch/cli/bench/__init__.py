"""``gpu-patch bench``: how fast this machine makes batches, on the CPU or on a GPU."""

from gpu_patch.cli.bench.command import add_to

__all__ = ["add_to"]
