"""Trained models for other programs: ONNX files, and weights under torchvision's names.

What is written computes the same elsewhere, or is not written: what a file cannot say is an error,
and an ONNX file is read back and, where onnxruntime is installed, run before it gets its name.
"""

from .errors import ExportError
from .onnx_file import Graph, Node, read
from .to_onnx import Exported, onnx
from .to_torch import ExportedWeights, torch

__all__ = ["ExportError", "Exported", "ExportedWeights", "Graph", "Node", "onnx", "read", "torch"]
