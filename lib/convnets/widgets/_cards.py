"""What stands around a chapter's text: its card, its predictions, its quiz."""

from ._base import Widget, text


def _items(lines):
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


class Card(Widget):
    """The card at the head of a chapter; made by `card`."""

    name = "card"

    def __init__(self, do, need, minutes, run, verified, key):
        super().__init__(key=key)
        self.do, self.need = list(do), list(need)
        self.minutes, self.run, self.verified = minutes, run, verified
        self.label = f"Chapter card: {minutes} minutes"

    def state(self):
        return vars(self)

    def fallback(self):
        facts = {
            "Time": f"{self.minutes} minutes to read",
            "Runs in": self.run,
            "Verified": self.verified,
        }
        rows = "".join(
            f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>"
            for name, value in facts.items()
            if value
        )
        return (
            f'<div class="cv-columns"><div><p class="cv-title">You will be able to</p>'
            f'{_items(self.do)}</div><div><p class="cv-title">You need</p>{_items(self.need)}</div>'
            f"</div><dl>{rows}</dl>"
        )


def card(do, need, *, minutes, run="", verified="", key=""):
    """The card at the head of a chapter, as plain HTML.

    Parameters
    ----------
    do : list of str
        "You will be able to ...": verbs first, three to five lines.
    need : list of str
        What the reader must know or have. `["nothing but Python"]` is a fine answer.
    minutes : int
        Minutes to read and try everything, measured.
    run : str
        Seconds that all cells take and where it was measured: `'8 s on two CPU cores'`.
    verified : str
        The last versions that passed: `'Python 3.11, NumPy 2.4, Chainer 7.8.1'`. It is text, not
        the running version, so that the stored output is the same on every machine.

    Returns
    -------
    Card
        Leave it as the last line of a cell. In all texts `` `code` `` and ``*emphasis*`` work.

    Examples
    --------
    >>> card(do=["read a shape (N, C, H, W)"], need=["arrays"], minutes=25)
    <Card: Chapter card: 25 minutes>
    """
    return Card(do, need, minutes, run, verified, key)


class Quiz(Widget):
    """Questions whose every answer explains itself; made by `quiz`."""

    name = "quiz"

    def __init__(self, questions, caption, key):
        super().__init__(caption, key)
        self.questions = [_question(number, q) for number, q in enumerate(questions, 1)]
        if not self.questions:
            raise ValueError("quiz: got no question; give a list of at least one")
        self.label = f"Quiz, questions: {len(self.questions)}"

    def state(self):
        return {"questions": self.questions}

    def fallback(self):
        return "".join(
            f'<p class="cv-title">{text(q["ask"])}</p>'
            + "".join(_folded(answer, why) for answer, why in q["answers"])
            for q in self.questions
        )


def _folded(summary, body):
    return f"<details><summary>{text(summary)}</summary><p>{text(body)}</p></details>"


def _question(number, given):
    """Check one question of a quiz and return it as JSON values."""
    where = f"quiz, question {number}"
    if unknown := set(given) ^ {"ask", "answers", "correct"}:
        raise ValueError(
            f"{where}: keys must be 'ask', 'answers' and 'correct'; wrong or missing: "
            + ", ".join(sorted(unknown))
        )
    answers = [list(answer) for answer in given["answers"]]
    for answer in answers:
        if len(answer) != 2 or not all(isinstance(part, str) and part for part in answer):
            raise ValueError(f"{where}: an answer is a pair (text, why); got {answer!r}")
    if not 0 <= given["correct"] < len(answers):
        raise ValueError(
            f"{where}: 'correct' is the index of the right answer, 0 to {len(answers) - 1};"
            f" got {given['correct']}"
        )
    return {"ask": given["ask"], "answers": answers, "correct": given["correct"]}


def quiz(questions, *, caption="", key=""):
    """Questions with answers to choose; each choice shows why it is right or wrong.

    Every answer stays open to be tried: the explanations of wrong answers teach too. Where
    scripts do not run, each answer folds out its explanation.

    Parameters
    ----------
    questions : list of dict
        Each with the keys

        - `ask`: the question;
        - `answers`: a list of pairs `(text, why)`, `why` being shown when it is chosen, and
          speaking to the reader who chose just that ("That counts the weights of one filter ...");
        - `correct`: the index of the right answer in that list. Vary its place.
    caption, key : str
        See `Widget`.

    Returns
    -------
    Quiz
        Leave it as the last line of a cell. In all texts `` `code` `` and ``*emphasis*`` work;
        write mathematics in Unicode (×, ², ≥), as MathJax does not reach into widgets.

    Raises
    ------
    ValueError
        If a question lacks a key, or an answer its explanation, or `correct` is no index.

    Examples
    --------
    >>> quiz([
    ...     {
    ...         "ask": "How many weights has `L.Convolution2D(1, 6, 5)`?",
    ...         "answers": [
    ...             ("150", "6 × 1 × 5 × 5 = 150 weights, but each filter has a bias too."),
    ...             ("156", "Yes: 6 filters of 1 × 5 × 5 = 25 weights and one bias each."),
    ...         ],
    ...         "correct": 1,
    ...     },
    ... ])
    <Quiz: Quiz, questions: 1>
    """
    return Quiz(questions, caption, key)


class Predict(Widget):
    """A prediction to make before running a cell; made by `predict`."""

    name = "predict"
    label = "Predict before you run"

    def __init__(self, question, answer, why, choices, tolerance, key):
        super().__init__(key=key)
        self.question, self.answer, self.why = question, str(answer), why
        self.choices = [str(choice) for choice in choices or ()]
        self.tolerance = tolerance
        if self.choices and self.answer not in self.choices:
            raise ValueError(
                f"predict: the answer {self.answer!r} must be one of the choices {self.choices}"
            )

    def state(self):
        names = "question", "answer", "why", "choices", "tolerance"
        return {name: getattr(self, name) for name in names}

    def fallback(self):
        why = f"{self.answer}. {self.why}"
        return f'<p class="cv-title">{text(self.question)}</p>' + _folded("Reveal the answer", why)


def predict(question, answer, why="", *, choices=None, tolerance=0.0, key=""):
    """Ask for a prediction before the next cell runs, then reveal the answer.

    With `choices` the reader picks one; without, types one. A typed number is compared with a
    numeric answer, anything else with the answer's text (case and spaces aside).

    Parameters
    ----------
    question : str
        What will the next cell print?
    answer : str or number
        The right answer. The cell that follows must show it.
    why : str
        One or two sentences of reason, shown with the answer.
    choices : list of str or numbers, optional
        Two to five possible answers, with the right one among them.
    tolerance : float
        A typed number this close to the answer counts as right.
    key : str
        See `Widget`.

    Returns
    -------
    Predict
        Leave it as the last line of a cell. In all texts `` `code` `` and ``*emphasis*`` work.

    Raises
    ------
    ValueError
        If the answer is not among the choices.

    Examples
    --------
    >>> predict("A 28 × 28 image, a 5 × 5 kernel, stride 1: how wide is the output?", 24,
    ...         "28 − 5 + 1 = 24.")
    <Predict: Predict before you run>
    """
    return Predict(question, answer, why, choices, tolerance, key)
