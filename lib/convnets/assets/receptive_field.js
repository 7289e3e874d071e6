// Which pixels a value of a deep layer depends on. The arithmetic stands alone, to be tested alone.
cv.receptive ??= (() => {
  // As chainer.utils.conv.get_conv_outsize
  function outSize({k, s, p, d, cover}, size) {
    return Math.floor((size + 2 * p - (k - 1) * d - 1 + (cover ? s - 1 : 0)) / s) + 1;
  }

  // Size of the map, field and jump (distance of two neighbours' fields), of the input and behind
  // each layer.
  function levels({size, layers}) {
    const found = [{size, field: 1, jump: 1}];
    for (const layer of layers) {
      const {size, field, jump} = found.at(-1);
      found.push({size: outSize(layer, size), field: field + (layer.k - 1) * layer.d * jump,
        jump: jump * layer.s});
    }
    return found;
  }

  // Along one axis: what the value `at` of level `top` reads in each level from `top` down to the
  // input. Places outside a map are padding: they are read, and depend on nothing below.
  function seen({size, layers}, top, at) {
    const sizes = levels({size, layers}).map(level => level.size);
    const sets = [[at]];
    for (let i = top - 1; i >= 0; i -= 1) {
      const {k, s, p, d} = layers[i];
      const inside = sets[0].filter(place => place >= 0 && place < sizes[i + 1]);
      const places = inside.flatMap(place => Array.from({length: k}, (_, tap) => place * s - p + tap * d));
      sets.unshift([...new Set(places)].sort((a, b) => a - b));
    }
    return sets;
  }

  return {levels, seen};
})();

