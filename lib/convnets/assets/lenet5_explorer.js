// A digit to draw, and LeNet5 computed in the page with every stroke.
cv.figure('lenet5_explorer', (place, {weights, digits, labels}, root) => {
  const {el, set} = cv;
  const SIZE = 28;
  const range = n => [...Array(n).keys()];
  const bytes = text => Uint8Array.from(atob(text), char => char.charCodeAt(0));

  // ---- the network: convnets.models.LeNet5, one image at a time ------------------------------------
  const values = new Float32Array(bytes(weights).buffer);
  let taken = 0;
  const take = count => values.subarray(taken, taken += count);
  const layer = (outputs, inputs, ksize) =>
    ({outputs, inputs, ksize, W: take(outputs * inputs * ksize * ksize), b: take(outputs)});
  const [conv1, conv2, conv3, fc4, fc5] =
    [[6, 1, 5], [16, 6, 5], [120, 16, 4], [84, 120, 1], [10, 84, 1]].map(it => layer(...it));
  const sigmoid = x => 1 / (1 + Math.exp(-x));

  // Maps are {channels, size, data}: (C, H, W) with H = W. A linear layer is a convolution of 1 x 1.
  function convolution({outputs, inputs, ksize, W, b}, x, activation = sigmoid) {
    const size = x.size - ksize + 1;
    const data = new Float64Array(outputs * size * size);
    for (let o = 0, at = 0; o < outputs; o += 1) {
      for (let r = 0; r < size; r += 1) {
        for (let c = 0; c < size; c += 1, at += 1) {
          let sum = b[o];
          for (let i = 0, w = o * inputs * ksize * ksize; i < inputs; i += 1) {
            for (let dr = 0; dr < ksize; dr += 1) {
              const from = (i * x.size + r + dr) * x.size + c;
              for (let dc = 0; dc < ksize; dc += 1, w += 1) sum += W[w] * x.data[from + dc];
            }
          }
          data[at] = activation(sum);
        }
      }
    }
    return {channels: outputs, size, data};
  }

  // The largest of each 2 x 2; all sizes here are even.
  function pool({channels, size, data}) {
    const half = size / 2;
    return {channels, size: half, data: Float64Array.from({length: channels * half * half}, (_, i) => {
      const at = 2 * size * Math.floor(i / half) + 2 * (i % half);
      return Math.max(data[at], data[at + 1], data[at + size], data[at + size + 1]);
    })};
  }

  function softmax({data, ...maps}) {
    const top = Math.max(...data);
    const powers = data.map(x => Math.exp(x - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return {...maps, data: powers.map(x => x / sum)};
  }

  function compute(image) {
    const x = {channels: 1, size: SIZE, data: image};
    const h1 = convolution(conv1, x);
    const p1 = pool(h1);
    const h2 = convolution(conv2, p1);
    const p2 = pool(h2);
    const h3 = convolution(conv3, p2);
    const h4 = convolution(fc4, h3);
    const y = convolution(fc5, h4, it => it);
    return {conv1: h1, pool1: p1, conv2: h2, pool2: p2, conv3: h3, fc4: h4, fc5: y, prob: softmax(y)};
  }

  // ---- drawing -------------------------------------------------------------------------------------
  const image = new Float64Array(SIZE * SIZE);  // 0 to 1
  let at = [14, 14];  // the pixel under the keyboard's pencil, [row, column]
  let last = null;    // where the pointer's stroke was, in pixels

  // A round pencil, as soft at its edge as MNIST's strokes are; the eraser is the same one.
  function dab(row, col) {
    const erase = eraser.checked;
    for (let r = Math.max(0, Math.floor(row) - 2); r <= Math.min(SIZE - 1, row + 2); r += 1) {
      for (let c = Math.max(0, Math.floor(col) - 2); c <= Math.min(SIZE - 1, col + 2); c += 1) {
        const ink = Math.min(1, Math.max(0, 1.9 - Math.hypot(r + .5 - row, c + .5 - col)));
        const i = r * SIZE + c;
        image[i] = erase ? Math.min(image[i], 1 - ink) : Math.max(image[i], ink);
      }
    }
  }

  function stroke(event) {
    const area = pad.getBoundingClientRect();
    const to = [(event.clientY - area.top) / area.height * SIZE,
      (event.clientX - area.left) / area.width * SIZE];
    const from = last ?? to;
    const steps = Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let i = 1; i <= steps; i += 1) {
      dab(...[0, 1].map(axis => from[axis] + (to[axis] - from[axis]) * i / steps));
    }
    last = to;
    at = to.map(x => Math.min(SIZE - 1, Math.max(0, Math.floor(x))));
    changed(null);
  }

  function keys(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step && event.key !== ' ') return;
    event.preventDefault();
    event.stopPropagation();
    if (step) {
      at = at.map((x, axis) => Math.min(SIZE - 1, Math.max(0, x + step[axis])));
      if (event.shiftKey) dab(at[0] + .5, at[1] + .5);
    } else {
      dab(at[0] + .5, at[1] + .5);
    }
    changed(event.shiftKey || !step ? null : undefined);
  }

  function load(index) {
    bytes(digits[index]).forEach((value, i) => { image[i] = value / 255; });
    changed(index);
  }

  // The makers of MNIST put each digit's centre of mass into the middle.
  function centre() {
    let [sum, row, col] = [0, 0, 0];
    image.forEach((ink, i) => {
      sum += ink;
      row += ink * (Math.floor(i / SIZE) + .5);
      col += ink * (i % SIZE + .5);
    });
    if (!sum) return;
    const [down, right] = [row, col].map(it => Math.round(SIZE / 2 - it / sum));
    const before = image.slice();
    image.fill(0);
    before.forEach((ink, i) => {
      const [r, c] = [Math.floor(i / SIZE) + down, i % SIZE + right];
      if (r >= 0 && r < SIZE && c >= 0 && c < SIZE) image[r * SIZE + c] = ink;
    });
    changed(null);
  }

  // ---- pictures ------------------------------------------------------------------------------------
  // Maps side by side, `columns` in a row, one pixel apart.
  function paint(canvas, {channels, size, data}, columns) {
    const step = size === 1 ? 1 : size + 1;
    const rows = Math.ceil(channels / columns);
    const gap = step - size;
    Object.assign(canvas, {width: columns * step - gap, height: rows * step - gap});
    const context = canvas.getContext('2d');
    for (const channel of range(channels)) {
      const pixels = context.createImageData(size, size);
      for (const i of range(size * size)) {
        pixels.data.set([...Array(3).fill(255 * data[channel * size * size + i]), 255], 4 * i);
      }
      context.putImageData(pixels, channel % columns * step, Math.floor(channel / columns) * step);
    }
  }

  function row(name, columns, title) {
    const canvas = el('canvas', {role: 'img', 'aria-label': title, style: `--columns: ${columns}`});
    return {name, columns, canvas, node: el('div', {class: `cv-layer cv-${name}`},
      el('div', {class: 'cv-muted'}, title), canvas)};
  }

  // ---- redraw --------------------------------------------------------------------------------------
  // chosen: the stored digit that is shown now; null: a drawing; undefined: the same as before.
  function changed(chosen) {
    if (chosen !== undefined) {
      choices.forEach((button, i) => set(button, 'aria-pressed', String(i === chosen)));
      const computed = compute(image);
      root.activations = computed;  // for the console: document.querySelector('...').activations
      for (const {name, columns, canvas} of layers) paint(canvas, computed[name], columns);
      read(computed.prob.data);
    }
    paint(pad.firstChild, {channels: 1, size: SIZE, data: image}, 1);
    Object.assign(pencil.style, {top: `${100 * at[0] / SIZE}%`, left: `${100 * at[1] / SIZE}%`});
  }

  const percent = share => `${(100 * share).toFixed(1)} %`;

  function read(probabilities) {
    probabilities.forEach((share, digit) => {
      bars[digit].bar.style.width = `${100 * share}%`;
      bars[digit].share.textContent = percent(share);
    });
    const best = probabilities.indexOf(Math.max(...probabilities));
    bars.forEach(({node}, digit) => node.classList.toggle('cv-best', digit === best));
    const empty = image.every(ink => ink === 0);
    answer.replaceChildren(empty ? 'Nothing is drawn, and yet it says ' : 'LeNet5 reads ',
      el('strong', {}, String(best)), ` (${percent(probabilities[best])})`);
  }

  // ---- the parts -----------------------------------------------------------------------------------
  const pencil = el('div', {class: 'cv-pencil'});
  const pad = el('div', {
    class: 'cv-pad', tabindex: 0, role: 'application',
    'aria-label': 'Drawing, 28 by 28 pixels. Arrow keys move the pencil, Space draws, '
      + 'Shift with an arrow key draws a line.',
    onpointerdown: event => {
      event.preventDefault();
      pad.focus();
      pad.setPointerCapture(event.pointerId);
      last = null;
      stroke(event);
    },
    onpointermove: event => pad.hasPointerCapture(event.pointerId) && stroke(event),
    onkeydown: keys,
  }, el('canvas', {'aria-hidden': 'true'}), pencil);
  const eraser = el('input', {type: 'checkbox'});
  const choices = labels.map((label, index) => el('button', {
    type: 'button', 'aria-pressed': 'false', 'aria-label': `stored digit ${label}`,
    onclick: () => load(index),
  }, label));
  const answer = el('p', {class: 'cv-answer', 'aria-live': 'polite'});
  const bars = range(10).map(digit => {
    const bar = el('div', {class: 'cv-bar'});
    const share = el('span', {class: 'cv-num'});
    return {bar, share, node: el('li', {}, el('span', {}, String(digit)),
      el('div', {class: 'cv-track'}, bar), share)};
  });
  const layers = [
    row('conv1', 6, 'conv1, sigmoid: 6 maps of 24 × 24'),
    row('pool1', 6, 'max pooling: 6 of 12 × 12'),
    row('conv2', 8, 'conv2, sigmoid: 16 maps of 8 × 8'),
    row('pool2', 8, 'max pooling: 16 of 4 × 4'),
    row('conv3', 40, 'conv3, sigmoid: 120 numbers'),
    row('fc4', 42, 'fc4, sigmoid: 84 numbers'),
  ];
  const action = (label, act) => el('button', {type: 'button', onclick: act}, label);

  place.append(
    el('div', {class: 'cv-panels'},
      el('div', {class: 'cv-input'},
        el('div', {class: 'cv-title'}, 'Draw here'), pad,
        el('div', {class: 'cv-row'},
          action('Clear', () => { image.fill(0); changed(null); }),
          action('Centre', centre), el('label', {}, eraser, 'eraser')),
        el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Stored digits'},
          'or take', ...choices)),
      el('div', {class: 'cv-layers'},
        el('div', {class: 'cv-title'}, 'What the layers say (black 0, white 1)'),
        ...layers.map(it => it.node)),
      el('div', {class: 'cv-output'},
        el('div', {class: 'cv-title'}, 'fc5, softmax'), answer,
        el('ol', {class: 'cv-bars', 'aria-label': 'Probabilities'}, ...bars.map(it => it.node)))));
  load(0);
});
