"""``gpu-patch predict``: a trained model over whole images."""

from gpu_patch.cli.predict.command import add_to

__all__ = ["add_to"]
