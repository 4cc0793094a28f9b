'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const { test } = require('node:test');
const { serve, spawnWorker } = require('./harness.cjs');

/** Loads `file` of `files` and gives the names it exports. */
async function names(t, files, file = Object.keys(files)[0], sources) {
  const worker = await spawnWorker(t, files);
  const { name } = path.parse(file);
  const answer = await worker.load([{ name, file }], { sources: inDirectory(worker, sources) });
  assert.equal(answer.kind, 'ready', answer.text);
  return worker.functions.map((found) => found.name);
}

function inDirectory(worker, sources = {}) {
  return Object.fromEntries(Object.entries(sources).map(([file, text]) => [path.join(worker.directory, file), text]));
}

/** The failure of loading `app.js`, or another file. */
async function failure(t, files, file = Object.keys(files)[0], sources) {
  const worker = await spawnWorker(t, files);
  const answer = await worker.load([{ name: 'app', file }], { sources: inDirectory(worker, sources) });
  assert.deepEqual([answer.kind, answer.aux, answer.channel], ['error', 1006, 0], answer.text);
  assert.equal(await worker.exit(), 1);
  const described = JSON.parse(answer.text);
  assert.doesNotMatch(described.stack, /node:|node-js\/worker/);
  return { ...described, stack: described.stack.replaceAll(worker.directory, '').replaceAll('file://', '') };
}

test('CommonJS exports are found', async (t) => {
  assert.deepEqual(await names(t, { 'cart.js': 'exports.a = () => 1; exports.b = function () {}; exports.c = 3' }), [
    'a',
    'b',
  ]);
  assert.deepEqual(await names(t, { 'cart.js': 'module.exports = function total() {}' }), ['total']);
  assert.deepEqual(await names(t, { 'cart.js': 'module.exports = () => 1' }), ['cart']);
  assert.deepEqual(
    await names(t, { 'cart.cjs': 'module.exports = { a() {}, async b() {}, K: class {}, __metacall_x__() {} }' }),
    ['a', 'b'],
  );
  const transpiled =
    'Object.defineProperty(exports, "__esModule", { value: true }); exports.default = () => 1; exports.a = () => 1';
  assert.deepEqual(await names(t, { 'cart.js': transpiled }), ['a', 'cart']);
  assert.deepEqual(
    await names(t, {
      'cart.js': '// import x from "y"; export await\nmodule.exports = { a: () => `\nexport const x` }',
    }),
    ['a'],
  );
  assert.deepEqual(await names(t, { 'cart.js': 'module.exports = null' }), []);
});

test('ES modules are found by extension, package type and syntax', async (t) => {
  const source = 'export const a = () => 1; export default function b() {}; export class C {}';
  assert.deepEqual(await names(t, { 'cart.mjs': source }), ['a', 'b']);
  assert.deepEqual(await names(t, { 'cart.js': source, 'package.json': '{"type":"module"}' }), ['a', 'b']);
  assert.deepEqual(await names(t, { 'cart.mjs': 'export default () => 1' }), ['cart']);
  assert.deepEqual(await names(t, { 'cart.mjs': 'export default { a() {}, b: 1 }' }), ['a']);
  assert.deepEqual(await names(t, { 'cart.mjs': 'await null; export { a as z }; function a() {}' }), ['z']);
});

test('ES module syntax alone is enough where Node detects it, and explained where not', async (t) => {
  const source = 'export const a = () => 1; export default function b() {}';
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    const { message, stack } = await failure(t, { 'cart.js': source });
    assert.match(message, /^Unexpected token 'export'; this Node \(v.*\) takes import and export only in \.mjs files/);
    assert.match(stack, /^\/cart\.js:1\n/);
    return;
  }
  assert.deepEqual(await names(t, { 'cart.js': source }), ['a', 'b']);
  const mixed = {
    'cart.js': 'import { x } from "./lib.js"; import y from "./old.cjs"; export const a = () => x + y',
    'lib.js': 'export const x = 1',
    'old.cjs': 'module.exports = 2',
  };
  assert.deepEqual(await names(t, mixed), ['a']);
  const { stack } = await failure(t, { 'app.js': 'import "fs";\nconst x = ;' });
  assert.ok(stack.startsWith('/app.js:2\n'), stack);
});

test('TypeScript runs from the stripped sources', async (t) => {
  const raw = 'this is not even typescript';
  const sources = {
    'app.ts':
      'import { rate } from "./rate"; import { b } from "./lib/b.js"; import { c } from "./c.ts";\nimport d from "./d.cjs"; export const f = (x        ) => x * rate + b + c + d.d;',
    'rate.ts': 'export const rate = 2;',
    'lib/b.ts': 'export const b = 10;',
    'c.ts': 'export const c = 100;',
    'd.cts': 'exports.d = require("./e").e;',
    'e.ts': 'exports.e = 1000;',
  };
  const files = Object.fromEntries(Object.keys(sources).map((name) => [name, raw]));
  const worker = await spawnWorker(t, files);
  const ready = await worker.load([{ name: 'app', file: 'app.ts' }], { sources: inDirectory(worker, sources) });
  assert.equal(ready.kind, 'ready', ready.text);
  worker.bind({});
  assert.equal(await worker.value('f', [1]), 1112);
  assert.equal(worker.stdout + worker.stderr, '');
  assert.deepEqual(worker.logs(), []);
});

