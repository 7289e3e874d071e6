// The Python of one page: a worker that runs one piece of code at a time. worker.js lists the
// messages that go to and fro.

const WORKER = new URL('worker.js', import.meta.url);

// What a run ends with when Python was stopped or lost before it was done.
export class Stopped extends Error {}

export class Session extends EventTarget {
  // off -> loading -> ready <-> running; from each of them to off (stopped) or failed.
  state = 'off';
  python = '';
  seconds = null;   // how long the last start took
  #options;
  #worker = null;
  #ready = null;
  #queue = [];
  #current = null;
  #count = 0;

  // options: {base, packages, folder, before() -> promise, files() -> list, setup() -> code}; these three
  // are asked at each start. The setup runs before everything else.
  constructor(options) {
    super();
    this.#options = options;
  }

  // Start Python unless it runs; resolves when it is ready.
  start() {
    if (!this.#ready) {
      this.#ready = new Promise((resolve, reject) => { this.#current = {resolve, reject}; });
      this.#ready.catch(() => {});   // the state says it, too
      this.#load();
    }
    return this.#ready;
  }

  async #load() {
    this.#set('loading');
    const {base, packages, folder, before, files} = this.#options;
    const started = this.#ready;
    await before();
    if (this.#ready !== started) return;   // stopped meanwhile
    const worker = this.#worker = new Worker(WORKER, {type: 'module'});
    worker.onmessage = ({data}) => this.#hear(data);
    worker.onerror = event => {
      event.preventDefault();
      this.#fail(event.message || 'the worker could not be loaded');
    };
    worker.onmessageerror = () => this.#fail('a message of the worker could not be read');
    worker.postMessage({type: 'start', base, packages, folder});
    worker.postMessage({type: 'files', files: files()});
  }

  // Run code; resolves to {status, seconds}, rejects with Stopped.
  // on: {output(output), clear(wait), start()}
  run(code, name = 'page', on = {}) {
    return new Promise((resolve, reject) => {
      this.#count += 1;
      this.#queue.push({id: `${name}:${this.#count}`, code, name, on, resolve, reject});
      this.start();
      this.#next();
    });
  }

  // End Python at once, whatever it does. All variables are gone.
  stop() {
    this.#end('off', new Stopped('stopped'));
  }

  async restart() {
    this.stop();
    return this.start();
  }

  #next() {
    if (this.#current || !this.#queue.length) return;   // a start counts as current, too
    this.#current = this.#queue.shift();
    const {id, code, name, on} = this.#current;
    this.#set('running');
    on.start?.();
    this.#worker.postMessage({type: 'run', id, code, name});
  }

  #hear(message) {
    const heard = {
      progress: () => this.#tell('progress', message),
      ready: () => this.#isReady(message),
      failed: () => this.#fail(message.message),
      output: () => this.#current?.on?.output?.(message.output),
      clear: () => this.#current?.on?.clear?.(message.wait),
      done: () => this.#done(message),
    }[message.type];
    const late = 'id' in message && message.id !== this.#current?.id;
    if (!late) heard?.();
  }

  #isReady({seconds, python}) {
    Object.assign(this, {seconds, python});
    const {resolve, reject} = this.#current;
    this.#current = null;
    this.#set('ready');
    this.#queue.unshift({
      id: 'page:setup', code: this.#options.setup(), name: 'page', on: {}, resolve, reject});
    this.#next();
  }

  #done({status, seconds}) {
    const {resolve} = this.#current;
    this.#current = null;
    this.#set('ready');
    resolve({status, seconds});
    this.#next();
  }

  #fail(message) {
    this.#end('failed', new Stopped(message), message);
  }

  #end(state, error, message) {
    this.#worker?.terminate();
    const ended = [this.#current, ...this.#queue].filter(Boolean);
    this.#worker = this.#ready = this.#current = null;
    this.#queue = [];
    this.#set(state, message);
    for (const {reject} of ended) reject(error);
  }

  #set(state, message) {
    this.state = state;
    this.#tell('state', {state, message});
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}));
  }
}
