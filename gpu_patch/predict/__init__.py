"""Whole images from a model that sees tiles."""

from gpu_patch.predict.prediction import Prediction, predict

__all__ = ["Prediction", "predict"]
