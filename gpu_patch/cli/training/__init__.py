"""``gpu-patch train-demo``: train a small network on batches made here, to see that it learns."""

from gpu_patch.cli.training.command import add_to

__all__ = ["add_to"]
