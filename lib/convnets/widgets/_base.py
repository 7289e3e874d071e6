"""The base of every interactive figure: an object whose HTML is all it needs."""

import hashlib
import html
import json
import re
from functools import cache
from importlib.resources import files


@cache
def asset(name):
    """The text of `convnets/assets/<name>`, or '' where there is no such file."""
    path = files("convnets") / "assets" / name
    return path.read_text("utf-8") if path.is_file() else ""


def text(source):
    """Escape `source` for HTML; `` `code` `` and ``*emphasis*`` become tags."""
    escaped = html.escape(str(source))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", escaped)


def table(values, label):
    """A small HTML table of a 2-D array, for what shows where scripts do not run."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{value:g}</td>" for value in row) + "</tr>" for row in values
    )
    return f'<table aria-label="{html.escape(label)}">{rows}</table>'


class Widget:
    """A figure that works by itself: HTML, SVG and JavaScript in one cell output.

    It needs no kernel, no network and no widget manager: a static page, JupyterLab and a saved
    notebook show the same thing. The output of one widget is always the same text, so notebooks
    with stored outputs can be compared.

    A subclass sets `name` (its script is `assets/<name>.js`, its style `assets/<name>.css`, both
    optional) and `label` (what a screen reader announces), and overrides `state` and `fallback`.

    Parameters
    ----------
    caption : str
        One sentence below the figure that states a claim. `` `code` `` and ``*emphasis*`` work.
    key : str
        Tells apart two equal widgets on one page, for links to them. Rarely needed.
    """

    name = ""
    label = ""

    def __init__(self, caption="", key=""):
        self.caption = caption
        self.key = key

    def state(self):
        """What the script needs, as a dict of JSON values."""
        return {}

    def fallback(self):
        """HTML that teaches where scripts do not run; the script replaces it."""
        return ""

    @property
    def id(self):
        """The id of the HTML element: a hash of the content and the key."""
        content = json.dumps([self.name, self.state(), self.caption, self.key])
        return f"cv-{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def _repr_html_(self):
        style = asset("base.css") + asset(f"{self.name}.css")
        caption = f'<figcaption class="cv-caption">{text(self.caption)}</figcaption>'
        return (
            f'<figure class="cv cv-{self.name}" id="{self.id}" data-cv="{self.name}"'
            f' aria-label="{html.escape(self.label)}">\n<style>\n{style}</style>\n'
            f'<div class="cv-static">{self.fallback()}</div>\n'
            f"{caption if self.caption else ''}{self._script()}</figure>"
        )

    def _script(self):
        code = asset(f"{self.name}.js")
        if not code:
            return ""
        # '<' as \u003c: no text in the state can close the script element.
        state = json.dumps(self.state()).replace("<", "\\u003c")
        return (
            f'<script type="application/json" class="cv-state">{state}</script>\n'
            f"<script>\n{asset('base.js')}{code}</script>\n"
        )

    def __repr__(self):
        return f"<{type(self).__name__}: {self.label}>"
