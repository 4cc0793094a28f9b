'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { flatArguments } = require('../worker/flat.cjs');
const { InputError } = require('../worker/json.cjs');
const { Format } = require('../worker/frame.cjs');
const { Target } = require('../worker/target.cjs');

/** What stands around a body in the buffer it was read into. */
const BEFORE = '"]}0,';
const AFTER = '"1"]},{"';

/** The same pseudo-random numbers on each run (xorshift32). */
function random(seed) {
  return (below) => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return (seed >>> 0) % below;
  };
}

function target(...names) {
  const callable = () => {};
  const made = new Target(null, { module: 'm', file: 'm.js', name: 'f', callable, owner: null, settings: {} });
  const kind = (name) => (name.startsWith('...') ? 'var_positional' : 'positional');
  made.bind(names.map((name) => ({ name, kind: kind(name) })));
  return made;
}

function placed(text) {
  const bytes = Buffer.from(BEFORE + text + AFTER);
  return [bytes, BEFORE.length, bytes.length - AFTER.length];
}

function flat(names, text) {
  return flatArguments(names, ...placed(text));
}

/** The arguments, or what is wrong. */
function outcome(of, text) {
  try {
    return of.arguments(Format.JSON, ...placed(text));
  } catch (error) {
    assert.ok(error instanceof InputError, error.stack);
    return error.message;
  }
}

test('strings and counts in the order of the parameters take the short way', () => {
  for (const [text, values] of [
    ['{"a":"Hello, ","b":"world"}', ['Hello, ', 'world']],
    ['{"a": "x", "b": 7}', ['x', 7]],
    ['["",0]', ['', 0]],
    ['[ "x", 123456789012345]', ['x', 123456789012345]],
    [`["${'x'.repeat(250)}","${'y'.repeat(250)}"]`, ['x'.repeat(250), 'y'.repeat(250)]],
  ]) {
    assert.deepEqual(flat(['a', 'b'], text), values, text);
  }
});

test('all else is left to the parser', () => {
  for (const text of [
    '{"a":"x","b":"y","c":"z"}',
    '{"a":"x"}',
    '{"b":"x","a":"y"}',
    '{"a":"x","a":"y"}',
    '{"a":"x","b":"y"]',
    '["x","y"}',
    '["x","y",]',
    '["x""y"]',
    '["x","y]',
    '["x",]',
    '["x",01]',
    '["x",-1]',
    '["x",1.5]',
    '["x",1e3]',
    '["x",1234567890123456]',
    '["x",null]',
    '["x",[]]',
    '["x","é"]',
    '["x","\\n"]',
    '["x","\u007f"]',
    '["x","\t"]',
    '[["x","y"]]',
    '"x"',
    '[',
    '{}',
    `["x","${'y'.repeat(512)}"]`,
  ]) {
    assert.equal(flat(['a', 'b'], text), null, text);
  }
});

test('a function gets the same by the short way and by the parser', () => {
  const next = random(7);
  const plain = ['""', '"x y"', '"[,]"', '0', '42', '123456789012345'];
  const other = ['"é"', '"\\u0041"', '"\u007f"', '01', '-1', '1.5', '1234567890123456', 'null', '{}', '[1]', '', '"'];
  const keys = ['a', 'a', 'b', 'b', 'c', '__proto__'];
  const between = ['', '', '', '', ' ', '\n'];
  const pick = (list) => list[next(list.length)];
  const value = () => pick(between) + pick(next(5) > 0 ? plain : other);
  const item = (named) => (named ? `${pick(between)}"${pick(keys)}":` : '') + value();
  const signatures = [['a', 'b'], ['a'], ['b', 'a'], ['a', '...b'], ['__proto__', 'b'], ['a', 'a']];
  const pairs = signatures.map((names) => [target(...names), Object.assign(target(...names), { flat: false })]);
  let short = 0;
  for (let round = 0; round < 1500; round++) {
    const named = next(2) === 0;
    const items = Array.from({ length: 1 + next(3) }, () => item(named)).join(',');
    const text = (named ? '{' : '[') + items + pick(['', '', '', ',', ' ']) + ((next(20) === 0) !== named ? '}' : ']');
    for (const [quick, slow] of pairs) {
      if (quick.flat && flat(quick.names, text) !== null) short++;
      assert.deepEqual(outcome(quick, text), outcome(slow, text), `${quick.names}: ${text}`);
    }
  }
  assert.ok(short > 300, `only ${short} texts took the short way`);
});

test('names outside of ASCII and destructured parameters take the long way', () => {
  assert.equal(target('größe').flat, false);
  assert.equal(target('{ a }').flat, false);
  assert.equal(target().flat, false);
  assert.equal(target('a', 'a').flat, false);
  assert.deepEqual(outcome(target('größe'), '{"größe":1}'), [1]);
  assert.deepEqual(outcome(target('{ a }'), '{"a":"x"}'), [{ a: 'x' }]);
});
