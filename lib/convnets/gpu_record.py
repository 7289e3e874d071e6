"""What `tests/bench/gpu` has recorded on a GPU, as a table; or a box that says there is none."""

import html
from pathlib import Path

from . import results

#: The page's style sheet knows tables of this class, in the dark too.
TABLE = '<table class="cv-summary" style="font-size: .92em">'
BOX = (f'{TABLE}<caption style="color: inherit"><strong>Not measured on a GPU</strong></caption>'
       '<tbody><tr><td style="border: 1px solid; padding: .6em 1em; text-align: left">No record '
       "is here yet. On Linux with an NVIDIA GPU, <code>make gpu-check</code> makes it in under "
       "ten minutes; this page then shows its table.</td></tr></tbody></table>")
HEADER = ("network", "minibatch", "run as", "ms", "images/s", "MiB", "of the card",
          "against torch")


class Table:
    """Times of networks on a GPU, beside PyTorch's.

    Parameters
    ----------
    run : dict or None
        As `convnets.results.load` gives it; None where nothing was recorded.

    Attributes
    ----------
    rows : list of tuple of str
        As `HEADER` names them.
    """

    def __init__(self, run):
        self.run = run
        parts = run["parts"] if run else {}
        self.rows = [row for part in parts.values() if isinstance(part, dict) and "peers" in part
                     for row in _rows(part, parts.get("ceilings"))]

    def __repr__(self):
        if not self.rows:
            return "not measured on a GPU: make gpu-check records it"
        lines = [HEADER, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
                for line in lines)
        return "\n".join([*(line.rstrip() for line in text), results.describe(self.run)])

    def _repr_html_(self):
        if not self.rows:
            return BOX
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in self.rows)
        return (f'{TABLE}<caption style="color: inherit">{html.escape(results.describe(self.run))}'
                f"</caption><thead><tr>{_cells('th', HEADER)}</tr></thead>"
                f"<tbody>{body}</tbody></table>")


def _cells(tag, texts):
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def share(label, peer, part, ceilings):
    """Return what share of the card's products of matrices a network reaches.

    Parameters
    ----------
    label : str
        How it was run; half precision is measured by products in float16, all else in TF32.
    peer, part, ceilings : dict
        As `tests/bench/gpu` records them.

    Returns
    -------
    float or None
        None if it was not measured.
    """
    half = any(word in label for word in ("mixed", "autocast", "half"))
    most = ceilings.get("float16 TFLOP/s" if half else "TF32 TFLOP/s") if isinstance(
        ceilings, dict) else None
    if not most or "images_per_second" not in peer or "flop_per_image" not in part:
        return None
    return peer["images_per_second"] * part["flop_per_image"] / 1e12 / most


def _rows(part, ceilings):
    """Yield the rows of a network; the last column is the time of torch's best over this one."""
    times = {label: peer.get("milliseconds") for label, peer in part["peers"].items()}
    best = min((t for label, t in times.items() if t and label.startswith("torch")), default=None)
    kind = "training" if part["train"] else "inference"
    kind += " (unfinished)" * ("unfinished" in part)
    for label, peer in part["peers"].items():
        name = f"{part['network']}, {kind}", str(part["batch"]), label
        if "error" in peer:
            yield (*name, "failed", *("",) * 4)
        else:
            reached = share(label, peer, part, ceilings)
            yield (*name, f"{times[label]:.2f}", f"{peer['images_per_second']:,.0f}",
                   f"{peer['bytes'] / 2**20:,.0f}", "" if reached is None else f"{reached:.1%}",
                   f"{best / times[label]:.2f}" if best else "")


def load(path):
    """Return the table of a record, or of none where the file is not there.

    Parameters
    ----------
    path : path
        As ``make gpu-check`` writes it.

    Raises
    ------
    ValueError
        If the file is there and is no such record.
    """
    if not Path(path).exists():
        return Table(None)
    return Table(results.load(path, (*results.KEYS[:6], "parts")))
