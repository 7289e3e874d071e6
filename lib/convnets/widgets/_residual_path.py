"""A network as a path of blocks: what gradient and signal meet, with and without shortcuts."""

import html

from ._base import Widget

# What is known of each block, see `convnets.gradients.measure`.
COLUMNS = (
    "name",
    "shape",
    "signal",
    "signal_similarity",
    "gradient",
    "gradient_similarity",
    "step",
)


class ResidualPath(Widget):
    """Made by `residual_path`."""

    name = "residual_path"
    label = "Residual path: what gradient and signal meet at each block"

    def __init__(self, networks, chosen, distance, caption, key):
        super().__init__(caption, key)
        self.networks, self.chosen, self.distance = networks, chosen, distance

    def state(self):
        return {"networks": self.networks, "chosen": self.chosen, "distance": self.distance}

    def fallback(self):
        rows = "".join(
            f"<tr><td>{html.escape(network['name'])}</td>"
            f"<td>{'yes' if network['normalized'] else 'no'}</td>"
            + "".join(f"<td>{network[key][0]:.3g}</td>" for key in COLUMNS[4:6])
            + f"<td>{network['gradient'][-1]:.3g}</td></tr>"
            for network in self.networks
        )
        head = ("network", "batch normalization", "gradient at the first block",
                "similarity of neighbours there", "gradient at the last block")  # fmt: skip
        titles = "".join(f"<th>{title}</th>" for title in head)
        return f"<table><tr>{titles}</tr>{rows}</table>"


def residual_path(measurements, *, depth=None, residual=False, caption="", key=""):
    """Walk along a plain or a residual network, block by block, and see what arrives there.

    Parameters
    ----------
    measurements : dict
        What `convnets.gradients.record` wrote, or a part of it: for each depth, with or without
        batch normalization, a plain and a residual network of equally many blocks.
    depth : int, optional
        The depth that is shown first; by default the largest.
    residual : bool
        Which of the two is shown first.
    caption, key : str
        See `Widget`.

    Returns
    -------
    ResidualPath

    Raises
    ------
    ValueError
        If there is no such network, one has no twin, or a block lacks a measurement.
    """
    networks = [_columns(network) for network in measurements["networks"]]
    kinds = {(n["depth"], n["normalized"], n["residual"]): len(n["name_of"]) for n in networks}
    for network_depth, normalized, is_residual in kinds:
        twin = (network_depth, normalized, not is_residual)
        if kinds.get(twin) != kinds[network_depth, normalized, is_residual]:
            raise ValueError(
                f"residual_path: depth {network_depth} needs a plain and a residual network of "
                f"equally many blocks, normalized={normalized}"
            )
    depths = sorted({network["depth"] for network in networks})
    depth = depth or max(depths, default=None)
    if depth not in depths:
        raise ValueError(f"residual_path: depth {depth} was not measured; there are {depths}")
    normalized = any(n["normalized"] for n in networks if n["depth"] == depth)
    chosen = {"depth": depth, "residual": bool(residual), "normalized": normalized}
    return ResidualPath(networks, chosen, measurements["options"]["distance"], caption, key)


def _columns(network):
    """Return one list for each quantity instead of one dict for each block."""
    blocks = network["blocks"]
    for block in blocks:
        if missing := [column for column in COLUMNS if column not in block]:
            raise ValueError(
                f"residual_path: {network['name']}, block {block.get('name', '?')} lacks "
                + ", ".join(missing)
            )
    columns = {column: [block[column] for block in blocks] for column in COLUMNS[1:]}
    return {key: network[key] for key in ("name", "depth", "residual", "normalized")} | {
        "name_of": [block["name"] for block in blocks], **columns}  # fmt: skip
