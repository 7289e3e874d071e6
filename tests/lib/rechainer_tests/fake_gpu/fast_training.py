"""`convnets.train` with a recorded step, a fused optimizer and data sent ahead, on the device."""

import os

import fake_device  # noqa: F401  before Chainer

# isort: split
import convnets
from convnets import cuda_graphs, data, devices, losses, models, training
from convnets.fused import Fused

import capture
import chainer
import chainer.functions as F
import chainer.links as L
import cudnn as frontend
import cupy
import numpy as np

TRAIN, TEST = data.mnist(70, 20)   # 14 steps of 16 images in three epochs
OPTIONS = {"batch": 16, "epochs": 3, "schedule": "cosine", "weight_decay": 1e-3, "seed": 4,
           "device": "@cupy:0", "shift": 1}
KINDS = [{"optimizer": "adam", "lr": 0.003}, {"optimizer": "momentum", "lr": 0.1},
         {"optimizer": "sgd", "lr": 0.1}, {"optimizer": "momentum", "lr": 0.1,
                                           "precision": "mixed16"}]


class Network(chainer.Chain):
    """All that a recorded step must get right: statistics, random numbers, pooling."""

    def __init__(self):
        super().__init__()
        np.random.seed(0)
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 5, stride=2, nobias=True)
            self.norm = L.BatchNormalization(4)
            self.out = L.Linear(144, 10)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2)
        return self.out(F.dropout(h, 0.4))


def trained(model=None, **options):
    """Return the arrays of a model after a run, and its log."""
    model = model or Network()
    run = convnets.train(model, TRAIN, TEST, **{**OPTIONS, **options})
    return arrays(model), log(run)


def arrays(model):
    found = chainer.serializers.DictionarySerializer()
    model.serialize(found)
    return found.target


def log(run):
    return [{k: v for k, v in entry.items() if k != "elapsed_time"}
            for entry in run.get_extension("LogReport").log]


def close(got, expected, tolerance):
    for name, array in expected[0].items():
        np.testing.assert_allclose(got[0][name], array, rtol=0, atol=tolerance, err_msg=name)
    for entry, right in zip(got[1], expected[1], strict=True):
        assert entry.keys() == right.keys()
        for key, value in right.items():
            np.testing.assert_allclose(entry[key], value, rtol=0, atol=20 * tolerance, err_msg=key)


def tolerance(options):
    # Chainer adds weight decay to gradients in float16, the fused optimizer in float32.
    return 1e-2 if "precision" in options else 2e-5


def a_recorded_step_is_the_plain_one():
    graphs = []
    end = capture.end
    capture.end = lambda: graphs.append(end()) or graphs[-1]
    for options in KINDS:
        expected = trained(**options, fused="precision" in options)
        got = trained(**options, cuda_graph=True)
        close(got, expected, 2e-5)
        again = trained(**options, cuda_graph=True)
        for name, array in got[0].items():
            np.testing.assert_array_equal(again[0][name], array, err_msg=name)
    assert len(graphs) == 2 * len(KINDS)
    assert {graph.launches for graph in graphs} == {14 - cuda_graphs.WARM_UP}


def minibatches_of_another_size_take_the_ordinary_way():
    sizes = [8] * 6 + [3, 8, 5, 8, 8]
    found = []
    for recorded in (False, True):
        target = losses.Classifier(Network())
        target.to_device("@cupy:0")
        step = Fused(chainer.optimizers.Adam().setup(target))
        if recorded:
            step = cuda_graphs.GraphStep(step, chainer.get_device("@cupy:0"))
        devices.seed(chainer.get_device("@cupy:0"), 1)
        seen = list(reported(target, step.update, sizes))
        found.append((arrays(target), seen))
    assert step.recording.graph.launches == 6
    close(*found, 2e-6)


def reported(target, update, sizes):
    x, t = (cupy.asarray(a) for a in chainer.dataset.concat_examples(TRAIN[:]))
    reporter, begin = chainer.Reporter(), 0
    reporter.add_observer("main", target)
    for size in sizes:
        with reporter.scope({}):
            update(target, x[begin:begin + size], t[begin:begin + size])
            yield {key: float(chainer.as_array(v)) for key, v in reporter.observation.items()}
        begin = (begin + size) % 60


def what_is_recorded_without_the_buffer_of_numbers_is_wrong():
    """The device does show it: Chainer's own kernels keep the rates of the recording."""
    class Plain(Fused):
        def recordable(self, lossfun, *args):
            self.backward(lossfun, *args)
            for param in self.optimizer.target.params():
                param.update_rule.update(param)

    options = {"optimizer": "momentum", "lr": 0.1, "weight_decay": 0.0}
    expected = trained(**options)
    training.Fused = Plain
    got = trained(**options, cuda_graph=True)
    assert max(np.abs(got[0][name] - array).max() for name, array in expected[0].items()) > 1e-3


