// A prediction: choose or type, then see the answer and the reason.
cv.figure('predict', (place, {question, answer, why, choices, tolerance}) => {
  const {el, text} = cv;
  const verdict = el('p', {role: 'status'});
  const plain = value => value.toLowerCase().replace(/\s+/g, '').replace(/\u2212/g, '-');
  const isNumber = value => value.trim() !== '' && Number.isFinite(Number(value));

  function agrees(guess) {
    if (isNumber(guess) && isNumber(answer)) {
      return Math.abs(Number(guess) - Number(answer)) <= tolerance;
    }
    return plain(guess) === plain(answer);
  }

  function reveal(guess) {
    const right = agrees(guess);
    const opening = guess.trim() === '' ? 'The answer: '
      : right ? 'As you predicted: ' : `You predicted ${guess}; it is `;
    verdict.replaceChildren(
      el('span', {class: right ? 'cv-good' : ''}, opening), ...text(answer), '. ', ...text(why));
  }

  function chooser() {
    const buttons = choices.map(choice => el('button', {
      type: 'button', 'aria-pressed': 'false',
      onclick: () => {
        buttons.forEach((b, i) => cv.set(b, 'aria-pressed', String(choices[i] === choice)));
        reveal(choice);
      },
    }, ...text(choice)));
    return el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Your prediction'}, ...buttons);
  }

  function typed() {
    const input = el('input', {type: 'text', size: 10, autocomplete: 'off'});
    return el('form', {
      class: 'cv-row', onsubmit: event => { event.preventDefault(); reveal(input.value); },
    }, el('label', {}, 'Your prediction', input), el('button', {type: 'submit'}, 'Reveal'));
  }

  place.append(
    el('div', {class: 'cv-kind'}, 'Predict before you run'),
    el('p', {class: 'cv-title'}, ...text(question)),
    choices.length ? chooser() : typed(), verdict);
});
