"""Caffe models by the installed protobuf."""

import rechainer  # noqa: F401  first

import numpy as np
import pytest

pytest.importorskip("google.protobuf")

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.exporters import caffe
from chainer.links.caffe import CaffeFunction
from chainer.links.caffe.protobuf3 import caffe_pb2


def fill(blob, array):
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.ravel().tolist())


@pytest.fixture
def model(tmp_path):
    """Path of a .caffemodel (convolution, ReLU, pooling, inner product) and its arrays."""
    rng = np.random.RandomState(0)
    arrays = {
        "conv": (rng.normal(size=(4, 3, 3, 3)).astype("f"), rng.normal(size=4).astype("f")),
        "fc": (rng.normal(size=(5, 64)).astype("f"), rng.normal(size=5).astype("f")),
    }
    net = caffe_pb2.NetParameter(name="small")
    conv = net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
    conv.convolution_param.num_output = 4
    conv.convolution_param.kernel_size.append(3)
    conv.convolution_param.pad.append(1)
    net.layer.add(name="relu", type="ReLU", bottom=["conv"], top=["conv"])
    pool = net.layer.add(name="pool", type="Pooling", bottom=["conv"], top=["pool"])
    pool.pooling_param.kernel_size = pool.pooling_param.stride = 2
    fc = net.layer.add(name="fc", type="InnerProduct", bottom=["pool"], top=["fc"])
    fc.inner_product_param.num_output = 5
    for layer in (conv, fc):
        for array in arrays[layer.name]:
            fill(layer.blobs.add(), array)
    path = tmp_path / "small.caffemodel"
    path.write_bytes(net.SerializeToString())
    return path, arrays


def test_a_written_model_loads_and_calculates(model):
    path, arrays = model
    function = CaffeFunction(str(path))
    np.testing.assert_array_equal(function.conv.W.array, arrays["conv"][0])
    np.testing.assert_array_equal(function.fc.b.array, arrays["fc"][1])

    x = np.random.RandomState(1).normal(size=(2, 3, 8, 8)).astype("f")
    (y,) = function(inputs={"data": x}, outputs=["fc"])
    hidden = F.max_pooling_2d(F.relu(F.convolution_2d(x, *arrays["conv"], pad=1)), 2)
    np.testing.assert_array_equal(y.array, F.linear(hidden, *arrays["fc"]).array)


def test_enums_are_module_and_class_attributes():
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == "TEST"
    assert caffe_pb2.V1LayerParameter.CONVOLUTION == 4
    assert caffe_pb2.PoolingParameter.MAX == 0


def test_classes_come_from_the_installed_protobuf():
    from google.protobuf.internal import api_implementation

    if api_implementation.Type() == "upb":
        assert type(caffe_pb2.NetParameter).__module__ == "google._upb._message"
    # the descriptors that only the pure-Python mode can make are not there
    assert not hasattr(caffe_pb2, "_NETPARAMETER")


def test_another_caffe_proto_does_not_collide(python):
    python("""
        from google.protobuf import descriptor_pb2, descriptor_pool
        other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
        other.message_type.add(name="NetParameter").field.add(
            name="other", number=1, type=9, label=1)
        descriptor_pool.Default().AddSerializedFile(other.SerializeToString())
        import rechainer
        from chainer.links.caffe.protobuf3 import caffe_pb2
        assert caffe_pb2.NetParameter(name="x").name == "x"
    """)


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 4, 3)
            self.fc = L.Linear(None, 5)

    def __call__(self, x):  # (N, 3, 8, 8) -> (N, 5)
        return self.fc(F.relu(self.conv(x)))


def test_chainers_caffe_export_writes_the_same_weights(tmp_path):
    np.random.seed(0)
    model = Net()
    caffe.export(model, [chainer.Variable(np.ones((1, 3, 8, 8), "f"))], str(tmp_path), True)
    net = caffe_pb2.NetParameter()
    net.ParseFromString((tmp_path / "chainer_model.caffemodel").read_bytes())
    written = [np.array(blob.data, "f") for layer in net.layer for blob in layer.blobs]
    expected = [model.conv.W, model.conv.b, model.fc.W, model.fc.b]
    assert len(written) == len(expected)
    for array, parameter in zip(written, expected, strict=True):
        np.testing.assert_array_equal(array, parameter.array.ravel())
