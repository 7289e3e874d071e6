"""Card, quiz and prediction in a real browser, by mouse and keyboard."""

from convnets import widgets

import pytest

pytest_plugins = ["widget_pages"]
pytestmark = pytest.mark.site

QUIZ = widgets.quiz(
    [
        {
            "ask": "First `a`?",
            "answers": [("one", "Why *one*."), ("two", "Why two.")],
            "correct": 1,
        },
        {
            "ask": "Second?",
            "answers": [("three", "Why three."), ("four", "Why four.")],
            "correct": 0,
        },
    ]
)


def test_look(check_look):
    card = widgets.card(["walk"], ["legs"], minutes=3, run="8 s", verified="Python 3.11")
    check_look(card, widgets.predict("How many?", 2), QUIZ, QUIZ)


def test_every_answer_explains_itself(show):
    page = show(QUIZ)
    for answer, verdict in [
        ("one", "Not this one. Why one."),
        ("two", "Right. Why two."),
        ("three", "Right. Why three."),
        ("four", "Not this one. Why four."),
    ]:
        page.get_by_role("button", name=answer).click()
        assert page.get_by_text(verdict).is_visible()
    # The first try counts: wrong in the first question, right in the second.
    assert page.get_by_text("1 of 2 right at the first try.").is_visible()


def test_quiz_by_keyboard(show):
    page = show(QUIZ)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="two").get_attribute("aria-pressed") == "true"
    assert page.get_by_text("Right. Why two.").is_visible()


def test_the_same_quiz_twice_on_a_page(show):
    page = show(QUIZ, QUIZ)
    first, second = page.locator("figure").all()
    second.get_by_role("button", name="two").click()
    assert "Why two." in second.inner_text()
    assert "Why two." not in first.inner_text()
    assert [first.get_attribute("id"), second.get_attribute("id")] == [QUIZ.id, f"{QUIZ.id}-2"]


@pytest.mark.parametrize(
    "guess, verdict",
    [
        ("24", "As you predicted: 24. Because."),
        ("24.0", "As you predicted: 24. Because."),
        ("28", "You predicted 28; it is 24. Because."),
        ("", "The answer: 24. Because."),
    ],
)
def test_typed_prediction(show, guess, verdict):
    page = show(widgets.predict("How wide?", 24, "Because."))
    page.get_by_label("Your prediction").fill(guess)
    page.keyboard.press("Enter")
    assert page.get_by_role("status").inner_text() == verdict


def test_tolerance(show):
    page = show(widgets.predict("How much?", 1.4612, "Because.", tolerance=0.01))
    page.get_by_label("Your prediction").fill("1.46")
    page.get_by_role("button", name="Reveal").click()
    assert page.get_by_role("status").inner_text().startswith("As you predicted")


def test_chosen_prediction(show):
    page = show(widgets.predict("Which?", "down", "Because.", choices=["up", "down"]))
    page.get_by_role("button", name="up").click()
    assert page.get_by_role("status").inner_text() == "You predicted up; it is down. Because."


def test_without_scripts_the_answers_fold_out(show):
    page = show(QUIZ, java_script_enabled=False)
    assert not page.get_by_text("Why two.").is_visible()
    page.get_by_text("two", exact=True).click()
    assert page.get_by_text("Why two.").is_visible()
