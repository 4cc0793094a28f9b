'use strict';
// A function of the app as the node sees it: how its arguments are laid out and how it is called.

const { flatArguments } = require('./flat.cjs');
const { Format } = require('./frame.cjs');
const { InputError, decodeText, parseJson } = require('./json.cjs');

const SUSPENDING = new Set(['AsyncFunction', 'GeneratorFunction', 'AsyncGeneratorFunction']);

class Target {
  constructor(app, { module, file, name, callable, owner, settings }) {
    this.app = app;
    this.module = module;
    this.file = file;
    this.name = name;
    this.callable = callable;
    this.owner = owner;
    this.http = settings.http === true || callable.http === true;
    this.callback = settings.callback === true;
    this.constructed = callable.constructor?.name ?? 'Function';
    this.source = Function.prototype.toString.call(callable);
    /** Whether its calls go on after it returned: found out on the first one where the source does not say. */
    this.suspends = this.callback || this.http || SUSPENDING.has(this.constructed);
    this.slow = false;
    this.bind(null);
  }

  /** Its entry in `ready`. */
  describe() {
    const { module, file, name, http, source, constructed } = this;
    const async = constructed.startsWith('Async');
    return { module, file, name, async, generator: constructed.endsWith('GeneratorFunction'), http, source };
  }

  /** Takes the parameters the node read from the source; null if it could not. */
  bind(parameters) {
    this.parameters = parameters;
    const positional = (parameters ?? []).filter(({ kind }) => kind !== 'var_positional');
    if (this.callback) positional.pop();
    this.positional = positional;
    this.names = positional.map(({ name }) => name);
    // `arguments` reads what no parameter names, and is how old code makes parameters optional.
    this.lenient = parameters === null || /\barguments\b/.test(this.source);
    this.open = this.lenient || parameters.some(({ kind }) => kind === 'var_positional');
    this.required = this.lenient ? [] : positional.map((parameter) => typeof parameter.default !== 'string');
    this.takesWhole = parameters !== null && this.names.length === 1 && this.names[0].startsWith('{');
    // Old code may have two parameters of one name, and `é` is more than one byte.
    const plain = new Set(this.names).size === this.names.length && this.names.every((name) => /^[\w$]+$/.test(name));
    /** Whether `flatArguments` is worth a try. */
    this.flat = plain && this.names.length > 0;
  }

  apply(args) {
    return this.callback ? this.applyWithCallback(args) : Reflect.apply(this.callable, this.owner, args);
  }

  applyWithCallback(args) {
    return new Promise((resolve, reject) => {
      const callback = (error, value) => (error ? reject(error) : resolve(value));
      // The callback is the last parameter, also when optional ones before it are left out.
      const before = Math.max(args.length, this.names.length);
      const padded = Array.from({ length: before }, (_, i) => args[i]);
      Promise.resolve(Reflect.apply(this.callable, this.owner, [...padded, callback])).catch(reject);
    });
  }

  /** The positions for the body `bytes[start..end]`. */
  arguments(format, bytes, start, end) {
    switch (format) {
      case Format.JSON:
        return start === end ? this.check([]) : this.fromText(bytes, start, end);
      case Format.BYTES:
        return this.check([Buffer.from(bytes.subarray(start, end))]);
      case Format.TEXT:
        return this.check([decodeText(bytes, start, end)]);
      default:
        return this.check([]);
    }
  }

  fromText(bytes, start, end) {
    const args = this.flat ? flatArguments(this.names, bytes, start, end) : null;
    return args ?? this.fromJson(parseJson(bytes, start, end));
  }

  fromJson(value) {
    if (Array.isArray(value)) return this.check(value);
    if (typeof value !== 'object' || value === null) return this.check([value]);
    const keys = Object.keys(value);
    if (this.takesWhole) return [value];
    if (this.parameters !== null) {
      const args = this.named(keys, value);
      if (args !== null) return args;
    }
    return this.check(
      keys.map((key) => value[key]),
      keys,
    );
  }

  /** The positions of an object whose keys all name parameters, else null. */
  named(keys, value) {
    const { names } = this;
    const args = [];
    for (let i = 0; i < keys.length; i++) {
      const position = names[i] === keys[i] ? i : names.indexOf(keys[i]);
      if (position < 0) return null;
      while (args.length < position) args.push(undefined);
      args[position] = value[keys[i]];
    }
    return this.check(args);
  }

  /** Refuses missing and surplus arguments; `keys` are those of an object that was laid out in its order. */
  check(args, keys = []) {
    const { names, required } = this;
    if (args.length > names.length && !this.open) throw this.surplus(args, keys);
    for (let i = 0; i < required.length; i++) {
      if (required[i] && args[i] === undefined) throw this.missing(args);
    }
    return args;
  }

  missing(args) {
    const names = this.names.filter((_, i) => this.required[i] && args[i] === undefined);
    return new InputError(`${this.signature()}: missing argument${names.length > 1 ? 's' : ''} ${quoted(names)}`);
  }

  surplus(args, keys) {
    const unknown = keys.filter((key) => !this.names.includes(key));
    if (unknown.length > 0 && unknown.length < keys.length) {
      return new InputError(`${this.signature()}: unknown argument${unknown.length > 1 ? 's' : ''} ${quoted(unknown)}`);
    }
    const most = this.names.length;
    return new InputError(`${this.signature()}: takes ${most} argument${most === 1 ? '' : 's'}, got ${args.length}`);
  }

  signature() {
    const { parameters, positional, name } = this;
    const rest = parameters.filter(({ kind }) => kind === 'var_positional').map((parameter) => `...${parameter.name}`);
    const shown = positional.map((p) => (typeof p.default === 'string' ? `${p.name} = ${p.default}` : p.name));
    return `${name}(${[...shown, ...rest].join(', ')})`;
  }
}

function quoted(names) {
  const each = names.map((name) => `'${name}'`);
  return each.length < 2 ? each.join('') : `${each.slice(0, -1).join(', ')} and ${each.at(-1)}`;
}

module.exports = { Target };
