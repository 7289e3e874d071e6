"""What NumPy 2 changed in meaning, not in name, where Chainer shows it.

Mended:

- ``ndarray.device`` is new and says ``'cpu'``; `Variable.debug_print` takes an array that has a
  ``device`` for one of CuPy's. It says ``CPU`` again.
- ``numpy.meshgrid`` returns a tuple, to which `Categorical.log_prob` wants to add a list.
- A Python integer out of bounds is an error (NEP 50): `pad_sequence` of unsigned integers with -1
  wraps around again.

Left as it is: promotion by type alone (NEP 50). Chainer casts its results itself, so every
function, optimizer and initializer compared has the dtype it had. A number taken from an array
keeps the array's type where it meets a Python number, and a float64 number makes the arithmetic
with a float32 or float16 array float64, before the result is cast back. So float16 gradients
clipped by `GradientClipping` differ in the last bit, and float32 results of
``roi_average_align_2d`` by up to 4e-5 of their size. Neither is a fault.
"""

from rechainer._hooks import replace_method

import numpy


def mend_debug_print(module, execute):
    """Seam: ``Variable.debug_print`` says ``device: CPU`` for NumPy's arrays."""
    execute()

    def make(ordinary):
        return lambda self: ordinary(self).replace("\n- device: cpu\n", "\n- device: CPU\n")

    replace_method(module.Variable, "debug_print", make)


def mend_log_prob(module, execute):
    """Seam: ``Categorical.log_prob`` picks from its table with any NumPy."""
    execute()

    def log_prob(self, x):
        x = getattr(x, "array", x)
        grid = numpy.meshgrid(*map(range, self.batch_shape), indexing="ij")
        return self.log_p[(*grid, x.astype(numpy.int32))]

    replace_method(module.Categorical, "log_prob", lambda ordinary: log_prob)


def mend_padding(module, execute):
    """Seam: ``pad_sequence`` casts its padding to the dtype of the sequences."""
    execute()

    def make(ordinary):
        def forward(self, xs):
            self.padding = numpy.asarray(self.padding).astype(xs[0].dtype)[()]
            return ordinary(self, xs)

        return forward

    replace_method(module.PadSequence, "forward", make)


SEAMS = {
    "chainer.variable": mend_debug_print,
    "chainer.distributions.categorical": mend_log_prob,
    "chainer.functions.array.pad_sequence": mend_padding,
}


def status():
    """Say in one line what is active."""
    return "mended: Variable.debug_print, Categorical.log_prob, pad_sequence"
