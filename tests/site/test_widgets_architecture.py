"""The architecture explorer in a real browser: its numbers are those of `inspect.summary`."""

import random

import convnets  # noqa: F401  before chainer
from convnets import inspect, models, widgets
from convnets.widgets._plans import FAMILIES, MODELS, plans, published

import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

TOTALS = ("params", "macs", "activation_bytes")


def lines(page, selector):
    """Rows of the table, without separators: name, output shape and three counts."""
    cells = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    for name, shape, *counts in page.locator(selector).evaluate_all(cells):
        sizes = tuple(int(n) for n in shape.split("×")) if shape else ()
        yield name, sizes, [int(n.replace(",", "")) for n in counts]


def python(page):
    """What the line of Python below the table gives."""
    line = page.locator(".cv-python code").inner_text()
    return eval(line, {"inspect": inspect, "models": models})


def totals(summary):
    return [getattr(summary, key) for key in TOTALS]


def fill(page, **values):
    labels = {"width": "width factor", "size": "input size", "n_class": "classes"}
    for name, value in values.items():
        page.get_by_label(labels.get(name, name), exact=True).fill(str(value))


def add(*counts):
    return [sum(column) for column in zip(*counts, strict=True)]


def check(page):
    """The table says what Python says: in total, for each stage, and for each of its layers."""
    summary = python(page)
    assert next(lines(page, "tfoot tr"))[2] == totals(summary)
    rows = iter(summary.rows)
    for name, shape, counts in list(lines(page, "tr.cv-whole")):
        stage = page.locator("tbody").get_by_role("button", name=name, exact=True)
        if stage.get_attribute("aria-expanded") == "false":
            stage.click()
        layers = list(lines(page, "tr.cv-layer"))
        for text, layer_shape, layer_counts in layers:
            row = next(rows)
            so_far = totals(row)
            if "more like it" in text:
                while so_far != layer_counts:
                    row = next(rows)
                    so_far = add(so_far, totals(row))
            else:
                assert text.startswith(row.name or row.kind)
            assert (layer_shape, layer_counts) == (row.out_shape[1:], so_far)
        assert counts == add(*(layer[2] for layer in layers))
        assert shape == layers[-1][1]
    assert next(rows, None) is None


@pytest.mark.parametrize("name", ["LeNet5", "VGG16", "ResNet50", "ResNet20", "Plain56"])
def test_published_networks(show, name):
    page = show(widgets.architecture_explorer(name))
    check(page)
    assert f"This is {name} as published." in page.content()


def test_facts(show):
    """The counts of the papers' networks, as the book states them."""
    page = show(widgets.architecture_explorer())
    for name, params, gmacs in [
        ("VGG19", "143,667,240", "19.632"),
        ("ResNet101", "44,549,160", "7.570"),
        ("ResNet152", "60,192,808", "11.282"),
        ("ResNet110", "1,727,962", "0.253"),
        ("Plain110", "1,727,962", "0.253"),
    ]:
        page.get_by_label("model").select_option(name)
        says = page.locator(".cv-says").inner_text()
        layers = "".join(filter(str.isdigit, name))
        assert f"{layers} layers with weights, {params} parameters, {gmacs} billion" in says
    page.get_by_label("model").select_option("ResNet152")
    page.get_by_label("stride_in").select_option("3x3")
    assert "60,192,808 parameters, 11.514 billion" in page.locator(".cv-says").inner_text()


