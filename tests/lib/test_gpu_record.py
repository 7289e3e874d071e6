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
    part = {"network": "LeNet5", "batch": 128, "train": True, "peers": PEERS,
            "flop_per_image": 1e9}
    table = gpu_record.load(written(tmp_path / "gpu.json", parts={
        "operations": [], "ceilings": {"copy TB/s": 3, "TF32 TFLOP/s": 320.0},
        "VGG16": "failed: no", "LeNet5": part}))
    assert table.rows == [
        ("LeNet5, training", "128", "Chainer, float32", "8.00", "16,000", "3", "5.0%", "0.50"),
        ("LeNet5, training", "128", "Chainer, mixed16", "failed", "", "", "", ""),
        ("LeNet5, training", "128", "torch, eager", "4.00", "32,000", "5", "10.0%", "1.00"),
        ("LeNet5, training", "128", "torch, channels_last", "6.00", "9", "1", "0.0%", "0.67"),
    ]
    for text in (repr(table), table._repr_html_()):
        assert "make gpu-check  (seed 0" in text
        assert "16,000" in text


def test_the_share_of_the_card_is_by_the_type_of_its_products():
    ceilings = {"TF32 TFLOP/s": 100.0, "float16 TFLOP/s": 400.0}
    peer, part = {"images_per_second": 1000.0}, {"flop_per_image": 4e10}
    for label, expected in (("Chainer, float32", 0.4), ("torch, eager", 0.4),
                            ("Chainer, mixed16, graph", 0.1), ("torch, autocast", 0.1)):
        assert gpu_record.share(label, peer, part, ceilings) == pytest.approx(expected)
    for unknown in (None, "failed: no", {}):
        assert gpu_record.share("torch, eager", peer, part, unknown) is None


def test_what_did_not_end_is_marked(tmp_path):
    part = {"network": "VGG16", "batch": 1, "train": False, "peers": PEERS, "unfinished": "time"}
    table = gpu_record.load(written(tmp_path / "gpu.json", parts={"VGG16": part}))
    assert table.rows[0][:3] == ("VGG16, inference (unfinished)", "1", "Chainer, float32")


def test_without_a_record_it_says_so(tmp_path):
    table = gpu_record.load(tmp_path / "gpu.json")
    assert "not measured on a GPU" in repr(table)
    assert "Not measured on a GPU" in table._repr_html_()
    assert "make gpu-check" in table._repr_html_()


def test_another_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a recorded run: it lacks parts"):
        gpu_record.load(written(tmp_path / "gpu.json"))
