// The output of one cell: what is stored in the book, and what a run puts in its place.

import {el} from './dom.js';
import {Terminal} from './terminal.js';

const WIDGET_VIEW = 'application/vnd.jupyter.widget-view+json';
const WIDGET_STATE = 'application/vnd.jupyter.widget-state+json';
const ANSI = /\x1b\[[0-9;?]*[A-Za-z]/g;

// Of several forms of one result the first that is there is shown.
const SHOWN = [
  [WIDGET_VIEW, showWidget],
  ['text/html', showHTML],
  ['image/svg+xml', svg => el('div', {class: 'output image_svg'}, parse(svg))],
  ['image/png', showImage],
  ['image/jpeg', showImage],
  ['text/plain', text => block('text_plain', text)],
];

// Code and output that scroll can be reached by keyboard.
const scrollers = new ResizeObserver(entries => {
  for (const {target} of entries) {
    const scrolls = target.scrollWidth > target.clientWidth
      || target.scrollHeight > target.clientHeight;
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute('tabindex');
  }
});

export class Outputs {
  replaced = false;   // whether another output than the stored one is shown
  #area;
  #stored;
  #made;              // the area is not the book's: its cell has no stored output
  #stale = new Set(); // what the run before left, until this run shows something
  #clearing = false;
  #stream = null;     // {name, terminal, pre} of the last output, if it is text

  // cell: the element of a cell; its output stands at its end.
  constructor(cell) {
    this.#area = cell.querySelector('.cell_output');
    this.#made = !this.#area;
    this.#area ??= el('div', {class: 'cell_output docutils container'});
    if (this.#made) cell.append(this.#area);
    this.#area.hidden = this.#made;
    this.#stored = [...this.#area.childNodes];
  }

  get area() {
    return this.#area;
  }

  // A run starts: the old output stays until there is a new one.
  begin() {
    this.#stale = new Set(this.#area.childNodes);
    this.#stream = null;
    this.#clearing = false;
    this.#area.setAttribute('aria-busy', 'true');
    // What stands below does not jump while the output grows again.
    this.#area.style.minHeight = `${this.#area.offsetHeight}px`;
  }

  add(output) {
    if (this.#keepsStored(output)) return;
    this.#area.hidden = false;
    if (this.#clearing) this.#empty();
    if (output.output_type === 'stream') this.#write(output);
    else {
      this.#stream = null;
      this.#show(output);
    }
    this.#dropStale();
  }

  // IPython's clear_output: at once, or when the next output comes.
  clear(wait) {
    this.replaced = true;
    if (wait) this.#clearing = true;
    else this.#empty();
  }

  // A run is over; one that shows nothing leaves nothing, unless it was cut off.
  end(cut = false) {
    if (!cut) {
      this.replaced ||= this.#stale.size > 0;
      for (const node of this.#stale) node.remove();
    }
    this.#stale.clear();
    this.#area.removeAttribute('aria-busy');
    this.#area.style.minHeight = '';
    this.#area.hidden = !this.#area.childNodes.length;
  }

  putBack() {
    this.#stale.clear();
    this.#stream = null;
    this.#area.replaceChildren(...this.#stored);
    this.#area.hidden = this.#made;
    this.replaced = false;
  }

  // A Jupyter widget that comes without its state: the stored one still works.
  #keepsStored(output) {
    const data = output.data ?? {};
    const kept = WIDGET_VIEW in data && !(WIDGET_STATE in data) && this.#stored.length > 0;
    if (kept) this.#stale.clear();
    return kept;
  }

  #write({name, text}) {
    this.replaced = true;
    if (this.#stream?.name !== name) {
      const element = block(name === 'stderr' ? 'stream stderr' : 'stream', '');
      this.#stream = {name, terminal: new Terminal(), pre: element.querySelector('pre')};
      this.#area.append(element);
    }
    const {terminal, pre} = this.#stream;
    terminal.write([text].flat().join(''));
    const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    pre.textContent = terminal.text;
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }

  #show(output) {
    const same = this.#sameFigure(output.data?.['text/html']);
    if (same) {
      this.#stale.delete(same);
      return;
    }
    const node = output.output_type === 'error' ? showError(output) : showData(output);
    if (!node) return;
    this.replaced = true;
    this.#area.append(node);
    runScripts(node);
    node.dispatchEvent(new CustomEvent('live-shown'));
  }

  // A figure's id is a hash of all it shows: the same one stays as its reader has left it.
  #sameFigure(html) {
    const [, id] = [html].flat().join('').match(/^<figure class="cv [^>]*?id="([^"]+)"/) ?? [];
    return id && [...this.#stale].find(node => node.querySelector?.(
      `figure.cv[id="${id}"], figure.cv[id^="${id}-"]`));
  }

  #dropStale() {
    for (const node of this.#stale) {
      if (node.querySelector?.('figure.cv')) continue;   // this run may show it again
      node.remove();
      this.#stale.delete(node);
    }
  }

  #empty() {
    this.#area.replaceChildren();
    this.#stale.clear();
    this.#stream = null;
    this.#clearing = false;
  }
}

function showData(output) {
  const [mime, show] = SHOWN.find(([mime]) => mime in (output.data ?? {})) ?? [];
  if (!show) return null;
  const content = output.data[mime];
  return show(mime === WIDGET_VIEW ? content : [content].flat().join(''), output, mime);
}

// Text, with the classes that the book's own outputs have.
function block(kind, text) {
  const pre = el('pre', {}, text);
  scrollers.observe(pre);
  return el('div', {class: `output ${kind} highlight-myst-ansi notranslate`},
    el('div', {class: 'highlight'}, pre));
}

function parse(html) {
  return document.createRange().createContextualFragment(html);
}

function showHTML(html) {
  const node = el('div', {class: 'output text_html'});
  node.innerHTML = html;   // no script in it runs yet
  return node;
}

function showImage(base64, output, mime) {
  const {alt = 'Figure drawn by this cell', width} = output.metadata?.[mime] ?? {};
  return el('img', {class: 'output', src: `data:${mime};base64,${base64.trim()}`, alt, width});
}

function showError({ename, evalue, traceback = []}) {
  const text = traceback.length ? traceback.join('\n') : `${ename}: ${evalue}`;
  const node = block('traceback', text.replace(ANSI, ''));
  const pre = node.querySelector('pre');
  // The last line says what went wrong.
  requestAnimationFrame(() => { pre.scrollTop = pre.scrollHeight; });
  return node;
}

// A Jupyter widget with its state, drawn by the book's own copy of the widget manager.
function showWidget(view, {data}) {
  const json = (type, value) => el('script', {type}, JSON.stringify(value));
  const node = el('div', {class: 'output'},
    json(WIDGET_STATE, data[WIDGET_STATE] ?? {}), json(WIDGET_VIEW, view));
  node.addEventListener('live-shown', () => window.require?.(
    ['@jupyter-widgets/html-manager/dist/libembed-amd'],
    manager => manager.renderWidgets(node)));
  return node;
}

// Scripts that come as text run when they are made anew, in order and in their place.
function runScripts(node) {
  for (const old of node.querySelectorAll('script')) {
    const script = el('script', {}, old.textContent);
    for (const {name, value} of old.attributes) script.setAttribute(name, value);
    old.replaceWith(script);
  }
}