def test_changed_by_the_reader(show):
    page = show(widgets.architecture_explorer("ResNet50"))
    fill(page, width=0.125, size=70, n_class=7, res2=1, res4=2, res5=4)
    page.get_by_label("stride_in").select_option("3x3")
    assert "(1, 4, 2, 4), n_class=7" in page.locator(".cv-python").inner_text()
    check(page)
    page.get_by_label("model").select_option("VGG19")
    fill(page, width=0.0625, size=45, n_class=3, block1=1, block5=5)
    assert "(4, 1), (8, 2), (16, 4), (32, 4), (32, 5)" in page.locator(".cv-python").inner_text()
    check(page)
    page.get_by_label("model").select_option("ResNet56")
    fill(page, width=1.5, size=19, **{"blocks in each of res2 to res4": 2})
    assert "CifarResNet(14, n_class=10, residual=True" in page.locator(".cv-python").inner_text()
    check(page)
    page.get_by_label("model").select_option("Plain20")
    fill(page, width=0.7, size=33)
    check(page)
    assert "0.49 times the parameters" in page.locator(".cv-says").inner_text()
    page.get_by_role("button", name="as published").click()
    assert "This is Plain20 as published." in page.locator(".cv-says").inner_text()


def random_setting(rng):
    """A random setting of a random model, thin enough to be run in Python, and that model."""
    name = rng.choice([name for name in MODELS if name != "LeNet5"])
    width = rng.choice([1 / 16, 0.07, 0.1, 0.125])
    stride_in = rng.choice(["1x1", "3x3"])
    of = published(name)
    n = len(of["counts"])
    counts = [rng.randint(1, 3)] * n
    if FAMILIES[of["family"]]["depth"] == "each":
        counts = [rng.randint(1, 4) for _ in counts]
    setting = {"width": width, "size": rng.randint(33, 80), "n_class": rng.randint(2, 50),
               "n_in": of["n_in"], "counts": counts}  # fmt: skip
    return name, stride_in, setting


def built(name, stride_in, setting):
    family, width, n_class = MODELS[name][0], setting["width"], setting["n_class"]
    counts, size = setting["counts"], setting["size"]
    if family == "VGG":
        scaled = [max(1, int(c * width + 0.5)) for c in (64, 128, 256, 512, 512, 4096)]
        return models.VGG(list(zip(scaled, counts, strict=False)), n_class, (3, size, size),
                          hidden=scaled[-1])  # fmt: skip
    if family == "ResNet":
        return models.ResNet(counts, n_class, stride_in=stride_in, width=width)
    return models.CifarResNet(6 * counts[0] + 2, n_class, family == "CIFAR", width=width)


def test_every_row_of_random_settings(show):
    """The page's arithmetic alone, layer by layer."""
    page = show(widgets.architecture_explorer())
    rng = random.Random(0)
    for _ in range(40):
        name, stride_in, setting = random_setting(rng)
        family = plans(MODELS[name][0])
        plan = family.get(stride_in, family.get(""))
        got = page.evaluate("([plan, setting]) => cv.architecture.rows(plan, setting)",
                            [plan, setting])  # fmt: skip
        shape = (setting["n_in"], setting["size"], setting["size"])
        expected = inspect.summary(built(name, stride_in, setting), shape).rows
        assert [
            (row["name"], row["kind"], row["shape"], [row["params"], row["macs"], row["bytes"]])
            for row in got
        ] == [
            (row.name, row.kind, list(row.out_shape[1:]), totals(row)) for row in expected
        ], (name, stride_in, setting)


@pytest.mark.parametrize(
    "size, reason",
    [
        (8, "8 × 8 is too small. conv2 needs at least 5 × 5 pixels, but its input is only 2 × 2."),
        (3, "3 × 3 is too small. conv1 needs at least 5 × 5 pixels, but its input is only 3 × 3."),
        (32, "here fc4 would get 120×2×2 = 480 values, and it is built for 120."),
        (27, "the layers would fit 27 × 27, but it checks its input."),
    ],
)
def test_lenet5_takes_one_size(show, size, reason):
    page = show(widgets.architecture_explorer("LeNet5"))
    fill(page, size=size)
    said = page.locator(".cv-reasons").inner_text()
    assert said.startswith("LeNet5 takes images of 28 × 28 only: ") and reason in said
    assert page.get_by_label("input size").get_attribute("aria-invalid") == "true"
    assert not page.get_by_role("table").is_visible()
    fill(page, size=28)
    assert page.get_by_role("table").is_visible()
    assert page.get_by_label("input size").get_attribute("aria-invalid") is None


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("size", "", "The input size must be a whole number from 1 to 1,024."),
        ("size", "32.5", "The input size must be a whole number from 1 to 1,024."),
        ("n_class", "0", "The classes must be a whole number from 1 to 100,000."),
        ("width", "0", "The width factor must be a number from 1/16 to 4."),
        ("res3", "0", "A stage can have from 1 to at most 200 repetitions."),
    ],
)
def test_impossible_settings(show, field, value, reason):
    page = show(widgets.architecture_explorer("ResNet50"))
    fill(page, **{field: value})
    assert page.locator(".cv-reasons").inner_text() == reason
    assert page.locator('input[aria-invalid="true"]').count() == 1
    assert not page.get_by_role("table").is_visible()


