// Stands in for Python in the tests of the runner: speaks the protocol of book/_static/live/worker.js
// and does what lines like `#: {"do": ...}` in a cell say. `print("...")` prints.

const say = (type, more = {}) => postMessage({type, ...more});
const wait = ms => new Promise(resolve => setTimeout(resolve, ms));
const names = new Set();
const files = new Map();
let packages, folder;

const error = (ename, evalue) => ({
  output_type: 'error', ename, evalue,
  traceback: ['Traceback (most recent call last):', '  File "cell", line 1', `\x1b[31m${ename}\x1b[0m: ${evalue}`],
});
const stream = (text, name = 'stdout') => ({output_type: 'stream', name, text});

// Each gets the value of its directive; what it returns is an output.
const DOES = {
  output: output => output,
  print: text => stream(text),
  show: data => ({output_type: 'display_data', data, metadata: {}}),
  raise: ([ename, evalue]) => error(ename, evalue),
  define: name => void names.add(name),
  use: name => (names.has(name) ? stream(`${name} is there\n`) : error('NameError', `name '${name}' is not defined`)),
  sleep: wait,
  loop: () => { for (;;); },
  crash: () => { setTimeout(() => { throw new Error('out of memory'); }); return wait(1e6); },
  break: message => { say('failed', {message}); return wait(1e6); },
  append: ([path, text]) => void files.set(path, (files.get(path) ?? '') + text),
  start: () => stream(`${folder}: ${packages.join(' ')}\n`),
};

async function* outputs(code, id) {
  for (const line of code.split('\n')) {
    if (line.includes('SyntaxError!')) return yield error('SyntaxError', 'invalid syntax');
    const printed = line.match(/^print\("(.*)"\)$/);
    if (printed) yield stream(`${printed[1]}\n`);
    const read = line.match(/^print\(open\("(.*)"\)\.read\(\)\)$/);
    if (read) yield stream(files.get(read[1]) ?? '');
    if (!line.startsWith('#: ')) continue;
    for (const [name, value] of Object.entries(JSON.parse(line.slice(3)))) {
      if (name === 'clear') say('clear', {id, wait: value});
      const output = await DOES[name]?.(value);
      if (output) yield output;
      if (output?.output_type === 'error') return;
    }
  }
}

const TASKS = {
  async start(message) {
    ({packages, folder} = message);
    for (const loaded of [1e6, 5e6, 10e6]) say('progress', {loaded, total: 10e6, text: 'Downloading'});
    await wait(50);
    say('ready', {seconds: 1.5, python: '3.14.2', packages});
  },
  async files(message) {
    for (const {path, text} of message.files) files.set(path, text);
  },
  async run({id, code}) {
    let status = 'ok';
    for await (const output of outputs(code, id)) {
      say('output', {id, output});
      if (output.output_type === 'error') status = 'error';
    }
    say('done', {id, status, seconds: 0.25});
  },
};

let queue = Promise.resolve();
addEventListener('message', ({data}) => { queue = queue.then(() => TASKS[data.type](data)); });
