"""What rechainer uses of ``nvidia-cudnn-frontend`` 1.18, run by NumPy on the memory it is given."""

import enum
import types

import capture
import memory
import numpy

_pybind_module = types.SimpleNamespace(_set_dlhandle_cudnn=lambda handle: None)
data_type = enum.Enum("data_type", "HALF BFLOAT16 FLOAT DOUBLE")
heur_mode = enum.Enum("heur_mode", "A B FALLBACK")
numerical_note = enum.Enum("numerical_note", "TENSOR_CORE DOWN_CONVERT_INPUTS "
                           "REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD")
DTYPES = {data_type.HALF: "e", data_type.FLOAT: "f", data_type.DOUBLE: "d"}
#: Of the plans, the first cannot be built and the second fails when it runs.
PLANS, NEEDED = 4, 1000
built = []  # every graph


class cudnnGraphNotSupportedError(RuntimeError):
    """No plan is left."""


class Tensor:
    """A tensor of a graph: what was set of it, and the operation that makes it."""

    def __init__(self, make=None, **settings):
        self.make, self.settings = make, settings

    def __getattr__(self, name):
        def set_it(value):
            self.settings[name.removeprefix("set_")] = value
            return self

        if not name.startswith("set_"):
            raise AttributeError(name)
        return set_it

    def array(self, pointers):
        s = self.settings
        return memory.at(pointers[s["uid"]], DTYPES[s["data_type"]], s["dim"], s["stride"])


class pygraph:
    """A graph of one convolution, and a sum, a bias and an activation behind it."""

    def __init__(self, *, io_data_type, intermediate_data_type, compute_data_type, handle):
        assert handle, "the handle of a device is wanted"
        assert (io_data_type is data_type.DOUBLE) == (compute_data_type is data_type.DOUBLE)
        self.tensors, self.unwanted, self.limit, self.steps = [], [], None, []
        built.append(self)

    def tensor(self, *, dim, stride, data_type, uid):
        self.tensors.append(Tensor(dim=dim, stride=stride, data_type=data_type, uid=uid))
        return self.tensors[-1]

    def _made(self, make):
        self.tensors.append(Tensor(make))
        return self.tensors[-1]

    def conv_fprop(self, *, image, weight, padding, stride, dilation):
        return self._made(lambda at, out: memory.forward(
            image.array(at), weight.array(at), out[2:], padding, stride, dilation))

    def conv_dgrad(self, *, loss, filter, padding, stride, dilation):
        return self._made(lambda at, out: memory.data(
            loss.array(at), filter.array(at), out, padding, stride, dilation))

    def conv_wgrad(self, *, image, loss, padding, stride, dilation):
        return self._made(lambda at, out: memory.filters(
            image.array(at), loss.array(at), out, padding, stride, dilation))

    def add(self, *, a, b):
        assert "biased" not in a.settings, "cuDNN has no plan for a sum behind a bias"
        return self._made(lambda at, out: a.make(at, out) + b.array(at))

    def _activated(self, make):
        made = self._made(make)
        made.settings["activation"] = True
        return made

    def relu(self, *, input):
        return self._activated(lambda at, out: numpy.maximum(input.make(at, out), 0))

    def sigmoid(self, *, input):
        return self._activated(lambda at, out: 1 / (1 + numpy.exp(-input.make(at, out))))

    def bias(self, *, input, bias):
        made = self._made(lambda at, out: input.make(at, out) + bias.array(at))
        made.settings["biased"] = True
        return made

    def validate(self):
        (self.result,) = (t for t in self.tensors if t.settings.get("output"))
        self.steps.append("validate")

    def build_operation_graph(self):
        self.steps.append("build")

    def create_execution_plans(self, modes):
        assert modes == [heur_mode.A, heur_mode.FALLBACK]
        self.steps.append("plans")

    def deselect_workspace_greater_than(self, limit):
        assert self.steps[-1] == "plans", "plans are left out after they are listed"
        self.limit = limit

    def deselect_numeric_notes(self, notes):
        self.unwanted = notes

    def check_support(self):
        if self.limit < NEEDED:
            raise cudnnGraphNotSupportedError("no valid engine configs")
        self.steps.append("supported")

    def build_plans(self):
        assert self.steps == ["validate", "build", "plans", "supported"]
        self.used = "heuristic"

    def get_workspace_size(self):
        return NEEDED

    def get_execution_plan_count(self):
        return PLANS

    def build_plan_at_index(self, index):
        if index == 0:
            raise cudnnGraphNotSupportedError("this plan cannot be built")

    def get_workspace_size_plan_at_index(self, index):
        return NEEDED + index

    def execute(self, pointers, workspace, handle):
        assert workspace
        assert handle
        self._run(dict(pointers))

    @capture.written
    def _run(self, pointers):
        out = self.result.array(pointers)
        numpy.copyto(out, self.result.make(pointers, out.shape), casting="same_kind")

    def execute_plan_at_index(self, pointers, workspace, index, handle):
        if index == 1:
            raise RuntimeError("this plan does not run")
        self.used = index
        self.execute(pointers, workspace, handle)