def test_an_image_too_small_is_told(show):
    page = show(widgets.architecture_explorer("VGG16"))
    fill(page, size=16)
    assert "From block5 on the maps are 1 × 1" in page.locator(".cv-reasons").inner_text()
    fill(page, size=17)
    assert page.locator(".cv-reasons").inner_text() == ""


def test_lenet5_of_another_width_has_no_class(show):
    page = show(widgets.architecture_explorer("LeNet5"))
    fill(page, width=0.5)
    assert "No class of the library" in page.locator(".cv-python").inner_text()
    # 3, 8, 60, 42 channels
    params = 3 * 26 + 8 * (3 * 25 + 1) + 60 * (8 * 16 + 1) + 42 * 61 + 10 * 43
    assert next(lines(page, "tfoot tr"))[2][0] == params


def test_by_keyboard_and_mouse(show):
    page = show(widgets.architecture_explorer("ResNet152"))
    drawing = page.get_by_role("group", name="Stages of the network")
    drawing.get_by_role("button").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.stage") == "res4"
    page.keyboard.press("Enter")
    assert "34 more like it" in page.get_by_role("table").inner_text()
    assert page.evaluate("document.activeElement.dataset.stage") == "res4"
    assert drawing.locator('[data-stage="res4"] .cv-bar').count() == 36
    button = page.get_by_role("table").get_by_role("button", name="res4")
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert page.locator("tr.cv-layer").count() == 0
    page.keyboard.press("Space")
    assert page.locator("tr.cv-layer").count() == 23
    page.get_by_label("width factor").focus()
    page.keyboard.press("ArrowUp")
    says = page.locator(".cv-says").inner_text()
    assert "1.55 times the parameters, 1.56 times the multiply-adds" in says


def test_two_on_one_page_do_not_disturb_each_other(show):
    page = show(widgets.architecture_explorer("VGG16"), widgets.architecture_explorer("Plain20"))
    page.get_by_label("width factor").first.fill("0.5")
    says = page.locator(".cv-says").all_inner_texts()
    assert "Against VGG16" in says[0] and "This is Plain20 as published." in says[1]


@pytest.mark.parametrize("width", [360, 720])
def test_nothing_sticks_out_of_the_figure(show, width):
    """Not even where a later figure on the page brings the shared style once more."""
    explorer = widgets.architecture_explorer("ResNet152", opened="res4")
    page = show(explorer, widgets.softmax_explorer(), width=width)
    assert page.locator(".cv-architecture_explorer").evaluate(
        """figure => [...figure.querySelectorAll('*')].filter(element =>
        element.getBoundingClientRect().right > figure.getBoundingClientRect().right)
        .map(element => element.tagName)"""
    ) == []


def test_look(check_look):
    check_look(
        widgets.architecture_explorer("ResNet152", opened="res4", caption="A claim."),
        widgets.architecture_explorer("VGG16", width=0.5, size=64, n_class=10),
        widgets.architecture_explorer("LeNet5", opened="conv1"),
    )


def test_without_scripts_the_stages_stand_there(show):
    page = show(widgets.architecture_explorer("ResNet152"), java_script_enabled=False)
    assert "res4\t36\t1024" in page.get_by_role("table").inner_text()