def the_fused_optimizer():
    for options in KINDS:
        cupy.launched.clear()
        expected = trained(**options)
        assert not any(name.startswith("fused") for name in cupy.launched)
        cupy.launched.clear()
        close(trained(**options, fused=True), expected, tolerance(options))
        steps = [name for name in cupy.launched if name.startswith("fused")]
        assert steps == [f"fused_{options['optimizer']}"] * 14, "one kernel a step"


def data_sent_ahead():
    for options in KINDS[:2]:
        expected = trained(**options)
        got = trained(**options, prefetch=True)
        for name, array in expected[0].items():
            np.testing.assert_array_equal(got[0][name], array, err_msg=name)
        assert got[1] == expected[1]


def predictions():
    model = Network()
    model.to_device("@cupy:0")
    x, other = (cupy.asarray(np.stack([image for image, _ in part])) for part in
                (TRAIN[:5], TRAIN[5:10]))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        predict = cuda_graphs.record(lambda images: model(images).array, x)
        for images in (other, x):
            np.testing.assert_array_equal(predict(images), model(images).array)
        text = message_of(ValueError, predict, x[:2])
    assert "[(5, 1, 28, 28)], got [(2, 1, 28, 28)]" in text


class Photos(chainer.datasets.TupleDataset):
    """Coloured noise, 36 x 36, of ten classes."""

    def __init__(self, n):
        rng = np.random.RandomState(5)
        super().__init__(rng.rand(n, 3, 36, 36).astype("f"), rng.randint(0, 10, n).astype("i"))


def residual():
    np.random.seed(1)
    return models.ResNet([1, 1, 1, 1], 10, width=1 / 16)


def channels_last():
    options = {**OPTIONS, "optimizer": "momentum", "lr": 0.02, "batch": 8, "shift": 0}
    found, used = [], []
    for way in ({}, {"channels_last": True}, {"channels_last": True, "cuda_graph": True}):
        model, before = residual(), len(frontend.built)
        run = convnets.train(model, Photos(20), Photos(10), **options, **way)
        found.append((arrays(model), log(run)))
        used.append(sum(is_channels_last(t) for g in frontend.built[before:] for t in g.tensors))
    assert used[0] == 0 < used[1], used
    assert used[2] == 0, "the plans are kept"
    close(found[1], found[0], 2e-4)
    close(found[2], found[1], 2e-5)


def is_channels_last(tensor):
    dim, stride = tensor.settings["dim"], tensor.settings["stride"]
    return dim[1] > 1 and dim[2] * dim[3] > 1 and stride[1] == 1


def a_killed_run_continues_bit_for_bit():
    ways = [{}, {"fused": True}, {"prefetch": True}, {"cuda_graph": True, "prefetch": True},
            {"cuda_graph": True, "precision": "mixed16", "optimizer": "momentum"}]
    for number, way in enumerate(ways):
        options = {**KINDS[0], **way}
        whole, expected = trained(**options)
        out = f"run{number}"
        run = training.trainer(Network(), TRAIN, TEST, **{**OPTIONS, **options}, out=out)
        run.extend(stop, trigger=(7, "iteration"))
        try:
            run.run()
        except KeyboardInterrupt:
            assert os.listdir(out)
        else:
            raise AssertionError
        np.random.seed(77)
        resumed = trained(**options, out=out, resume=True)
        for name, array in whole.items():
            np.testing.assert_array_equal(resumed[0][name], array, err_msg=f"{way} {name}")
        assert resumed[1] == expected, way


def stop(trainer):
    raise KeyboardInterrupt


def message_of(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error as raised:
        return str(raised)
    raise AssertionError("nothing was raised")


def errors():
    class Waiting(Network):
        def forward(self, x):
            y = super().forward(x)
            return y * float(y.array.max())

    text = message_of(cuda_graphs.GraphError, trained, Waiting(), cuda_graph=True)
    assert "cannot be recorded" in text
    assert "waits for the GPU" in text
    assert "StreamCaptureUnsupported" in text
    assert capture.calls is None, "the recording was ended"
    smoothed = losses.Classifier(Network(), label_smoothing=0.1)
    smoothed.to_device("@cupy:0")
    step = cuda_graphs.GraphStep(Fused(chainer.optimizers.SGD().setup(smoothed)),
                                 chainer.get_device("@cupy:0"))
    steps = reported(smoothed, step.update, [8] * (cuda_graphs.WARM_UP + 1))
    message_of(cuda_graphs.GraphError, list, steps)
    for model in (models.LeNet5(), models.ResNet20(), models.ResNet50(stem_bias=True)):
        text = message_of(ValueError, trained, model, channels_last=True)
        assert f"without stem_bias; {type(model).__name__} has" in text
