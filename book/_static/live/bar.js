// What is always at hand while a page runs: Run all, Stop, Restart, and what Python does now.

import {button, el, enable, megabytes} from './dom.js';

export class Bar {
  #parts;

  // act: {runAll(), stop(), restart()}; extra: one more element, or null
  constructor(act, extra) {
    this.#parts = {
      all: button('Run all', act.runAll),
      stop: button('Stop', act.stop, {title: 'End what runs now'}),
      restart: button('Restart', act.restart, {title: 'Python from new, without variables'}),
      fold: button('Fold', () => this.#fold(), {'aria-expanded': 'true', class: 'live-fold'}),
      state: el('p', {class: 'live-state'}),
      said: el('p', {class: 'visually-hidden', role: 'status', 'aria-live': 'polite'}),
      progress: el('progress', {'aria-label': 'Download', hidden: true}),
    };
    const {all, stop, restart, fold, state, said, progress} = this.#parts;
    this.#parts.body = el('div', {class: 'live-body', id: 'live-body'}, all, stop, restart, extra);
    fold.setAttribute('aria-controls', 'live-body');
    this.node = el('section', {class: 'live-bar', 'aria-label': 'Python in this page'},
      el('div', {class: 'live-line'}, state, fold), progress, this.#parts.body, said);
  }

  #fold() {
    const {body, fold} = this.#parts;
    body.hidden = !body.hidden;
    fold.setAttribute('aria-expanded', String(!body.hidden));
    fold.textContent = body.hidden ? 'Unfold' : 'Fold';
  }

  // Show a line; `aloud` has a screen reader say it.
  show(text, {aloud = false, bad = false} = {}) {
    const {state, said} = this.#parts;
    state.textContent = text;
    state.classList.toggle('live-bad', bad);
    if (aloud) said.textContent = text;
  }

  load({loaded, total, text}) {
    const {progress} = this.#parts;
    progress.hidden = false;
    if (total) Object.assign(progress, {max: total, value: loaded});
    else progress.removeAttribute('value');
    const size = loaded < total ? ` ${megabytes(loaded)} of ${megabytes(total)}` : '';
    this.show(`${text || 'Loading'}${size}`);
  }

  // What can be done in a state of the session.
  set session(state) {
    const {all, stop, progress} = this.#parts;
    const busy = state === 'running' || state === 'loading';
    this.node.dataset.session = state;
    if (state !== 'loading') progress.hidden = true;
    enable(all, !busy);
    enable(stop, busy);
  }
}
