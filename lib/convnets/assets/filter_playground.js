// A small kernel over a real image: the output is drawn anew with every change of a weight.
cv.figure('filter_playground', (place, {images, labels, kernels, first}) => {
  const {el, set, number} = cv;
  const range = n => [...Array(n).keys()];
  const copy = rows => rows.map(row => [...row]);

  let image = images[0];
  let kernel = copy(kernels[first]);
  let output = [];
  let at = null;  // the chosen output, [row, column]

  // ---- arithmetic: F.convolution_2d of one channel, stride 1, no padding -------------------------
  function convolve() {
    const k = kernel.length;
    const value = (r, c) => kernel.reduce((sum, row, a) =>
      sum + row.reduce((part, weight, b) => part + weight * image[r + a][c + b], 0), 0);
    return range(image.length - k + 1).map(r =>
      range(image[0].length - k + 1).map(c => value(r, c)));
  }

  // ---- pictures -----------------------------------------------------------------------------------
  const grey = value => [255 * value, 255 * value, 255 * value];

  // White at 0, red above, blue below: the sign is what a filter says.
  function signed(value) {
    const end = value > 0 ? [178, 24, 43] : [33, 102, 172];
    return end.map(channel => 255 + (channel - 255) * Math.min(Math.abs(value), 1));
  }

  function paint(canvas, values, colour) {
    const [height, width] = [values.length, values[0].length];
    Object.assign(canvas, {height, width});
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(width, height);
    values.flat().forEach((value, i) => pixels.data.set([...colour(value), 255], 4 * i));
    context.putImageData(pixels, 0, 0);
  }

  // The frame around the chosen window, in per cent of the picture.
  function frame(node, [row, col], size, values) {
    const [height, width] = [values.length, values[0].length];
    Object.assign(node.style, {
      top: `${100 * row / height}%`, left: `${100 * col / width}%`,
      height: `${100 * size / height}%`, width: `${100 * size / width}%`,
    });
  }

  function picture(label, attributes = {}) {
    const canvas = el('canvas', {role: 'img', 'aria-label': label});
    const box = el('div', {class: 'cv-frame'});
    return {canvas, box, holder: el('div', {class: 'cv-picture', ...attributes}, canvas, box)};
  }

  // ---- redraw -------------------------------------------------------------------------------------
  function draw() {
    const bad = kernel.flat().some(Number.isNaN);
    reading.classList.toggle('cv-bad', bad);
    if (bad) {
      reading.textContent = 'A weight of the kernel is not a number.';
      return;
    }
    output = convolve();
    const top = Math.max(...output.flat().map(Math.abs)) || 1;
    paint(source.canvas, image, grey);
    paint(result.canvas, output, value => signed(value / top));
    sizes.textContent = `${image.length} × ${image[0].length} input, ${kernel.length} × ${
      kernel.length} kernel, ${output.length} × ${output[0].length} output; the weights sum to ${
      number(kernel.flat().reduce((a, b) => a + b, 0), 3)}`;
    const strongest = output.flat().map(Math.abs).indexOf(top);
    at = (at ?? [Math.floor(strongest / output[0].length), strongest % output[0].length])
      .map((x, axis) => Math.min(x, (axis ? output[0] : output).length - 1));
    point();
  }

  function point() {
    frame(source.box, at, kernel.length, image);
    frame(result.box, at, 1, output);
    reading.replaceChildren(`y[${at.join(', ')}] = `,
      el('strong', {}, number(output[at[0]][at[1]], 3)), '  (red above 0, blue below)');
  }

  // ---- moving and editing -------------------------------------------------------------------------
  function moveTo(row, col) {
    const clamp = (x, n) => Math.min(Math.max(x, 0), n - 1);
    at = [clamp(row, output.length), clamp(col, output[0].length)];
    point();
  }

  function arrows(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(at[0] + step[0], at[1] + step[1]);
  }

  function follow(event, shift) {
    const area = event.currentTarget.getBoundingClientRect();
    const values = shift ? image : output;
    moveTo(Math.floor((event.clientY - area.top) / area.height * values.length) - shift,
      Math.floor((event.clientX - area.left) / area.width * values[0].length) - shift);
  }

  function press(buttons, chosen) {
    buttons.forEach(button => set(button, 'aria-pressed', String(button === chosen)));
  }

  function showKernel() {
    weights.style.setProperty('--cols', kernel.length);
    weights.replaceChildren(...kernel.flatMap((row, a) => row.map((weight, b) => el('input', {
      type: 'text', inputmode: 'decimal', value: Number(weight.toFixed(3)),
      'aria-label': `weight ${a}, ${b}`, oninput: event => edit(a, b, event.target),
    }))));
  }

  function edit(a, b, input) {
    kernel[a][b] = input.value.trim() === '' ? NaN : Number(input.value.replace('\u2212', '-'));
    set(input, 'aria-invalid', Number.isNaN(kernel[a][b]) && 'true');
    press(presets, null);
    draw();
  }

  // ---- the parts ----------------------------------------------------------------------------------
  const source = picture('Input');
  const result = picture('Output', {
    tabindex: 0, role: 'application', 'aria-label': 'Output; arrow keys move the window',
  });
  const weights = el('div', {class: 'cv-weights', role: 'group', 'aria-label': 'Kernel weights'});
  const reading = el('p', {class: 'cv-reading', 'aria-live': 'polite'});
  const sizes = el('p', {class: 'cv-muted'});
  source.holder.addEventListener('pointermove',
    event => follow(event, Math.floor(kernel.length / 2)));
  result.holder.addEventListener('pointermove', event => follow(event, 0));
  result.holder.addEventListener('pointerdown', event => follow(event, 0));
  result.holder.addEventListener('keydown', arrows);

  const presets = Object.keys(kernels).map(name => el('button', {
    type: 'button', 'aria-pressed': String(name === first),
    onclick: event => {
      kernel = copy(kernels[name]);
      press(presets, event.currentTarget);
      showKernel();
      draw();
    },
  }, name));
  const choices = images.map((picked, i) => el('button', {
    type: 'button', 'aria-pressed': String(i === 0),
    onclick: event => { image = picked; press(choices, event.currentTarget); at = null; draw(); },
  }, labels[i]));
  const panel = (title, body) =>
    el('div', {class: 'cv-panel'}, el('div', {class: 'cv-title'}, title), body);

  place.append(
    el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Kernels'}, ...presets),
    images.length > 1 &&
      el('div', {class: 'cv-row', role: 'group', 'aria-label': 'Images'}, 'image', ...choices) || '',
    el('div', {class: 'cv-panels'}, panel('Input', source.holder), panel('Kernel', weights),
      panel('Output', result.holder)),
    reading, sizes);
  showKernel();
  draw();
});
