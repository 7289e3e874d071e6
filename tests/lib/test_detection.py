"""Boxes against slow loops, scenes against their own truth, and a detector that learns."""

import json
from pathlib import Path

from convnets import cli, data, detection, detection_record, models, segmentation

import chainer
import chainer.functions as F
import numpy as np
import pytest

WEIGHTS = Path(__file__).resolve().parents[2] / "book/results/lenet5-mnist-shift.npz"


@pytest.fixture(scope="module")
def digits():
    return data.mnist(300, 100)[0]


@pytest.fixture(scope="module")
def net():
    model = models.LeNet5()
    chainer.serializers.load_npz(str(WEIGHTS), model)
    return model


@pytest.fixture(scope="module")
def some(digits):
    return detection.scenes(digits, 8, seed=3)


def random_boxes(n, seed, whole=True):
    random = np.random.RandomState(seed)
    corner = random.randint(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + random.randint(1, 12, (n, 2))], axis=1)
    return boxes if whole else boxes + random.rand(n, 4) / 2


# ---- scenes --------------------------------------------------------------------------------------


def test_scenes_are_the_same_for_a_seed_and_differ_between_seeds(digits):
    first, again, other = (detection.scenes(digits, 2, seed=seed) for seed in (0, 0, 1))
    assert (first.images == again.images).all() and (first.pixels == again.pixels).all()
    assert (first.images != other.images).any()


def test_boxes_hold_all_ink_of_their_digit_and_no_other(some):
    for image, pixels, boxes, labels in zip(some.images[:, 0], some.pixels, some.boxes,
                                            some.labels, strict=True):
        assert 3 <= len(boxes) <= 6 and len(boxes) == len(labels)
        assert (np.triu(detection.iou(boxes, boxes), 1) == 0).all(), "digits overlap"
        inside = np.zeros(pixels.shape, bool)
        for box, label in zip(boxes.astype(int), labels, strict=True):
            y0, x0, y1, x1 = box
            ink = image[y0:y1, x0:x1] > 0
            assert all(side.any() for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1])), "too large"
            assert set(np.unique(pixels[y0:y1, x0:x1])) <= {label, -1, detection.NOTHING}
            inside[y0:y1, x0:x1] = True
        assert (pixels[~inside] == detection.NOTHING).all()
        bright = (image >= 0.5) & inside
        assert (pixels[bright] < detection.NOTHING).all() and (pixels[bright] >= 0).all()
        faint = (image > 0) & (image < 0.5) & inside
        assert (pixels[faint] == detection.IGNORE).all()


def test_scenes_have_clutter_outside_of_the_boxes(digits):
    empty = detection.scenes(digits, 3, per_scene=(0, 0), clutter=30)
    assert empty.boxes[0].shape == (0, 4) and empty.labels[0].shape == (0,)
    assert (empty.images.reshape(3, -1) > 0.5).mean(axis=1).min() > 0.02
    assert (empty.pixels == detection.NOTHING).all()


def test_a_scene_smaller_than_a_digit_is_refused(digits):
    with pytest.raises(ValueError, match=r"scene of 20 x 20 .* size must be 28 or more"):
        detection.scenes(digits, 1, size=20)
    with pytest.raises(ValueError, match="number of scenes must be at least 1, got 0"):
        detection.scenes(digits, 0)


# ---- boxes ---------------------------------------------------------------------------------------


def counted_iou(a, b, size=40):
    """Count pixels: boxes of whole pixels only."""
    masks = np.zeros((2, size, size), bool)
    for mask, (y0, x0, y1, x1) in zip(masks, (a, b), strict=True):
        mask[y0:y1, x0:x1] = True
    return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


def test_iou_equals_counting_pixels():
    a, b = random_boxes(15, 0), random_boxes(12, 1)
    expected = [[counted_iou(p, q) for q in b] for p in a]
    assert np.allclose(detection.iou(a, b), expected, atol=1e-12)
    assert (detection.iou(a, b) > 0).any() and (detection.iou(a, b) == 0).any()


def test_iou_by_hand():
    a = [[0, 0, 10, 10]]
    assert detection.iou(a, [[5, 5, 15, 15]])[0, 0] == pytest.approx(25 / 175)
    assert detection.iou(a, a)[0, 0] == 1
    assert detection.iou(a, [[10, 0, 20, 10]])[0, 0] == 0, "they touch"
    assert detection.iou([[3, 3, 3, 3]], [[3, 3, 3, 3]])[0, 0] == 0, "empty"
    assert detection.iou(np.zeros((0, 4)), a).shape == (0, 1)


