"""Convolutions as data, as graphs of ``nvidia-cudnn-frontend``, and as plans that run.

A `Convolution` says all that a plan depends on; the graph of it is built once and kept. Building
needs a device, or a description of one (`build`): so graphs are checked where no GPU is.
"""

import math
from typing import NamedTuple

from rechainer.cudnn._library import Failure, frontend

#: Attribute of the frontend's ``data_type`` by NumPy's name.
DATA_TYPES = {"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}
#: Numbers of the tensors in a graph.
X, W, Y, B, Z = 1, 2, 3, 4, 5
#: Plans tried by autotune, the heuristic's best first, and runs of each.
TRIED, RUNS = 12, 3
#: Functions that a convolution can apply to its result.
ACTIVATIONS = ("relu", "sigmoid")
#: Notes of the kernels left out where tensor cores, which round inputs, shall not be used.
REDUCED = ("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION")


class Array(NamedTuple):
    """What a plan depends on of an array: axes (N, C, ...), strides in elements, dtype's name."""

    shape: tuple
    strides: tuple
    dtype: str


class Convolution(NamedTuple):
    """A convolution y = activation(x * W + z + b), or one of the gradients of x * W.

    Parameters
    ----------
    kind : str
        ``forward`` makes y, ``data`` makes x of y, ``filter`` makes W of x and y.
    x, w, y : Array
        x (N, C, ...), W (K, C / groups, ...), y (N, K, ...). cuDNN tells the groups by them.
    bias : bool
        Of ``forward``: add b, a vector of K.
    pad, stride, dilation : tuple of int
    exact : bool
        Without tensor cores: no TF32 for float32.
    deterministic : bool
        The same bits each time.
    autotune : bool
        Measure the plans instead of asking the heuristic.
    workspace : int
        Bytes that a plan may use beside its arrays.
    add : bool
        Of ``forward``: add z, maps like y.
    activation : str, optional
        Of ``forward``: a name in `ACTIVATIONS`.
    """

    kind: str
    x: Array
    w: Array
    y: Array
    bias: bool
    pad: tuple
    stride: tuple
    dilation: tuple
    exact: bool
    deterministic: bool
    autotune: bool
    workspace: int
    add: bool = False
    activation: str | None = None


def describe(convolution):
    """Return a line for messages."""
    c = convolution
    behind = f"{' + z' * c.add}{f', {c.activation}' if c.activation else ''}"
    return (f"convolution ({c.kind}{behind}) of x {c.x.shape}, W {c.w.shape}, y {c.y.shape}, "
            f"{c.x.dtype}, pad {c.pad}, stride {c.stride}, dilation {c.dilation}")


def build(convolution, **target):
    """Build the graph of a convolution, up to the list of plans that may be used.

    Parameters
    ----------
    convolution : Convolution
    **target
        ``handle=`` cuDNN's handle, or ``device_property=`` a described device.

    Returns
    -------
    cudnn.pygraph

    Raises
    ------
    Failure
        If cuDNN has no plan for it within the limits.
    """
    cudnn = frontend()
    dtype = getattr(cudnn.data_type, DATA_TYPES[convolution.x.dtype])
    # Sums are float32, for half precision too, as Chainer's own are.
    sums = dtype if convolution.x.dtype == "float64" else cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=dtype, intermediate_data_type=sums,
                          compute_data_type=sums, **target)
    try:
        _OPERATIONS[convolution.kind](graph, convolution, dtype)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        _restrict(graph, convolution)
        graph.check_support()
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        raise Failure(f"cuDNN has no plan for a {describe(convolution)} with at most "
                      f"{convolution.workspace:,} bytes of workspace. Give it more "
                      f"(chainer.cuda.set_max_workspace_size), or set chainer.config.use_cudnn = "
                      f"'never'. cuDNN says: {error}") from error
    return graph


def _restrict(graph, convolution):
    notes = frontend().numerical_note
    unwanted = [*REDUCED] if convolution.exact else []
    unwanted += ["NONDETERMINISTIC"] if convolution.deterministic else []
    graph.deselect_workspace_greater_than(convolution.workspace)
    graph.deselect_numeric_notes([getattr(notes, name) for name in unwanted])