test('CommonJS TypeScript and TypeScript without a package type are told apart', async (t) => {
  assert.deepEqual(await names(t, { 'cart.ts': 'x' }, 'cart.ts', { 'cart.ts': 'exports.a = () => 1' }), ['a']);
  assert.deepEqual(
    await names(t, { 'cart.ts': 'x', 'lib.ts': 'x' }, 'cart.ts', {
      'cart.ts': 'exports.a = require("./lib.js").a',
      'lib.ts': 'exports.a = () => 1',
    }),
    ['a'],
  );
  assert.deepEqual(await names(t, { 'cart.mts': 'x' }, 'cart.mts', { 'cart.mts': 'export const a = () => 1' }), ['a']);
  assert.deepEqual(
    await names(t, { 'main.js': 'const { a } = require("./lib"); exports.b = a', 'lib.ts': 'x' }, 'main.js', {
      'lib.ts': 'exports.a = () => 1',
    }),
    ['b'],
  );
  assert.deepEqual(
    await names(t, { 'main.mjs': 'import { a } from "./lib.ts"; export { a }', 'lib.ts': 'x' }, 'main.mjs', {
      'lib.ts': 'export const a = () => 1',
    }),
    ['a'],
  );
});

test('errors of rewritten TypeScript point at the original lines', async (t) => {
  const worker = await spawnWorker(t, { 'app.ts': 'enum A { B }\n\n\nexports.f = () => { throw new Error("x") };\n' });
  const file = path.join(worker.directory, 'app.ts');
  // Line 1 of the output is line 4, column 20 of the source.
  const map = { version: 3, sources: [file], names: [], mappings: 'AAGmB' };
  const text = `exports.f = () => { throw new Error("x") };\n//# sourceMappingURL=data:application/json;base64,${Buffer.from(JSON.stringify(map)).toString('base64')}\n`;
  await worker.load([{ name: 'app', file: 'app.ts' }], { sources: { [file]: text } });
  worker.bind({});
  assert.match((await worker.failure('f', [])).stack, /app\.ts:4:20/);
});

test('an error while loading shows the stack of the user', async (t) => {
  const thrown = await failure(t, { 'app.js': 'const a = 1;\nfunction f() { throw new TypeError("no") }\nf();' });
  assert.deepEqual([thrown.type, thrown.message], ['TypeError', 'no']);
  assert.match(
    thrown.stack,
    /^TypeError: no\n    at f \(\/app\.js:2:\d+\)\n    at Object\.<anonymous> \(\/app\.js:3:1\)$/,
  );
  const missing = await failure(t, { 'app.js': 'require("./lib")', 'lib.js': 'require("not-there")' });
  assert.match(missing.message, /^Cannot find module 'not-there'\nRequire stack:\n- \/.*lib\.js\n- \/.*app\.js$/);
  const rejected = await failure(t, { 'app.mjs': 'await Promise.reject(new RangeError("top"))' });
  assert.deepEqual([rejected.type, rejected.message], ['RangeError', 'top']);
  assert.match(rejected.stack, /\/app\.mjs:1/);
  const unresolved = await failure(t, { 'app.mjs': 'import "./none.mjs"' });
  assert.match(unresolved.message, /Cannot find module .*none\.mjs/);
  assert.equal((await failure(t, { 'app.js': 'throw "text"' })).message, 'text');
  const hook = await failure(t, {
    'app.js': 'exports.__metacall_initialize__ = async () => { throw new Error("in the hook") }',
  });
  assert.match(hook.stack, /in the hook\n.*\/app\.js:1/);
});

test('a syntax error shows file and line', async (t) => {
  const bad = 'const a = 1;\nconst x = ;\n';
  for (const [files, place] of [
    [{ 'app.js': bad }, '/app.js:2'],
    [{ 'app.mjs': bad }, '/app.mjs:2'],
    [{ 'app.js': 'require("./lib/bad.js")', 'lib/bad.js': bad }, '/lib/bad.js:2'],
    [{ 'app.mjs': 'import "./lib/bad.mjs"', 'lib/bad.mjs': `export default 1;${bad}` }, '/lib/bad.mjs:2'],
    [{ 'app.mjs': 'import { b } from "./b.mjs"', 'b.mjs': 'export const c = 1' }, '/app.mjs:1'],
  ]) {
    const { type, stack } = await failure(t, files);
    assert.equal(type, 'SyntaxError');
    assert.ok(stack.startsWith(`${place}\n`), stack);
    assert.match(stack, /\n *\^+\n/);
  }
});

test('process.exit and uncaught errors while loading are load errors', async (t) => {
  const exited = await failure(t, { 'app.js': 'function quit() { process.exit(0) }\nquit();' });
  assert.deepEqual(
    [exited.type, exited.message],
    ['ProcessExit', 'the app called process.exit(0) while it was loaded'],
  );
  assert.match(exited.stack, /at quit \(\/app\.js:1:\d+\)/);
  const stray = await failure(t, { 'app.mjs': 'Promise.reject(new Error("stray")); await new Promise(() => {})' });
  assert.equal(stray.message, 'stray');
  const late = await failure(t, {
    'app.mjs': 'setTimeout(() => { throw new Error("late") }); await new Promise(() => {})',
  });
  assert.equal(late.message, 'late');
});

test('modules of one app share what they import', async (t) => {
  const files = {
    'b.mjs': 'import state from "./state.cjs"; export const read = () => state.n',
    'state.cjs': 'exports.n = 0',
  };
  const worker = await serve(t, 'const state = require("./state.cjs"); exports.set = (n) => { state.n = n }', {
    files,
    file: 'a.js',
  });
  assert.deepEqual(
    worker.functions.map(({ module, file, name }) => [module, file, name]),
    [['a', 'a.js', 'set']],
  );
  const two = await spawnWorker(t, {
    ...files,
    'a.js': 'const state = require("./state.cjs"); exports.set = (n) => { state.n = n }',
  });
  await two.load([
    { name: 'a', file: 'a.js' },
    { name: 'b', file: 'b.mjs' },
  ]);
  two.bind({});
  await two.value('set', [7]);
  assert.equal(await two.value('read', []), 7);
});
