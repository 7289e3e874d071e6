// Shared by every figure on a page; the first copy that runs serves them all.
window.cv ??= (() => {
  const SVG = 'http://www.w3.org/2000/svg';

  // el('button', {class: 'a', onclick: f}, 'text', child): one element. Names with 'svg:' are SVG.
  function el(tag, attributes = {}, ...children) {
    const node = tag.startsWith('svg:')
      ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) set(node, name, value);
    node.append(...children.filter(child => child != null));
    return node;
  }

  function set(node, name, value) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === false || value == null) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? '' : value);
  }

  // `code` and *emphasis* in text from Python, as nodes: nothing is ever parsed as HTML.
  function text(source) {
    const tags = {'`': 'code', '*': 'em'};
    return source.split(/(`[^`]+`|\*[^*\s][^*]*\*)/).filter(Boolean).map(part =>
      tags[part[0]] && part.length > 2 && part.at(-1) === part[0]
        ? el(tags[part[0]], {}, part.slice(1, -1)) : part);
  }

  // 2 -> '2', -0.5 -> '−0.5' (a true minus), at most `digits` decimals.
  function number(value, digits = 2) {
    const rounded = Number(value.toFixed(digits));
    return (rounded < 0 ? '\u2212' : '') + String(Math.abs(rounded));
  }

  // Ids differ even where one figure stands twice on a page.
  function freshId(base) {
    let id = base;
    for (let n = 2; document.getElementById(id); n += 1) id = `${base}-${n}`;
    return id;
  }

  // figure(name, draw): draws every figure of that name which has not been drawn yet.
  function figure(name, draw) {
    for (const root of document.querySelectorAll(`[data-cv="${name}"]:not([data-cv-ready])`)) {
      root.dataset.cvReady = '';
      const id = root.id;
      root.removeAttribute('id');
      root.id = freshId(id);
      const place = el('div', {class: 'cv-live'});
      draw(place, JSON.parse(root.querySelector('.cv-state').textContent), root);
      root.querySelector('.cv-static').replaceWith(place);
    }
  }

  return {el, set, text, number, freshId, figure};
})();
