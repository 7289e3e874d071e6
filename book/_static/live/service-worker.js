// Keeps what a reader has opened, so that it opens again without a network. It comes into being
// when a page is run for the first time, lies at the site's root, and asks the network first.

const PAGES = 'book-pages';
const DIST = '/_static/live/dist/';

// Parts of the browser's Python go where worker.js keeps them: the newest cache of a version.
async function cacheFor(url) {
  const versions = (await caches.keys()).filter(name => /^live-[0-9a-f]+$/.test(name));
  const part = url.includes(DIST) && !url.endsWith('manifest.json');
  return caches.open((part && versions.at(-1)) || PAGES);
}

async function answer(request) {
  try {
    const response = await fetch(request);
    if (response.status === 200) {
      const copy = response.clone();
      // A full disk is no reason to show nothing.
      cacheFor(request.url).then(cache => cache.put(request.url, copy)).catch(() => {});
    }
    return response;
  } catch (error) {
    const kept = await caches.match(request.url, {ignoreSearch: request.mode === 'navigate'});
    if (kept) return kept;
    throw error;
  }
}

// What a page had loaded before it was served from here.
async function keep(urls) {
  const cache = await caches.open(PAGES);
  const ours = urls.filter(url => new URL(url).origin === location.origin);
  await Promise.allSettled(ours.map(async url => await caches.match(url) || cache.add(url)));
}

addEventListener('message', event => event.waitUntil(keep(event.data.keep)));
addEventListener('install', () => skipWaiting());
addEventListener('activate', event => event.waitUntil(clients.claim()));
addEventListener('fetch', event => {
  const {request} = event;
  const ours = new URL(request.url).origin === location.origin;
  // no-store: whoever asks keeps it. Two that store the same file would wait for each other.
  if (ours && request.method === 'GET' && request.cache !== 'no-store') {
    event.respondWith(answer(request));
  }
});
