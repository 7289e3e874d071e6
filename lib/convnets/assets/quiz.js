// Questions: choosing an answer marks it and says why it is right or wrong. All may be tried.
cv.figure('quiz', (place, {questions}) => {
  const {el, text} = cv;
  const firstTries = new Map();
  const score = el('p', {class: 'cv-muted', role: 'status'});

  function showScore() {
    const right = [...firstTries.values()].filter(Boolean).length;
    score.textContent = `${right} of ${questions.length} right at the first try` +
      (firstTries.size < questions.length ? `, ${questions.length - firstTries.size} to go.` : '.');
  }

  function choose(number, answer, buttons, why) {
    const {answers, correct} = questions[number];
    const right = answer === correct;
    if (!firstTries.has(number)) firstTries.set(number, right);
    buttons.forEach((button, i) => cv.set(button, 'aria-pressed', String(i === answer)));
    buttons[answer].classList.add(right ? 'cv-right' : 'cv-wrong');
    buttons[answer].firstChild.textContent = right ? '\u2713' : '\u2717';
    why.replaceChildren(
      el('span', {class: right ? 'cv-good' : 'cv-bad'}, right ? 'Right. ' : 'Not this one. '),
      ...text(answers[answer][1]));
    showScore();
  }

  questions.forEach(({ask, answers}, number) => {
    const why = el('p', {class: 'cv-why', role: 'status'});
    const buttons = answers.map(([answer], i) => el('button', {
      type: 'button', class: 'cv-answer', 'aria-pressed': 'false',
      onclick: () => choose(number, i, buttons, why),
    }, el('span', {class: 'cv-mark', 'aria-hidden': 'true'}), el('span', {}, ...text(answer))));
    place.append(el('fieldset', {},
      el('legend', {}, `${number + 1}. `, ...text(ask)), ...buttons, why));
  });
  place.append(score);
});
