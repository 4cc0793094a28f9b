'use strict';
// Writes values as JSON: what cannot be sent is named by type and path, never dropped or turned into null.

const { MAX_DEPTH } = require('./json.cjs');
const { types } = require('node:util');

/** A value that cannot be sent: `error` 1003 with this name as type. */
class ResultError extends Error {
  name = 'ResultError';
}

/** A value larger than `max_reply_bytes`. */
class ResultTooLarge extends Error {
  name = 'ResultTooLarge';

  constructor(limit) {
    super(`the result is larger than the limit of ${limit} bytes (max_reply_bytes)`);
  }
}

/** The JSON text of any value a function may return. At most `limit` characters, each of which is a byte or more. */
function toJson(value, limit) {
  if (value === undefined) return 'null';
  const text = isPlain(value, limit) ? native(value, limit) : new Writer(limit).write(value, '', 0);
  if (text.length > limit || (text.length * 3 > limit && Buffer.byteLength(text) > limit))
    throw new ResultTooLarge(limit);
  return text;
}

function native(value, limit) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    // Longer than the longest string.
    if (error instanceof RangeError) throw new ResultTooLarge(limit);
    throw error;
  }
}

let budget = 0;

/** Whether `JSON.stringify` sends all of it unchanged. */
function isPlain(value, limit) {
  budget = limit;
  return plain(value, 0);
}

function plain(value, depth) {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true;
    case 'number':
      return value - value === 0;
    case 'object':
      return value === null || plainObject(value, depth);
    default:
      return false;
  }
}

function plainObject(value, depth) {
  // A value shared many times over can be huge without being deep: each member takes two bytes at least.
  if (depth >= MAX_DEPTH || --budget < 0) return false;
  if (Array.isArray(value)) {
    if (value.length > budget) return false;
    for (let i = 0; i < value.length; i++) if (!plain(value[i], depth + 1)) return false;
    return true;
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  for (const key in value) {
    const member = value[key];
    if (member !== undefined && !plain(member, depth + 1)) return false;
  }
  return true;
}

/** Handles everything `JSON.stringify` would refuse, drop or hide. */
class Writer {
  constructor(limit) {
    this.limit = limit;
    this.written = 0;
    this.path = [];
    this.ancestors = [];
  }

  write(value, key, depth) {
    if (
      value !== null &&
      (typeof value === 'object' || typeof value === 'bigint') &&
      typeof value.toJSON === 'function'
    ) {
      value = value.toJSON(key);
    }
    switch (typeof value) {
      case 'string':
        return this.count(JSON.stringify(value));
      case 'boolean':
        return this.count(String(value));
      case 'bigint':
        return this.count(value.toString());
      case 'number':
        if (value - value !== 0) throw this.refuse(String(value), 'which JSON has no number for');
        return this.count(JSON.stringify(value));
      case 'undefined':
        return this.count('null');
      case 'object':
        return value === null ? this.count('null') : this.object(value, depth);
      default:
        throw this.refuse(`a ${typeof value}`, 'which cannot be sent');
    }
  }

  object(value, depth) {
    if (this.ancestors.includes(value)) throw this.refuse(`a cycle (${typeName(value)})`, 'which JSON cannot express');
    if (depth >= MAX_DEPTH) throw this.refuse(typeName(value), `which is nested deeper than ${MAX_DEPTH} levels`);
    this.ancestors.push(value);
    const text = this.members(value, depth);
    this.ancestors.pop();
    return text;
  }

  members(value, depth) {
    if (Array.isArray(value)) return this.array(value, depth);
    if (value instanceof Number || value instanceof String || value instanceof Boolean) {
      return this.write(value.valueOf(), '', depth);
    }
    if (value instanceof Map) return this.entries(this.named(value), depth);
    if (value instanceof Set) return this.array([...value], depth);
    if (types.isTypedArray(value)) return this.array(Array.from(value), depth);
    if (types.isNativeError(value))
      return this.entries([['name', value.name], ['message', value.message], ...Object.entries(value)], depth);
    if (types.isPromise(value)) throw this.refuse('a Promise', 'which must be awaited first');
    return this.entries(Object.entries(value), depth);
  }

  named(map) {
    return Array.from(map, ([key, member]) => {
      if (typeof key === 'object' || typeof key === 'function' || typeof key === 'symbol') {
        throw this.refuse(`a Map with a key that is a ${typeof key}`, 'which JSON has no name for');
      }
      return [String(key), member];
    });
  }

  array(items, depth) {
    if (items.length > this.limit) throw new ResultTooLarge(this.limit);
    let text = '[';
    for (let i = 0; i < items.length; i++) {
      this.path.push(`[${i}]`);
      text += (i > 0 ? ',' : '') + this.write(items[i], String(i), depth + 1);
      this.path.pop();
    }
    this.count(',');
    return text + ']';
  }

  entries(members, depth) {
    let text = '';
    for (const [key, member] of members) {
      if (member === undefined) continue;
      this.path.push(/^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`);
      text += `${text === '' ? '' : ','}${JSON.stringify(key)}:${this.write(member, key, depth + 1)}`;
      this.path.pop();
    }
    this.count('{}');
    return `{${text}}`;
  }

  /** Ends early what would be too large anyway. */
  count(text) {
    this.written += text.length;
    if (this.written > this.limit) throw new ResultTooLarge(this.limit);
    return text;
  }

  refuse(what, why) {
    return new ResultError(`${what} at $${this.path.join('')}, ${why}`);
  }
}

function typeName(value) {
  return Array.isArray(value) ? 'an Array' : `a ${value.constructor?.name || 'Object'}`;
}

module.exports = { ResultError, ResultTooLarge, toJson };
