"""Parameters of models whatever form they are written in."""

import chainer


def links_in_order(model):
    """Return the links of `model` that hold parameters, in the order they were added.

    ``Chain.children()`` goes by name (conv10 before conv2) and Chainer 7.8.1
    scrambles the children of a `Sequential`; this follows the order in which
    the author wrote the layers, at every level of nesting.

    Parameters
    ----------
    model : chainer.Link

    Returns
    -------
    list of chainer.Link
    """
    own = [model] if model._params else []
    return own + [link for child in _children(model) for link in links_in_order(child)]


def _children(model):
    if isinstance(model, chainer.Sequential):
        return [layer for layer in model if isinstance(layer, chainer.Link)]
    if isinstance(model, chainer.Chain):
        # Chain keeps a set of names; __dict__ remembers the order of assignment.
        return [child for name, child in vars(model).items() if name in model._children]
    return list(model.children()) if isinstance(model, chainer.ChainList) else []


def copy_weights(src, dst):
    """Copy all parameters and persistent arrays from one form to another.

    Layers are matched by their order, so the two models may name them differently.

    Parameters
    ----------
    src, dst : chainer.Link
        Two models of the same layers. `dst` is changed in place.

    Returns
    -------
    chainer.Link
        `dst`.

    Raises
    ------
    ValueError
        If the models differ in the number, kinds or shapes of their layers.
        `dst` is then unchanged.
    """
    pairs = _matched(links_in_order(src), links_in_order(dst))
    for a, b in pairs:
        # Of this link alone: its children stand in the list themselves.
        chainer.Link.copyparams(b, a)
    return dst


def _matched(sources, targets):
    if len(sources) != len(targets):
        raise ValueError(f"models have different numbers of layers with weights: "
                         f"{len(sources)} in the source, {len(targets)} in the target")
    for i, (a, b) in enumerate(zip(sources, targets, strict=True)):
        got, expected = _shapes(a), _shapes(b)
        if got != expected:
            raise ValueError(f"layer {i} differs: the source has {got}, the target {expected}. "
                             f"A shape of None is fixed by the first call.")
    return list(zip(sources, targets, strict=True))


def _shapes(link):
    return {name: getattr(link, name).shape for name in sorted(link._params)}
