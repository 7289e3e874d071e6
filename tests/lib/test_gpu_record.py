"""The table of what was measured on a GPU: numbers where there is a record, a box where not."""

from convnets import gpu_record, results

import pytest

PEERS = {
    "Chainer, float32": {"milliseconds": 8.0, "images_per_second": 16000.0, "bytes": 3 << 20},
    "Chainer, mixed16": {"error": "MemoryError: full"},
    "torch, eager": {"milliseconds": 4.0, "images_per_second": 32000.0, "bytes": 5 << 20},
    "torch, channels_last": {"milliseconds": 6.0, "images_per_second": 9.0, "bytes": 1 << 20},
}


def written(path, **more):
    run = results.provenance("make gpu-check", 0, {"rounds": 15})
    results.write(path, {**run, **more})
    return path


def test_a_record_becomes_rows_with_their_share_of_torchs_best(tmp_path):
    part = {"network": "LeNet5", "batch": 128, "train": True, "peers": PEERS}
    table = gpu_record.load(written(tmp_path / "gpu.json", parts={
        "operations": [], "ceilings": {"copy TB/s": 3}, "VGG16": "failed: no", "LeNet5": part}))
    assert table.rows == [
        ("LeNet5, training", "128", "Chainer, float32", "8.00", "16,000", "3", "0.50"),
        ("LeNet5, training", "128", "Chainer, mixed16", "failed", "", "", ""),
        ("LeNet5, training", "128", "torch, eager", "4.00", "32,000", "5", "1.00"),
        ("LeNet5, training", "128", "torch, channels_last", "6.00", "9", "1", "0.67"),
    ]
    for text in (repr(table), table._repr_html_()):
        assert "make gpu-check  (seed 0" in text
        assert "16,000" in text


def test_without_a_record_it_says_so(tmp_path):
    table = gpu_record.load(tmp_path / "gpu.json")
    assert "not measured on a GPU" in repr(table)
    assert "Not measured on a GPU" in table._repr_html_()
    assert "make gpu-check" in table._repr_html_()


def test_another_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a recorded run: it lacks parts"):
        gpu_record.load(written(tmp_path / "gpu.json"))
