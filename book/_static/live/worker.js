// The Python of a page, in a module worker: loads the distribution, then does what the page asks,
// one thing after the other. To stop it, the page ends the worker and starts another.
//
// The page says                                   and hears
// {type: 'start', base, packages, folder?}        progress {loaded, total, text}, in bytes
//   base: absolute address of the distribution,   ready {seconds, python, packages}
//   with a / at its end                           failed {message}
//   folder: of the notebook: 'book', 'labs/...'
// {type: 'run', id, code, name}                   output {id, output}, in nbformat's form
//   name: of the cell, for tracebacks             clear {id, wait}
//                                                 done {id, status: 'ok' or 'error', seconds}
// {type: 'files', files: [{path, url | text}]}    (nothing; failed, if one cannot be had)
//   path: relative to the notebook's folder

import {
  LIBRARY, forgetOthers, keepLibrary, keepMade, latest, library, made, offer, startPyodide, stored,
  unpacked,
} from './distribution.js';

const site = '/lib/python3.14/site-packages/';
const home = '/home/pyodide/';
let folder = home;  // of the page's notebook
const say = (type, more = {}) => postMessage({ type, ...more });
// What Python compiles once, for the next start: most of the time of an import.
const COMPILED = 'compiled.zip';
const compiledFolder = '/var/compiled/';
let kernel, pyodide, keepCompiled, keepLibraryToo;
let lastRun = 0;  // when the last cell was done

// ---- Loading -----------------------------------------------------------------------------

// Bytes that came so far, of those that were announced.
const progress = { loaded: 0, total: 0, text: '', last: 0 };

function report(text) {
  const now = performance.now();
  if (text === progress.text && now - progress.last < 100) return;
  Object.assign(progress, { text, last: now });
  say('progress', { loaded: progress.loaded, total: progress.total, text });
}

// A Response whose bytes are counted; a packed file is unpacked on the way.
function counted(response, name) {
  const counter = new TransformStream({
    transform(chunk, controller) {
      progress.loaded += chunk.byteLength;
      report('Downloading');
      controller.enqueue(chunk);
    },
  });
  return unpacked(response.body.pipeThrough(counter), name);
}

// A package and all that it needs, in an order in which each comes after its needs.
function closure(names, packages, found = new Set()) {
  for (const name of names) {
    const entry = packages[name];
    if (!entry || found.has(name)) continue;
    closure(entry.depends, packages, found);
    found.add(name);
  }
  return found;
}

// Python asks for a package in the middle of an import: only a request that waits will do.
function fetchNow(url) {
  const request = new XMLHttpRequest();
  request.open('GET', url, false);
  request.responseType = 'arraybuffer';
  request.send();
  if (request.status !== 200) throw new Error(`${url}: the server answered ${request.status}`);
  return new Uint8Array(request.response);
}

async function start({ base, packages = [], folder: place = 'book' }) {
  const begin = performance.now();
  const manifest = await latest(base, 'manifest.json');
  const ownLibrary = await library(base, manifest.id);
  const get = async name => {
    if (name !== LIBRARY || !ownLibrary) return counted(await stored(base, name, manifest.id), name);
    progress.loaded += manifest.bytes[name];
    return ownLibrary;
  };
  const lock = await (await stored(base, 'pyodide-lock.json', manifest.id)).json();
  const wanted = [...closure(packages, lock.packages)];
  const wheels = wanted.map(name => lock.packages[name].file_name);
  const counts = [...manifest.core, ...wheels].filter(name => name !== 'pyodide.mjs');
  progress.total = counts.reduce((sum, name) => sum + manifest.bytes[name], 0);

  const source = fetch(new URL('kernel.py', import.meta.url)).then(it => it.text());
  const bytes = Promise.all(wheels.map(async name => (await get(name)).arrayBuffer()));
  [pyodide] = await Promise.all([startPyodide(base, lock, get), bytes]);
  for (const [i, content] of (await bytes).entries()) {
    report(`Unpacking ${wanted[i]}`);
    pyodide.unpackArchive(content, 'zip', { extractDir: site });
  }
  const compiled = await made(base, COMPILED, manifest.id);
  pyodide.FS.mkdirTree(compiledFolder);
  if (compiled) pyodide.unpackArchive(compiled, 'zip', { extractDir: compiledFolder });
  keepCompiled = async () => {
    keepCompiled = null;
    if (!kernel.pack_compiled(`/tmp/${COMPILED}`)) return;
    await keepMade(base, COMPILED, manifest.id, pyodide.FS.readFile(`/tmp/${COMPILED}`));
    pyodide.FS.unlink(`/tmp/${COMPILED}`);
  };
  keepLibraryToo = async () => {
    if (kernel.compile_library()) return later(keepLibraryToo);  // one module at a time
    if (!kernel.pack_library(`/tmp/${LIBRARY}`)) return;
    await keepLibrary(base, manifest.id, pyodide.FS.readFile(`/tmp/${LIBRARY}`));
    pyodide.FS.unlink(`/tmp/${LIBRARY}`);
  };
  offer(pyodide, base, site, manifest.data);
  offer(pyodide, base, home, manifest.beside);
  folder = `${home}${place}/`;
  pyodide.FS.mkdirTree(folder);
  pyodide.FS.chdir(folder);
  pyodide.FS.writeFile(`${site}live_kernel.py`, await source);
  const memory = pyodide._module.memory;  // Of Python: messages are handed over by their addresses.
  report('Starting');
  kernel = pyodide.pyimport('live_kernel');
  const post = (address, length) => postMessage(JSON.parse(
    new TextDecoder().decode(new Uint8Array(memory.buffer, address, length))));
  kernel.start(post, fetchNow, base, compiledFolder,
    JSON.stringify(lock.packages), JSON.stringify(wanted));
  await forgetOthers(manifest.id);
  say('ready', {
    seconds: (performance.now() - begin) / 1000, python: kernel.version(), packages: wanted,
  });
}

// ---- Answering the page ------------------------------------------------------------------

async function run({ id, code, name }) {
  const begin = performance.now();
  const status = await kernel.run(id, code, name ?? `cell ${id}`);
  lastRun = performance.now();
  say('done', { id, status, seconds: (lastRun - begin) / 1000 });
  if (!keepCompiled) return;
  await keepCompiled();
  later(keepLibraryToo);
}

async function files({ files }) {
  for (const { path, url, text } of files) {
    const target = new URL(path, `file://${folder}`).pathname;
    const response = url && await fetch(url);
    if (response && !response.ok) throw new Error(`${url}: status ${response.status}`);
    pyodide.FS.mkdirTree(target.slice(0, target.lastIndexOf('/')));
    pyodide.FS.writeFile(target, response ? new Uint8Array(await response.arrayBuffer()) : text);
  }
}

const tasks = { start, run, files };
let queue = Promise.resolve();

// When no cell has run for a second: somebody reads.
function later(task) {
  const wait = lastRun + 1000 - performance.now();
  setTimeout(() => {
    if (performance.now() < lastRun + 1000) later(task);
    else queue = queue.then(task).catch(error => console.warn(error));
  }, Math.max(wait, 0));
}

addEventListener('message', ({ data }) => {
  queue = queue.then(() => tasks[data.type](data))
    .catch(error => say('failed', { message: String(error?.message ?? error), id: data.id }));
});
