"""Train a detector and two segmenters on scenes of digits, and write down what they reach.

On the command line: ``convnets detection --record FILE``.
"""

from pathlib import Path

import numpy as np

from . import data, detection, models, results, segmentation

SHOWN = 3          # scenes whose answers are stored whole
FLOOR = 0.05       # the least score of a stored box
LEVELS = "0123456789abcdef"   # of grey, one letter a pixel


def record(path, *, command, weights, n_train=400, n_test=200, epochs=10, n_pixels=200,
           pixel_epochs=12, seed=0, progress=False):
    """Train on scenes of MNIST's training digits, test on scenes of its test digits.

    Parameters
    ----------
    path : path
        The JSON file to write.
    command : str
        What to type to repeat it.
    weights : path
        A trained LeNet5, npz; it stays as it is.
    n_train, n_test, epochs : int
        Scenes of 96 x 96 and passes of the detector.
    n_pixels, pixel_epochs : int
        Scenes of 64 x 64 and passes of each segmenter.
    seed : int
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    dict
        What was written: `results.provenance`, ``places``, ``detection``, ``segmentation`` and
        ``scenes``, a few test scenes with all that the detector says of them.

    Raises
    ------
    ValueError
        If the file does not hold the weights of a LeNet5, or a number is too small.
    """
    from .cli import load_npz  # here: the command line imports this module

    net = load_npz(weights, models.LeNet5())
    train, test = data.mnist()
    options = {"weights": str(weights), "n_train": n_train, "n_test": n_test, "epochs": epochs,
               "n_pixels": n_pixels, "pixel_epochs": pixel_epochs}
    run = results.provenance(command, seed, options)
    run |= _detect(net, train, test, n_train, n_test, epochs, seed, progress)
    run["segmentation"] = _segment(net, train, test, n_pixels, pixel_epochs, seed,
                                   progress)
    return results.write(path, run)


def _detect(net, train, test, n_train, n_test, epochs, seed, progress):
    train, test = (detection.scenes(digits, n, seed=seed + k)
                   for k, (digits, n) in enumerate(((train, n_train), (test, n_test))))
    classes, offsets = detection.all_targets(train)
    np.random.seed(seed)
    head = detection.Head(net)
    h = detection.rows(detection.feature_maps(net, train.images)["conv3"])
    detection.fit(head, h, classes, offsets, epochs, seed=seed, progress=progress)
    maps, size = detection.feature_maps(net, test.images)["conv3"], test.images.shape[2]
    told = {fitted: [detection.answers(head, m, size, fitted) for m in maps]
            for fitted in (False, True)}
    return {
        "places": {"digit": int(((classes >= 0) & (classes != detection.NOTHING)).sum()),
                   "nothing": int((classes == detection.NOTHING).sum()),
                   "ignored": int((classes == detection.IGNORE).sum())},
        "detection": [measured(told[fitted], test, fitted, overlap)
                      for fitted in (False, True) for overlap in (0.3, None)],
        "scenes": [_shown(test, told[True][i], i) for i in range(SHOWN)],
    }


def measured(told, scenes, fitted, overlap):
    """Return what answers reach: average precision at an IoU of 0.5 and of 0.75, and more.

    Parameters
    ----------
    told : list of Found
        As `detection.answers` returns them, of all scenes.
    scenes : Scenes
    fitted : bool
        Only noted.
    overlap : float or None
        Of `detection.keep`.

    Returns
    -------
    dict
    """
    found = [detection.keep(one, FLOOR, overlap) for one in told]
    truth = list(zip(scenes.boxes, scenes.labels, strict=True))
    ranking, strict = (detection.match(found, truth, least) for least in (0.5, 0.75))
    precision, recall = detection.precision_recall(*ranking, threshold=0.5)
    return {"fitted": fitted, "nms": overlap, "ap": detection.average_precision(*ranking),
            "ap75": detection.average_precision(*strict), "precision": precision,
            "recall": recall}


def _shown(scenes, told, i):
    """Return one scene and its answers as JSON values."""
    image = (scenes.images[i, 0] * (len(LEVELS) - 1)).round().astype(int)
    (strong,) = np.nonzero(told.scores >= FLOOR)
    return {
        "pixels": ["".join(LEVELS[v] for v in row) for row in image],
        "truth": [[*map(int, box), int(label)] for box, label in zip(
            scenes.boxes[i], scenes.labels[i], strict=True)],
        "heat": [round(float(score), 2) for score in told.scores],
        "found": [{"place": int(p), "label": int(told.labels[p]),
                   "score": round(float(told.scores[p]), 3),
                   "box": [round(float(v), 1) for v in told.boxes[p]]} for p in strong],
    }


def _segment(net, train, test, n, epochs, seed, progress):
    options = {"size": 64, "per_scene": (1, 3), "clutter": 5}
    train, test = (detection.scenes(digits, m, seed=seed + k, **options)
                   for k, (digits, m) in enumerate(((train, n), (test, n // 2))))
    inputs, unseen = (segmentation.maps(detection.feature_maps(
        net, part.images, pad=segmentation.PAD)) for part in (train, test))
    reached = {}
    for name, skips in (("coarse", False), ("skip", True)):
        np.random.seed(seed)
        model = segmentation.Segmenter(net, skips)
        segmentation.fit(model, inputs, train.pixels, epochs, seed=seed, progress=progress)
        answer = segmentation.predict(model, unseen)
        reached[name] = segmentation.mean_iou(answer, test.pixels, detection.N_DIGITS + 1)
    return reached


def load(path):
    """Read what `record` wrote.

    Raises
    ------
    ValueError
        If the file does not hold it.
    """
    return results.load_measured(path, "scenes", "scenes", "detection")


def as_found(scene):
    """Return the answers about one of the stored ``scenes`` as `convnets.detection.Found`."""
    found = scene["found"]
    return detection.Found(np.array([one["box"] for one in found]).reshape(-1, 4),
                           np.array([one["score"] for one in found]),
                           np.array([one["label"] for one in found], int))


def add_parser(commands):
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "detection", help="train a detector and two segmenters on scenes of digits")
    parser.add_argument("--record", type=Path, required=True, metavar="FILE",
                        help="the JSON file to write")
    parser.add_argument("--weights", type=Path, required=True, metavar="NPZ",
                        help="a trained LeNet5, such as book/results/lenet5-mnist-shift.npz")
    for name, value, what in (
            ("n-train", 400, "scenes to train the detector with"),
            ("n-test", 200, "scenes to test it with"), ("epochs", 10, "passes over them"),
            ("n-pixels", 200, "scenes to train the segmenters with"),
            ("pixel-epochs", 12, "passes over them"), ("seed", 0, "of scenes and training")):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} ({value})")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=_run)


def _run(args):
    run = record(args.record, command=args.command_line, weights=args.weights,
                 n_train=args.n_train, n_test=args.n_test, epochs=args.epochs,
                 n_pixels=args.n_pixels, pixel_epochs=args.pixel_epochs, seed=args.seed,
                 progress=not args.quiet)
    print("boxes    overlap  AP at IoU 0.5  at 0.75  precision  recall")
    for row in run["detection"]:
        print(f"{'fitted' if row['fitted'] else 'anchors':8} {row['nms'] or 'all':>7}"
              f"  {row['ap']:13.3f}  {row['ap75']:7.3f}  {row['precision']:9.3f}"
              f"  {row['recall']:6.3f}")
    for name, value in run["segmentation"].items():
        print(f"pixels, {name}: mean IoU {value:.3f}")
