"""What is wrong with a network that trains badly and raises nothing.

`diagnose` runs the cheap checks on any classifier and says what it got, what it expected and what
to do. `flow` shows what each parameter is told, `overfit` learns one minibatch by heart, and
`FirstNonFinite` stops at the function that makes the first infinity or NaN.
"""

import contextlib
import copy
import math
from dataclasses import dataclass

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from .losses import check_labels
from .widgets._base import asset, text

EXAMPLES = 16        # of the minibatch; more find no more bugs
FIRST_LOSS = 3.0     # how far above ln K a healthy first loss may be: HeNormal alone adds up to 2.4
LEARNED = 0.1        # share of ln K below which a minibatch counts as learned by heart
SLOPE = 0.15         # relative error of a gradient that ReLU's kinks explain
AGREE = 1e-3         # of the spread of the scores: rounding, when the size of a minibatch changes


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was checked.
    ok : bool
    got, expected : str
        In words, with numbers.
    advice : str
        What to do; empty where all is well.
    """

    check: str
    ok: bool
    got: str
    expected: str
    advice: str = ""

    def __str__(self):
        if self.ok:
            return f"✓ {self.check}: {self.got}"
        return (f"✗ {self.check}\n    got       {self.got}\n    expected  {self.expected}\n"
                f"    do        {self.advice}")


@dataclass(frozen=True)
class Diagnosis:
    """The findings about a network; prints as a list; in notebooks, passed checks are folded.

    Attributes
    ----------
    model : str
        Name of the model's class.
    findings : tuple of Finding
        In the order of the checks, the cheapest first.
    """

    model: str
    findings: tuple

    @property
    def faults(self):
        """The findings that are not ok, a list."""
        return [finding for finding in self.findings if not finding.ok]

    @property
    def ok(self):
        """Whether every check was passed, a bool."""
        return not self.faults

    @property
    def _title(self):
        n, faults = len(self.findings), len(self.faults)
        return f"{self.model}: {f'{faults} of {n}' if faults else f'none of {n}'} checks failed"

    def __str__(self):
        return "\n".join([self._title, *map(str, self.findings)])

    __repr__ = __str__

    def _repr_html_(self):
        passed = [finding for finding in self.findings if finding.ok]
        items = "".join(f"<li>{text(finding.check)}: {text(finding.got)}</li>"
                        for finding in passed)
        return (f'<div class="cv cv-diagnosis">\n<style>\n{asset("base.css")}</style>\n'
                f'<p class="cv-title">{text(self._title)}</p>\n'
                + "\n".join(map(_fault_html, self.faults))
                + f'\n<details><summary>✓ passed: {len(passed)}</summary><ul>{items}</ul>'
                  "</details></div>")


def _fault_html(finding):
    rows = {"got": finding.got, "expected": finding.expected, "do": finding.advice}
    cells = "".join(f"<dt>{name}</dt><dd>{text(said)}</dd>" for name, said in rows.items())
    return f'<p class="cv-bad">✗ {text(finding.check)}</p>\n<dl>{cells}</dl>'


def diagnose(model, x, t, *, steps=150, lr=0.003):
    """Check a classifier with one minibatch, without changing it.

    Every check works on a copy, and the random state is put back. Takes about as long as
    `steps` training steps on 16 images.

    Parameters
    ----------
    model : chainer.Link
        Gives scores (N, K) in train mode; in a `L.Classifier`, its predictor is checked.
    x : array, shape (N, C, H, W), float
        A minibatch as training sees it, of at least 2 images; the first 16 are used.
    t : array of int, shape (N,)
        Labels.
    steps : int
        How many steps of Adam may be taken to learn the minibatch by heart.
    lr : float
        Adam's rate for that.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        If x and t are no minibatch of images and labels.
    Exception
        Whatever the model itself raises.
    """
    x, t = _minibatch(x, t)
    with _undisturbed(), np.errstate(all="ignore"):
        patient = _Patient(model, x, t)
        findings = [_labels(patient), _scores(patient), _finite(patient)]
        if findings[-1].ok:
            findings += [_first_loss(patient), _registered(patient), _reached(patient),
                         _slopes(patient), _test_mode(patient), _independent(patient),
                         _two_softmaxes(patient), _by_heart(patient, steps, lr)]
    return Diagnosis(type(patient.model).__name__, tuple(findings))


def _minibatch(x, t):
    x, t = chainer.as_array(x), chainer.as_array(t)
    if not (isinstance(x, np.ndarray) and isinstance(t, np.ndarray)):
        raise ValueError(f"NumPy arrays are needed, got {type(x).__name__} and "
                         f"{type(t).__name__}: bring model and minibatch to the processor")
    if x.dtype.kind != "f" or x.ndim < 2 or t.shape != x.shape[:1] or len(x) < 2:
        raise ValueError(
            f"a minibatch of at least 2 images (N, C, H, W), float, and labels (N,) is needed; "
            f"got x {x.shape} {x.dtype} and t {t.shape} {t.dtype}")
    if t.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers, got {t.dtype}: t.astype(np.int32)")
    return x[:EXAMPLES], t[:EXAMPLES].astype(np.int32)


class _Patient:
    """A model, a minibatch, and one training pass through a copy of the model."""

    def __init__(self, model, x, t):
        self.wrapper = model
        self.model = copy.deepcopy(model.predictor if isinstance(model, L.Classifier) else model)
        self.x, self.t = x, t
        # A first call, for shapes that were left to it; in test mode, so that no average moves.
        with _undisturbed(), chainer.using_config("train", False), chainer.no_backprop_mode():
            self.model(x)
        self.rows, self.loss, self.y, self.called, self.twin = _passed(self.model, x, t)
        self.n_class = self.y.shape[1]

    def answers(self, x):
        """Scores (N, K) in test mode, an array; the model stays as it is."""
        return _answers(copy.deepcopy(self.model), x)


def _answers(model, x):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return getattr(model, "logits", model)(x).array


def _loss(model, x, t):
    return F.softmax_cross_entropy(model(x), t)


@contextlib.contextmanager
def _undisturbed(seed=0):
    """Seed NumPy's global random state, and put it back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class _Calls(chainer.LinkHook):
    """Notes which links are called, in order."""

    name = "calls"

    def __init__(self):
        self.links = []

    def forward_preprocess(self, args):
        if not any(args.link is link for link in self.links):
            self.links.append(args.link)


