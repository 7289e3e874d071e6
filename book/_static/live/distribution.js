// The browser's Python as files of this site: fetched, kept, unpacked and started. For workers.

export const download = globalThis.fetch.bind(globalThis);  // Pyodide gets another one.

// A file of the distribution, kept in the browser's cache of this version: the second start needs
// no network. Browsers offer that cache to safe addresses only (https, or this machine).
export async function stored(base, name, id) {
  const url = new URL(name, base).href;
  const cache = globalThis.caches && await caches.open(`live-${id}`).catch(() => null);
  const found = await cache?.match(url);
  if (found) return found;
  const response = await download(url, { cache: cache ? 'no-store' : 'default' });
  if (!response.ok) throw new Error(`${url}: the server answered ${response.status}`);
  await cache?.put(url, response.clone()).catch(() => {});  // A full disk is no reason to stop.
  return response;
}

// A file of this version that the browser itself has made: as bytes, or null.
export async function made(base, name, id) {
  const cache = await globalThis.caches?.open(`live-${id}`).catch(() => null);
  return (await cache?.match(new URL(name, base).href))?.arrayBuffer() ?? null;
}

export async function keepMade(base, name, id, bytes) {
  const cache = await globalThis.caches?.open(`live-${id}`).catch(() => null);
  await cache?.put(new URL(name, base).href, new Response(bytes)).catch(() => {});
}

// The standard library with what this browser has compiled of it: two thirds of the time of a start.
export const LIBRARY = 'python_stdlib.zip';

export async function library(base, id) {
  const bytes = await made(base, `made-${LIBRARY}`, id);
  return bytes && new Response(bytes);
}

export function keepLibrary(base, id, bytes) {
  return keepMade(base, `made-${LIBRARY}`, id, bytes);
}

export async function forgetOthers(id) {
  const names = await globalThis.caches?.keys().catch(() => []) ?? [];
  await Promise.all(names.filter(n => /^live-[0-9a-f]+$/.test(n) && n !== `live-${id}`)
    .map(n => caches.delete(n)));
}

// What changes with every version: from the server, or without a network as it was last.
export async function latest(base, name) {
  const url = new URL(name, base).href;
  const cache = await globalThis.caches?.open('live-latest').catch(() => null);
  const response = await download(url, { cache: 'no-cache' }).catch(error => error);
  if (response.ok) await cache?.put(url, response.clone()).catch(() => {});
  const known = response.ok ? response : await cache?.match(url);
  if (!known) throw new Error(`${url}: ${response.message ?? `status ${response.status}`}`);
  return known.json();
}

// A Response with what a file holds: a packed one is unpacked on the way.
export function unpacked(body, name) {
  const content = name.endsWith('.packed') ? body.pipeThrough(new DecompressionStream('gzip'))
    : body;
  const type = name.includes('.wasm') ? 'application/wasm' : 'application/octet-stream';
  return new Response(content, { headers: { 'Content-Type': type } });
}

// Pyodide with this lock file, each file of its folder by way of `load`.
export async function startPyodide(base, lock, load, options = {}) {
  // Its own loader asks for files by their plain names.
  globalThis.fetch = (resource, init) => {
    const url = String(resource.url ?? resource);
    const name = url.startsWith(base) ? url.slice(base.length) : '';
    if (name === 'pyodide.asm.wasm') return load(`${name}.packed`);
    return name ? load(name) : download(resource, init);
  };
  const { loadPyodide } = await import(`${base}pyodide.mjs`);
  const script = await (await load('pyodide.asm.mjs.packed')).text();
  const address = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const { default: createPyodideModule } = await import(address);
  URL.revokeObjectURL(address);
  try {
    return await loadPyodide({
      ...options, indexURL: base, lockFileContents: lock, createPyodideModule,
      env: { HOME: '/home/pyodide', ...options.env },
    });
  } finally {
    globalThis.fetch = download;
  }
}

// Files that come from the server when they are first opened: data sets, weights, results.
export function offer(pyodide, base, root, files) {
  for (const [path, address] of Object.entries(files)) {
    const at = path.lastIndexOf('/');
    pyodide.FS.mkdirTree(root + path.slice(0, at));
    pyodide.FS.createLazyFile(
      root + path.slice(0, at), path.slice(at + 1), new URL(address, base).href, true, false);
  }
}