def test_iou_refuses_what_is_no_box():
    with pytest.raises(ValueError, match=r"\(N, 4\), rows of \(y0, x0, y1, x1\); got shape \(4,\)"):
        detection.iou([0, 0, 1, 1], [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"box 1 ends before it begins.*not \(y, x, height"):
        detection.iou([[0, 0, 1, 1], [5, 5, 3, 9]], [[0, 0, 1, 1]])


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 1.0])
def test_nms_equals_a_slow_loop(overlap):
    boxes = random_boxes(40, 2, whole=False)
    scores = np.random.RandomState(3).rand(40).round(1)              # with ties
    kept = []
    for i in sorted(range(40), key=lambda i: (-scores[i], i)):
        if all(detection.iou(boxes[i:i + 1], boxes[k:k + 1])[0, 0] <= overlap for k in kept):
            kept.append(i)
    assert detection.nms(boxes, scores, overlap).tolist() == kept
    assert (len(kept) == 40) == (overlap == 1.0)


def test_nms_of_nothing_and_of_unequal_numbers():
    assert detection.nms(np.zeros((0, 4)), []).shape == (0,)
    with pytest.raises(ValueError, match="2 boxes but 3 scores"):
        detection.nms(random_boxes(2, 0), [1, 2, 3])


def test_torchvision_agrees():
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    boxes, scores = random_boxes(60, 5, whole=False).astype(np.float32), np.arange(60) / 60
    flipped = torch.tensor(boxes[:, [1, 0, 3, 2]])                   # x first
    assert np.allclose(ops.box_iou(flipped, flipped), detection.iou(boxes, boxes), atol=1e-6)
    kept = ops.nms(flipped, torch.tensor(scores, dtype=torch.float32), 0.3)
    assert kept.tolist() == detection.nms(boxes, scores, 0.3).tolist()


# ---- how good ------------------------------------------------------------------------------------

TRUE = (np.array([[0, 0, 10, 10], [0, 20, 10, 30]]), np.array([3, 5]))


