"""Figures that stay alive without a kernel, and the cards and quizzes of a chapter.

Each function returns an object; leave it as the last line of a cell. Its HTML is self-contained:
it works in the rendered book, in JupyterLab and in a saved notebook, without network.
"""

from ._base import Widget
from ._cards import card, predict, quiz
from ._sliding import sliding_window

__all__ = ["Widget", "card", "predict", "quiz", "sliding_window"]
