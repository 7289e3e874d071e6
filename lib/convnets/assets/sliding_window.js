// Convolution and pooling, one window at a time. Sizes and values are Chainer's.
cv.figure('sliding_window', (place, given, root) => {
  const {el, set, number} = cv;

  // What a window makes of its pixels; what lies outside the image; Chainer's default rounding,
  // and its words when no window fits.
  const along = axis => `${axis ? 'Width' : 'Height'} in the output should be positive.`;
  const MODES = {
    convolution: {label: 'convolution', outside: 0, coverAll: false, weighted: true, complaint: along,
      reduce: terms => terms.reduce((sum, t) => sum + t.value * t.weight, 0)},
    max: {label: 'max pooling', outside: -Infinity, coverAll: true,
      complaint: () => 'Output sizes should be positive.',
      reduce: terms => Math.max(...terms.map(t => t.value))},
    average: {label: 'average pooling', outside: 0, coverAll: null, complaint: along,
      reduce: terms => terms.reduce((sum, t) => sum + t.value, 0) / terms.length},
  };
  const FIELDS = [
    {name: 'ksize', label: 'kernel size', min: 1, max: 7},
    {name: 'stride', label: 'stride', min: 1, max: 7},
    {name: 'pad', label: 'pad', min: 0, max: 4},
    {name: 'dilate', label: 'dilate', min: 1, max: 4, modes: ['convolution']},
  ];

  const {image} = given;
  const size = [image.length, image[0].length];
  const now = {...given.options};
  let kernel = given.kernel;
  let at = given.at;

  // ---- arithmetic -----------------------------------------------------------------------------
  const mode = () => MODES[now.mode];
  const dilate = () => (now.mode === 'convolution' ? now.dilate : 1);
  const reach = () => dilate() * (now.ksize - 1) + 1;
  const room = axis => size[axis] + 2 * now.pad - reach();
  const range = n => [...Array(Math.max(n, 0)).keys()];

  // chainer.utils.conv.get_conv_outsize
  const outSize = axis =>
    Math.floor((room(axis) + (now.cover_all ? now.stride - 1 : 0)) / now.stride) + 1;

  const isInside = (i, j) => i >= 0 && j >= 0 && i < size[0] && j < size[1];

  // The pixels under the window of output (row, col), in image coordinates.
  function terms(row, col) {
    const taps = range(now.ksize);
    return taps.flatMap(a => taps.map(b => {
      const i = row * now.stride - now.pad + a * dilate();
      const j = col * now.stride - now.pad + b * dilate();
      return {i, j, value: isInside(i, j) ? image[i][j] : mode().outside,
        weight: mode().weighted ? kernel[a][b] : 1};
    }));
  }

  const output = (row, col) => mode().reduce(terms(row, col));

  function show(value, digits = 2) {
    return Number.isFinite(value) ? number(value, digits) : value < 0 ? '\u2212\u221e' : '?';
  }

  // Every position that some window reads, as 'i,j'.
  function seenPositions() {
    const all = range(outSize(0)).flatMap(r => range(outSize(1)).flatMap(c => terms(r, c)));
    return new Set(all.map(t => `${t.i},${t.j}`));
  }

  // ---- what is wrong, and with which field ------------------------------------------------------
  function errors() {
    const found = FIELDS.filter(f => !(Number.isInteger(now[f.name]) && now[f.name] >= f.min))
      .map(f => ({field: f.name, text: `${f.label} must be a whole number of at least ${f.min}.`}));
    if (found.length) return found;
    if (mode().weighted && kernel.flat().some(Number.isNaN)) {
      return [{field: 'kernel', text: 'A weight of the kernel is not a number.'}];
    }
    const axis = outSize(0) < 1 ? 0 : 1;
    if (outSize(axis) >= 1) return [];
    return [{field: 'ksize', text: `The kernel spans ${reach()} pixels but the padded input has `
      + `only ${size[axis] + 2 * now.pad}: no window fits. Chainer stops with `
      + `“${mode().complaint(axis)}”`}];
  }

  function warnings(seen) {
    const found = [];
    const lost = range(size[0]).some(i => range(size[1]).some(j => !seen.has(`${i},${j}`)));
    const beyond = [0, 1].some(axis => (outSize(axis) - 1) * now.stride > room(axis));
    const uneven = [0, 1].find(axis => room(axis) % now.stride);
    if (uneven !== undefined) {
      found.push(`Stride ${now.stride} does not divide ${room(uneven)}, so the size is rounded ${
        now.cover_all ? 'up' : 'down'}.`);
    }
    if (lost) found.push('Hatched: pixels that no window reads.');
    if (beyond) found.push('Dashed: cover_all lets the last window reach past the edge.');
    return found;
  }

  // ---- panels -----------------------------------------------------------------------------------
  function grid(rows, cols, attributes, cell) {
    return el('div', {...attributes, class: 'cv-grid', style: `--cols: ${cols}`},
      ...range(rows).map(i => el('div', attributes.role === 'grid' ? {role: 'row'} : {},
        ...range(cols).map(j => cell(i, j)))));
  }

  function panel(title, note, body) {
    return el('div', {class: 'cv-panel'}, el('div', {class: 'cv-title'}, title), body,
      el('div', {class: 'cv-muted cv-note'}, note));
  }

  // How far the drawing goes on each side: the padding, and what cover_all adds at the end.
  const end = axis => Math.max(size[axis] + now.pad,
    (outSize(axis) - 1) * now.stride - now.pad + reach());

  function inputPanel(seen) {
    const under = new Map(terms(...at).map(t => [`${t.i},${t.j}`, t]));
    const body = grid(end(0) + now.pad, end(1) + now.pad,
      {role: 'img', 'aria-label': `Input, ${size.join(' by ')}, pad ${now.pad}`},
      (r, c) => inputCell(r - now.pad, c - now.pad, under, seen));
    body.addEventListener('pointerdown', follow);
    body.addEventListener('pointermove', follow);
    return panel('Input', `${size.join(' × ')}${now.pad ? `, padded by ${now.pad}` : ''}`, body);
  }

  function inputCell(i, j, under, seen) {
    const term = under.get(`${i},${j}`);
    const kinds = {
      'cv-window': term,
      'cv-pad': !isInside(i, j),
      'cv-beyond': i >= size[0] + now.pad || j >= size[1] + now.pad,
      'cv-unseen': isInside(i, j) && !seen.has(`${i},${j}`),
    };
    const classes = Object.keys(kinds).filter(name => kinds[name]).join(' ');
    const value = isInside(i, j) ? image[i][j] : mode().outside;
    return el('div', {class: `cv-cell ${classes}`, 'data-at': `${i},${j}`}, show(value),
      term && mode().weighted && el('small', {}, `×${show(term.weight)}`));
  }

  function kernelPanel() {
    const body = grid(now.ksize, now.ksize, {role: 'group', 'aria-label': 'Kernel weights'},
      (a, b) => el('input', {
        class: 'cv-cell', type: 'text', inputmode: 'decimal', value: kernel[a][b],
        'aria-label': `weight ${a}, ${b}`,
        oninput: event => editWeight(a, b, event.target),
      }));
    const note = dilate() > 1 ? `${now.ksize} × ${now.ksize}, spans ${reach()}` : 'type to change';
    return panel('Kernel', note, body);
  }

  function editWeight(a, b, input) {
    kernel[a][b] = input.value.trim() === '' ? NaN : Number(input.value.replace('\u2212', '-'));
    set(input, 'aria-invalid', Number.isNaN(kernel[a][b]) && 'true');
    draw({kernelToo: false});
  }

  function outputPanel() {
    const shape = [outSize(0), outSize(1)];
    const body = grid(...shape, {role: 'grid', 'aria-label': `Output, ${shape.join(' by ')}`},
      (r, c) => el('div', {
        class: 'cv-cell', role: 'gridcell', 'data-at': `${r},${c}`,
        'aria-label': `row ${r}, column ${c}: ${show(output(r, c))}`,
        onpointerenter: () => moveTo(r, c), onclick: () => moveTo(r, c, true),
        onfocus: () => moveTo(r, c),
      }, show(output(r, c))));
    body.addEventListener('keydown', arrows);
    return panel('Output', `${shape.join(' × ')}; move with the arrow keys`, body);
  }

  // ---- the sentences ----------------------------------------------------------------------------
  function sumParts() {
    const sign = value => (value < 0 ? `(${show(value)})` : show(value));
    const parts = terms(...at).map(t => el('span', {class: isInside(t.i, t.j) ? '' : 'cv-muted'},
      mode().weighted ? `${sign(t.value)}×${sign(t.weight)}` : show(t.value)));
    const joint = now.mode === 'max' ? ', ' : ' + ';
    const joined = parts.flatMap((part, i) => (i ? [joint, part] : [part]));
    const frames = {convolution: ['', ''], max: ['max(', ')'],
      average: ['(', `) ÷ ${parts.length}`]}[now.mode];
    return [`y[${at.join(', ')}] = ${frames[0]}`, ...joined, `${frames[1]} = `,
      el('strong', {}, show(output(...at), 3))];
  }

  function sizeLine(axis) {
    const [open, close] = now.cover_all ? ['⌈', '⌉'] : ['⌊', '⌋'];
    return `${open}(${size[axis]} + 2·${now.pad} − ${reach()}) ÷ ${now.stride}${close} + 1 = `
      + outSize(axis);
  }

  function sizeText() {
    const square = size[0] === size[1];
    return square ? `size = ${sizeLine(0)}` : `height = ${sizeLine(0)};  width = ${sizeLine(1)}`;
  }

  // ---- moving -----------------------------------------------------------------------------------
  const clamp = (value, axis) => Math.min(Math.max(value, 0), outSize(axis) - 1);

  function moveTo(row, col, focus = false) {
    const next = [clamp(row, 0), clamp(col, 1)];
    const moved = next.join() !== at.join();
    at = next;
    if (moved) drawWindow();
    if (focus) panels.querySelector('[role="gridcell"][tabindex="0"]').focus();
  }

  function arrows(event) {
    const [row, col] = at;
    const target = {ArrowUp: [row - 1, col], ArrowDown: [row + 1, col],
      ArrowLeft: [row, col - 1], ArrowRight: [row, col + 1],
      Home: [row, 0], End: [row, Infinity]}[event.key];
    if (!target) return;
    event.preventDefault();
    event.stopPropagation();  // notebooks have arrow keys of their own
    moveTo(...target, true);
  }

  // A mouse over the input, or a finger dragged on it, pulls the window's centre along.
  function follow(event) {
    if (event.type === 'pointermove' && event.pointerType !== 'mouse' && !event.buttons) return;
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest('[data-at]');
    if (!cell || cell.closest('.cv-grid').getAttribute('role') !== 'img') return;
    const middle = (reach() - 1) / 2 - now.pad;
    const [row, col] = cell.dataset.at.split(',')
      .map(x => Math.round((Number(x) - middle) / now.stride));
    moveTo(row, col);
  }

  // ---- drawing ----------------------------------------------------------------------------------
  const panels = el('div', {class: 'cv-panels'});
  const sum = el('p', {class: 'cv-sum', 'aria-live': 'polite'});
  const sizes = el('p', {class: 'cv-sizes', 'aria-live': 'polite'});
  const reasons = el('p', {class: 'cv-reasons', id: `${root.id}-reasons`, 'aria-live': 'polite'});
  const holder = {input: el('div'), kernel: el('div'), output: el('div')};
  let seen = new Set();

  // Only what moves with the window.
  function drawWindow() {
    holder.input.replaceChildren(inputPanel(seen));
    for (const cell of holder.output.querySelectorAll('[role="gridcell"]')) {
      const chosen = cell.dataset.at === at.join();
      set(cell, 'tabindex', chosen ? 0 : -1);
      cell.classList.toggle('cv-window', chosen);
    }
    sum.replaceChildren(...sumParts());
  }

  function draw({kernelToo = true} = {}) {
    const wrong = errors();
    markFields(wrong);
    panels.hidden = wrong.length > 0 && wrong[0].field !== 'kernel';
    if (kernelToo && !panels.hidden) {
      holder.kernel.replaceChildren(...(mode().weighted ? [kernelPanel()] : []));
    }
    holder.input.hidden = holder.output.hidden = wrong.length > 0;
    if (wrong.length) {
      sum.textContent = sizes.textContent = '';
      return;
    }
    at = at.map(clamp);
    seen = seenPositions();
    holder.output.replaceChildren(outputPanel());
    drawWindow();
    sizes.textContent = sizeText();
    reasons.textContent = warnings(seen).join(' ');
  }

  function markFields(wrong) {
    const bad = new Set(wrong.map(w => w.field));
    for (const field of FIELDS) {
      set(inputs[field.name], 'aria-invalid', bad.has(field.name) && 'true');
      inputs[field.name].closest('label').hidden = !(field.modes ?? [now.mode]).includes(now.mode);
    }
    const uneven = !wrong.length && [0, 1].some(axis => room(axis) % now.stride);
    inputs.stride.classList.toggle('cv-uneven', uneven);
    inputs.cover_all.disabled = mode().coverAll === null;
    inputs.cover_all.checked = now.cover_all;
    reasons.classList.toggle('cv-bad', wrong.length > 0);
    reasons.textContent = wrong.map(w => w.text).join(' ');
  }

  // ---- controls ---------------------------------------------------------------------------------
  // A larger kernel keeps its weights; the new ones are 0.
  function resizeKernel(ksize) {
    kernel = range(ksize).map(a => range(ksize).map(b =>
      kernel[a]?.[b] ?? given.kernel[a]?.[b] ?? 0));
  }

  function numberField({name, label, min, max}) {
    const input = el('input', {
      type: 'number', min, max, step: 1, value: now[name], 'aria-describedby': reasons.id,
      oninput: () => {
        now[name] = input.value === '' ? NaN : Number(input.value);
        if (name === 'ksize' && now.ksize >= 1 && now.ksize <= 64) resizeKernel(now.ksize);
        draw();
      },
    });
    return input;
  }

  function chooseMode(name) {
    now.mode = name;
    now.cover_all = mode().coverAll ?? false;
    draw();
  }

  const inputs = {
    mode: el('select', {onchange: event => chooseMode(event.target.value)},
      ...Object.entries(MODES).map(([value, {label}]) =>
        el('option', {value, selected: value === now.mode}, label))),
    ...Object.fromEntries(FIELDS.map(field => [field.name, numberField(field)])),
    cover_all: el('input', {
      type: 'checkbox',
      onchange: event => { now.cover_all = event.target.checked; draw(); },
    }),
  };

  place.append(
    el('div', {class: 'cv-row'},
      el('label', {}, 'operation', inputs.mode),
      ...FIELDS.map(field => el('label', {}, field.label, inputs[field.name])),
      el('label', {}, inputs.cover_all, 'cover_all (round up)')),
    reasons, panels, sum, sizes);
  panels.append(holder.input, holder.kernel, holder.output);
  draw();
});