def found(*rows):
    """Rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return detection.Found(np.array(boxes, float).reshape(-1, 4), np.array(scores),
                           np.array(labels, int))


def test_a_digit_is_found_once_and_with_its_label():
    answers = found(((0, 0, 10, 10), 0.6, 3), ((0, 0, 10, 9), 0.9, 3), ((0, 20, 10, 30), 0.8, 4),
                    ((0, 24, 10, 34), 0.7, 5), ((50, 50, 60, 60), 0.5, 3))
    scores, right, n_true = detection.match([answers], [TRUE])
    assert scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5] and n_true == 2
    assert right.tolist() == [True, False, False, False, False]
    _, right, _ = detection.match([answers], [TRUE], overlap=0.4)
    assert right.tolist() == [True, False, True, False, False], "6/14 is over 0.4"


def test_precision_recall_and_average_precision_by_hand():
    ranking = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]), 4
    assert detection.precision_recall(*ranking) == (0.5, 0.5)
    assert detection.precision_recall(*ranking, threshold=0.9) == (1, 0.25)
    assert detection.precision_recall(*ranking, threshold=0.95) == (1, 0)
    # a quarter of recall at precision 1, a quarter at 2/3, and a half never reached
    assert detection.average_precision(*ranking) == pytest.approx((1 + 2 / 3) / 4)


def test_average_precision_equals_the_area_under_the_curve():
    random = np.random.RandomState(0)
    scores, right = np.sort(random.rand(50))[::-1], random.rand(50) < 0.5
    n_true, area, recall = 40, 0.0, 0.0
    pairs = [detection.precision_recall(scores, right, n_true, s) for s in scores]
    for i in range(50):
        area += (pairs[i][1] - recall) * max(p for p, _ in pairs[i:])
        recall = pairs[i][1]
    assert detection.average_precision(scores, right, n_true) == pytest.approx(area)


def test_nothing_found_and_nothing_there():
    ranking = detection.match([found()], [TRUE])
    assert detection.average_precision(*ranking) == 0
    assert detection.precision_recall(*ranking) == (1, 0)
    nothing = np.zeros((0, 4)), np.zeros(0, int)
    _, right, n_true = detection.match([found(((0, 0, 5, 5), 0.9, 1))], [nothing])
    assert right.tolist() == [False] and n_true == 0


# ---- the detector --------------------------------------------------------------------------------


def test_each_place_sees_its_window(net, some):
    maps = detection.feature_maps(net, some.images[:2])["conv3"]
    assert maps.shape == (2, 120, 18, 18)
    for i, j in ((0, 0), (3, 11), (17, 17)):
        window = some.images[:2, :, 4 * i:4 * i + 28, 4 * j:4 * j + 28]
        with chainer.no_backprop_mode():
            scores = net.fc5(F.sigmoid(net.fc4(maps[:, :, i, j]))).array
            assert abs(scores - net.logits(window).array).max() < 1e-5


def test_sizes_whose_last_window_hangs_over_are_refused(net, some):
    with pytest.raises(ValueError, match=r"28, 32, 36, .* got \[98, 98\]"):
        detection.feature_maps(net, some.images[:1], pad=1)


def test_targets_and_offsets_lead_back_to_the_boxes(some):
    middles = detection.centres(96)
    for boxes, labels in zip(some.boxes, some.labels, strict=True):
        classes, offsets = detection.targets(boxes, labels, 96)
        decoded = detection.decode(offsets, 96)
        for i, (y, x) in enumerate((y, x) for y in middles for x in middles):
            away = [max(abs((b[0] + b[2]) / 2 - y), abs((b[1] + b[3]) / 2 - x)) for b in boxes]
            k = int(np.argmin(away))
            if away[k] <= 3:
                assert classes[i] == labels[k]
                assert np.allclose(decoded[i], boxes[k], atol=1e-4)
            else:
                assert classes[i] == (detection.IGNORE if away[k] < 8 else detection.NOTHING)
                assert not offsets[i].any()
    assert np.allclose(detection.anchors(96), detection.decode(np.zeros((324, 4)), 96))


def test_an_untrained_head_has_the_scores_of_the_classifier(net, some):
    head = detection.Head(net)
    h = detection.rows(detection.feature_maps(net, some.images[:1])["conv3"])
    with chainer.no_backprop_mode():
        scores, offsets = head(h)
        assert abs(scores.array[:, :10] - net.fc5(F.sigmoid(net.fc4(h))).array).max() < 1e-5
    assert not scores.array[:, 10].any() and not offsets.array.any()


def test_it_learns_where_digits_are_and_boxes_that_fit(net, digits):
    train = detection.scenes(digits, 25, seed=0)
    test = detection.scenes(digits, 15, seed=1)
    np.random.seed(0)
    head = detection.Head(net)
    detection.fit(head, detection.rows(detection.feature_maps(net, train.images)["conv3"]),
                  *detection.all_targets(train), epochs=6)
    maps = detection.feature_maps(net, test.images)["conv3"]
    reached = {(fitted, overlap): detection_record.measured(
        [detection.answers(head, m, 96, fitted) for m in maps], test, fitted, overlap)
        for fitted in (True, False) for overlap in (0.3, None)}
    assert reached[True, 0.3]["ap"] > 0.7
    assert reached[True, 0.3]["ap75"] > reached[False, 0.3]["ap75"] + 0.1
    assert reached[True, None]["precision"] < reached[True, 0.3]["precision"] / 2
    assert reached[True, None]["recall"] >= reached[True, 0.3]["recall"]


# ---- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4])
def test_bilinear_enlarges_a_ramp_to_a_ramp(factor):
    y, x = np.mgrid[:6, :7].astype(np.float32)
    maps = np.stack([y, x, 2 * y - x])[None]
    large = F.deconvolution_2d(maps, segmentation.bilinear(3, factor), stride=factor,
                               pad=factor // 2).array[0]
    assert large.shape == (3, 6 * factor, 7 * factor)
    fine = (np.arange(7 * factor) + 0.5) / factor - 0.5
    inner = slice(factor, -factor)
    rows, columns = fine[:6 * factor, None], fine[None]
    for map_, expected in zip(large, (rows + 0 * columns, columns + 0 * rows, 2 * rows - columns),
                              strict=True):
        assert np.allclose(map_[inner, inner], expected[inner, inner], atol=1e-5)


def test_an_odd_factor_is_refused():
    with pytest.raises(ValueError, match="factor must be even and at least 2, got 3"):
        segmentation.bilinear(2, 3)


def test_mean_iou_equals_a_loop():
    random = np.random.RandomState(0)
    true, guess = random.randint(-1, 4, (2, 9, 9)), random.randint(0, 5, (2, 9, 9))
    shares = []
    for c in range(6):                                       # nobody says 5
        both = sum(t == g == c for t, g in zip(true.flat, guess.flat, strict=True))
        either = sum(t != -1 and c in (t, g) for t, g in zip(true.flat, guess.flat, strict=True))
        shares += [both / either] if either else []
    assert len(shares) == 5
    assert segmentation.mean_iou(guess, true, 6) == pytest.approx(np.mean(shares))
    assert segmentation.mean_iou(guess, np.full_like(true, -1), 6) == 0
    with pytest.raises(ValueError, match=r"shape \(2, 9, 9\), true ones of shape \(9, 9\)"):
        segmentation.mean_iou(guess, true[0], 6)


def test_maps_are_aligned_with_the_pixels(net):
    """A bright pixel changes conv1 around its own place, and conv3 around its own cell."""
    dark = np.zeros((1, 1, 64, 64), np.float32)
    light = dark.copy()
    light[0, 0, 21, 42] = 1
    first, second = (segmentation.maps(detection.feature_maps(net, x, pad=segmentation.PAD))
                     for x in (dark, light))
    for a, b, middle in zip(first, second, ((21, 42), (21 / 4, 42 / 4)), strict=True):
        changed = np.argwhere((a != b).any(axis=(0, 1)))
        assert np.allclose((changed.min(axis=0) + changed.max(axis=0)) / 2, middle, atol=0.8)
    assert first[0].shape == (1, 6, 64, 64) and first[1].shape == (1, 120, 16, 16)


def test_a_skip_helps_a_segmenter(net, digits):
    options = {"size": 64, "per_scene": (1, 3), "clutter": 5}
    train, test = (detection.scenes(digits, n, seed=n, **options) for n in (24, 12))
    inputs, unseen = (segmentation.maps(detection.feature_maps(net, s.images, pad=segmentation.PAD))
                      for s in (train, test))
    reached = []
    for skips in (False, True):
        np.random.seed(0)
        model = segmentation.Segmenter(net, skips)
        up = model.up.W.array.copy()
        segmentation.fit(model, inputs, train.pixels, epochs=4)
        assert (model.up.W.array == up).all(), "interpolation does not learn"
        reached.append(segmentation.mean_iou(segmentation.predict(model, unseen), test.pixels, 11))
    assert reached[1] > reached[0] + 0.02 > 0.15


# ---- the record ----------------------------------------------------------------------------------


def test_record(tmp_path, capsys):
    path = tmp_path / "run.json"
    arguments = ["detection", "--record", str(path), "--weights", str(WEIGHTS), "--n-train", "8",
                 "--n-test", "4", "--epochs", "1", "--n-pixels", "8", "--pixel-epochs", "1",
                 "--quiet"]
    assert cli.main(arguments) == 0
    run = detection_record.load(path)
    assert run["command"].startswith("convnets detection --record")
    assert sum(run["places"].values()) == 8 * 324 and len(run["detection"]) == 4
    shown = run["scenes"][0]
    test = detection.scenes(data.mnist()[1], 4, seed=1)
    assert [row[4] for row in shown["truth"]] == test.labels[0].tolist()
    pixels = np.array([[int(v, 16) for v in row] for row in shown["pixels"]]) / 15
    assert abs(pixels - test.images[0, 0]).max() < 0.04
    for one in shown["found"]:
        assert one["score"] == pytest.approx(shown["heat"][one["place"]], abs=0.006)
    assert "AP at IoU 0.5" in capsys.readouterr().out


def test_weights_of_something_else_are_refused(tmp_path, capsys):
    path = tmp_path / "other.npz"
    chainer.serializers.save_npz(path, models.LeNet5(n_class=3))
    arguments = ["detection", "--record", str(tmp_path / "run.json"), "--weights", str(path)]
    assert cli.main(arguments) == 1
    assert "does not hold the weights of LeNet5: fc5/W" in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()


def test_load_says_how_to_make_one(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"curve": []}))
    with pytest.raises(ValueError, match="convnets detection --record"):
        detection_record.load(path)
