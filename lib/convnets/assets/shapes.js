// A network as a row of boxes; choosing one shows its arithmetic.
cv.figure('shapes', (place, {stages}) => {
  const {el, set} = cv;
  const tallest = Math.max(...stages.map(stage => stage.height));

  // Square roots keep the largest and the smallest map on one page.
  function box({height, channels, group}) {
    return el('span', {
      class: `cv-box cv-box-${group}`, 'aria-hidden': 'true',
      style: `height: ${(0.6 + 4.4 * Math.sqrt(height / tallest)).toFixed(2)}rem;`
        + ` width: ${Math.min(0.5 + 0.28 * Math.sqrt(channels), 3.4).toFixed(2)}rem`,
    });
  }

  function choose(i) {
    buttons.forEach((button, j) => set(button, 'aria-pressed', String(i === j)));
    const {title, facts} = stages[i];
    detail.replaceChildren(el('div', {class: 'cv-title'}, title), el('dl', {},
      ...facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {class: 'cv-num'}, value)])));
  }

  function arrows(event) {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons.indexOf(document.activeElement) + step;
    buttons[Math.min(Math.max(next, 0), buttons.length - 1)].focus();
  }

  const detail = el('div', {class: 'cv-detail', 'aria-live': 'polite'});
  const buttons = stages.map((stage, i) => el('button', {
    type: 'button', class: 'cv-stage', 'aria-pressed': 'false',
    onclick: () => choose(i), onfocus: () => choose(i), onpointerenter: () => choose(i),
  }, box(stage), el('span', {}, stage.name), el('span', {class: 'cv-muted'}, stage.shape)));
  const row = el('div', {class: 'cv-stages', role: 'group', 'aria-label': 'Layers', onkeydown: arrows},
    ...buttons);
  place.append(row, detail);
  choose(Math.min(1, stages.length - 1));
});
