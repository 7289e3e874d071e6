"""A curve that moves while a network trains."""

import html
import time

from chainer.training import Extension

from ._base import Widget

WIDTH, HEIGHT = 480, 220            # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 12, 36
POINTS = 400                        # more than that nobody sees


class LossCurve(Widget, Extension):
    """Made by `loss_curve`."""

    name = "loss_curve"
    label = "Loss while the network trains"
    trigger = (1, "iteration")
    PAUSE = 0.4                     # seconds from one picture to the next

    def __init__(self, steps, key, title, caption):
        super().__init__(caption)
        self.steps, self.observed, self.title = steps, key, title
        self.iterations, self.losses = [], []
        self._shown = 0.0

    # -- The trainer's side --

    def __call__(self, trainer):
        """Take the loss of this step; show the curve where the last picture is old enough."""
        if self.observed not in trainer.observation:
            raise KeyError(
                f"loss_curve: the run reports no {self.observed!r}; it reports "
                f"{', '.join(sorted(trainer.observation)) or 'nothing'}"
            )
        self.iterations.append(trainer.updater.iteration)
        loss = trainer.observation[self.observed]
        self.losses.append(float(getattr(loss, "array", loss)))
        if time.monotonic() - self._shown > self.PAUSE:
            self._show()

    def finalize(self):
        """Show the whole curve when the run ends, also by an error."""
        if self.losses:
            self._show()

    def serialize(self, serializer):
        """Nothing of it is part of a snapshot."""

    def _show(self):
        from IPython.display import clear_output, display  # here: scripts have no notebook

        clear_output(wait=True)
        display(self)
        self._shown = time.monotonic()

    # -- The picture --

    @property
    def id(self):
        """One for all pictures of a curve: each takes the place of the one before."""
        return f"cv-{self.name}-{self.observed.replace('/', '-')}"

    def fallback(self):
        if not self.losses:
            return f'<p class="cv-muted">{html.escape(self.title)}: no step yet</p>'
        said = (
            f"{self.title}: {self.losses[-1]:.2f} after {self.iterations[-1]} of"
            f" {self.steps} steps"
        )
        return f'<p class="cv-title cv-num">{html.escape(said)}</p>{self._svg(said)}'

    def _svg(self, said):
        top = max(max(self.losses), 1e-9) * 1.05
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        x = lambda step: LEFT + (right - LEFT) * step / max(self.steps, 1)  # noqa: E731
        y = lambda loss: bottom - (bottom - TOP) * loss / top               # noqa: E731
        every = -(-len(self.losses) // POINTS)
        points = list(zip(self.iterations, self.losses, strict=True))
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points[::every])
        ticks = "".join(
            f'<text class="cv-tick" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{value:.2g}</text>"
            f'<line class="cv-grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}"'
            f' y2="{y(value):.1f}"/>'
            for value in (0, top / 2.1, top / 1.05)
        ) + "".join(
            f'<text class="cv-tick" x="{x(step):.1f}" y="{HEIGHT - 14}" text-anchor="middle">'
            f"{step}</text>"
            for step in (0, self.steps // 2, self.steps)
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(said)}">'
            f'{ticks}<polyline class="cv-curve" points="{path}"/>'
            f'<circle class="cv-now" cx="{x(points[-1][0]):.1f}" cy="{y(points[-1][1]):.1f}"'
            ' r="4"/></svg>'
        )


def loss_curve(steps, *, observed="main/loss", title="loss", caption=""):
    """Return an extension for a trainer that draws the loss below the cell while it runs.

    It works in Jupyter and in the reader's browser, and leaves the last picture as the cell's
    output. Each new picture takes the place of all that the cell has shown before.

    Parameters
    ----------
    steps : int
        How many steps the run has: the width of the picture.
    observed : str
        Which of the trainer's observations to draw.
    title : str
        What it is called.
    caption : str
        See `Widget`.

    Returns
    -------
    LossCurve
        ``run.extend(loss_curve(800))`` before ``run.run()``.

    Raises
    ------
    ValueError
        If there are no steps.
    KeyError
        While the run goes, if it does not report `observed`.
    """
    if steps != int(steps) or steps < 1:
        raise ValueError(f"loss_curve: steps must be a whole number of at least 1; got {steps}")
    return LossCurve(int(steps), observed, title, caption)