def _input(graph, array, uid, dtype):
    return graph.tensor(dim=list(array.shape), stride=list(array.strides), data_type=dtype,
                        uid=uid)


def _output(tensor, array, uid, dtype):
    tensor.set_uid(uid).set_output(True).set_data_type(dtype)
    tensor.set_dim(list(array.shape)).set_stride(list(array.strides))


def _geometry(convolution):
    return {"padding": list(convolution.pad), "stride": list(convolution.stride),
            "dilation": list(convolution.dilation)}


def _forward(graph, c, dtype):
    y = graph.conv_fprop(image=_input(graph, c.x, X, dtype), weight=_input(graph, c.w, W, dtype),
                         **_geometry(c))
    if c.add:   # before the bias: of a sum behind it cuDNN makes no plan
        y = graph.add(a=y, b=_input(graph, c.y, Z, dtype))
    if c.bias:
        y = graph.bias(input=y, bias=_input(graph, bias_of(c), B, dtype))
    if c.activation:
        y = getattr(graph, c.activation)(input=y)
    _output(y, c.y, Y, dtype)


def bias_of(convolution):
    """Return the `Array` (1, K, 1, ...) of the bias."""
    channels, axes = convolution.y.shape[1], len(convolution.pad)
    return Array((1, channels, *(1,) * axes), (channels, 1, *(channels,) * axes),
                 convolution.y.dtype)


def _data(graph, c, dtype):
    x = graph.conv_dgrad(loss=_input(graph, c.y, Y, dtype), filter=_input(graph, c.w, W, dtype),
                         **_geometry(c))
    _output(x, c.x, X, dtype)


def _filter(graph, c, dtype):
    w = graph.conv_wgrad(image=_input(graph, c.x, X, dtype), loss=_input(graph, c.y, Y, dtype),
                         **_geometry(c))
    _output(w, c.w, W, dtype)


_OPERATIONS = {"forward": _forward, "data": _data, "filter": _filter}


class Plan:
    """A graph with the plan of it that is used.

    Parameters
    ----------
    graph : cudnn.pygraph
    index : int, optional
        Of the plan. Default: the heuristic's choice.
    """

    def __init__(self, graph, index=None):
        self.graph, self.index = graph, index
        if index is None:
            graph.build_plans()
            self.workspace = graph.get_workspace_size()
        else:
            graph.build_plan_at_index(index)
            self.workspace = graph.get_workspace_size_plan_at_index(index)

    def __call__(self, pointers, workspace, handle):
        """Run it.

        Parameters
        ----------
        pointers : dict of int to int
            Number of a tensor to its address.
        workspace : int
            Address of as many bytes as ``workspace`` says.
        handle : int
        """
        if self.index is None:
            self.graph.execute(pointers, workspace, handle)
        else:
            self.graph.execute_plan_at_index(pointers, workspace, self.index, handle)


def candidates(graph):
    """Return the first `TRIED` plans of a graph that can be built."""
    found = []
    for index in range(graph.get_execution_plan_count()):
        try:
            found.append(Plan(graph, index))
        except Exception:  # the frontend raises several kinds for plans left out or not possible
            continue
        if len(found) == TRIED:
            break
    return found


def fastest(plans, run):
    """Return the plan with the shortest of `RUNS` times; a plan that fails is left out.

    Parameters
    ----------
    plans : list of Plan
    run : callable
        Takes a plan, runs it, and returns how long that took.

    Raises
    ------
    Failure
        If none of them runs.
    """
    times = [_shortest(run, plan) for plan in plans]
    if min(times, default=math.inf) == math.inf:
        raise Failure(f"none of the {len(plans)} plans that cuDNN lists runs; set "
                      f"chainer.config.autotune = False to take the heuristic's choice")
    return plans[times.index(min(times))]


def _shortest(run, plan):
    try:
        return min(run(plan) for _ in range(RUNS))
    except (RuntimeError, frontend().cudnnGraphNotSupportedError):
        return math.inf
