// What a bug does to the loss, to the gradients of the layers and to the answers, beside no bug.
cv.figure('bug_signatures', (place, {bugs, chance, chosen, guess}, root) => {
  const {el, set, text} = cv;
  const HEIGHT = 150, LEFT = 56, RIGHT = 14, TOP = 24, ROW = 22;   // in pixels
  const healthy = bugs[0];
  const now = {bug: chosen, hidden: guess, answer: null};
  const bug = () => bugs[now.bug];
  const name = () => (now.hidden ? 'the unknown network' : bug().name);

  // 0.09134 -> '0.091', 18790 -> '18,800'
  function digits3(value) {
    const rounded = Number(Math.abs(value).toPrecision(3));
    if (rounded >= 1000) return rounded.toLocaleString('en-US');
    return rounded < 0.001 ? '0.000' : rounded < 1 ? rounded.toFixed(3) : String(rounded);
  }
  const percent = share => `${(100 * share).toFixed(1)} %`;
  const last = curve => curve.slice(-20).reduce((a, b) => a + b, 0) / Math.min(20, curve.length);

  // ---- drawing ----------------------------------------------------------------------------------
  const widthOf = () => Math.max(root.clientWidth - 34, 260);

  function drawCurve() {
    const width = widthOf(), shown = value => Math.log10(Math.max(value, 0.01));
    const values = [healthy, bug()].flatMap(b => b.curve).map(shown);
    const low = Math.floor(Math.min(...values)), high = Math.ceil(Math.max(...values, 0.5));
    const steps = bug().curve.length;
    const x = i => LEFT + (width - LEFT - RIGHT) * i / Math.max(steps - 1, 1);
    const y = value => TOP + HEIGHT * (high - shown(value)) / (high - low);
    const ticks = [];
    for (let power = low; power <= high; power += Math.ceil((high - low) / 5)) ticks.push(10 ** power);
    set(curve, 'viewBox', `0 0 ${width} ${TOP + HEIGHT + 24}`);
    curve.replaceChildren(
      el('svg:text', {x: 0, y: 13}, 'loss, step by step'),
      ...ticks.flatMap(value => [
        el('svg:line', {x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: 'cv-grid'}),
        el('svg:text', {x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end', class: 'cv-small'},
          value.toLocaleString('en-US'))]),
      el('svg:line', {x1: LEFT, x2: width - RIGHT, y1: y(chance), y2: y(chance), class: 'cv-chance'}),
      ...[healthy, bug()].map(b => el('svg:polyline', {
        class: `cv-line${b === healthy ? '' : ' cv-on'}`,
        points: b.curve.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(' ')})),
      el('svg:text', {x: width - RIGHT, y: y(chance) - 6, 'text-anchor': 'end', class: 'cv-small'}, 'chance'),
      el('svg:text', {x: width - RIGHT, y: TOP + HEIGHT + 18, 'text-anchor': 'end', class: 'cv-small'},
        `step ${steps}`));
  }

  function drawLayers() {
    const width = widthOf(), log = value => Math.log10(Math.max(value, 1e-12));
    const known = [healthy, bug()].flatMap(b => b.layers.map(l => l.step)).filter(v => v != null);
    const low = Math.floor(Math.min(...known.map(log))) - 1, high = Math.ceil(Math.max(...known.map(log)));
    const x = value => LEFT + 12 + (width - LEFT - RIGHT - 76) * (log(value) - low) / (high - low);
    const bar = (value, top, height, on) => value != null && el('svg:rect',
      {x: LEFT + 12, y: top, width: Math.max(x(value) - LEFT - 12, 1), height, class: on ? 'cv-on' : ''});
    set(layers, 'viewBox', `0 0 ${width} ${TOP + ROW * healthy.layers.length + 6}`);
    layers.replaceChildren(
      el('svg:text', {x: 0, y: 13}, 'gradient / weights, before training'),
      ...healthy.layers.flatMap((layer, i) => {
        const top = TOP + ROW * i, value = bug().layers[i].step;
        return [
          el('svg:text', {x: 0, y: top + 14}, layer.name.replace('/W', '')),
          bar(value, top + 5, 10, true), bar(layer.step, top + 2, 16, false),
          el('svg:text', value == null ? {x: LEFT + 18, y: top + 14}
            : {x: width - RIGHT, y: top + 14, 'text-anchor': 'end', class: 'cv-small'},
          value == null ? 'nothing arrives' : digits3(value)),
        ].filter(Boolean);
      }));
  }

  function drawTable() {
    const rows = [
      ['loss of the first step', b => digits3(b.curve[0])],
      ['mean loss of the last 20', b => digits3(last(b.curve))],
      ['loss on 16 images alone, at the end', b => digits3(b.by_heart)],
      ['new images right', b => percent(b.accuracy)],
      ['answers that change when asked alone', b => percent(b.changed)],
    ];
    table.replaceChildren(
      el('thead', {}, el('tr', {}, el('td', {}), el('th', {scope: 'col'}, name()),
        el('th', {scope: 'col'}, 'healthy'))),
      el('tbody', {}, ...rows.map(([title, value]) => el('tr', {}, el('th', {scope: 'row'}, title),
        el('td', {}, value(bug())), el('td', {}, value(healthy))))));
  }

  function read() {
    if (now.hidden) {
      const wrong = now.answer == null ? [] : [el('span', {class: 'cv-bad'}, `Not ${bugs[now.answer].name}. `),
        ...text(`That one’s sign: ${bugs[now.answer].sign} `)];
      reading.replaceChildren(...wrong, 'Which bug is it? Choose its name above.');
    } else {
      reading.replaceChildren(
        now.answer === now.bug ? el('span', {class: 'cv-good'}, 'Right. ') : '',
        el('strong', {}, bug().name), ': ', ...text(`${bug().what}. ${bug().sign}`));
    }
  }

  function draw() {
    drawCurve();
    drawLayers();
    drawTable();
    read();
    legend.replaceChildren(el('span', {}, el('span', {class: 'cv-key cv-on'}), name()),
      el('span', {}, el('span', {class: 'cv-key'}), 'the same without a bug'));
    buttons.forEach((node, i) => set(node, 'aria-pressed', String(!now.hidden && now.bug === i + 1)));
  }

  // ---- choosing -----------------------------------------------------------------------------------
  function choose(i) {
    now.answer = now.hidden ? i : null;
    if (!now.hidden) now.bug = i;
    else if (i === now.bug) now.hidden = false;
    draw();
  }

  function another() {      // every bug once, before one comes again
    const count = bugs.length - 1;
    let stride = 3;
    while (count % stride === 0) stride += 1;
    now.bug = 1 + (now.bug - 1 + stride) % count;
    now.hidden = true;
    now.answer = null;
    draw();
  }

  const buttons = bugs.slice(1).map((b, i) =>
    el('button', {type: 'button', onclick: () => choose(i + 1)}, b.name));
  const legend = el('div', {class: 'cv-row'});
  const curve = el('svg:svg', {role: 'img', 'aria-label': 'Loss of each step; the table below reads it'});
  const layers = el('svg:svg', {role: 'img',
    'aria-label': 'Bars: how large the gradient of each layer is, relative to its weights'});
  const table = el('table', {class: 'cv-num'});
  const reading = el('p', {class: 'cv-reading', 'aria-live': 'polite'});
  place.append(
    el('div', {class: 'cv-row'},
      el('span', {class: 'cv-group', role: 'group', 'aria-label': 'Bug'}, ...buttons)),
    el('div', {class: 'cv-row'}, el('button', {type: 'button', onclick: another}, 'Give me an unknown one')),
    reading, legend, curve, layers, table);
  draw();
  new ResizeObserver(draw).observe(root);
});
