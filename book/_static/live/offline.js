// Have the site's service worker keep what this page uses, so that it runs again without a network.

const PATIENCE = 2000;  // ms: then Python starts without it

// Resolves when what is loaded from now on is kept. Only safe addresses (https, or this machine)
// have service workers.
export async function keep(address) {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  try {
    const controlled = workers.controller
      || new Promise(resolve => workers.addEventListener('controllerchange', resolve, {once: true}));
    const late = new Promise(resolve => setTimeout(resolve, PATIENCE));
    await Promise.race([workers.register(address).then(() => controlled), late]);
    const loaded = performance.getEntriesByType('resource').map(({name}) => name);
    workers.controller?.postMessage({keep: [location.href.split('#')[0], ...loaded]});
  } catch {
    // The reader's browser forbids it: then the page needs its network.
  }
}
