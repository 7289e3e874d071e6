"""The fused optimizer: Chainer's rules, bit for bit on the processor, and its C by a C compiler."""

import ctypes
import glob
import os
import re
import subprocess
import sys

from convnets import data, fused, losses, models

import chainer
import numpy as np
import pytest

OPTIMIZERS = {
    "sgd": lambda: chainer.optimizers.SGD(lr=0.05),
    "momentum": lambda: chainer.optimizers.MomentumSGD(lr=0.05, momentum=0.8),
    "adam": lambda: chainer.optimizers.Adam(alpha=0.002, beta1=0.8),
    "adamw": lambda: chainer.optimizers.Adam(alpha=0.002, eta=0.5, weight_decay_rate=0.1),
}


@pytest.fixture(scope="module")
def digits():
    return chainer.dataset.concat_examples(data.mnist(64, 1)[0][:])


def prepared(name, decay=0.0, model=None):
    np.random.seed(0)
    target = losses.Classifier(model or models.LeNet5())
    optimizer = OPTIMIZERS[name]().setup(target)
    if decay:
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(decay))
    return optimizer


def steps(optimizer, update, digits, n=5):
    x, t = digits
    for i in range(n):
        update(optimizer.target, x[i * 8:(i + 1) * 8], t[i * 8:(i + 1) * 8])
    return {path: p.array.copy() for path, p in optimizer.target.namedparams()}


def state(optimizer):
    found = chainer.serializers.DictionarySerializer()
    optimizer.serialize(found)
    return found.target


@pytest.mark.parametrize("decay", [0.0, 1e-2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_chainers_step_bit_for_bit(name, decay, digits):
    plain, ours = (prepared(name, decay) for _ in range(2))
    expected = steps(plain, plain.update, digits)
    got = steps(ours, fused.Fused(ours).update, digits)
    for path, array in expected.items():
        np.testing.assert_array_equal(got[path], array, err_msg=path)
    one, other = state(plain), state(ours)
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(other[key], value, err_msg=key)


def test_a_snapshot_of_one_continues_in_the_other(digits):
    whole = prepared("adam")
    expected = steps(whole, whole.update, digits, 6)
    for first, second in (("plain", "fused"), ("fused", "plain"), ("fused", "fused")):
        before, after = prepared("adam"), prepared("adam")
        update = {"plain": lambda o: o.update, "fused": lambda o: fused.Fused(o).update}
        steps(before, update[first](before), digits, 3)
        after.serialize_from = chainer.serializers.NpzDeserializer(state(before))
        after.serialize(after.serialize_from)
        after.target.copyparams(before.target)
        x, t = digits
        go_on = update[second](after)
        for i in range(3, 6):
            go_on(after.target, x[i * 8:(i + 1) * 8], t[i * 8:(i + 1) * 8])
        for path, p in after.target.namedparams():
            np.testing.assert_array_equal(p.array, expected[path], err_msg=(first, second, path))


def test_parameters_stay_views_of_one_buffer_and_are_taken_in_again(digits):
    optimizer = prepared("momentum")
    ours = fused.Fused(optimizer)
    steps(optimizer, ours.update, digits, 1)
    for p in optimizer.target.params():
        assert np.shares_memory(p.array, ours.flat.param)
    for p in optimizer.target.params():   # as `to_device` does
        p.array = p.array.copy()
    plain = prepared("momentum")
    expected = steps(plain, plain.update, digits, 1)
    x, t = digits
    plain.update(plain.target, x[:8], t[:8])
    ours.update(optimizer.target, x[:8], t[:8])
    for (path, p), (_, q) in zip(optimizer.target.namedparams(), plain.target.namedparams(),
                                 strict=True):
        np.testing.assert_array_equal(p.array, q.array, err_msg=path)
        assert not np.array_equal(p.array, expected[path])


def test_frozen_and_unused_parameters_are_left_alone(digits):
    optimizer = prepared("adam")
    model = optimizer.target.predictor
    layer = next(iter(model.children()))
    layer.disable_update()
    before = layer.W.array.copy()
    steps(optimizer, fused.Fused(optimizer).update, digits, 2)
    np.testing.assert_array_equal(layer.W.array, before)


def test_layers_are_frozen_and_thawed_between_steps(digits):
    found = []
    for make in (lambda o: o.update, lambda o: fused.Fused(o).update):
        optimizer = prepared("momentum")
        update, layer = make(optimizer), optimizer.target.predictor.conv2
        steps(optimizer, update, digits, 2)
        layer.disable_update()
        frozen = layer.W.array.copy()
        steps(optimizer, update, digits, 2)
        np.testing.assert_array_equal(layer.W.array, frozen)
        layer.enable_update()
        found.append(steps(optimizer, update, digits, 2))
    for path, array in found[0].items():
        np.testing.assert_array_equal(found[1][path], array, err_msg=path)


def test_adam_with_layers_that_began_later_is_refused(digits):
    optimizer = prepared("adam")
    ours, layer = fused.Fused(optimizer), optimizer.target.predictor.conv2
    layer.disable_update()
    steps(optimizer, ours.update, digits, 1)
    layer.enable_update()
    with pytest.raises(ValueError, match="enabled later than others"):
        steps(optimizer, ours.update, digits, 1)


def lazy():
    return chainer.Sequential(chainer.links.Linear(None, 10))


def test_a_model_that_gets_its_shapes_at_the_first_step(digits):
    plain, ours = (prepared("momentum", model=lazy()) for _ in range(2))
    expected = steps(plain, plain.update, digits)
    np.random.seed(0)
    ours = prepared("momentum", model=lazy())
    for path, array in steps(ours, fused.Fused(ours).update, digits).items():
        if path.endswith("/b"):
            assert array.shape == expected[path].shape
            assert np.abs(array).max() > 0


SOURCE = """
#include <math.h>
typedef float T;
#define sqrt sqrtf
void step(int n, const T *grad_, const T *numbers, T *param_{arguments}) {{
  for (int i = 0; i < n; i++) {{
    T grad = grad_[i]; T param = param_[i]; {load}
    {body}
    param_[i] = param; {store}
  }}
}}
"""


def compiled(rule, folder):
    """Return the C of a rule's kernel as a function of arrays."""
    names = rule.states
    source = SOURCE.format(
        body=fused.GRADIENT + rule.operation, arguments="".join(f", T *{n}_" for n in names),
        load=" ".join(f"T {n} = {n}_[i];" for n in names),
        store=" ".join(f"{n}_[i] = {n};" for n in names))
    (folder / "step.c").write_text(source)
    try:
        subprocess.run(["cc", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o",
                        folder / "step.so", folder / "step.c", "-lm"], check=True)
    except OSError as error:
        pytest.skip(f"no C compiler: {error}")
    function = ctypes.CDLL(str(folder / "step.so")).step
    return lambda *arrays: function(
        arrays[0].size, *(ctypes.c_void_p(a.ctypes.data) for a in arrays))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_kernel_in_c_is_the_rule(name, tmp_path):
    optimizer = prepared(name)
    rule = fused.Fused(optimizer).rule
    chainers = optimizer.create_update_rule()
    chainers.t = 3
    run = compiled(rule, tmp_path)
    rng = np.random.RandomState(1)
    grad, param = (rng.randn(1000).astype("f") for _ in range(2))
    states = [np.abs(rng.randn(1000)).astype("f") for _ in rule.states]
    scale, decay = 1024, 0.01
    numbers = np.array([1 / scale, decay, *rule.numbers(chainers)], "f")
    expected = [a.copy() for a in (param, *states)]
    rule.on_cpu(expected[0], grad / scale + np.float32(decay) * param, numbers, *expected[1:])
    run(grad, numbers, param, *states)
    for got, right in zip((param, *states), expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=3e-6, atol=1e-7)
    assert not re.search(r"numbers\[(8|9)\]", rule.operation)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda o: o.add_hook(chainer.optimizer_hooks.GradientClipping(1)),
     "knows the hook WeightDecay, got GradientClipping"),
    (lambda o: setattr(o.target.predictor.conv1.W.update_rule.hyperparam, "lr", 1),
     "one lr for all parameters, but W of shape"),
    (lambda o: o.target.predictor.conv1.W.update_rule.add_hook(lambda r, p: None, "mine"),
     "no hooks of single parameters, but W of shape"),
    (lambda o: o.loss_scaling(), "needs a constant loss scale"),
    (lambda o: o.target.disable_update(), "no parameter to update"),
])
def test_what_it_does_not_know_it_refuses(spoil, message, digits):
    optimizer = prepared("momentum")
    spoil(optimizer)
    with pytest.raises(ValueError, match=message):
        steps(optimizer, fused.Fused(optimizer).update, digits, 1)


