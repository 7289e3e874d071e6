// Boxes over a scene: those above a score, less those that overlap a stronger one too much.
cv.figure('detections', (place, {scenes, score, overlap, stride, first}) => {
  const {el, set} = cv;
  const now = {scene: 0, score, overlap, heat: true};
  const ENOUGH = 0.5;  // IoU of a right box

  // ---- boxes (y0, x0, y1, x1) ---------------------------------------------------------------------
  const area = ([y0, x0, y1, x1]) => (y1 - y0) * (x1 - x0);

  function iou(a, b) {
    const height = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
    const width = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
    const shared = Math.max(height, 0) * Math.max(width, 0);
    return shared / (area(a) + area(b) - shared || 1);
  }

  // Greedily from the highest score down.
  function suppress(found) {
    const kept = [];
    for (const one of found) {
      if (kept.every(other => iou(one.box, other.box) <= now.overlap)) kept.push(one);
    }
    return kept;
  }

  // The rule of PASCAL VOC: the true box that fits best, if it fits enough and is not yet found.
  function judge(found, truth) {
    const free = truth.map(() => true);
    return found.map(one => {
      const fits = truth.map(row => (row[4] === one.label ? iou(one.box, row) : 0));
      const best = fits.indexOf(Math.max(...fits));
      const right = fits[best] >= ENOUGH && free[best];
      if (right) free[best] = false;
      return {...one, right, digit: right ? best : null};
    });
  }

  function answer({found, truth}) {
    const strong = found.filter(one => one.score >= now.score).sort((a, b) => b.score - a.score);
    const judged = judge(suppress(strong), truth);
    const right = judged.filter(one => one.right);
    const seen = new Set(right.map(one => one.digit));
    return {strong: strong.length, judged, right: right.length, total: truth.length,
      missed: truth.filter((_, i) => !seen.has(i)).map(row => row[4])};
  }

  // ---- drawing ------------------------------------------------------------------------------------
  function drawPixels({pixels}) {
    canvas.width = pixels[0].length;
    canvas.height = pixels.length;
    const context = canvas.getContext('2d');
    const image = context.createImageData(canvas.width, canvas.height);
    [...pixels.join('')].forEach((letter, i) => {
      image.data.fill(17 * parseInt(letter, 16), 4 * i, 4 * i + 3);
      image.data[4 * i + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  }

  const rectangle = ([y0, x0, y1, x1], name) => el('svg:rect',
    {x: x0, y: y0, width: (x1 - x0).toFixed(1), height: (y1 - y0).toFixed(1), class: name});

  function heatMap({heat}) {
    const side = Math.round(Math.sqrt(heat.length)), start = first - stride / 2;
    return heat.flatMap((value, i) => (value < 0.02 ? [] : [el('svg:rect', {class: 'cv-heat',
      x: start + stride * (i % side), y: start + stride * Math.floor(i / side),
      width: stride, height: stride, 'fill-opacity': (0.55 * value).toFixed(3)})]));
  }

  function box(one) {
    const name = one.right ? 'cv-right' : 'cv-wrong';
    const [y0, x0, y1] = one.box;
    const y = y0 > 6 ? y0 - 1.2 : Math.min(y1 + 4.6, canvas.height - 1);
    return [rectangle(one.box, name),
      el('svg:text', {x: Math.max(Math.min(x0, canvas.width - 13), 1), y, class: name},
        `${one.label} ${one.score.toFixed(2)}`)];
  }

  function draw() {
    const scene = scenes[now.scene], result = answer(scene);
    drawPixels(scene);
    set(svg, 'viewBox', `0 0 ${canvas.width} ${canvas.height}`);
    svg.replaceChildren(...(now.heat ? heatMap(scene) : []),
      ...scene.truth.map(row => rectangle(row, 'cv-true')),
      ...[...result.judged].reverse().flatMap(box));
    read(result);
    buttons.forEach((button, i) => set(button, 'aria-pressed', String(i === now.scene)));
    for (const {name, input, output} of slides) {
      input.value = now[name];
      output.textContent = now[name].toFixed(2);
    }
  }

  // ---- sentences ----------------------------------------------------------------------------------
  const share = (a, b, none) => (b ? (a / b).toFixed(2) : none);

  function rates(results) {
    const sum = name => results.reduce((total, one) => total + one[name], 0);
    const boxes = results.reduce((total, one) => total + one.judged.length, 0);
    return `precision ${share(sum('right'), boxes, '1.00')}, recall ${share(sum('right'), sum('total'), '0.00')}`;
  }

  function read(result) {
    const n = result.judged.length, wrong = result.judged.filter(one => !one.right);
    const list = items => (items.length > 8 ? `${items.slice(0, 8).join(', ')}, …` : items.join(', '));
    reading.replaceChildren(
      `${result.strong} places have a score of at least ${now.score.toFixed(2)}; `,
      now.overlap < 1 ? `${n} ${n === 1 ? 'box is' : 'boxes are'} left of them. `
        : 'all of their boxes are kept. ',
      el('strong', {}, `${result.right} of ${result.total} digits found, ${rates([result])}.`),
      result.missed.length ? ` Missed: ${list(result.missed)}.` : '',
      wrong.length ? ` Wrong: ${list(wrong.map(one => `${one.label} (${one.score.toFixed(2)})`))}.` : '',
      ` All ${scenes.length} scenes: ${rates(scenes.map(answer))}.`);
  }

  // ---- controls -----------------------------------------------------------------------------------
  function slide(name, text, low) {
    const output = el('span', {class: 'cv-num'});
    const input = el('input', {type: 'range', min: low, max: 1, step: 0.01,
      oninput: () => { now[name] = Number(input.value); draw(); }});
    slides.push({name, input, output});
    return el('label', {class: 'cv-slide'}, el('span', {}, text), input, output);
  }

  const slides = [];
  const buttons = scenes.map((_, i) => el('button',
    {type: 'button', onclick: () => { now.scene = i; draw(); }}, `scene ${i + 1}`));
  const heat = el('input', {type: 'checkbox', checked: true,
    onchange: () => { now.heat = heat.checked; draw(); }});
  const canvas = el('canvas', {'aria-hidden': 'true'});
  const svg = el('svg:svg', {role: 'img',
    'aria-label': 'The scene with true and found boxes; the text below counts them'});
  const reading = el('p', {class: 'cv-reading cv-num', 'aria-live': 'polite'});
  const key = (name, text) => el('span', {}, el('span', {class: `cv-key ${name}`}), text);
  place.append(
    el('div', {class: 'cv-row'},
      el('span', {class: 'cv-group', role: 'group', 'aria-label': 'Scenes'}, ...buttons),
      el('label', {}, heat, 'heat map')),
    slide('score', 'least score', 0.05), slide('overlap', 'largest overlap', 0),
    el('div', {class: 'cv-scene'}, canvas, svg),
    el('div', {class: 'cv-row'}, key('cv-right', 'right'), key('cv-wrong', 'wrong'),
      key('cv-true', 'true box')),
    reading);
  draw();
});
