// A network as a path of blocks; what the gradient, or the signal, is like at each of them.
cv.figure('residual_path', (place, {networks, chosen, distance}, root) => {
  const {el, set, number} = cv;
  const now = {...chosen, direction: 'gradient', block: 0};
  const TOP = 74, HEIGHT = 104, GAP = 40, LEFT = 52, RIGHT = 14;  // in pixels

  // ---- what was measured ------------------------------------------------------------------------
  const find = residual => networks.find(n => n.depth === now.depth
    && n.normalized === now.normalized && n.residual === residual);
  const network = () => find(now.residual);
  const both = () => [find(!now.residual), network()];  // the chosen one is drawn on top
  const kind = n => (n.residual ? 'cv-residual' : 'cv-plain');

  // 0.1132 -> '0.113', 9753 -> '9,750'
  function digits3(value) {
    const rounded = Number(value.toPrecision(3));
    return rounded >= 1000 ? rounded.toLocaleString('en-US') : String(rounded);
  }

  // ---- drawing ----------------------------------------------------------------------------------
  function axes() {
    const width = Math.max(root.clientWidth - 34, 260);
    const count = network().name_of.length;
    const step = (width - LEFT - RIGHT) / count;
    return {width, count, step, x: i => LEFT + (i + 0.5) * step};
  }

  function blockPath({width, count, step, x}) {
    const side = Math.max(Math.min(step * 0.62, 16), 4), y = 48;
    const stages = network().name_of.map(name => name.split('/')[0]);
    return [
      el('svg:line', {x1: LEFT - 8, x2: width - 4, y1: y, y2: y, class: 'cv-wire'}),
      ...stages.flatMap((stage, i) => [
        now.residual && i > 0 && el('svg:path', {class: 'cv-arc',
          d: `M ${x(i) - step / 2} ${y} C ${x(i) - step / 2} ${y - 24}, ${x(i) + step / 2} ${y - 24},`
            + ` ${x(i) + step / 2} ${y}`}),
        el('svg:rect', {x: x(i) - side / 2, y: y - side / 2, width: side, height: side,
          class: `cv-block${i === now.block ? ' cv-chosen' : ''}`}),
        stage !== stages[i - 1] && el('svg:text', {x: x(i) - side / 2, y: 16,
          class: 'cv-small'}, i ? stage : '')]).filter(Boolean),
      el('svg:text', {x: 0, y: y + 4}, 'image'),
      el('svg:text', {x: width, y: y + 24, 'text-anchor': 'end'}, 'loss'),
    ];
  }

  function panel({width, x}, top, title, values, y, ticks) {
    return [
      el('svg:text', {x: 0, y: top - 9}, title),
      ...ticks.flatMap(([value, text]) => [
        el('svg:line', {x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: 'cv-grid'}),
        el('svg:text', {x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end', class: 'cv-small'}, text)]),
      ...both().map(n => el('svg:polyline', {
        class: `cv-line ${kind(n)}${n === network() ? ' cv-on' : ''}`,
        points: values(n).map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(' ')})),
      el('svg:circle', {class: kind(network()), r: 5, cx: x(now.block),
        cy: y(values(network())[now.block])}),
    ];
  }

  function similarityPanel(place, top) {
    const y = value => top + HEIGHT * (1 - Math.max(value, 0));
    const what = now.direction === 'gradient' ? 'gradients' : 'maps';
    return panel(place, top, `how similar neighbours’ ${what} are`,
      n => n[`${now.direction}_similarity`], y, [[0, '0'], [0.5, '0.5'], [1, '1']]);
  }

  function sizePanel(place, top) {
    const values = both().flatMap(n => n[now.direction]).map(Math.log10);
    const low = Math.floor(Math.min(...values)), high = Math.ceil(Math.max(...values));
    const y = value => top + HEIGHT * (high - Math.log10(value)) / (high - low);
    const every = Math.ceil((high - low) / 4);
    const ticks = [];
    for (let power = low; power <= high; power += every) {
      ticks.push([10 ** power, power < 4 ? digits3(10 ** power) : `10${superscript(power)}`]);
    }
    const title = now.direction === 'gradient' ? 'norm of the gradient' : 'standard deviation of the maps';
    return panel(place, top, title, n => n[now.direction], y, ticks);
  }

  function superscript(power) {
    return [...String(power)].map(digit => '⁰¹²³⁴⁵⁶⁷⁸⁹'[digit]).join('');
  }

  function draw() {
    const geometry = axes(), {width, x, count} = geometry;
    const height = TOP + 2 * HEIGHT + 2 * GAP + 8;
    set(svg, 'viewBox', `0 0 ${width} ${height}`);
    svg.replaceChildren(
      ...blockPath(geometry),
      el('svg:line', {x1: x(now.block), x2: x(now.block), y1: 58, y2: height - 4, class: 'cv-now'}),
      ...similarityPanel(geometry, TOP + GAP - 4),
      ...sizePanel(geometry, TOP + HEIGHT + 2 * GAP - 4));
    slider.max = count - 1;
    slider.value = now.block;
    set(slider, 'aria-valuetext', network().name_of[now.block]);
    read(count);
    legend.replaceChildren(...both().reverse().flatMap(n => [
      el('span', {}, el('span', {class: `cv-key ${kind(n)}${n === network() ? ' cv-on' : ''}`}), n.name)]));
    choices.forEach(({node, key, value}) => set(node, 'aria-pressed', String(now[key] === value)));
    normalized.checked = now.normalized;
  }

  function read(count) {
    const n = network(), i = now.block, last = count - 1, twin = find(!now.residual);
    const [size, other] = [n, twin].map(which => which[now.direction][i]);
    const back = now.direction === 'gradient';
    const from = back ? last : 0;
    const name = which => el('strong', {}, which.name);
    const away = Math.abs(i - from);
    reading.replaceChildren(
      el('strong', {}, `${n.name_of[i]} of ${n.name}`), `, ${n.shape[i].join(' × ')}, `,
      away ? `${away} ${away === 1 ? 'block' : 'blocks'} ${back ? 'before the last' : 'behind conv1'}. `
        : `where the ${back ? 'gradient' : 'signal'} begins its way. `,
      back ? 'The gradient has norm ' : 'The maps have standard deviation ', digits3(size),
      `, ${digits3(size / n[now.direction][from])} times that of ${n.name_of[from]}. `,
      `An image and its neighbour (${number(100 * distance, 2)} % of another image mixed in) ${back ? 'send back gradients' : 'have maps'} of similarity `,
      number(n[`${now.direction}_similarity`][i], 2), '. In ', name(twin), ` at the same place: ${digits3(other)}, similarity `,
      number(twin[`${now.direction}_similarity`][i], 2), '.',
      back ? ` A first step at rate 0.1 would move this block’s weights by ${digits3(0.1 * n.step[i])} times their norm.` : '');
  }

  // ---- choosing -----------------------------------------------------------------------------------
  function choose(key, value) {
    const share = now.block / (network().name_of.length - 1);
    now[key] = value;
    if (!network()) now.normalized = !now.normalized;  // not measured both ways at this depth
    now.block = Math.round(share * (network().name_of.length - 1));
    draw();
  }

  function point(event) {
    const {step, count} = axes();
    const box = svg.getBoundingClientRect();
    const along = (event.clientX - box.left) * axes().width / box.width;
    now.block = Math.min(Math.max(Math.floor((along - LEFT) / step), 0), count - 1);
    draw();
  }

  const choices = [];
  function group(label, key, options) {
    const buttons = options.map(([text, value]) => {
      const node = el('button', {type: 'button', onclick: () => choose(key, value)}, text);
      choices.push({node, key, value});
      return node;
    });
    return el('span', {class: 'cv-group', role: 'group', 'aria-label': label}, ...buttons);
  }

  const depths = [...new Set(networks.map(n => n.depth))].sort((a, b) => a - b);
  const normalized = el('input', {type: 'checkbox',
    onchange: () => choose('normalized', normalized.checked)});
  const svg = el('svg:svg', {role: 'img', onpointerdown: point,
    onpointermove: event => event.buttons && point(event),
    'aria-label': 'Path of blocks from image to loss, with two curves; the text below reads them'});
  const slider = el('input', {type: 'range', min: 0, max: 1, step: 1, 'aria-label': 'block',
    oninput: () => { now.block = Number(slider.value); draw(); }});
  const legend = el('div', {class: 'cv-row'});
  const reading = el('p', {class: 'cv-reading cv-num', 'aria-live': 'polite'});
  const bothWays = new Set(networks.map(n => n.normalized)).size > 1;
  place.append(
    el('div', {class: 'cv-row'},
      group('Depth', 'depth', depths.map(depth => [`${depth} layers`, depth])),
      group('Network', 'residual', [['plain', false], ['residual', true]]),
      group('Direction', 'direction', [['gradient, going back', 'gradient'], ['signal, going forward', 'signal']]),
      bothWays && el('label', {}, normalized, 'batch normalization') || null),
    legend, svg, slider, reading);
  draw();
  new ResizeObserver(draw).observe(root);
});