def test_other_optimizers_are_refused():
    optimizer = chainer.optimizers.RMSprop().setup(models.LeNet5())
    with pytest.raises(ValueError, match="knows Adam, MomentumSGD, SGD, got RMSprop"):
        fused.Fused(optimizer)
    optimizer = chainer.optimizers.Adam(amsgrad=True).setup(models.LeNet5())
    with pytest.raises(ValueError, match="no amsgrad"):
        fused.Fused(optimizer)


CUDA = """
#include <cupy/carray.cuh>
typedef float T;
extern "C" __global__ void step(CArray<T, 1, 1, 1> _grad, CArray<T, 1, 1, 1> numbers,
                                {arguments}, CIndexer<1, 1> _ind) {{
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    const T &grad = _grad[_ind.get()];
    {load}
    {body}
  }}
}}
"""


def nvrtc():
    """Return NVIDIA's run-time compiler and the folders of headers, of an installed CuPy."""
    for folder in sys.path:
        libraries = glob.glob(f"{folder}/nvidia/*/lib/libnvrtc.so*")
        headers = f"{folder}/cupy/_core/include"
        if libraries and os.path.isdir(headers):
            return ctypes.CDLL(libraries[0]), [headers, *glob.glob(f"{folder}/nvidia/*/include")]
    pytest.skip("no CuPy with NVIDIA's run-time compiler is installed")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_kernel_compiles_for_a_gpu(name):
    library, folders = nvrtc()
    rule = fused.Fused(prepared(name)).rule
    names = "param", *rule.states
    source = CUDA.format(
        body=fused.GRADIENT + rule.operation,
        arguments=", ".join(f"CArray<T, 1, 1, 1> _{name}" for name in names),
        load=" ".join(f"T &{name} = _{name}[_ind.get()];" for name in names))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"step.cu", 0, None, None)
    options = [b"--gpu-architecture=compute_90", b"--std=c++17", b"-default-device",
               *(f"-I{folder}".encode() for folder in folders)]
    status = library.nvrtcCompileProgram(program, len(options),
                                         (ctypes.c_char_p * len(options))(*options))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
