// Runs kernels for test_wasm.py: each line of input is a call and the memory before it, base64;
// each line of output is the memory after it.

const {readFileSync} = require('fs');
const memory = new WebAssembly.Memory({initial: 256});
const module_ = new WebAssembly.Module(readFileSync(process.argv[2]));
const {exports: kernels} = new WebAssembly.Instance(module_, {env: {memory}});

require('readline').createInterface({input: process.stdin}).on('line', line => {
  const {name, args, bytes} = JSON.parse(line);
  const given = Buffer.from(bytes, 'base64');
  given.copy(Buffer.from(memory.buffer));
  kernels[name](...args);
  console.log(Buffer.from(memory.buffer, 0, given.length).toString('base64'));
});
