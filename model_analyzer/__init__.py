"""Measures models on NVIDIA Triton Inference Server at every batch size and load."""

__version__ = "0.1.0"