cv.figure('receptive_field', (place, given, root) => {
  const {el, set} = cv;
  const {levels, seen} = cv.receptive;
  const {limits, kinds} = given;
  const NUMBERS = {k: 'kernel', s: 'stride', p: 'pad', d: 'dilation'};
  const MANY = 9;  // layers: more are folded away

  let chosen = given.stack;
  let stack = structuredClone(given.stacks[chosen]);
  let top = given.layer;
  let at = [0, 0];

  const exact = value => value.toLocaleString('en-US');
  const centreOf = level => Array(2).fill(Math.floor((levels(stack)[level].size - 1) / 2));

  // The name of layer i counted from 1; poolings have none of their own.
  function title(i) {
    if (i === 0) return 'input';
    const pools = stack.layers.slice(0, i).filter(layer => !layer.name);
    return stack.layers[i - 1].name || `pool${pools.length}`;
  }

  // ---- what is wrong ------------------------------------------------------------------------------
  const outside = (value, [low, high]) => !(Number.isInteger(value) && value >= low && value <= high);

  function errors() {
    if (outside(stack.size, limits.size)) {
      return `The input must be ${limits.size[0]} to ${limits.size[1]} pixels high and wide.`;
    }
    for (const [i, layer] of stack.layers.entries()) {
      const name = Object.keys(NUMBERS).find(key => outside(layer[key], limits[key]));
      if (name) {
        return `The ${NUMBERS[name]} of ${title(i + 1)} must be a whole number from ${limits[name].join(' to ')}.`;
      }
    }
    const sizes = levels(stack).map(level => level.size);
    const i = sizes.findIndex(size => size < 1);
    if (i < 0) return '';
    const {k, d, p} = stack.layers[i - 1];
    return `${title(i)} spans ${(k - 1) * d + 1} places, but its input with padding has only `
      + `${sizes[i - 1] + 2 * p}: no window fits. Take a smaller kernel or a larger image.`;
  }

  // ---- maps ---------------------------------------------------------------------------------------
  // [0, 1, 2, 5] -> [[0, 3], [5, 1]]: starts and lengths
  function runs(places) {
    const found = [];
    for (const place of places) {
      const last = found.at(-1);
      if (last && last[0] + last[1] === place) last[1] += 1;
      else found.push([place, 1]);
    }
    return found;
  }

  const rectangles = (rows, cols, name) => runs(rows).flatMap(([y, height]) =>
    runs(cols).map(([x, width]) => el('svg:rect', {x, y, width, height, class: name})));

  function gridLines(n) {
    if (n > 40) return null;
    const d = Array.from({length: n + 1}, (_, i) => `M0 ${i}H${n}M${i} 0V${n}`).join('');
    return el('svg:path', {d, class: 'cv-lines'});
  }

  // How far windows reach over the edges, at most, as a share of the map: the same margin around
  // all maps draws them equally large.
  function margin(sizes) {
    return Math.max(...stack.layers.map(({k, s, p, d}, i) =>
      Math.max(p, (sizes[i + 1] - 1) * s - p + (k - 1) * d - (sizes[i] - 1)) / sizes[i]));
  }

  function map(i, sizes, rows, cols) {
    const n = sizes[i];
    const edge = n * margin(sizes);
    const inside = places => places.filter(place => place >= 0 && place < n);
    return el('svg:svg', {viewBox: `${-edge} ${-edge} ${n + 2 * edge} ${n + 2 * edge}`, 'aria-hidden': 'true'},
      el('svg:rect', {x: 0, y: 0, width: n, height: n, class: 'cv-map'}),
      ...(rows ? rectangles(rows, cols, 'cv-padding') : []),
      ...(rows ? rectangles(inside(rows), inside(cols), i === top ? 'cv-chosen' : 'cv-seen') : []),
      gridLines(n));
  }

  function panel(i, sizes) {
    const label = `${title(i)}, ${sizes[i]} × ${sizes[i]}`;
    const holder = el('div', i === 0
      ? {class: 'cv-holder', role: 'img', 'aria-label': label}
      : {class: 'cv-holder', role: 'application', 'data-level': i, tabindex: i === top ? 0 : -1,
        'aria-label': `${label}; arrow keys move`, onkeydown: arrows,
        onpointerdown: follow, onpointermove: follow});
    return el('div', {class: `cv-panel${i > top ? ' cv-above' : ''}${i === 0 ? ' cv-input' : ''}`},
      holder, el('div', {class: 'cv-panel-title'}, el('strong', {}, title(i)),
        el('span', {class: 'cv-muted'}, `${sizes[i]} × ${sizes[i]}`)));
  }

  // ---- choosing -----------------------------------------------------------------------------------
  function choose(level, row, col) {
    const last = levels(stack)[level].size - 1;
    const moved = [level, row, col].join() !== [top, ...at].join();
    top = level;
    at = [row, col].map(value => Math.min(Math.max(value, 0), last));
    if (moved) drawChoice();
  }

  function arrows(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();  // notebooks have arrow keys of their own
    choose(top, at[0] + step[0], at[1] + step[1]);
  }

  // A click, or dragging with a mouse button or a finger down.
  function follow(event) {
    if (event.type === 'pointermove' && !event.buttons) return;
    const level = Number(event.currentTarget.dataset.level);
    const box = event.currentTarget.getBoundingClientRect();
    const sizes = levels(stack).map(one => one.size);
    const edge = margin(sizes);
    const cell = (value, start, length) =>
      Math.floor(sizes[level] * ((value - start) / length * (1 + 2 * edge) - edge));
    choose(level, cell(event.clientY, box.top, box.height), cell(event.clientX, box.left, box.width));
  }

  // ---- sentences ----------------------------------------------------------------------------------
  function reading(rows, cols, {field}) {
    const n = stack.size;
    const [down, across] = [rows, cols].map(places => places.filter(i => i >= 0 && i < n));
    const start = `Row ${at[0]}, column ${at[1]} of ${title(top)} sees `;
    if (!down.length || !across.length) return `${start}nothing but padding.`;
    const range = places => (places.length > 1 ? `s ${places[0]} to ${places.at(-1)}` : ` ${places[0]}`);
    const holes = places => places.length < places.at(-1) - places[0] + 1;
    const cut = down.length * across.length < field ** 2;
    return `${start}row${range(down)} and column${range(across)} of the input: ${down.length} × ${across.length} pixels`
      + (holes(down) || holes(across) ? ', with gaps between them.'
        : cut ? `, since the rest of its ${field} × ${field} lies outside the image.` : '.');
  }

  function formulas(found) {
    const below = stack.layers.slice(0, top);
    const {field, jump} = found[top];
    const terms = below.map(({k, d}, i) =>
      `(${k} − 1)${d > 1 ? ` · ${d}` : ''} · ${found[i].jump}`);
    const weights = below.filter(layer => layer.kind === 'convolution').map(({k}) => k ** 2);
    const sum = weights.reduce((a, b) => a + b, 0);
    return {
      'field': `1 + ${terms.join(' + ')} = ${field}`,
      'jump': `${below.map(({s}) => s).join(' · ')}${below.length > 1 ? ` = ${jump}` : ''}`,
      'weights, with C channels everywhere':
        `${weights.length > 1 ? `(${weights.join(' + ')}) · C² = ` : ''}${sum} C²`
        + `; one filter of ${field} × ${field}: ${exact(field ** 2)} C²`,
    };
  }

  // ---- the table of layers ------------------------------------------------------------------------
  const tr = (...cells) => el('tr', {role: 'row'}, ...cells);
  const td = (label, ...parts) => el('td', {role: 'cell', 'data-label': label}, ...parts);

  function numberField(layer, key, i) {
    const input = el('input', {type: 'number', min: limits[key][0], max: limits[key][1], step: 1,
      value: layer[key], 'aria-label': `${NUMBERS[key]} of ${title(i)}`, 'aria-describedby': reasons.id,
      disabled: key === 'd' && layer.kind !== 'convolution',
      oninput: () => { layer[key] = input.value === '' ? NaN : Number(input.value); edited(); }});
    return input;
  }

  function kindField(layer, i) {
    return el('select', {'aria-label': `kind of layer ${i}`, onchange: event => {
      layer.kind = event.target.value;
      layer.cover = layer.kind === 'max pooling';  // Chainer's default
      layer.d = 1;
      layer.name = layer.kind === 'convolution' ? `conv${i}` : '';
      edited();
      drawTable();
    }}, ...Object.entries(kinds).map(([kind, short]) =>
      el('option', {value: kind, selected: kind === layer.kind}, short)));
  }

  function layerRow(layer, index) {
    const i = index + 1;
    const name = el('button', {type: 'button', class: 'cv-layer', 'data-layer': i, 'aria-label': `show ${title(i)}`,
      onclick: () => choose(i, ...centreOf(i))}, title(i));
    const remove = el('button', {type: 'button', 'aria-label': `remove ${title(i)}`,
      disabled: stack.layers.length === 1, onclick: () => removeLayer(index)}, '×');
    return tr(el('th', {scope: 'row', role: 'rowheader'}, name), td('kind', kindField(layer, i)),
      ...Object.keys(NUMBERS).map(key => td(NUMBERS[key], numberField(layer, key, i))),
      ...['output', 'field', 'jump', 'weights'].map(label => td(label)), td('remove', remove));
  }

  const HEADS = ['layer', 'kind', ...Object.values(NUMBERS), 'output', 'field', 'jump', 'weights / C²'];

  function drawTable() {
    table.replaceChildren(
      el('thead', {role: 'rowgroup'}, tr(...HEADS.map(text => el('th', {scope: 'col', role: 'columnheader'}, text)), td(''))),
      el('tbody', {role: 'rowgroup'}, ...stack.layers.map(layerRow)));
    drawCounts();
  }

  // Only the computed cells: the fields keep the focus while they are edited.
  function drawCounts() {
    const found = levels(stack);
    [...table.querySelectorAll('tbody tr')].forEach((row, index) => {
      const {size, field, jump} = found[index + 1];
      const {kind, k} = stack.layers[index];
      const values = {output: `${size} × ${size}`, field, jump, weights: kind === 'convolution' ? k ** 2 : 0};
      for (const [label, value] of Object.entries(values)) {
        row.querySelector(`[data-label="${label}"]`).textContent = size > 0 ? value : '–';
      }
      for (const input of row.querySelectorAll('input')) {
        const key = Object.keys(NUMBERS).find(one => input.getAttribute('aria-label').startsWith(NUMBERS[one]));
        set(input, 'aria-invalid', outside(stack.layers[index][key], limits[key]) && 'true');
      }
    });
  }

  function removeLayer(index) {
    stack.layers.splice(index, 1);
    top = Math.min(top, stack.layers.length);
    edited();
    drawTable();
    table.querySelectorAll('.cv-layer')[Math.min(index, stack.layers.length - 1)].focus();
  }

  function addLayer() {
    const number = stack.layers.length + 1;
    stack.layers.push({name: `conv${number}`, kind: 'convolution', k: 3, s: 1, p: 1, d: 1, cover: false});
    top = number;
    edited();
    drawTable();
  }

  // ---- drawing ------------------------------------------------------------------------------------
  const maps = el('div', {class: 'cv-maps'});
  const says = el('p', {class: 'cv-says', 'aria-live': 'polite'});
  const sums = el('dl');
  const reasons = el('p', {class: 'cv-bad', id: `${root.id}-reasons`, 'aria-live': 'polite'});
  const table = el('table', {role: 'table', 'aria-label': 'Layers'});
  const folded = el('details', {}, el('summary', {}, 'Layers'), table,
    el('button', {type: 'button', onclick: addLayer}, 'add a layer'));
  const results = el('div', {}, maps, says, sums);

  // After a change of the layers: all maps anew.
  function edited() {
    reasons.textContent = errors();
    results.hidden = reasons.textContent !== '';
    set(size, 'aria-invalid', outside(stack.size, limits.size) && 'true');
    folded.querySelector('button:last-of-type').disabled = stack.layers.length >= limits.depth;
    if (table.rows.length === stack.layers.length + 1) drawCounts();
    if (results.hidden) return;
    at = centreOf(top);
    drawMaps();
  }

  function drawMaps() {
    const sizes = levels(stack).map(level => level.size);
    maps.classList.toggle('cv-many', sizes.length > MANY);
    maps.replaceChildren(...sizes.map((_, i) => panel(i, sizes)));
    drawChoice();
  }

  // What moves with the chosen value.
  function drawChoice() {
    const found = levels(stack);
    const sizes = found.map(level => level.size);
    const [rows, cols] = at.map(place => seen(stack, top, place));
    [...maps.children].forEach((one, i) => {
      const holder = one.querySelector('.cv-holder');
      holder.replaceChildren(map(i, sizes, rows[i], cols[i]));
      one.classList.toggle('cv-above', i > top);
      if (i) set(holder, 'tabindex', i === top ? 0 : -1);
    });
    for (const button of table.querySelectorAll('.cv-layer')) {
      set(button, 'aria-pressed', String(Number(button.dataset.layer) === top));
    }
    says.textContent = reading(rows[0], cols[0], found[top]);
    sums.replaceChildren(...Object.entries(formulas(found)).flatMap(([name, text]) =>
      [el('dt', {}, name), el('dd', {class: 'cv-num'}, text)]));
  }

  // ---- controls -----------------------------------------------------------------------------------
  function load(name, layer) {
    chosen = name;
    stack = structuredClone(given.stacks[name]);
    top = layer ?? stack.layers.length;
    size.value = stack.size;
    folded.open = stack.layers.length <= MANY;
    presets.forEach(button => set(button, 'aria-pressed', String(button.textContent === name)));
    drawTable();
    edited();
  }

  const presets = Object.keys(given.stacks).map(name =>
    el('button', {type: 'button', onclick: () => load(name)}, name));
  const size = el('input', {type: 'number', min: limits.size[0], max: limits.size[1], step: 1,
    'aria-describedby': reasons.id,
    oninput: () => { stack.size = size.value === '' ? NaN : Number(size.value); edited(); }});
  place.append(
    el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Stacks of layers'}, ...presets),
    el('div', {class: 'cv-row'}, el('label', {}, 'input size', size),
      el('span', {class: 'cv-muted'}, 'click a map, or move over it with the arrow keys')),
    reasons, results, folded);
  load(chosen, top);
});
