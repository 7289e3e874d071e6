// Logits to drag; softmax of them, softmax of that, and the two losses side by side.
cv.figure('softmax_explorer', (place, {logits, label, limit}, root) => {
  const {el, set, number} = cv;
  const now = {logits: [...logits], label};
  const nClass = logits.length;
  const END = 6;  // of the loss axis

  // ---- arithmetic ---------------------------------------------------------------------------------
  function softmax(z) {
    const top = Math.max(...z);
    const powers = z.map(x => Math.exp(x - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(x => x / sum);
  }

  // -log softmax(z)[label] without dividing tiny numbers.
  function loss(z) {
    const top = Math.max(...z);
    return top + Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0)) - z[now.label];
  }

  const high = Math.log(Math.E + nClass - 1);
  const low = high - 1;

  // ---- one row for each class ---------------------------------------------------------------------
  function bar(name) {
    const fill = el('span', {class: `cv-fill ${name}`});
    const value = el('span', {class: 'cv-value cv-num'});
    return {fill, value, node: el('div', {class: 'cv-bar'}, fill, value)};
  }

  function classRow(i) {
    const slider = el('input', {
      type: 'range', min: -limit, max: limit, step: 0.1, value: now.logits[i],
      'aria-label': `logit of class ${i}`,
      oninput: () => { now.logits[i] = Number(slider.value); draw(); },
    });
    const radio = el('input', {
      type: 'radio', name: `${root.id}-right`, checked: i === now.label,
      'aria-label': `class ${i} is right`, onchange: () => { now.label = i; draw(); },
    });
    const row = {slider, radio, value: el('span', {class: 'cv-num cv-logit'}),
      once: bar('cv-once'), twice: bar('cv-twice')};
    row.node = el('div', {class: 'cv-class'}, el('label', {}, radio, String(i)),
      slider, row.value, row.once.node, row.twice.node);
    return row;
  }

  // ---- the loss axis --------------------------------------------------------------------------------
  const x = value => 20 + 560 * Math.min(value, END) / END;

  function mark(name, y) {
    return {dot: el('svg:circle', {r: 7, cy: y, class: name}),
      line: el('svg:line', {y1: y, y2: 56, class: name})};
  }

  function axis(marks) {
    const ticks = [...Array(END + 1).keys()].flatMap(v => [
      el('svg:line', {x1: x(v), x2: x(v), y1: 56, y2: 61, class: 'cv-axis'}),
      el('svg:text', {x: x(v), y: 76, 'text-anchor': 'middle'},
        v === END ? `≥ ${v}` : String(v))]);
    return el('svg:svg', {viewBox: '0 0 600 82', role: 'img', 'aria-label': 'Loss axis'},
      el('svg:rect', {x: x(low), width: x(high) - x(low), y: 4, height: 52, class: 'cv-band'}),
      el('svg:line', {x1: x(0), x2: x(END), y1: 56, y2: 56, class: 'cv-axis'}), ...ticks,
      ...marks.flatMap(({dot, line}) => [line, dot]));
  }

  function moveMark({dot, line}, value) {
    set(dot, 'cx', x(value));
    set(line, 'x1', x(value));
    set(line, 'x2', x(value));
  }

  // ---- drawing --------------------------------------------------------------------------------------
  function draw() {
    const once = softmax(now.logits);
    const twice = softmax(once);
    rows.forEach((row, i) => {
      row.slider.value = now.logits[i];
      row.radio.checked = i === now.label;
      row.value.textContent = number(now.logits[i], 1);
      row.node.classList.toggle('cv-right', i === now.label);
      for (const [target, p] of [[row.once, once[i]], [row.twice, twice[i]]]) {
        target.fill.style.width = `${(100 * p).toFixed(2)}%`;
        target.value.textContent = p.toFixed(3);
      }
    });
    moveMark(truth, loss(now.logits));
    moveMark(shown, loss(once));
    losses.replaceChildren(
      el('span', {class: 'cv-key cv-once'}), ' loss from the logits ',
      el('strong', {class: 'cv-num'}, loss(now.logits).toFixed(4)), '; ',
      el('span', {class: 'cv-key cv-twice'}), ' loss from the probabilities (softmax twice) ',
      el('strong', {class: 'cv-num'}, loss(once).toFixed(4)),
      `, always between ${low.toFixed(4)} and ${high.toFixed(4)}`);
  }

  function setAll(f) {
    now.logits = now.logits.map((_, i) => f(i));
    draw();
  }

  const rows = logits.map((_, i) => classRow(i));
  const truth = mark('cv-once', 16);
  const shown = mark('cv-twice', 38);
  const losses = el('p', {'aria-live': 'polite'});
  const wrong = () => (now.label + 1) % nClass;
  const states = {
    'all equal': () => 0,
    'sure and right': i => (i === now.label ? limit : -limit),
    'sure and wrong': i => (i === wrong() ? limit : -limit),
    'as at first': i => logits[i],
  };
  place.append(
    el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Examples'},
      ...Object.entries(states).map(([name, f]) =>
        el('button', {type: 'button', onclick: () => setAll(f)}, name))),
    el('div', {class: 'cv-class cv-head cv-muted'}, el('span', {}, 'right'), el('span', {}, 'logit'),
      el('span'), el('span', {}, 'softmax'), el('span', {}, 'softmax of softmax')),
    ...rows.map(row => row.node), axis([truth, shown]), losses);
  draw();
});
