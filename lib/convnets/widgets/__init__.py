"""Figures that stay alive without a kernel, and the cards and quizzes of a chapter.

Each function returns an object; leave it as the last line of a cell. Its HTML is self-contained:
it works in the rendered book, in JupyterLab and in a saved notebook, without network. (`frames`
alone is made of ipywidgets, where they are installed; `loss_curve` moves while a cell runs.)
"""

from ._architecture import architecture_explorer
from ._base import Widget
from ._cards import card, predict, quiz
from ._detections import detections
from ._frames import frames
from ._lenet5 import lenet5_explorer
from ._onnx_graph import onnx_graph
from ._playground import filter_playground
from ._receptive_field import receptive_field
from ._residual_path import residual_path
from ._shapes import shapes
from ._signatures import bug_signatures
from ._sliding import sliding_window
from ._softmax import softmax_explorer
from ._watch import loss_curve

__all__ = [
    "Widget",
    "architecture_explorer",
    "bug_signatures",
    "card",
    "detections",
    "filter_playground",
    "frames",
    "lenet5_explorer",
    "loss_curve",
    "onnx_graph",
    "predict",
    "quiz",
    "receptive_field",
    "residual_path",
    "shapes",
    "sliding_window",
    "softmax_explorer",
]
