"""rechainer.info()"""

import re
import sys

import rechainer

import numpy


def test_versions_are_those_in_use():
    versions = rechainer.info()["versions"]
    assert versions["chainer"] == "7.8.1"
    assert versions["numpy"] == numpy.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_every_seam_has_a_line():
    info = rechainer.info()
    assert list(info["parts"]) == [
        "removed NumPy names",
        "NumPy 2 behaviour",
        "removed modules",
        "Caffe models",
        "processes",
        "CuPy",
        "cuDNN",
        "oneDNN",
        "WebAssembly",
    ]
    assert all(line and "\n" not in line for line in info["parts"].values())


def test_text_has_every_entry_and_no_address():
    info = rechainer.info()
    text = str(info)
    assert repr(info) == text
    for rows in info.values():
        for name, value in rows.items():
            assert re.search(rf"{re.escape(name)} +{re.escape(value)}", text)
    assert "0x" not in text


def test_it_tells_what_was_covered(tmp_path, monkeypatch):
    monkeypatch.setattr(rechainer._numpy_names, "_covered", set())
    assert "given to Chainer only" in rechainer.info()["parts"]["removed NumPy names"]
    rechainer.cover(tmp_path)
    assert f"Chainer and {tmp_path.name} only" in rechainer.info()["parts"]["removed NumPy names"]


def test_it_imports_neither_chainer_nor_cupy(python):
    python("""
        import rechainer, sys
        rechainer.info()
        assert not {"chainer", "cupy"} & set(sys.modules)
    """)
