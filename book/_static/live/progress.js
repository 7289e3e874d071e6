// What a reader has solved in the labs: the same file of events as `convnets labs` writes (one JSON
// object a line, lib/convnets/check/progress.py), kept by the browser for all labs of this site.

const KEY = 'convnets-labs';
export const FILE = '/convnets-labs.jsonl';   // where Python finds it

// Python that makes checks record, and Python that prints the file.
export const SETUP = `__import__("os").environ["CONVNETS_PROGRESS"] = "${FILE}"`;
export const READ = `print(open("${FILE}").read())`;

function lines(text) {
  return text.split('\n').filter(line => event(line));
}

function event(line) {
  try {
    const value = JSON.parse(line);
    return value.event && value.lab ? value : null;
  } catch {
    return null;
  }
}

export function stored() {
  try {
    return localStorage.getItem(KEY) ?? '';
  } catch {
    return '';   // the reader allows no storage
  }
}

// Add the events of a text to what is kept: two tabs lose nothing of each other.
export function keep(text) {
  const all = [...new Set([...lines(stored()), ...lines(text)])];
  try {
    localStorage.setItem(KEY, all.map(line => `${line}\n`).join(''));
  } catch {
    // No storage, or full: Python still knows it until the page is closed.
  }
}

// The exercises of one lab that are solved.
export function solved(lab) {
  let done = new Set();
  for (const {event: kind, lab: name, exercise} of lines(stored()).map(event)) {
    if (name !== lab) continue;
    if (kind === 'reset') done = new Set();
    if (kind === 'solved') done.add(exercise);
  }
  return done;
}

export function save() {
  const url = URL.createObjectURL(new Blob([stored()], {type: 'application/jsonl'}));
  const link = document.createElement('a');
  Object.assign(link, {href: url, download: 'labs.jsonl'});
  link.click();
  URL.revokeObjectURL(url);
}