def _passed(model, x, t):
    """Forward and backward of a copy in train mode: rows of `flow`, loss, scores, links, copy."""
    twin = copy.deepcopy(model)
    twin.cleargrads()
    with chainer.using_config("train", True), chainer.using_config("enable_backprop", True), \
            _undisturbed(), np.errstate(all="ignore"), _Calls() as calls:
        y = twin(x)
        if not isinstance(y, chainer.Variable) or y.ndim != 2:
            raise ValueError(f"the model must give scores (N, K) as a Variable in train mode, got "
                             f"{getattr(y, 'shape', type(y).__name__)}")
        check_labels(t, n_class=y.shape[1])
        loss = F.softmax_cross_entropy(y, t)
        loss.backward()
    names = {id(param): path[1:] for path, param in twin.namedparams()}
    links = [*calls.links, *(link for _, link in sorted(twin.namedlinks()))]
    owned = {id(p): (names.get(id(p)), p) for link in links for p in _own(link)}
    rows = [_row(name, p) for name, p in owned.values() if name is not None]
    return rows, float(loss.array), y.array, calls.links, twin


def _own(link):
    """The parameters of a link without those of its children."""
    return [param for path, param in link.namedparams(False) if path.count("/") == 1]


def _row(name, param):
    weight = float(np.linalg.norm(chainer.as_array(param))) if param.array is not None else 0.0
    gradient = None if param.grad is None else float(np.linalg.norm(param.grad))
    step = gradient / weight if gradient is not None and weight else None
    frozen = param.update_rule is not None and not param.update_rule.enabled
    return {"name": name, "weight": weight, "gradient": gradient, "step": step, "frozen": frozen}


