"""Pictures of patches, predictions, trainings and measurements, as matplotlib figures.

Notebooks show them; ``figure.savefig("picture.png")`` keeps one.
"""

from gpu_patch.plots.batch import plot_batch
from gpu_patch.plots.bench import plot_bench
from gpu_patch.plots.by_chunk import plot_by_chunk
from gpu_patch.plots.prediction import plot_prediction
from gpu_patch.plots.training import plot_training

__all__ = ["plot_batch", "plot_bench", "plot_by_chunk", "plot_prediction", "plot_training"]
