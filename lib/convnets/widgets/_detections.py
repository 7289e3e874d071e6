"""Boxes that a detector finds in a scene, under a threshold and a suppression to drag."""

import numpy as np

from .. import detection
from ..detection_record import as_found
from ._base import Widget

KEYS = ("pixels", "truth", "heat", "found")


class Detections(Widget):
    """Made by `detections`."""

    name = "detections"
    label = "Detections: boxes over a scene, for a least score and a largest overlap"

    def __init__(self, scenes, score, overlap, caption, key):
        super().__init__(caption, key)
        self.scenes, self.score, self.overlap = scenes, score, overlap

    def state(self):
        return {"scenes": self.scenes, "score": self.score, "overlap": self.overlap,
                "stride": detection.STRIDE,
                "first": detection.WINDOW // 2}  # fmt: skip

    def fallback(self):
        rows = "".join(self._row(i, scene) for i, scene in enumerate(self.scenes, 1))
        head = "".join(f"<th>{name}</th>" for name in
                       ("scene", "digits", "boxes", "right", "precision", "recall"))  # fmt: skip
        return (f"<p>Boxes with a score of {self.score:g} or more, after suppression above an "
                f"overlap of {self.overlap:g}:</p><table><tr>{head}</tr>{rows}</table>")

    def _row(self, i, scene):
        found = detection.keep(as_found(scene), self.score, self.overlap)
        truth = np.array(scene["truth"]).reshape(-1, 5)
        ranking = detection.match([found], [(truth[:, :4], truth[:, 4])])
        precision, recall = detection.precision_recall(*ranking)
        cells = (i, len(truth), len(found.scores), int(ranking[1].sum()), f"{precision:.2f}",
                 f"{recall:.2f}")
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def detections(run, *, score=0.5, overlap=0.3, caption="", key=""):
    """Drag the least score and the largest overlap, and see boxes appear, merge and vanish.

    Right and wrong boxes and missed digits are counted from the stored truth, by the rule of
    `convnets.detection.match`.

    Parameters
    ----------
    run : dict
        What ``convnets detection --record`` wrote, or a dict with its ``scenes``.
    score, overlap : float
        Where the two sliders stand first, 0 to 1.
    caption, key : str
        See `Widget`.

    Returns
    -------
    Detections

    Raises
    ------
    ValueError
        If there is no scene, a scene lacks something, or a slider would stand outside.
    """
    scenes = run.get("scenes", [])
    if not scenes:
        raise ValueError("detections: the run holds no scenes; make one with "
                         "`convnets detection --record FILE`")
    for i, scene in enumerate(scenes):
        if missing := [name for name in KEYS if name not in scene]:
            raise ValueError(f"detections: scene {i} lacks {', '.join(missing)}")
    for name, value in (("score", score), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise ValueError(f"detections: {name} must be 0 to 1; got {value}")
    return Detections([{name: scene[name] for name in KEYS} for scene in scenes], score, overlap,
                      caption, key)
