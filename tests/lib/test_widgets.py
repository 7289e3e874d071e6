"""Widgets as text: self-contained, always the same, safe, and readable without scripts."""

import base64
import json
import re
import types
from html.parser import HTMLParser

import convnets
from convnets import export, figures, widgets
from convnets.widgets._base import Widget, asset
from convnets.widgets._plans import MODELS, layers, plans, published

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from ipywidgets.widgets.widget_link import Link

QUESTION = {"ask": "1 + 1 = `?`", "answers": [("2", "Yes."), ("3", "No.")], "correct": 0}

ROWS = convnets.inspect.summary(convnets.models.LeNet5(), (2, 1, 28, 28)).as_dicts()

np.random.seed(0)
LENET5 = convnets.models.LeNet5()
DIGITS = np.stack([x for x, _ in convnets.data.mnist(1, 2)[1][:]])

MEASURED = {
    "options": {"distance": 0.01},
    "networks": [
        {"name": name, "depth": 8, "residual": residual, "normalized": True, "blocks": [
            {"name": "conv1", "shape": [16, 8, 8], "signal": 1.0, "signal_similarity": 0.9,
             "gradient": 2.0, "gradient_similarity": 0.5, "step": 0.1}]}
        for name, residual in (("plain-8", False), ("ResNet-8", True))
    ],
}  # fmt: skip

GRAPH = export.Graph(
    [export.Node("Conv", "conv1/Conv", ["images", "conv1/W"], ["c"], {"strides": [1, 2]}),
     export.Node("Relu", "Relu", ["c"], ["scores"])],
    {"conv1/W": np.zeros((2, 1, 3, 3), np.float32)}, {"images": ("N", 1, 5, 5)},
    {"scores": ("N", 2, 3, 2)})

SIGNATURES = {"bugs": [
    {"name": name, "what": "a line", "sign": "a sign", "curve": [first, 0.5], "by_heart": 0.01,
     "layers": [{"name": "conv1/W", "gradient": g, "step": g}], "accuracy": 0.9, "changed": 0.0}
    for name, first, g in (("healthy", 2.3, 0.1), ("graph cut", 2.4, None))]}

EXAMPLES = {
    "architecture_explorer": lambda **kw: widgets.architecture_explorer("VGG19", **kw),
    "bug_signatures": lambda **kw: widgets.bug_signatures(SIGNATURES, **kw),
    "card": lambda **kw: widgets.card(["see"], ["eyes"], minutes=5, **kw),
    "quiz": lambda **kw: widgets.quiz([QUESTION], **kw),
    "predict": lambda **kw: widgets.predict("1 + 1?", 2, "Count.", **kw),
    "filter_playground": lambda **kw: widgets.filter_playground(np.eye(5), **kw),
    "lenet5_explorer": lambda **kw: widgets.lenet5_explorer(LENET5, DIGITS, [7, 2], **kw),
    "shapes": lambda **kw: widgets.shapes(ROWS, **kw),
    "onnx_graph": lambda **kw: widgets.onnx_graph(GRAPH, {"c": (2, 2, 3, 2)}, **kw),
    "softmax_explorer": lambda **kw: widgets.softmax_explorer(**kw),
    "residual_path": lambda **kw: widgets.residual_path(MEASURED, **kw),
    "receptive_field": lambda **kw: widgets.receptive_field("LeNet5", **kw),
    "sliding_window": lambda **kw: widgets.sliding_window(np.eye(3), np.eye(2), **kw),
}


