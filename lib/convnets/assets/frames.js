// Drawn frames behind a slider, for a Python without Jupyter's widgets.
cv.figure('frames', (place, {labels, pictures, width, interval}) => {
  const {el} = cv;
  const label = el('p', {'aria-live': 'polite'});
  const image = el('img', {width, style: 'max-width: 100%; height: auto; background: #fff'});
  const slider = el('input', {
    type: 'range', min: 0, max: labels.length - 1, value: 0, 'aria-label': 'frame',
    oninput: () => show(Number(slider.value)),
  });
  const button = el('button', {type: 'button', onclick: () => (timer ? stop() : play())}, 'Play');
  let timer = null;

  function show(index) {
    slider.value = index;
    slider.setAttribute('aria-valuetext', labels[index]);
    label.textContent = labels[index];
    image.src = pictures[index].source;
    image.alt = `${labels[index]}: ${pictures[index].alt}`;
  }

  function play() {
    if (Number(slider.value) === labels.length - 1) show(0);
    button.textContent = 'Pause';
    timer = setInterval(() => {
      show(Number(slider.value) + 1);
      if (Number(slider.value) === labels.length - 1 || !place.isConnected) stop();
    }, interval);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = 'Play';
  }

  show(0);
  place.append(el('div', {class: 'cv-row'}, button, slider), label, image);
});
