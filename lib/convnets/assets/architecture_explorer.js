// What a network is made of, recomputed for other widths, depths, images and classes.
// The arithmetic stands alone, so that it can be tested alone.
cv.architecture ??= (() => {
  const BYTES = 4;  // float32
  const product = shape => shape.reduce((a, b) => a * b, 1);

  // As convnets.models.base.scaled
  const scaled = (channels, width) => Math.max(1, Math.floor(channels * width + 0.5));

  // As chainer.utils.conv.get_conv_outsize
  function outSize(layer, size) {
    const {name, kind, k, s = 1, p = 0, cover} = layer;
    const n = Math.floor((size + 2 * p - k + (cover ? s - 1 : 0)) / s) + 1;
    if (n < 1) {
      throw new RangeError(`${name || kind} needs at least ${k - 2 * p} × ${k - 2 * p} pixels, but its input is `
        + `only ${size} × ${size}.`);
    }
    return n;
  }

  const square = (channels, size) => [channels, size, size];
  const kept = (layer, shape) => ({shape});

  // For each kind of layer: output shape, parameters and multiply-adds, from the input's shape.
  const RULES = {
    'convolution': (layer, [channels, size]) => {
      const n = outSize(layer, size);
      const fan = channels * layer.k ** 2;
      return {shape: square(layer.out, n), macs: layer.out * n ** 2 * fan,
        params: layer.out * (fan + (layer.bias ? 1 : 0))};
    },
    'linear': (layer, shape) => ({shape: [layer.out], macs: layer.out * product(shape),
      params: layer.out * (product(shape) + (layer.bias ? 1 : 0))}),
    'batch normalization': (layer, shape) => ({shape, params: 2 * shape[0]}),
    'max pooling': (layer, [channels, size]) => ({shape: square(channels, outSize(layer, size))}),
    'average pooling': (layer, [channels]) => ({shape: square(channels, 1)}),
    'slice': (layer, [channels, size]) => ({shape: square(channels, Math.ceil(size / layer.s))}),
    'concatenation': (layer, [, size]) => ({shape: square(layer.out, size)}),
  };

  // All layers of a stage that repeats its block n times; `unit` numbers the repetitions.
  function repeated({first, more = [], start, last = []}, n) {
    const others = Array.from({length: n - 1}, (_, i) => more.map(layer =>
      ({...layer, name: layer.name.replace('{}', start + i), unit: i + 1})));
    return [...first.map(layer => ({...layer, unit: 0})), ...others.flat(),
      ...last.map(layer => ({...layer, unit: n}))];
  }

  // setting: {width, size, n_class, n_in, counts}. One row for each layer, as inspect.summary has it.
  function rows(plan, setting) {
    const done = [{shape: square(setting.n_in, setting.size), weighted: 0}];
    let counted = 0;
    for (const stage of plan) {
      const n = stage.more ? setting.counts[counted++] : 1;
      for (const layer of repeated(stage, n)) {
        const inputs = (layer.back ?? [1]).map(back => done[done.length - back]);
        const out = layer.out ? scaled(layer.out, setting.width) : setting.n_class;
        const found = {params: 0, macs: 0,
          ...(RULES[layer.kind] ?? kept)({...layer, out}, inputs[0].shape)};
        done.push({...layer, ...found, stage: stage.name, before: inputs[0].shape,
          bytes: BYTES * product(found.shape),
          // weight layers on the longest way from the image to here
          weighted: Math.max(...inputs.map(row => row.weighted))
            + (['convolution', 'linear'].includes(layer.kind) ? 1 : 0)});
      }
    }
    return done.slice(1);
  }

  function total(some) {
    const sum = key => some.reduce((all, row) => all + row[key], 0);
    return {params: sum('params'), macs: sum('macs'), bytes: sum('bytes')};
  }

  return {rows, total, scaled, product};
})();

