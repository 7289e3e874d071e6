// Runs after MathJax and before the Jupyter widgets of a page.

// The widgets ask for mathematics the way MathJax 2 did.
if (window.MathJax?.startup) {
  MathJax.Hub = {
    Queue: ([, , element]) =>
      MathJax.startup.promise.then(() => MathJax.typesetPromise([element])),
  };
}

// Jupyter's sliders and players carry no names that a screen reader could say.
const ICONS = {'fa-play': 'Play', 'fa-pause': 'Pause', 'fa-stop': 'Stop', 'fa-retweet': 'Repeat', 'fa-repeat': 'Repeat'};

function nameWidgets(area) {
  for (const slider of area.querySelectorAll('[role="slider"]:not([aria-label])')) {
    const label = slider.closest('.jupyter-widgets')?.querySelector('.widget-label');
    slider.setAttribute('aria-label', label?.textContent.trim() || 'Value');
  }
  for (const button of area.querySelectorAll('.widget-play button:not([aria-label])')) {
    const icon = button.querySelector('[class*="fa-"]');
    const name = Object.keys(ICONS).find(name => icon?.classList.contains(name));
    button.setAttribute('aria-label', ICONS[name] ?? 'Control');
  }
}

for (const script of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
  const area = script.parentElement;
  new MutationObserver(() => nameWidgets(area)).observe(area, {childList: true, subtree: true});
}

// Code that scrolls can be reached by keyboard; the theme looks only once, when folded code has no width.
const watcher = new ResizeObserver(entries => {
  for (const {target: pre} of entries) {
    const scrolls = pre.scrollWidth > pre.clientWidth || pre.scrollHeight > pre.clientHeight;
    pre.tabIndex = scrolls ? 0 : -1;
  }
});
for (const pre of document.querySelectorAll('.bd-article pre')) watcher.observe(pre);

// The last line of a traceback says what went wrong.
for (const pre of document.querySelectorAll('.traceback pre')) pre.scrollTop = pre.scrollHeight;