def flow(model, x, t):
    """Return what one minibatch tells each parameter, in the order in which layers are called.

    Parameters
    ----------
    model : chainer.Link
        Gives scores (N, K) in train mode. A copy is used; the model stays as it is.
    x : array, shape (N, C, H, W), float
    t : array of int, shape (N,)

    Returns
    -------
    list of dict
        For each parameter: ``name``; ``weight`` and ``gradient``, the norms of both, the latter
        None where the gradient does not arrive; ``step``, gradient / weight: how far plain SGD at
        rate 1 would move it; ``frozen``, whether its update rule is switched off.
    """
    return _Patient(model, *_minibatch(x, t)).rows


def slopes(model, x, t):
    """Return how much the loss changes along each gradient, as a share of what that says.

    The weights are moved a little along their gradient, forth and back. 1 is right; ReLU and max
    pooling have kinks, so a few hundredths more or less are no fault.

    Parameters
    ----------
    model : chainer.Link
        Gives scores (N, K) in train mode. A copy is used; the model stays as it is.
    x : array, shape (N, C, H, W), float
    t : array of int, shape (N,)

    Returns
    -------
    dict
        For each parameter of more than one axis its ratio, in the order in which layers are
        called. Gradients so small that rounding would decide are left out.

    Raises
    ------
    ValueError
        If two equal calls give different losses, by noise that no seed reaches.
    """
    with _undisturbed():
        ratios = _slope_ratios(_Patient(model, *_minibatch(x, t)))
    if ratios is None:
        raise ValueError("two equal calls of the model give different losses, though NumPy's "
                         "global generator was seeded: slopes cannot be told from noise")
    return ratios


def overfit(model, x, t, steps=150, lr=0.003):
    """Learn one minibatch by heart with Adam and return the losses; the model changes.

    Parameters
    ----------
    model : chainer.Link
        Gives scores (N, K) in train mode.
    x : array, shape (N, C, H, W), float
    t : array of int, shape (N,)
    steps : int
        At most so many; it ends at a tenth of LEARNED * ln K.
    lr : float

    Returns
    -------
    list of float
    """
    optimizer = chainer.optimizers.Adam(lr).setup(model)
    losses = []
    with chainer.using_config("train", True):
        for _ in range(steps):
            loss = _loss(model, x, t)
            model.cleargrads()
            loss.backward()
            optimizer.update()
            losses.append(float(loss.array))
            if losses[-1] < 0.1 * LEARNED * math.log(loss.creator.y.shape[1]):
                break
    return losses


# ---- the checks, each from a patient to a Finding --------------------------------------------

def _labels(p):
    kinds = len(np.unique(p.t))
    return Finding("labels", kinds > 1, f"{kinds} classes among {len(p.t)} examples",
                   "at least 2 classes in a minibatch",
                   "" if kinds > 1 else "Shuffle the data: a minibatch of one class teaches only "
                                        "that class.")


def _scores(p):
    if _probabilities(p.y):
        return Finding(
            "scores", False, "in train mode each row is positive and adds up to 1",
            "scores of any size", "softmax_cross_entropy takes a softmax itself. Return the "
            f"scores as they are: with two, no loss falls below {_floor(p.n_class):.4f}.")
    return Finding("scores", True, f"from {p.y.min():.3g} to {p.y.max():.3g}, no probabilities",
                   "scores of any size")


def _probabilities(y):
    return bool((y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-4))


def _floor(n_class):
    """The lowest cross-entropy of scores that lie between 0 and 1."""
    return math.log(1 + (n_class - 1) / math.e)


