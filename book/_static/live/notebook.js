// What JupyterLite's kernel takes for Pyodide's own `pyodide.mjs`: gives it the Python of the
// pages, with the packages of the kernel (lite.py) beside those of the book.

import {
  LIBRARY, forgetOthers, latest, library, offer, startPyodide, stored, unpacked,
} from './distribution.js';

const base = new URL('dist/', import.meta.url).href;
const own = new URL('lite/packages/', import.meta.url).href;
const site = '/lib/python3.14/site-packages/';
const startup = '/home/pyodide/.ipython/profile_default/startup/';

// Packages of a lock file, with absolute addresses.
const located = (lock, folder) => Object.fromEntries(Object.entries(lock.packages).map(
  ([name, entry]) => [name, { ...entry, file_name: new URL(entry.file_name, folder).href }]));

const beside = async name => {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
};

export async function loadPyodide(options) {
  const manifest = await latest(base, 'manifest.json');
  const load = async name => (name === LIBRARY && await library(base, manifest.id))
    || unpacked((await stored(base, name, manifest.id)).body, name);
  const [lock, more] = await Promise.all(
    [load('pyodide-lock.json'), fetch(`${own}pyodide-lock.json`)].map(async it => (await it).json()));
  lock.packages = { ...located(lock, base), ...located(more, own) };
  const pyodide = await startPyodide(base, lock, load, {
    ...options,
    // No __pycache__ among the reader's files.
    env: { PYTHONDONTWRITEBYTECODE: '1', CHAINER_WARN_VERSION_MISMATCH: '0' },
  });
  // While Python still has `fcntl`: the kernel puts an empty module in its place.
  pyodide.pyimport('filelock');
  offer(pyodide, base, site, manifest.data);
  pyodide.FS.mkdirTree(startup);
  pyodide.FS.writeFile(`${startup}notebook.py`, await beside('notebook_startup.py'));
  await forgetOthers(manifest.id);
  return pyodide;
}
