// el('button', {class: 'a', onclick: f, hidden: true}, 'text', child): one element.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter(child => child != null));
  return node;
}

// A button that keeps the focus when it cannot be used: it says so and does nothing.
export function button(label, onclick, attributes = {}) {
  const act = event => {
    if (event.currentTarget.getAttribute('aria-disabled') !== 'true') onclick(event);
  };
  return el('button', {type: 'button', class: 'live-button', ...attributes, onclick: act}, label);
}

export function enable(node, on) {
  node.setAttribute('aria-disabled', String(!on));
}

// 10800000 -> '10.8 MB'
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

// 0.312 -> '0.3 s', 83 -> '83 s'
export function duration(seconds) {
  return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
}
