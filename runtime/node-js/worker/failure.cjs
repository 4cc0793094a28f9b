'use strict';
// Describes what user code threw: type, message, and the stack without frames that are not the user's.

const { inspect, types } = require('node:util');

const MAX_TEXT = 64 * 1024;
const MAX_CAUSES = 8;

/** The `{"type","message","stack"}` of anything that can be thrown. Never throws itself. */
function describe(thrown) {
  try {
    if (!isError(thrown)) return { type: typeOf(thrown), message: clip(show(thrown)), stack: '' };
    return { type: nameOf(thrown), message: clip(message(thrown)), stack: clip(fullStack(thrown)) };
  } catch {
    return { type: 'Error', message: 'the error itself cannot be read: its properties throw', stack: '' };
  }
}

/** The same as one text, for logs. */
function explain(thrown) {
  const { type, message, stack } = describe(thrown);
  return stack || `${type}: ${message}`;
}

/** `stack` without frames of Node and of the worker. */
function userStack(stack) {
  return stack
    .split('\n')
    .filter((line) => !isForeign(line))
    .join('\n')
    .trimEnd();
}

function isError(thrown) {
  return types.isNativeError(thrown) || thrown instanceof Error;
}

function nameOf(error) {
  const constructed = error.constructor?.name;
  const name = typeof error.name === 'string' ? error.name : '';
  // A subclass that did not set its name is still known by its class.
  return (name === 'Error' || name === '') && constructed ? constructed : name || 'Error';
}

function message(error) {
  return withoutWorkerLines(String(error.message));
}

function typeOf(thrown) {
  if (thrown === null) return 'null';
  return typeof thrown === 'object' ? thrown.constructor?.name || 'Object' : typeof thrown;
}

function show(thrown) {
  if (typeof thrown === 'string') return thrown;
  if (typeof thrown === 'object' && thrown !== null && typeof thrown.message === 'string') return thrown.message;
  return inspect(thrown, { depth: 3, breakLength: Infinity });
}

function fullStack(error) {
  let text = stackOf(error);
  const seen = new Set([error]);
  for (let cause = causeOf(error); cause !== undefined; cause = causeOf(cause)) {
    if (seen.has(cause) || seen.size > MAX_CAUSES) break;
    seen.add(cause);
    text += `\nCaused by: ${isError(cause) ? stackOf(cause) : show(cause)}`;
  }
  return text;
}

/** The next error behind this one; an `AggregateError` stands for its first. */
function causeOf(error) {
  if (!isError(error)) return undefined;
  return error.cause ?? (Array.isArray(error.errors) ? error.errors[0] : undefined);
}

function stackOf(error) {
  const stack = typeof error.stack === 'string' ? error.stack : '';
  return userStack(withoutWorkerLines(stack)) || `${nameOf(error)}: ${message(error)}`;
}

function isForeign(line) {
  if (!/^\s+at /.test(line)) return false;
  return line.includes('(node:') || /^\s+at (?:async )?node:/.test(line) || line.includes(__dirname);
}

/** Node lists who required a missing module, down to this worker. */
function withoutWorkerLines(text) {
  return text
    .split('\n')
    .filter((line) => !(line.startsWith('- ') && line.includes(__dirname)))
    .join('\n');
}

function clip(text) {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

module.exports = { describe, explain, userStack };
