"""Whole images from a model that sees tiles."""
