"""Prediction: a model that sees tiles is run over whole images."""

from gpu_patch.predict.prediction import Prediction, predict

__all__ = ["Prediction", "predict"]
