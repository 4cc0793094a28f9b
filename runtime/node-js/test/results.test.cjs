'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { BYTES, JSON_FORMAT, serve } = require('./harness.cjs');

const SOURCE = `
class Money { constructor(amount) { this.amount = amount } get hidden() { return 1 } }
class Shown { toJSON(key) { return 'shown as ' + key } }
const deep = (levels) => { let value = 1; for (let i = 0; i < levels; i++) value = [value]; return value };
const cycle = () => { const a = { list: [] }; a.list.push({ a }); return a };
const values = {
  undefined: () => undefined, text: () => 'ü"\\\\\\n𝄞', lone: () => '\\ud800', long: () => 'é'.repeat(50000),
  integer: () => 42, float: () => 0.1, minus: () => -0, yes: () => true, nothing: () => null,
  big: () => 12345678901234567890n, bigInside: () => ({ id: 12345678901234567890n, more: [1n] }),
  date: () => new Date(0), badDate: () => [new Date(NaN)],
  map: () => new Map([['a', 1], [2, new Set(['x', 'x'])]]), set: () => new Set([1, { a: 2n }]),
  object: () => ({ a: undefined, b: [undefined, , 1], 'c d': null, __proto__: null }), money: () => new Money(5n), shown: () => ({ it: new Shown() }),
  boxed: () => ({ a: new Number(1), b: new String('x'), c: 1n }), typed: () => ({ f: new Float32Array([0.5, 1]), c: 1n }),
  error: () => ({ failed: new RangeError('no') , c: 1n }), shared: () => { const a = { x: 1n }; return [a, a] },
  proto: () => JSON.parse('{"__proto__":{"a":1}}'),
  nan: () => NaN, nanInside: () => ({ items: [{ price: 1 }, { price: Infinity }] }), fn: () => ({ a: { 'b c': () => 1 } }),
  symbol: () => [Symbol('x')], cycle, deep: () => deep(128), tooDeep: () => deep(129), veryDeep: () => deep(100000),
  forgot: () => ({ user: Promise.resolve(1) }), badKey: () => new Map([[{}, 1]]), wholeFn: () => () => 1,
  bytes: () => Buffer.from([0, 255]), view: () => new Uint8Array(new ArrayBuffer(8), 2, 3), arrayBuffer: () => new ArrayBuffer(2),
  manyBytes: () => Buffer.alloc(300000, 7), tooLarge: () => 'x'.repeat(2 << 20), tooLargeBytes: () => Buffer.alloc(2 << 20),
  tooLargeObject: () => ({ n: 1n, list: Array(2 << 20).fill('x') }), sparse: () => new Array(4e9),
  bomb: () => { let a = 'boom'; for (let i = 0; i < 60; i++) a = [a, a]; return a },
  throwing: () => ({ get a() { throw new RangeError('from a getter') } }),
};
exports.give = (name) => values[name]();
exports.giveLater = async (name) => values[name]();
`;
const start = (t) => serve(t, SOURCE, { parameters: { give: ['name'], giveLater: ['name'] } });

test('values are sent as JSON people expect', async (t) => {
  const worker = await start(t);
  const expected = {
    undefined: 'null',
    text: '"ü\\"\\\\\\n𝄞"',
    lone: '"\\ud800"',
    long: `"${'é'.repeat(50000)}"`,
    integer: '42',
    float: '0.1',
    minus: '0',
    yes: 'true',
    nothing: 'null',
    big: '12345678901234567890',
    bigInside: '{"id":12345678901234567890,"more":[1]}',
    date: '"1970-01-01T00:00:00.000Z"',
    badDate: '[null]',
    map: '{"a":1,"2":["x"]}',
    set: '[1,{"a":2}]',
    object: '{"b":[null,null,1],"c d":null}',
    money: '{"amount":5}',
    shown: '{"it":"shown as it"}',
    boxed: '{"a":1,"b":"x","c":1}',
    typed: '{"f":[0.5,1],"c":1}',
    error: '{"failed":{"name":"RangeError","message":"no"},"c":1}',
    shared: '[{"x":1},{"x":1}]',
    proto: '{"__proto__":{"a":1}}',
    deep: `${'['.repeat(128)}1${']'.repeat(128)}`,
  };
  for (const [name, text] of Object.entries(expected)) {
    for (const how of ['give', 'giveLater']) {
      const answer = await worker.call(how, [name]);
      assert.deepEqual([answer.kind, answer.format, answer.text], ['result', JSON_FORMAT, text], name);
    }
  }
});

test('what cannot be sent is named by type and path', async (t) => {
  const worker = await start(t);
  const expected = {
    nan: 'NaN at $, which JSON has no number for',
    nanInside: 'Infinity at $.items[1].price, which JSON has no number for',
    fn: 'a function at $.a["b c"], which cannot be sent',
    wholeFn: 'a function at $, which cannot be sent',
    symbol: 'a symbol at $[0], which cannot be sent',
    cycle: 'a cycle (a Object) at $.list[0].a, which JSON cannot express',
    forgot: 'a Promise at $.user, which must be awaited first',
    badKey: 'a Map with a key that is a object at $, which JSON has no name for',
  };
  for (const [name, message] of Object.entries(expected)) {
    const failure = await worker.failure('give', [name]);
    assert.deepEqual([failure.code, failure.type, failure.message], [1003, 'ResultError', message], name);
  }
  for (const name of ['tooDeep', 'veryDeep']) {
    const { type, message } = await worker.failure('give', [name]);
    assert.equal(type, 'ResultError');
    assert.match(message, /^an Array at \$(\[0\]){128}, which is nested deeper than 128 levels$/);
  }
  const { type, message, stack } = await worker.failure('give', ['throwing']);
  assert.deepEqual([type, message], ['RangeError', 'from a getter']);
  assert.match(stack, /app\.js/);
});

test('bytes are sent raw', async (t) => {
  const worker = await start(t);
  const expected = { bytes: [0, 255], view: [0, 0, 0], arrayBuffer: [0, 0], manyBytes: Array(300000).fill(7) };
  for (const [name, bytes] of Object.entries(expected)) {
    const answer = await worker.call('give', [name]);
    assert.equal(answer.format, BYTES);
    assert.ok(answer.body.equals(Buffer.from(bytes)), name);
  }
});

test('results over max_reply_bytes are refused', async (t) => {
  const worker = await start(t);
  for (const name of ['tooLarge', 'tooLargeBytes', 'tooLargeObject', 'sparse', 'bomb']) {
    const { code, type, message } = await worker.failure('give', [name]);
    assert.deepEqual([code, type], [1003, 'ResultTooLarge'], name);
    assert.match(message, /limit of 1048576 bytes/);
  }
  assert.equal(await worker.value('give', ['integer']), 42);
});
