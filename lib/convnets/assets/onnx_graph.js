// The nodes of an ONNX graph in the order of computation; a chosen one shows and follows its names.
cv.figure('onnx_graph', (place, {nodes}) => {
  const {el, set} = cv;

  // The ends are no nodes of the file, and have no number.
  const number = i => (i === 0 || i === nodes.length - 1 ? '' : `node ${i}`);

  function jump(i, words) {
    return el('button', {type: 'button', class: 'cv-jump', onclick: () => { choose(i); buttons[i].focus(); }},
      words);
  }

  function choose(i) {
    const {title, reads, attributes, writes, feeds} = nodes[i];
    const sources = new Set(reads.map(read => read.from));
    buttons.forEach((button, j) => {
      set(button, 'aria-pressed', String(i === j));
      button.classList.toggle('cv-source', sources.has(j));
      button.classList.toggle('cv-target', feeds.includes(j));
    });
    const rows = [
      ...reads.map(({text, from}) => ['reads', from === null ? text : [text, ' ', jump(from, `from ${nodes[from].op}`)]]),
      ...attributes,
      ...(writes ? [['writes', writes]] : []),
      ...(feeds.length ? [['read by', feeds.flatMap(j => [jump(j, nodes[j].op), ' '])]] : []),
    ];
    detail.replaceChildren(
      el('div', {class: 'cv-title'}, `${title} `, el('span', {class: 'cv-muted'}, number(i))),
      el('dl', {}, ...rows.flatMap(([name, value]) => [
        el('dt', {}, name), el('dd', {class: 'cv-num'}, ...[value].flat())])));
  }

  function arrows(event) {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons.indexOf(document.activeElement) + step;
    buttons[Math.min(Math.max(next, 0), buttons.length - 1)].focus();
  }

  const detail = el('div', {class: 'cv-detail', 'aria-live': 'polite'});
  const buttons = nodes.map((node, i) => el('button', {
    type: 'button', class: `cv-node cv-node-${node.group}`, 'aria-pressed': 'false', title: node.title,
    onclick: () => choose(i), onfocus: () => choose(i),
  }, node.op));
  place.append(
    el('div', {class: 'cv-nodes', role: 'group', 'aria-label': 'Nodes', onkeydown: arrows}, ...buttons),
    detail);
  choose(Math.min(1, nodes.length - 1));
});
