"""Drawn frames behind a slider, linked in the page: no kernel is needed to look through them."""

import base64
import html

from ._base import Widget


def frames(figures, labels, *, interval=600):
    """Look through figures with a slider or let them play.

    Parameters
    ----------
    figures : sequence of convnets.figures.Figure
        All of one size. They are stored in the notebook as PNG: a dozen is plenty.
    labels : sequence of str
        What stands above each frame, such as `'epoch 3'`.
    interval : int
        Milliseconds a frame stays when they play.

    Returns
    -------
    ipywidgets.VBox
        Its parts are linked in the browser, so it works on a static page. Where ipywidgets is not
        installed (as in the reader's browser), a figure of our own that does the same.

    Raises
    ------
    ValueError
        If there are no figures, or another number of labels.
    """
    figures, labels = list(figures), [str(label) for label in labels]
    if not figures or len(figures) != len(labels):
        raise ValueError(f"frames: {len(figures)} figures and {len(labels)} labels")
    try:
        import ipywidgets as ipw  # here: everything else in this package does without it
    except ModuleNotFoundError:
        return Frames(figures, labels, interval)
    last = len(figures) - 1
    stack = ipw.Stack(
        [_page(ipw, *pair) for pair in zip(figures, labels, strict=True)], selected_index=0
    )
    slider = ipw.IntSlider(min=0, max=last, description="frame", continuous_update=True)
    play = ipw.Play(min=0, max=last, interval=interval, show_repeat=False)
    ipw.jslink((play, "value"), (slider, "value"))
    ipw.jslink((slider, "value"), (stack, "selected_index"))
    return ipw.VBox([ipw.HBox([play, slider]), stack])


def _page(ipw, figure, label):
    return ipw.HTML(f"<p>{html.escape(label)}</p>{_image(figure, label)}")


def _image(figure, label):
    alt = html.escape(f"{label}: {figure.alt}")
    return (
        f'<img alt="{alt}" width="{_width(figure)}" src="{_source(figure)}"'
        ' style="max-width: 100%; height: auto; background: #fff">'
    )


def _width(figure):
    return round(96 * figure.get_figwidth())


def _source(figure):
    return f"data:image/png;base64,{base64.b64encode(figure.png()).decode()}"


class Frames(Widget):
    """Frames without ipywidgets: a slider and a button in the page."""

    name = "frames"
    label = "Frames to look through"

    def __init__(self, figures, labels, interval):
        super().__init__()
        self.figures, self.labels, self.interval = figures, labels, interval
        self.pictures = [{"source": _source(it), "alt": it.alt} for it in figures]

    def state(self):
        return {
            "labels": self.labels,
            "pictures": self.pictures,
            "width": _width(self.figures[0]),
            "interval": self.interval,
        }

    def fallback(self):
        return _image(self.figures[-1], self.labels[-1])
