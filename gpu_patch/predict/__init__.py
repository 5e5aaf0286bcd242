"""Whole images from a model that sees tiles."""

from gpu_patch.predict._predict import Prediction, predict

__all__ = ["Prediction", "predict"]