def _finite(p):
    bad = [row["name"] for row in p.rows
           if row["gradient"] is not None and not math.isfinite(row["gradient"])]
    if math.isfinite(p.loss) and not bad:
        return Finding("finite numbers", True, "loss and gradients are finite", "no inf, no NaN")
    got = f"the loss is {p.loss}" if not math.isfinite(p.loss) else f"gradients of {_some(bad)}"
    return Finding("finite numbers", False, got, "no inf, no NaN",
                   "Run it once inside `with FirstNonFinite():` (convnets.diagnosis): the error "
                   "names the first function, and its traceback your line.")


def _first_loss(p):
    chance = math.log(p.n_class)
    expected = f"near ln {p.n_class} = {chance:.2f}"
    if p.loss > chance + FIRST_LOSS:
        return Finding("first loss", False, f"{p.loss:,.2f}", expected,
                       "Scores this far from chance mean that weights or pixels are too large: "
                       f"scale the pixels (here {p.x.min():.3g} to {p.x.max():.3g}) to deviation "
                       "1, and use HeNormal or LeCunNormal. Or it has learned other labels.")
    known = ", lower than chance: has it learned already?" if p.loss < 0.7 * chance else ""
    return Finding("first loss", True, f"{p.loss:.2f}{known}", expected)


def _registered(p):
    known = {id(link) for link in p.twin.links()}
    owners = [link for link in p.called if _own(link)]
    lost = [link for link in owners if id(link) not in known]
    if not lost:
        n = len(owners)
        return Finding("links", True, f"all {n} with parameters that are called are registered",
                       "every link that is called is registered")
    size = sum(param.size for link in lost for param in _own(link))
    return Finding("links", False,
                   f"{_some([_where(p.twin, link) for link in lost])} called, not registered: "
                   f"{size:,} parameters", "every link that is called is registered",
                   "No optimizer trains them and no file saves them. Assign them inside `with "
                   "self.init_scope():`, or put a list of links into a chainer.ChainList.")


def _where(model, link):
    """Where a link that is not registered hangs: 'self.layers[2]'."""
    for path, owner in model.namedlinks():
        prefix = "self" + path.rstrip("/").replace("/", ".")
        for name, value in vars(owner).items():
            if value is link:
                return f"{prefix}.{name}"
            if isinstance(value, (list, tuple)) and any(v is link for v in value):
                return f"{prefix}.{name}[{[v is link for v in value].index(True)}]"
    return f"a {type(link).__name__}"


def _reached(p):
    called = {path for path, link in p.twin.namedlinks() if any(link is c for c in p.called)}
    frozen = [row["name"] for row in p.rows if row["frozen"]]
    none = [row["name"] for row in p.rows if row["gradient"] is None]
    zero = [row["name"] for row in p.rows if row["gradient"] == 0]
    expected = "a gradient for every parameter"
    if none:
        used = all("/" + name.rsplit("/", 1)[0] in called for name in none)
        return Finding(
            "gradients", False, f"none for {_some(none)}", expected,
            "They are used, but the way back is cut: look for `.array`, np. functions on arrays, "
            "no_backprop_mode." if used else
            "Links that are never called: use them in forward, or do not make them.")
    if zero:
        return Finding(
            "gradients", False, f"exactly 0 for {_some(zero)}", expected,
            "A function behind them hands nothing back: a ReLU that is off everywhere, a factor "
            "of 0, a function without slope (argmax, sign, round).")
    note = f"; frozen: {_some(frozen)}" if frozen else ""
    return Finding("gradients", True, f"all {len(p.rows)} parameters get one{note}", expected)


