"""What NumPy 2 changed in meaning, not in name, where Chainer shows it.

- ``ndarray.device`` is new and says ``'cpu'``. Chainer's `Variable.debug_print` takes an array
  with a ``device`` for one of CuPy; here it says ``CPU`` again.
- Promotion (NEP 50). Chainer casts its results itself: every function, optimizer and initializer
  compared has the dtype it had. Where a Python number meets a *scalar* taken from an array, the
  result now keeps the array's type, and where a float64 scalar meets a float32 or float16 array
  the arithmetic is done in float64 and then cast back. That moves the last bit of the float16
  gradients of `GradientClipping`, and the float32 result of ``roi_average_align_2d`` by 4e-5.
  Neither is a fault to mend.
"""

import functools


def mend_debug_print(module, execute):
    """Seam: ``Variable.debug_print`` says ``device: CPU`` for NumPy's arrays."""
    execute()
    ordinary = module.Variable.debug_print

    @functools.wraps(ordinary)
    def debug_print(self):
        return ordinary(self).replace("\n- device: cpu\n", "\n- device: CPU\n")

    module.Variable.debug_print = debug_print


SEAMS = {"chainer.variable": mend_debug_print}


def status():
    """Say in one line what is active."""
    return "Variable.debug_print says CPU"
