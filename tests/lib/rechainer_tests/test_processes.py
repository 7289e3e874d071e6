"""A Python without processes, and children of a run script."""

import pytest

SCRIPT = """
import sys
import multiprocessing
import numpy as np
import chainer

SCALE = np.float(2)


class Squares(chainer.dataset.DatasetMixin):
    def __len__(self):
        return 4

    def get_example(self, i):
        return SCALE * np.float(i) ** 2


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    iterator = chainer.iterators.MultiprocessIterator(
        Squares(), 2, n_processes=2, shuffle=False, repeat=False)
    print(list(iterator))
    iterator.finalize()
"""


def test_chainer_imports_and_iterates_without_processes(python):
    python("""
        import sys
        sys.modules["_multiprocessing"] = None
        import rechainer, chainer
        assert rechainer._processes.are_missing()
        assert sys.modules["_multiprocessing"] is None
        it = chainer.iterators.SerialIterator([1, 2, 3, 4], 2, shuffle=False)
        assert it.next() == [1, 2]
        for name in "MultiprocessIterator", "MultithreadIterator":
            try:
                getattr(chainer.iterators, name)([1, 2], 2)
            except RuntimeError as error:
                assert f"{name} needs processes or threads" in str(error)
            else:
                raise AssertionError(f"{name} was made")
        assert "no processes" in rechainer.info()["parts"]["processes"]
    """)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_an_unchanged_script_find_chainer(method, tmp_path, python):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    (tmp_path / "old.py").write_text(SCRIPT)
    done = python(None, "-m", "rechainer", "old.py", method)
    assert done.stdout.split("\n")[0] == "[[0.0, 2.0], [8.0, 18.0]]"