def _slopes(p):
    expected = "the loss changes as the gradients say"
    if (ratios := _slope_ratios(p)) is None:
        return Finding("slopes", True, "not checked: the loss differs from call to call", expected)
    wrong = {name: r for name, r in ratios.items() if abs(r - 1) > SLOPE}
    if len(wrong) <= len(ratios) // 20:      # one in twenty is a kink that was hit
        return Finding("slopes", True, f"{len(ratios)} gradients agree with the loss", expected)
    name, ratio = list(wrong.items())[-1]
    return Finding("slopes", False,
                   f"{len(wrong)} of {len(ratios)} gradients do not fit; along that of {name} the "
                   f"loss changes by {ratio:.2f} of what it says", expected,
                   f"A backward pass is wrong, behind {name}, the last that does not fit: try "
                   "`chainer.gradient_check.check_backward` on functions of your own there.")


def _slope_ratios(p):
    """What `slopes` returns, or None where the loss differs from call to call."""
    model = copy.deepcopy(p.twin)
    if _again(model, p) != _again(model, p):
        return None
    return {name: ratio for name, param in _weights(model, p)
            if (ratio := _slope(model, param, p)) is not None}


def _again(model, p):
    with chainer.using_config("train", True), chainer.no_backprop_mode(), _undisturbed():
        return float(_loss(model, p.x, p.t).array)


def _weights(model, p):
    """The weights of more than one axis that have a gradient, in the order of the calls."""
    found = dict(model.namedparams())
    for row in p.rows:
        param = found["/" + row["name"]]
        if row["gradient"] and param.ndim > 1:
            yield row["name"], param


def _slope(model, param, p):
    """Change of the loss along a gradient, as a share of what the gradient says; or None."""
    norm = float(np.linalg.norm(param.grad))
    start = param.array.copy()
    # Far enough that rounding does not count, near enough that few ReLUs switch.
    length = min(1e-3 * max(p.loss, 0.1) / norm, 5e-3 * float(np.linalg.norm(start)))
    if length * norm < 5e-5 * max(p.loss, 0.1):
        return None
    losses = []
    for sign in (1, -1):
        param.array = start + param.grad * start.dtype.type(sign * length / norm)
        losses.append(_again(model, p))
    param.array = start
    return (losses[0] - losses[1]) / (2 * length * norm)


def _test_mode(p):
    model = copy.deepcopy(p.model)
    before = _state(model)
    first, second = _answers(model, p.x), _answers(model, p.x)
    moved = [path for path, array in sorted(_state(model).items())
             if not np.array_equal(array, before[path])]
    expected = "in test mode equal calls give equal scores, and nothing changes"
    do = "Something sets train mode inside forward: leave `chainer.config.train` to the caller."
    if moved:
        return Finding("test mode", False, f"a call changes {_some(moved)}", expected, do)
    if not np.array_equal(first, second):
        return Finding("test mode", False, "two equal calls differ by up to "
                       f"{abs(first - second).max():.2g}", expected,
                       "Noise that is on in test mode, such as dropout written by hand. " + do)
    return Finding("test mode", True, "equal calls give equal scores", expected)


def _state(model):
    """Copies of all arrays that are saved with a model, by path."""
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(model)
    return {path: np.array(array) for path, array in serializer.target.items()}


def _independent(p):
    together = p.answers(p.x)
    alone = np.concatenate([p.answers(p.x[i:i + 1]) for i in range(4) if i < len(p.x)])
    scale = max(float(abs(together - together.mean(axis=1, keepdims=True)).max()), 1e-6)
    difference = float(abs(together[:len(alone)] - alone).max()) / scale
    expected = "the scores of an image do not depend on its neighbours in the minibatch"
    if difference < AGREE:
        return Finding("neighbours", True, "the same scores alone and in the minibatch", expected)
    return Finding("neighbours", False, "alone, an image's scores differ by "
                   f"{difference:.0%} of the largest", expected,
                   "Something works along axis 0 in test mode: batch statistics, a softmax or mean "
                   "with axis=0, a reshape that moves N, or noise.")


