"""pytest -p rechainer"""

OLD_TEST = """
import unittest
import numpy
import chainer
from chainer import testing


@testing.parameterize(*testing.product({"dtype": [numpy.float, numpy.float16]}))
class TestOld(unittest.TestCase):
    def test_dtype(self):
        x = chainer.Variable(numpy.ones(3, self.dtype))
        assert chainer.functions.sum(x).dtype == self.dtype

    @testing.with_requires("numpy<1.14")
    def test_for_old_numpy(self):
        raise AssertionError


class TestExpectation(unittest.TestCase):
    def expected_forward_with_reduce(self, x, t, class_weight):
        total = 0.0
        for value in x:
            total -= value * class_weight[t]
        return numpy.asarray(total, dtype=x.dtype)

    def test_sum_does_not_overflow_below_its_result(self):
        x = numpy.concatenate([numpy.full(70, 1000), numpy.full(69, -1000)]).astype("e")
        got = self.expected_forward_with_reduce(x, 0, numpy.ones(1, "e"))
        assert got == -1000, got
        assert got.dtype == numpy.float16
"""


def pytest(python, *options, status):
    options = ("-q", "-p", "no:cacheprovider", *options, "test_old.py")
    return python(None, "-m", "pytest", *options, status=status).stdout


def test_old_tests_run_with_the_plugin(tmp_path, python):
    (tmp_path / "test_old.py").write_text(OLD_TEST)
    assert "3 passed, 2 skipped" in pytest(python, "-p", "rechainer", status=0)


def test_the_plugin_may_be_named_twice(tmp_path, python):
    (tmp_path / "conftest.py").write_text("import rechainer\n")
    (tmp_path / "test_old.py").write_text(OLD_TEST)
    pytest(python, "-p", "rechainer", "-p", "rechainer", status=0)


def test_without_the_plugin_they_do_not(tmp_path, python):
    (tmp_path / "test_old.py").write_text("import rechainer\n" + OLD_TEST)
    assert "float" in pytest(python, status=2)
