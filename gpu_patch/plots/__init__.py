"""Pictures of patches, predictions, trainings and measurements, as matplotlib figures."""

from gpu_patch.plots.bench import plot_bench

__all__ = ["plot_bench"]
