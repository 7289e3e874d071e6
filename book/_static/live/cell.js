// One code cell: its buttons, its editor, its output.

import {button, duration, el} from './dom.js';
import {Outputs} from './outputs.js';
import {Stopped} from './session.js';

export class Cell {
  result = null;    // 'ok' or 'error' of the last run in this Python; null: has not run
  #running = null;  // the promise of a run that waits or goes on
  #editor = null;
  #text;
  #page;
  #tools = {};

  // data: {id, source, tags, reason}; page: {name, run(cell), runAbove(cell), next(cell),
  // session}; number: from 1.
  constructor(data, number, page) {
    Object.assign(this, {data, number, node: document.getElementById(`cell-${data.id}`)});
    this.#page = page;
    this.#text = data.source;
    if (!this.node) return;   // a cell that the page does not show runs all the same
    this.code = this.node.querySelector('.cell_input');
    this.outputs = new Outputs(this.node);
    this.node.classList.add('live-cell');
    if (this.code) this.#addTools();
    if (this.text !== data.source) this.edit(false);
  }

  get runs() {
    return !this.data.tags.includes('not-in-browser');
  }

  get mayFail() {
    return this.data.tags.includes('raises-exception');
  }

  get text() {
    return this.#text;
  }

  get #key() {
    return `live:${this.#page.name}:${this.data.id}`;
  }

  #addTools() {
    const named = (label, act) =>
      button(label, act, {'aria-label': `${label}: cell ${this.number}`});
    this.#tools = {
      run: named('Run', () => this.#page.run(this)),
      above: named('Run above', () => this.#page.runAbove(this)),
      edit: named('Edit', () => this.edit(true)),
      reset: named('Reset', () => this.reset()),
      back: named('Stored output', () => this.putBack()),
      note: el('span', {class: 'live-note'}),
    };
    this.#tools.run.classList.add('live-run');
    this.#tools.run.prepend(el('span', {'aria-hidden': 'true', class: 'live-play'}));
    this.#tools.above.title = 'Run all cells above, then this one';
    this.#tools.reset.title = "The book's code again";
    const bar = el('div', {class: 'live-tools', role: 'group', 'aria-label': `Cell ${this.number}`});
    bar.append(...(this.runs ? Object.values(this.#tools) : [this.#reason()]));
    this.node.insertBefore(bar, this.outputs.area);
    if (this.runs) {
      this.code.addEventListener('click', event => this.#clicked(event));
      this.#restore();
    }
    this.#show();
  }

  #reason() {
    const why = this.data.reason ?? 'it needs more than a browser has';
    return el('span', {class: 'live-note'}, `Not run here: ${why}. This is its stored output.`);
  }

  // A click on the code opens it, unless somebody selects text or taps to read.
  #clicked(event) {
    const selects = !getSelection().isCollapsed;
    if (this.#editor || selects || event.pointerType !== 'mouse' || event.target.closest('button')) {
      return;
    }
    this.edit(true, event);
  }

  async edit(focus, at = null) {
    for (let box = this.code; (box = box.parentElement?.closest('details')); ) box.open = true;
    if (!this.#editor) {
      const {openEditor} = await import('./editor.js');
      this.#editor ??= this.#open(openEditor);
    }
    if (!focus) return;
    if (at) this.#editor.focusAt(at);
    else this.#editor.focus();
  }

  #open(openEditor) {
    const place = el('div', {class: 'live-editor'});
    this.code.querySelector('.highlight').parentElement.hidden = true;
    this.code.append(place);
    const label = `Code of cell ${this.number}. Shift+Enter runs it, Escape leaves it.`;
    const editor = openEditor(place, this.#text, label, {
      change: text => this.#change(text),
      run: next => this.#runFromKeyboard(next),
      leave: () => this.#tools.run.focus(),
    });
    return {...editor, close: () => {
      editor.close();
      place.remove();
      this.code.querySelector('.highlight').parentElement.hidden = false;
    }};
  }

  #runFromKeyboard(next) {
    if (next) this.#page.next(this)?.focus();
    this.#page.run(this);
  }

  focus() {
    this.#tools.run.focus();
  }

  #change(text) {
    this.#text = text;
    try {
      const edited = JSON.stringify({from: this.data.source, to: text});
      if (text === this.data.source) sessionStorage.removeItem(this.#key);
      else sessionStorage.setItem(this.#key, edited);
    } catch {
      // The reader allows no storage: the edit lasts as long as the page.
    }
    this.#show();
  }

  // An edit of this tab comes back, unless the book's own code has changed since.
  #restore() {
    const {from, to} = kept(this.#key);
    if (from === this.data.source) this.#text = to;
  }

  reset() {
    this.#editor?.close();
    this.#editor = null;
    this.#tools.edit.focus();
    this.#change(this.data.source);
  }

  putBack() {
    this.outputs.putBack();
    this.#tools.run.focus();
    this.#show();
  }

  // Run in the page's Python; resolves to 'ok', 'error' (which is `last` then) or 'stopped'.
  run() {
    if (!this.runs) return Promise.resolve('ok');
    this.#running ??= this.#run().finally(() => { this.#running = null; });
    return this.#running;
  }

  async #run() {
    this.last = null;
    this.#mark('waiting');
    try {
      const {status, seconds} = await this.#page.session.run(this.#text, `cell ${this.number}`, {
        start: () => this.#begin(),
        output: output => this.#add(output),
        clear: wait => this.outputs?.clear(wait),
      });
      this.outputs?.end();
      this.result = status;
      this.#mark(status, duration(seconds));
      return status;
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      this.outputs?.end(true);
      this.#mark('lost', 'stopped');
      return 'stopped';
    }
  }

  #begin() {
    this.outputs?.begin();
    this.#mark('running');
  }

  #add(output) {
    if (output.output_type === 'error') this.last = output;
    const held = this.outputs?.area.contains(document.activeElement);
    this.outputs?.add(output);
    if (held && !this.outputs.area.contains(document.activeElement)) this.#tools.run?.focus();
  }

  // The variables of this cell are gone.
  forget() {
    if (this.result) this.#mark('lost', 'ran before Python was restarted');
    this.result = null;
  }

  #mark(state, note = state) {
    if (!this.node) return;
    this.node.dataset.live = state;
    if (this.#tools.note) this.#tools.note.textContent = note;
    this.#show();
  }

  #show() {
    const {reset, back} = this.#tools;
    if (!reset) return;
    reset.hidden = this.#text === this.data.source;
    back.hidden = !this.outputs.replaced;
    this.node.classList.toggle('live-edited', !reset.hidden);
  }
}

function kept(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

// How many cells of a page carry an edit of this tab.
export function edits(page) {
  return page.cells.filter(({id, source}) => kept(`live:${page.name}:${id}`).from === source).length;
}