class Page(HTMLParser):
    """The elements of a page, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(html)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"br", "img", "input", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data


@pytest.fixture(params=EXAMPLES)
def example(request):
    return EXAMPLES[request.param]


def test_same_widget_same_text(example):
    assert example()._repr_html_() == example()._repr_html_()


def test_key_tells_equal_widgets_apart(example):
    assert example().id == example().id != example(key="second").id


def test_html_is_well_formed_and_asks_for_nothing(example):
    html = example()._repr_html_()
    page = Page(html)
    named = {name for _, attrs in page.elements for name in attrs}
    assert not named & {"src", "href", "srcset", "onclick", "onload"}
    assert not re.search(r"@import|url\(|\beval\(|new Function|fetch\(|XMLHttpRequest", html)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert ids == [example().id]


def test_repr_is_short_and_has_no_address(example):
    assert re.fullmatch(r"<\w+: [^<>\n]{5,60}>", repr(example()))
    assert "0x" not in repr(example())


def test_state_survives_the_page(example):
    widget = example()
    stored = re.search(r'class="cv-state">(.*)</script>', widget._repr_html_())
    if asset(f"{widget.name}.js"):
        assert json.loads(stored[1]) == json.loads(json.dumps(widget.state()))


def test_no_text_can_close_the_script_or_add_a_tag():
    evil = "</script><b>bold</b>"
    question = {"ask": evil, "answers": [(evil, evil), ("a", "b")], "correct": 1}
    html = widgets.quiz([question], caption=evil)._repr_html_()
    assert html.count("</script>") == 2
    assert "b" not in [tag for tag, _ in Page(html).elements]


def test_backticks_and_stars_become_tags():
    html = widgets.card(["use `x * y` *now*"], ["2 * 3 * 4"], minutes=1)._repr_html_()
    assert "use <code>x * y</code> <em>now</em>" in html
    assert "2 * 3 * 4" in html


@pytest.mark.parametrize("name", ["quiz", "predict"])
def test_answers_fold_out_without_scripts(name):
    page = Page(EXAMPLES[name]()._repr_html_())
    assert "details" in [tag for tag, _ in page.elements]
    assert {"quiz": "Yes.", "predict": "Count."}[name] in page.text


def test_card_says_all_it_was_given():
    card = widgets.card(["walk", "run"], ["legs"], minutes=12, run="8 s", verified="Python 3.11")
    text = Page(card._repr_html_()).text
    for part in ("walk", "run", "legs", "12 minutes", "8 s", "Python 3.11"):
        assert part in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"correct": 2}, "0 to 1; got 2"),
        ({"correct": -1}, "0 to 1; got -1"),
        ({"answers": [("2", "")]}, r"pair \(text, why\)"),
        ({"answers": ["2", "3"]}, r"pair \(text, why\)"),
        ({"answer": 1}, "wrong or missing: answer"),
    ],
)
def test_quiz_names_the_faulty_question(change, message):
    with pytest.raises(ValueError, match=f"question 2: .*{message}"):
        widgets.quiz([QUESTION, QUESTION | change])


def test_quiz_without_questions():
    with pytest.raises(ValueError, match="no question"):
        widgets.quiz([])


def test_prediction_must_be_among_its_choices():
    with pytest.raises(ValueError, match=r"'4' must be one of the choices \['1', '2'\]"):
        widgets.predict("?", 4, choices=[1, 2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "median"}, "mode must be one of .* got 'median'"),
        ({"image": [1, 2]}, r"image must be a table .* got shape \(2,\)"),
        ({"kernel": [[1, 2]]}, r"must be square.* got shape \(1, 2\)"),
        ({"ksize": 3}, r"ksize=3; got shape \(2, 2\)"),
    ],
)
def test_sliding_window_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        widgets.sliding_window(**{"image": np.eye(3), "kernel": np.eye(2)} | arguments)


@pytest.mark.parametrize("mode, cover_all", [("convolution", False), ("max", True)])
def test_sliding_window_rounds_as_chainer_unless_told(mode, cover_all):
    default = widgets.sliding_window(np.eye(3), mode=mode).state()
    assert default["options"]["cover_all"] is cover_all
    told = widgets.sliding_window(np.eye(3), mode=mode, cover_all=not cover_all).state()
    assert told["options"]["cover_all"] is not cover_all


def test_shapes_explain_every_count():
    """Each '156 = 6 × (1 × 5 × 5) + 6' is true, and the left side is the counted number."""
    explained = 0
    for row, stage in zip(ROWS, widgets.shapes(ROWS).stages[1:], strict=True):
        facts = dict(stage["facts"])
        for name, count in (("parameters", row["params"]), ("multiply-adds", row["macs"])):
            left, _, right = facts[name].replace(",", "").replace("×", "*").partition(" = ")
            assert int(left) == count
            if count:
                assert eval(right) == count
                explained += 1
    assert explained == 10
    assert (
        dict(widgets.shapes(ROWS).stages[1]["facts"])["parameters"] == "156 = 6 × (1 × 5 × 5) + 6"
    )


def test_shapes_do_not_explain_what_they_cannot():
    row = ROWS[0] | {"kind": "batch normalization", "params": 12, "macs": 0}
    facts = dict(widgets.shapes([row]).stages[1]["facts"])
    assert facts["parameters"] == "12" and facts["multiply-adds"] == "0"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: widgets.shapes([]), "got no rows"),
        (lambda: widgets.shapes([{"name": "a"}]), "row 0 lacks kind, in_shape"),
        (lambda: widgets.filter_playground(np.zeros((2, 3, 4, 4))), r"got shape \(2, 3, 4, 4\)"),
        (lambda: widgets.filter_playground(np.eye(4), [1, 2]), "1 images but 2 labels"),
        (lambda: widgets.filter_playground(np.eye(4), kernels={"k": np.eye(5)}), "at most 4 wide"),
        (lambda: widgets.architecture_explorer("VGG11"), "unknown model 'VGG11'; there are: LeNet"),
        (lambda: widgets.architecture_explorer("VGG16", names=["VGG19"]), "one of the names"),
        (lambda: widgets.architecture_explorer(width=0), "width must be 0.0625 to 4; got 0"),
        (lambda: widgets.architecture_explorer(opened="res6"), "unknown stage 'res6'.* conv1, p"),
        (lambda: widgets.architecture_explorer(stride_in="2"), "unknown stride_in '2'; .* 1x1, 3"),
        (lambda: widgets.receptive_field("VGG11"), "unknown stack 'VGG11'; there are: three 3 × 3"),
        (lambda: widgets.receptive_field(layer=4), "layer must be 1 to 3; got 4"),
        (lambda: widgets.softmax_explorer([1]), "at least two logits"),
        (lambda: widgets.softmax_explorer([1, 99]), "from -10 to 10"),
        (lambda: widgets.softmax_explorer([1, 2], label=2), "0 to 1; got 2"),
        (lambda: widgets.frames([figures.double_softmax()], []), "1 figures and 0 labels"),
        (lambda: widgets.lenet5_explorer(LENET5, DIGITS, [7]), r"\(2, 1, 28, 28\) and 1 labels"),
        (lambda: widgets.lenet5_explorer(LENET5, 2 * DIGITS, [7, 2]), "0 to 1; got 0 to 2"),
        (lambda: widgets.lenet5_explorer(LENET5.conv1, DIGITS, [7, 2]), "no such parameter"),
        (lambda: widgets.lenet5_explorer(convnets.models.LeNet5(26), DIGITS, [7, 2]),
         r"fc5/W has the shape \(10, 84\); got \(26, 84\)"),
        (lambda: widgets.loss_curve(0), "at least 1; got 0"),
        (lambda: widgets.bug_signatures(SIGNATURES, chosen="rust"), "there are graph cut"),
        (lambda: widgets.bug_signatures({"bugs": SIGNATURES["bugs"][:1]}), "and a bug are needed"),
        (lambda: widgets.bug_signatures({"bugs": [{"name": "x"}]}), "x lacks what, sign"),
    ],
)
def test_explorers_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_plans_are_those_of_the_published_models():
    """Read at a sixteenth of the width, and written out: the layers of the models themselves."""
    for name, build in [("ResNet101", lambda: convnets.models.ResNet101(width=1 / 16)),
                        ("ResNet32", convnets.models.ResNet32),
                        ("Plain20", convnets.models.Plain20)]:  # fmt: skip
        rows = convnets.inspect.summary(build(), (2, 3, 64, 64)).rows
        written = [(layer["name"], layer["kind"]) for layer in layers(name)]
        assert written == [(row.name, row.kind) for row in rows]


def test_reading_the_plans_leaves_the_random_state_alone():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    plans.cache_clear()
    plans("plain")
    assert np.random.rand() == expected


def test_published_says_what_the_classes_say():
    for name in MODELS:
        model = published(name)
        assert hasattr(convnets.models, name)
        assert (model["n_class"] == 1000) == (model["size"] == 224)
    channels = [[n for n, _ in convnets.models.vgg.CONFIGS[name]] for name in ("vgg16", "vgg19")]
    assert channels[0] == channels[1], "one plan serves both"


def test_frames_hold_the_figures_and_are_linked_in_the_page():
    drawn = [figures.digits(np.full((1, 4, 4), grey)) for grey in (0.2, 0.8)]
    box = widgets.frames(drawn, ["epoch 1", "epoch 2"])
    (play, slider), stack = box.children[0].children, box.children[1]
    assert (play.max, slider.max, stack.selected_index) == (1, 1, 0)
    for page, figure, label in zip(stack.children, drawn, ["epoch 1", "epoch 2"], strict=True):
        assert base64.b64encode(figure.png()).decode() in page.value
        assert f'alt="{label}: {figure.alt}"' in page.value
    links = [w for w in _instances.values() if isinstance(w, Link)]
    pairs = [(link.source[0], link.target) for link in links if link.source[0] in (play, slider)]
    assert pairs == [(play, (slider, "value")), (slider, (stack, "selected_index"))]


def test_every_function_is_a_widget_with_its_script():
    for make in EXAMPLES.values():
        assert isinstance(make(), Widget)
    for name in set(EXAMPLES) - {"card"}:
        assert f"cv.figure('{name}'" in asset(f"{name}.js")


def test_lenet5_explorer_carries_all_weights_and_digits():
    state = widgets.lenet5_explorer(LENET5, DIGITS, [7, 2]).state()
    weights = np.frombuffer(base64.b64decode(state["weights"]), "<f4")
    assert weights.size == LENET5.count_params() == 44_426
    np.testing.assert_array_equal(weights[:150], LENET5.conv1.W.array.ravel())
    np.testing.assert_array_equal(weights[-10:], LENET5.fc5.b.array)
    digit = np.frombuffer(base64.b64decode(state["digits"][1]), np.uint8) / np.float32(255)
    np.testing.assert_allclose(digit.reshape(28, 28), DIGITS[1, 0], rtol=0, atol=1e-7)


def watched(curve, **options):
    """A short run that the curve watches; what it showed, and how often it cleared the cell."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", lambda it: shown.append(it._repr_html_()))
        patch.setattr("IPython.display.clear_output", lambda wait: shown.append(f"clear {wait}"))
        run = convnets.trainer(convnets.models.LeNet5(), *convnets.data.mnist(60, 20), epochs=1,
                               batch=20, **options)
        run.extend(curve)
        run.run()
    return shown


