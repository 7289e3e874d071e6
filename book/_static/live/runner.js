// "Run this page in your browser": makes the code cells of a page run, in a Python inside the tab.
//
// The build writes into the page what is to be run (#live-page, JSON) and a panel (#live) that says
// what it takes. Nothing is loaded before the reader asks for it. For figures on the page:
//   liveKernel.run(code) -> promise of a list of outputs (nbformat), starting Python if it must;
//   liveKernel.state, liveKernel.addEventListener('state', ...).

import {Bar} from './bar.js';
import {Cell, edits} from './cell.js';
import {button, duration, el, enable} from './dom.js';
import * as offline from './offline.js';
import * as progress from './progress.js';
import {Session, Stopped} from './session.js';

const page = JSON.parse(document.getElementById('live-page').textContent);
const panel = document.getElementById('live');
const absolute = path => new URL(path, document.baseURI).href;

const session = new Session({
  base: absolute(page.base),
  packages: page.packages,
  folder: page.folder,
  before: () => offline.keep(absolute(page.worker)),
  files: () => (page.lab ? [{path: progress.FILE, text: progress.stored()}] : []),
  setup: () => (page.lab ? progress.SETUP : 'pass'),
});

// What the buttons of a page do, once it runs.
class Runner {
  constructor() {
    this.name = page.name;
    this.session = session;
    this.cells = page.cells.map((data, index) => new Cell(data, index + 1, this));
    this.bar = new Bar({
      runAll: () => this.runAll(),
      stop: () => this.stop(),
      restart: () => this.restart(),
    }, page.lab && el('span', {class: 'live-solved'}));
    document.body.append(this.bar.node);
    document.documentElement.classList.add('live-on');
    session.addEventListener('progress', ({detail}) => this.bar.load(detail));
    session.addEventListener('state', ({detail}) => this.#changed(detail));
    if (page.lab) countSolved();
  }

  #changed({state, message}) {
    this.bar.session = state;
    enable(start, state !== 'running' && state !== 'loading');
    if (state === 'loading') this.bar.show('Starting Python', {aloud: true});
    if (state === 'off' || state === 'failed') for (const cell of this.cells) cell.forget();
    if (state === 'failed') {
      this.bar.show(`Python was lost: ${message}. Restart starts it again, without variables.`,
        {aloud: true, bad: true});
    }
    if (state === 'ready' && session.seconds) remember(session.seconds);
  }

  // Run cells in order; the first error that the book does not expect ends it.
  async #runCells(cells) {
    const begun = performance.now();
    for (const cell of cells) {
      if (cell.runs) this.bar.show(`Running cell ${cell.number} of ${this.cells.length}`);
      const result = await cell.run();
      await this.#afterRun();
      if (result === 'stopped') return;
      if (result === 'error' && !cell.mayFail) {
        this.#failed(cell);
        return;
      }
    }
    const seconds = duration((performance.now() - begun) / 1000);
    const what = cells.length === 1 ? `Cell ${cells[0].number}` : `${cells.length} cells`;
    this.bar.show(`${what} done in ${seconds}`, {aloud: true});
  }

  #failed(cell) {
    const {ename = 'Error', evalue = ''} = cell.last ?? {};
    this.bar.show(`Cell ${cell.number} stopped: ${ename}: ${evalue.split('\n')[0]}`,
      {aloud: true, bad: true});
    cell.node?.scrollIntoView({block: 'nearest'});
    const above = this.cells.slice(0, cell.number - 1);
    if (ename === 'NameError' && above.some(it => it.runs && !it.result)) this.#hint(cell);
  }

  // A name is missing, and cells above have not run: they make it.
  #hint(cell) {
    cell.outputs?.area.append(el('p', {class: 'live-hint'},
      'Cells above have not run since Python started. ',
      button('Run them', () => this.runAbove(cell))));
  }

  runAll() {
    return this.#runCells(this.cells);
  }

  run(cell) {
    return this.#runCells([cell]);
  }

  runAbove(cell) {
    return this.#runCells(this.cells.slice(0, cell.number));
  }

  // The next cell that has buttons.
  next(cell) {
    return this.cells.slice(cell.number).find(it => it.code && it.runs);
  }

  // A worker cannot be interrupted: it is ended, and a new one made ready.
  async stop() {
    await this.#again('Stopped. All variables are lost: Run all, or Run above at a cell, makes '
      + 'them again.');
  }

  async restart() {
    await this.#again('Python is new: there are no variables.');
  }

  async #again(text) {
    try {
      await session.restart();
      this.bar.show(text, {aloud: true});
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;   // the bar says what happened
    }
  }

  // A lab's checks have written what is solved: the browser keeps it.
  async #afterRun() {
    if (!page.lab || session.state !== 'ready') return;
    const outputs = await runHidden(progress.READ).catch(() => []);
    progress.keep(outputs.map(output => output.text ?? '').join(''));
    countSolved();
  }
}

function countSolved() {
  const done = progress.solved(page.lab.name).size;
  for (const place of document.querySelectorAll('.live-solved')) {
    place.textContent = `Solved: ${done} of ${page.lab.exercises}`;
  }
}

// A lab's line in the panel: what this browser knows to be solved, as a file to take along.
function labTools() {
  const file = el('input', {type: 'file', accept: '.jsonl', hidden: true, onchange: async () => {
    progress.keep(await file.files[0].text());
    file.value = '';
    countSolved();
  }});
  return el('div', {class: 'live-lab'},
    el('span', {class: 'live-solved', role: 'status'}),
    button('Save progress', progress.save, {title: 'As a file, for another browser or Jupyter'}),
    button('Load progress', () => file.click()),
    file);
}

async function runHidden(code) {
  const outputs = [];
  const {status} = await session.run(code, 'page', {output: output => outputs.push(output)});
  if (status === 'error') {
    const {ename, evalue} = outputs.findLast(output => output.output_type === 'error') ?? {};
    throw new Error(`${ename}: ${evalue}`);
  }
  return outputs;
}

// How long Python took to start here, for the next time.
function remember(seconds) {
  try {
    localStorage.setItem('live-seconds', String(seconds));
  } catch {
    // No storage: then no such line.
  }
}

function remembered() {
  try {
    return Number(localStorage.getItem('live-seconds'));
  } catch {
    return 0;
  }
}

let runner = null;

function begin() {
  runner ??= new Runner();
  note.textContent = 'Python runs in this tab: nothing is sent anywhere. Click on code to change it; '
    + 'the bar at the bottom has Stop and Restart.';
  start.textContent = 'Run all cells again';
  runner.runAll();
}

function say() {
  const seconds = remembered();
  const edited = edits(page);
  const parts = [
    seconds && `Python took ${duration(seconds)} to start here last time.`,
    edited && `Your edits of ${edited === 1 ? 'one cell' : `${edited} cells`} are kept in this tab.`,
  ];
  return parts.filter(Boolean).map(part => ` ${part}`).join('');
}

const note = panel.querySelector('.live-note');
const start = button('Run this page in your browser', begin, {class: 'live-button live-start'});
panel.querySelector('.live-place').replaceWith(start);
note.append(say());
if (page.lab) {
  panel.append(labTools());
  countSolved();
}

window.liveKernel = {
  get state() {
    return session.state;
  },
  run(code) {
    runner ??= new Runner();
    return runHidden(code);
  },
  addEventListener: (...args) => session.addEventListener(...args),
};
