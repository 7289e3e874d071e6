"""Networks written once more, as ONNX graphs that onnxruntime runs: the judge of our loaders.

Parameters have torchvision's names and layouts; each test turns them into the layout of the file
it writes. Statistics of batch normalization are random too: with means of 0 and variances of 1 a
confused pair of arrays would go unnoticed.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

POOLS = {
    "torch": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "caffe": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "tutorial": {"kernel_shape": [2, 2], "strides": [2, 2]},
}


def conv(rng, n_out, n_in, k):
    return rng.normal(0, np.sqrt(2 / (n_in * k * k)), (n_out, n_in, k, k)).astype(np.float32)


def batch_norm(rng, name, n):
    return {f"{name}.weight": rng.uniform(0.5, 1.5, n), f"{name}.bias": rng.normal(0, 0.2, n),
            f"{name}.running_mean": rng.normal(0, 0.3, n),
            f"{name}.running_var": rng.uniform(0.5, 2, n)}


def resnet_params(blocks, width, n_class=10, seed=0):
    """Return random parameters of a bottleneck ResNet by torchvision's names."""
    rng = np.random.default_rng(seed)
    params = {"conv1.weight": conv(rng, width, 3, 7), **batch_norm(rng, "bn1", width)}
    n_in = width
    for s, n in enumerate(blocks):
        mid, out = width * 2 ** s, width * 2 ** (s + 2)
        for i in range(n):
            at = f"layer{s + 1}.{i}"
            shapes = [("conv1", "bn1", mid, n_in, 1), ("conv2", "bn2", mid, mid, 3),
                      ("conv3", "bn3", out, mid, 1)]
            if i == 0:
                shapes.append(("downsample.0", "downsample.1", out, n_in, 1))
            for c, b, n_out, channels, k in shapes:
                params[f"{at}.{c}.weight"] = conv(rng, n_out, channels, k)
                params |= batch_norm(rng, f"{at}.{b}", n_out)
            n_in = out
    params["fc.weight"] = rng.normal(0, 0.1, (n_class, n_in))
    params["fc.bias"] = rng.normal(0, 0.5, n_class)
    return {name: value.astype(np.float32) for name, value in params.items()}


class Graph:
    """ONNX nodes in a row; each method returns the name of its output."""

    def __init__(self, params):
        self.params, self.nodes = params, []

    def add(self, kind, *inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(self, x, name, stride=1):
        k = self.params[f"{name}.weight"].shape[2]
        bias = [f"{name}.bias"] if f"{name}.bias" in self.params else []
        return self.add("Conv", x, f"{name}.weight", *bias, strides=[stride] * 2,
                        pads=[k // 2] * 4)

    def bn(self, x, name, eps):
        names = [f"{name}.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
        return self.add("BatchNormalization", x, *names, epsilon=eps)

    def relu(self, x):
        return self.add("Relu", x)

    def linear(self, x, name):
        return self.add("Gemm", x, f"{name}.weight", f"{name}.bias", transB=1)

    def model(self, y, shape):
        graph = helper.make_graph(
            self.nodes, "reference",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", "K"])],
            [numpy_helper.from_array(value, name) for name, value in self.params.items()])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def resnet_graph(params, blocks, shape, *, stride_in="3x3", stem_pool="torch", bn_eps=1e-5):
    """Return a ResNet as an ONNX model, with the options that published files differ in."""
    g = Graph(params)
    h = g.relu(g.bn(g.conv("x", "conv1", 2), "bn1", bn_eps))
    h = g.add("MaxPool", h, **POOLS[stem_pool])
    for s, n in enumerate(blocks):
        for i in range(n):
            at, stride = f"layer{s + 1}.{i}", 2 if s and not i else 1
            first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
            y = g.relu(g.bn(g.conv(h, f"{at}.conv1", first), f"{at}.bn1", bn_eps))
            y = g.relu(g.bn(g.conv(y, f"{at}.conv2", second), f"{at}.bn2", bn_eps))
            y = g.bn(g.conv(y, f"{at}.conv3"), f"{at}.bn3", bn_eps)
            if i == 0:
                h = g.bn(g.conv(h, f"{at}.downsample.0", stride), f"{at}.downsample.1", bn_eps)
            h = g.relu(g.add("Add", y, h))
    h = g.add("Flatten", g.add("GlobalAveragePool", h))
    return g.model(g.linear(h, "fc"), shape)


def vgg_params(config, hidden, size, n_class=10, seed=0):
    """Return random parameters of a VGG by torchvision's names; size is H = W of its images."""
    rng = np.random.default_rng(seed)
    params, n_in, t = {}, 3, 0
    for n_channels, n_convs in config:
        for _ in range(n_convs):
            params[f"features.{t}.weight"] = conv(rng, n_channels, n_in, 3)
            params[f"features.{t}.bias"] = rng.normal(0, 0.1, n_channels)
            n_in, t = n_channels, t + 2
        t, size = t + 1, size // 2
    sizes = (("0", hidden, n_in * size ** 2), ("3", hidden, hidden), ("6", n_class, hidden))
    for name, n_out, n in sizes:
        params[f"classifier.{name}.weight"] = rng.normal(0, np.sqrt(2 / n), (n_out, n))
        params[f"classifier.{name}.bias"] = rng.normal(0, 0.1, n_out)
    return {name: value.astype(np.float32) for name, value in params.items()}


def vgg_graph(params, config, shape):
    """Return a VGG as an ONNX model."""
    g = Graph(params)
    h, t = "x", 0
    for _, n_convs in config:
        for _ in range(n_convs):
            h, t = g.relu(g.conv(h, f"features.{t}")), t + 2
        h, t = g.add("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), t + 1
    h = g.relu(g.linear(g.add("Flatten", h), "classifier.0"))
    h = g.relu(g.linear(h, "classifier.3"))
    return g.model(g.linear(h, "classifier.6"), shape)


def run(model, x):
    """Return the scores (N, n_class) that onnxruntime computes for images (N, C, H, W)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