def _two_softmaxes(p):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        test = copy.deepcopy(p.model)(p.x).array
    switches = _probabilities(test) and not _probabilities(p.y)
    stock = type(p.wrapper) is L.Classifier or not hasattr(p.model, "logits")
    expected = "one softmax in the loss, in both modes"
    if switches and stock:
        return Finding("loss in test mode", False, "scores in train mode, probabilities in test "
                       "mode", expected, "An Evaluator with L.Classifier takes a second softmax. "
                       "Use convnets.losses.Classifier and a method `logits`.")
    return Finding("loss in test mode", True, "`logits` for the loss, probabilities for the "
                   "reader" if switches else "the same scores in both modes", expected)


def _by_heart(p, steps, lr):
    model = copy.deepcopy(p.model)
    losses = overfit(model, p.x, p.t, steps, lr)
    limit, lowest = LEARNED * math.log(p.n_class), min(losses)
    expected = f"below {limit:.2f} within {steps} steps"
    if lowest < limit:
        return Finding("one minibatch", True, f"learned by heart: loss {lowest:.2f} after "
                       f"{len(losses)} steps", expected)
    floor = _floor(p.n_class)
    do = "A network that cannot learn 16 images has a fault in front of all tuning: see above."
    if p.y.min() >= 0 and p.y.max() <= 1:
        do = (f"All scores lie between 0 and 1, so the loss cannot fall below {floor:.4f}: take "
              "the softmax or the sigmoid off them.")
    return Finding("one minibatch", False, f"loss {losses[0]:.2f} at first, {lowest:.2f} at best",
                   expected, do)


def _some(names, most=4):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class FirstNonFinite(chainer.FunctionHook):
    """Stops at the first function that gives an infinity or a NaN, forward or backward.

    ``with FirstNonFinite(): loss = model(x, t); loss.backward()``. Chainer's own
    ``chainer.config.debug = True`` finds NaN only, and so one or more functions later.

    Raises
    ------
    FloatingPointError
        Names the function and the range of its inputs. In a forward pass, the traceback ends in
        the line that called it.
    """

    name = "FirstNonFinite"

    def __init__(self):
        self._going_back = []

    def forward_preprocess(self, function, in_data):
        forward = function.forward

        def checked(inputs):
            outputs = forward(inputs)
            self._check(function, "forward", inputs, outputs)
            return outputs
        function.forward = checked

    def forward_postprocess(self, function, in_data):
        vars(function).pop("forward", None)

    def backward_preprocess(self, function, in_data, out_grad):
        if "backward" in vars(function) or not hasattr(function, "backward"):
            return
        backward = function.backward

        def checked(indexes, grads):
            self._going_back.append(function.label)   # its backward pass calls functions, too
            try:
                results = backward(indexes, grads)
            finally:
                self._going_back.pop()
            self._check(function, "backward", _arrays(grads), _arrays(results))
            return results
        function.backward = checked

    def backward_postprocess(self, function, in_data, out_grad):
        vars(function).pop("backward", None)

    def _check(self, function, way, inputs, outputs):
        xp = chainer.backend.get_array_module(*inputs)
        for y in outputs:
            if y is not None and y.dtype.kind == "f" and not bool(xp.isfinite(y).all()):
                vars(function).pop(way, None)
                kind = "NaN" if bool(xp.isnan(y).any()) else "inf"
                where = (f"the backward pass of {self._going_back[-1]}" if self._going_back
                         else f"its {way} pass")
                came = ", ".join(_range(a) for a in inputs if a is not None)
                raise FloatingPointError(
                    f"{function.label} gives {kind} in {where}; nothing before it did.\n"
                    f"Inputs: {came}\n"
                    "Keep them in range, or use a function that does two steps in one\n"
                    "(softmax_cross_entropy, log_softmax, logsumexp).")


def _arrays(variables):
    return [v.array for v in variables if v is not None]


def _range(array):
    if array.dtype.kind != "f" or not array.size:
        return f"{array.dtype} {array.shape}"
    return f"{array.shape} from {float(array.min()):.4g} to {float(array.max()):.4g}"