cv.figure('architecture_explorer', (place, given, root) => {
  const {el, set, number} = cv;
  const {rows, total, scaled, product} = cv.architecture;
  const {limits, families} = given;
  const COLUMNS = {params: 'parameters', macs: 'multiply-adds', bytes: 'activation bytes'};
  const exact = value => value.toLocaleString('en-US');
  const show = shape => shape.join('×');
  const models = Object.fromEntries(given.models.map(model => [model.name, model]));

  const now = {...given.setting};
  let opened = given.opened;
  const model = () => models[now.model];
  const family = () => families[model().family];
  const plan = () => family().plans[now.stride_in] ?? family().plans[''];
  const withCounts = () => plan().filter(stage => stage.more);
  const own = () => ({width: 1, size: model().size, n_class: model().n_class,
    n_in: model().n_in, counts: model().counts});

  // ---- what is wrong ------------------------------------------------------------------------------
  const FIELDS = {
    width: {label: 'width factor', step: 0.25, whole: false},
    size: {label: 'input size', step: 1, whole: true},
    n_class: {label: 'classes', step: 1, whole: true},
  };

  function outside(value, [low, high], whole) {
    return !(value >= low && value <= high && (!whole || Number.isInteger(value)));
  }

  const range = ([low, high]) => `from ${low === 1 / 16 ? '1/16' : low} to ${exact(high)}`;

  function errors() {
    const found = Object.entries(FIELDS)
      .filter(([name, {whole}]) => outside(now[name], limits[name], whole))
      .map(([name, {label, whole}]) => ({field: name,
        text: `The ${label} must be a ${whole ? 'whole ' : ''}number ${range(limits[name])}.`}));
    if (now.counts.some(n => outside(n, limits.count, true))) {
      found.push({field: 'count',
        text: `A stage can have ${range(limits.count).replace('to', 'to at most')} repetitions.`});
    }
    return found.length ? found : sizeErrors();
  }

  // A model whose linear layers are of a fixed size takes one size of images only.
  function sizeErrors() {
    const wrong = text => [{field: 'size', text}];
    if (!family().fixed || now.size === model().size) return [];
    const only = `${now.model} takes images of ${model().size} × ${model().size} only: `;
    let here;
    try {
      here = rows(plan(), {...own(), ...now});
    } catch (error) {
      return wrong(`${only}${now.size} × ${now.size} is too small. ${error.message}`);
    }
    const fits = rows(plan(), {...own(), width: now.width});
    const i = here.findIndex((row, j) => row.kind === 'linear'
      && product(row.before) !== product(fits[j].before));
    if (i < 0) return wrong(`${only}the layers would fit ${now.size} × ${now.size}, but it checks its input.`);
    return wrong(`${only}here ${here[i].name} would get ${show(here[i].before)} = `
      + `${exact(product(here[i].before))} values, and it is built for ${exact(product(fits[i].before))}.`);
  }

  // A window or stride on a map of one pixel: the image is smaller than the network was made for.
  function warning(all) {
    const lost = all.find(row => row.before[1] === 1 && row.s > 1);
    return lost ? `From ${lost.stage} on the maps are 1 × 1: there is nothing left to halve. `
      + `The network runs, but the image is too small for it.` : '';
  }

  // ---- the drawing: one bar for each block, as high as its map, as wide as its channels ---------------
  function barsOf(some) {
    const units = Map.groupBy ? [...Map.groupBy(some, row => row.unit).values()] : grouped(some);
    return units.filter(unit => unit.some(row => row.params) || units.length === 1).map(unit => {
      const main = unit.filter(row => ['convolution', 'linear'].includes(row.kind)).at(-1) ?? unit.at(-1);
      return {channels: main.shape[0], size: main.shape[1] ?? 1,
        changes: main.shape.join() !== unit[0].before.join()};
    });
  }

  function grouped(some) {
    const groups = [];
    for (const row of some) (groups[row.unit] ??= []).push(row);
    return groups.filter(Boolean);
  }

  function stageButton(name, some) {
    const bars = barsOf(some);
    const share = bars.reduce((sum, bar) => sum + Math.sqrt(bar.channels), 0);
    return el('button', {
      type: 'button', class: 'cv-stage', 'aria-pressed': String(name === opened), 'data-stage': name,
      'aria-label': `${name}: ${bars.length > 1 ? `${bars.length} blocks, ` : ''}output ${show(some.at(-1).shape)}`,
      style: `flex-grow: ${share.toFixed(1)}`, onclick: () => open(name),
    },
    el('span', {class: 'cv-bars', 'aria-hidden': 'true'}, ...bars.map(({size, channels, changes}) =>
      el('span', {class: `cv-bar${changes ? ' cv-changes' : ''}`,
        style: `height: ${Math.min(0.35 + 5 * Math.sqrt(size / model().size), 8).toFixed(2)}rem;`
          + ` max-width: ${(0.3 + 0.05 * Math.sqrt(channels)).toFixed(2)}rem`}))),
    el('span', {class: 'cv-stage-name'}, name));
  }

  function arrows(event) {
    const buttons = [...picture.querySelectorAll('button')];
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();  // notebooks have arrow keys of their own
    const next = buttons.indexOf(document.activeElement) + step;
    buttons[Math.min(Math.max(next, 0), buttons.length - 1)].focus();
  }

  // ---- the table --------------------------------------------------------------------------------------
  // Narrow pages lay its rows out as grids; with explicit roles it stays a table for screen readers.
  const tr = (attributes, ...cells) => el('tr', {role: 'row', ...attributes}, ...cells);
  const td = (attributes, ...parts) => el('td', {role: 'cell', ...attributes}, ...parts);
  const th = (scope, ...parts) =>
    el('th', {scope, role: scope === 'col' ? 'columnheader' : 'rowheader'}, ...parts);

  function cells(counts, all) {
    return Object.keys(COLUMNS).map(key => {
      const share = all && all[key] ? (100 * counts[key] / all[key]).toFixed(1) : null;
      return td({style: share && `--share: ${share}%`, class: share && 'cv-share'}, exact(counts[key]));
    });
  }

  function stageRow(name, some, all) {
    const button = el('button', {type: 'button', 'aria-expanded': String(name === opened),
      onclick: () => open(name)}, name);
    return tr({class: 'cv-whole', 'data-stage': name}, th('row', button),
      td({}, show(some.at(-1).shape)), ...cells(total(some), all));
  }

  function window(row) {
    if (!row.k) return row.kind;
    const at = [row.s > 1 && `stride ${row.s}`, row.p && `pad ${row.p}`].filter(Boolean);
    return `${row.name ? '' : `${row.kind} `}${[`${row.k} × ${row.k}`, ...at].join(', ')}`;
  }

  function layerRow(row) {
    return tr({class: 'cv-layer'},
      td({}, row.name && el('span', {class: 'cv-name'}, row.name),
        el('span', {class: 'cv-muted'}, window(row))),
      td({}, show(row.shape)), ...cells(row));
  }

  // Each different repetition once; those that are equal in one line.
  function layerRows(some) {
    const hidden = row => row.unit > 1 && row.unit < (now.counts[countIndex(row.stage)] ?? 0);
    const rest = some.filter(hidden);
    const n = new Set(rest.map(row => row.unit)).size;
    const line = n && tr({class: 'cv-layer cv-rest'},
      td({}, `${n} more like it`), td({}, show(rest.at(-1).shape)), ...cells(total(rest)));
    const split = some.findIndex(hidden);
    const shown = some.filter(row => !hidden(row));
    if (!n) return shown.map(layerRow);
    return [...shown.slice(0, split).map(layerRow), line, ...shown.slice(split).map(layerRow)];
  }

  const countIndex = name => withCounts().findIndex(stage => stage.name === name);

  function drawTable(stages, sums) {
    const head = el('thead', {role: 'rowgroup'}, tr({},
      ...['stage', 'output C × H × W', ...Object.values(COLUMNS)].map(text => th('col', text))));
    const body = el('tbody', {role: 'rowgroup'}, ...stages.flatMap(([name, some]) =>
      [stageRow(name, some, sums), ...(name === opened ? layerRows(some) : [])]));
    const foot = el('tfoot', {role: 'rowgroup'},
      tr({}, th('row', 'total'), td({}), ...cells(sums)));
    table.replaceChildren(head, body, foot);
  }

  // ---- sentences --------------------------------------------------------------------------------------
  const changed = () => now.width !== 1 || now.counts.join() !== model().counts.join();

  // The line of Python that builds and counts the same; '' where no class has these options.
  function code(all) {
    const template = changed() ? family().code : family().named;
    if (!template) return '';
    const linear = all.filter(row => row.kind === 'linear');
    const pairs = withCounts().map((stage, i) => `(${scaled(stage.first[0].out, now.width)}, ${now.counts[i]})`);
    const values = {...now, name: now.model, n_in: model().n_in, layers: all.at(-1).weighted,
      counts: `(${now.counts.join(', ')})`, pairs: `(${pairs.join(', ')})`, hidden: linear[0].shape[0]};
    const built = template.replace(/{(\w+)}/g, (_, name) => values[name]);
    return `inspect.summary(${built}, (1, ${model().n_in}, ${now.size}, ${now.size}))`;
  }

  function sentence(all, sums) {
    const then = total(rows(family().plans['1x1'] ?? plan(), own()));
    const times = key => `${number(sums[key] / then[key], sums[key] < then[key] / 10 ? 3 : 2)} times the ${COLUMNS[key]}`;
    const same = Object.keys(COLUMNS).every(key => sums[key] === then[key]);
    return `${all.at(-1).weighted} layers with weights, ${exact(sums.params)} parameters, `
      + `${(sums.macs / 1e9).toFixed(3)} billion multiply-adds, ${(sums.bytes / 1e6).toFixed(1)} MB of activations for one image. `
      + (same ? `This is ${now.model} as published.`
        : `Against ${now.model} as published: ${Object.keys(COLUMNS).map(times).join(', ')}.`);
  }

  // ---- drawing ----------------------------------------------------------------------------------------
  const picture = el('div', {class: 'cv-stages', role: 'group', 'aria-label': 'Stages of the network', onkeydown: arrows});
  const legend = el('p', {class: 'cv-muted cv-legend'});
  const table = el('table', {role: 'table', 'aria-label': 'Stages and layers in numbers'});
  const says = el('p', {class: 'cv-says', 'aria-live': 'polite'});
  const reasons = el('p', {class: 'cv-reasons', id: `${root.id}-reasons`, 'aria-live': 'polite'});
  const python = el('p', {class: 'cv-python'});
  const results = el('div', {}, picture, legend, says, table, python);

  function draw() {
    const wrong = errors();
    for (const [name, input] of Object.entries(inputs)) {
      set(input, 'aria-invalid', wrong.some(w => w.field === name) && 'true');
    }
    for (const [i, input] of [...counts.querySelectorAll('input')].entries()) {
      set(input, 'aria-invalid', outside(now.counts[i], limits.count, true) && 'true');
    }
    reasons.classList.toggle('cv-bad', wrong.length > 0);
    results.hidden = wrong.length > 0;
    reasons.textContent = wrong.map(w => w.text).join(' ');
    if (wrong.length === 0) drawResults();
  }

  function drawResults() {
    const all = rows(plan(), {...own(), ...now});
    const sums = total(all);
    const stages = plan().map(({name}) => [name, all.filter(row => row.stage === name)]);
    const focused = picture.contains(document.activeElement) && document.activeElement.dataset.stage;
    picture.replaceChildren(...stages.map(([name, some]) => stageButton(name, some)));
    if (focused) picture.querySelector(`[data-stage="${focused}"]`)?.focus();
    drawTable(stages, sums);
    says.textContent = sentence(all, sums);
    reasons.textContent = warning(all);
    const line = code(all);
    python.replaceChildren(...(line ? ['The same in Python: ', el('code', {}, line)]
      : ['No class of the library has an option for this: it would take one of your own.']));
  }

  function open(name) {
    const inTable = table.contains(document.activeElement);
    opened = opened === name ? '' : name;
    drawResults();
    if (inTable) table.querySelector(`[data-stage="${name}"] button`).focus();
  }

  // ---- controls ---------------------------------------------------------------------------------------
  function field(name) {
    const {step} = FIELDS[name];
    const [low, high] = limits[name];
    return el('input', {type: 'number', min: name === 'width' ? 0 : low, max: high, step, 'aria-describedby': reasons.id,
      oninput: event => { now[name] = event.target.value === '' ? NaN : Number(event.target.value); draw(); }});
  }

  function countField(label, indices) {
    const input = el('input', {type: 'number', min: 1, max: limits.count[1], step: 1, value: now.counts[indices[0]],
      'aria-describedby': reasons.id, oninput: () => {
        for (const i of indices) now.counts[i] = input.value === '' ? NaN : Number(input.value);
        draw();
      }});
    return el('label', {}, label, input);
  }

  function drawCounts() {
    legend.replaceChildren(`One bar for each ${family().repeats.slice(0, -1) || 'layer'}, as high as its map, `
      + 'as wide as its channels; ', el('span', {class: 'cv-changes'}), ' changes the shape.');
    const names = withCounts().map(stage => stage.name);
    const all = names.map((_, i) => i);
    const what = family().repeats;
    counts.hidden = !names.length;
    counts.replaceChildren(...(!names.length ? []
      : family().depth === 'same' ? [countField(`${what} in each of ${names[0]} to ${names.at(-1)}`, all)]
        : [el('span', {}, `depth: ${what} in`), ...all.map(i => countField(names[i], [i]))]));
  }

  function choose(name, changes = {}) {
    now.model = name;
    Object.assign(now, own(), changes);
    now.counts = [...model().counts];
    if (!plan().some(stage => stage.name === opened)) opened = '';
    for (const key of Object.keys(FIELDS)) inputs[key].value = now[key];
    inputs.stride_in.closest('label').hidden = !family().plans[now.stride_in];
    drawCounts();
    draw();
  }

  const inputs = {
    model: el('select', {onchange: event => choose(event.target.value)},
      ...Object.entries(families).map(([key, {title}]) => el('optgroup', {label: title},
        ...given.models.filter(one => one.family === key).map(({name}) =>
          el('option', {value: name, selected: name === now.model}, name))))),
    ...Object.fromEntries(Object.keys(FIELDS).map(name => [name, field(name)])),
    stride_in: el('select', {onchange: event => { now.stride_in = event.target.value; draw(); }},
      ...['1x1', '3x3'].map(value => el('option', {value, selected: value === now.stride_in}, value))),
  };
  const counts = el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Depth'});
  place.append(
    el('div', {class: 'cv-row'}, el('label', {}, 'model', inputs.model),
      ...Object.entries(FIELDS).map(([name, {label}]) => el('label', {}, label, inputs[name])),
      el('label', {}, 'stride_in', inputs.stride_in),
      el('button', {type: 'button', onclick: () => choose(now.model, {stride_in: '1x1'})}, 'as published')),
    counts, reasons, results);
  choose(now.model, given.setting);
});