def test_loss_curve_moves_while_the_run_goes_on():
    curve = widgets.loss_curve(3, caption="A claim.")
    curve.PAUSE = 0
    shown = watched(curve)
    assert shown[::2] == ["clear True"] * 4         # three steps and the end
    for i, html in enumerate(shown[1:6:2], 1):
        assert f"loss: {curve.losses[i - 1]:.2f} after {i} of 3 steps" in html
        assert html.count('id="') == 1 and "A claim." in html
        Page(html)
    assert shown[-1] == shown[-3]


def test_loss_curve_is_shown_seldom(monkeypatch):
    clock = types.SimpleNamespace(monotonic=lambda: 100.0)    # no step takes any time
    monkeypatch.setattr("convnets.widgets._watch.time", clock)
    shown = watched(widgets.loss_curve(3))
    assert shown.count("clear True") == 2           # the first step and the end


def test_loss_curve_says_what_a_run_reports():
    with pytest.raises(KeyError, match=r"no 'loss'; it reports .*main/loss"):
        watched(widgets.loss_curve(3, observed="loss"))


def test_loss_curve_does_not_change_what_is_learned():
    nets = []
    for extend in (False, True):
        np.random.seed(0)
        nets.append(convnets.models.LeNet5())
        run = convnets.trainer(nets[-1], *convnets.data.mnist(60, 20), epochs=1, batch=20)
        if extend:
            run.extend(widgets.loss_curve(3))
        run.run()
    for one, other in zip(nets[0].params(), nets[1].params(), strict=True):
        np.testing.assert_array_equal(one.array, other.array)


def test_onnx_graph_follows_names_both_ways():
    images, conv, relu, output = widgets.onnx_graph(GRAPH, {"c": (2, 2, 3, 2)}).state()["nodes"]
    assert [r["text"] for r in conv["reads"]] == [
        "images (N, 1, 5, 5)", "conv1/W: float32 (2, 1, 3, 3), 72 bytes in the file"]
    assert [r["from"] for r in conv["reads"]] == [0, None]
    assert conv["attributes"] == [["strides", "1, 2"]] and conv["writes"] == "c (2, 2, 3, 2)"
    assert (images["feeds"], conv["feeds"], relu["feeds"], output["feeds"]) == ([1], [2], [3], [])
    assert output["reads"] == [{"text": "scores (N, 2, 3, 2)", "from": 2}]
    with pytest.raises(ValueError, match="onnx_graph: the graph has no nodes"):
        widgets.onnx_graph(export.Graph([], {}, {}, {}))
