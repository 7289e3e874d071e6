"""Drawn frames behind a slider, linked in the page: no kernel is needed to look through them."""

import base64
import html


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
        Its parts are linked in the browser, so it works on a static page.

    Raises
    ------
    ValueError
        If there are no figures, or another number of labels.
    """
    import ipywidgets as ipw  # here: everything else in this package does without it

    figures, labels = list(figures), [str(label) for label in labels]
    if not figures or len(figures) != len(labels):
        raise ValueError(f"frames: {len(figures)} figures and {len(labels)} labels")
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
    data = base64.b64encode(figure.png()).decode()
    alt = html.escape(f"{label}: {figure.alt}")
    width = round(96 * figure.get_figwidth())
    return ipw.HTML(
        f"<p>{html.escape(label)}</p>"
        f'<img alt="{alt}" width="{width}" style="max-width: 100%; height: auto; background: #fff"'
        f' src="data:image/png;base64,{data}">'
    )
