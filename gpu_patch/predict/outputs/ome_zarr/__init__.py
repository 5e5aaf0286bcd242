"""Predictions as OME-Zarr 0.5, by zarr-python: resumed, and written by many processes."""

from gpu_patch.predict.outputs.ome_zarr.store import ZarrStore

__all__ = ["ZarrStore"]
