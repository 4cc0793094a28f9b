'use strict';
// Plays the node: starts the real worker on real sockets and speaks the protocol with it.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: after } = require('node:timers/promises');

const WORKER = path.join(__dirname, '..', 'worker.cjs');
const DEADLINE_MS = 20_000;

const Kind = {
  load: 1,
  ready: 2,
  invoke: 3,
  result: 4,
  error: 5,
  chunk: 6,
  cancel: 7,
  credit: 8,
  log: 9,
  ping: 10,
  pong: 11,
  stop: 12,
  bind: 13,
  enter: 16,
};
const KindName = Object.fromEntries(Object.entries(Kind).map(([name, kind]) => [kind, name]));
const JSON_FORMAT = 0;
const BYTES = 1;
const TEXT = 2;
const NONE = 3;

function encode(kind, { format = NONE, aux = 0, id = 0, meta = '', body = '' } = {}) {
  const metaBytes = Buffer.from(meta);
  const bodyBytes = Buffer.from(body);
  const head = Buffer.alloc(16);
  head.writeUInt32LE(12 + metaBytes.length + bodyBytes.length, 0);
  head[4] = kind;
  head[5] = format;
  head.writeUInt16LE(aux, 6);
  head.writeUInt32LE(id, 8);
  head.writeUInt32LE(metaBytes.length, 12);
  return Buffer.concat([head, metaBytes, bodyBytes]);
}

/** The frames at the start of `bytes`, and what is left. */
function decode(bytes) {
  const frames = [];
  while (bytes.length >= 4 && bytes.length >= bytes.readUInt32LE(0) + 4) {
    const end = bytes.readUInt32LE(0) + 4;
    const bodyAt = 16 + bytes.readUInt32LE(12);
    const frame = {
      kind: KindName[bytes[4]],
      format: bytes[5],
      aux: bytes.readUInt16LE(6),
      id: bytes.readUInt32LE(8),
      meta: bytes.toString('utf8', 16, bodyAt),
      body: bytes.subarray(bodyAt, end),
    };
    frames.push({ ...frame, text: frame.body.toString() });
    bytes = bytes.subarray(end);
  }
  return [frames, bytes];
}

/** Both ends of a connected Unix socket. */
async function socketPair(directory, name) {
  const server = net.createServer();
  const file = path.join(directory, name);
  server.listen(file);
  await once(server, 'listening');
  const ours = net.connect(file);
  const [theirs] = await once(server, 'connection');
  server.close();
  return [ours, theirs];
}

class Worker {
  constructor(directory, child, sockets) {
    this.directory = directory;
    this.child = child;
    this.sockets = sockets;
    this.frames = [];
    this.waiting = new Set();
    this.nextId = 1;
    this.stdout = '';
    this.stderr = '';
    child.stdout.on('data', (data) => (this.stdout += data));
    child.stderr.on('data', (data) => (this.stderr += data));
    this.exited = once(child, 'close').then(([code, signal]) => signal ?? code);
    sockets.forEach((socket, channel) => this.listen(socket, channel));
  }

  listen(socket, channel) {
    let rest = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (data) => {
      const [frames, left] = decode(Buffer.concat([rest, data]));
      rest = left;
      for (const frame of frames) this.frames.push({ ...frame, channel });
      for (const check of this.waiting) check();
    });
  }

  send(kind, fields, channel = 0) {
    this.sockets[channel].write(encode(kind, fields));
  }

  /** The first frame that `matches`, seen or to come. */
  frame(matches, what = matches.toString()) {
    return this.until(() => this.frames.find(matches), what);
  }

  /** Waits until `probe` gives something. */
  until(probe, what = probe.toString()) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => done(new Error(`waited in vain for ${what}; stderr: ${this.stderr}`)),
        DEADLINE_MS,
      );
      const done = (error, value) => {
        clearTimeout(timer);
        this.waiting.delete(check);
        if (error) reject(error);
        else resolve(value);
      };
      const check = () => {
        const found = probe();
        if (found) done(null, found);
      };
      this.waiting.add(check);
      check();
    });
  }

  /** Sends `load` and waits for its answer. */
  async load(modules, extra) {
    const app = {
      protocol: 1,
      app: 'test',
      directory: this.directory,
      max_reply_bytes: 1 << 20,
      concurrency: 100,
      modules,
      ...extra,
    };
    this.send(Kind.load, { format: JSON_FORMAT, body: JSON.stringify(app) });
    const answer = await this.frame(({ kind, id }) => id === 0 && (kind === 'ready' || kind === 'error'), 'ready');
    if (answer.kind === 'ready') this.functions = JSON.parse(answer.text).functions;
    return answer;
  }

  bind(parameters) {
    const functions = this.functions.map(({ name }) => parameters[name]?.map(parameter) ?? null);
    this.send(Kind.bind, { format: JSON_FORMAT, body: JSON.stringify({ functions }) });
  }

  /** Sends an `invoke` and returns its id. */
  begin(name, args, { format = JSON_FORMAT, channel = 1, meta, body } = {}) {
    const id = this.nextId++;
    const aux = this.functions.findIndex((found) => found.name === name);
    const head = Buffer.alloc(20, id);
    head.writeUInt32LE(5000, 16);
    const payload = body ?? (args === undefined ? '' : format === JSON_FORMAT ? JSON.stringify(args) : args);
    const metaBytes = Buffer.concat([head, Buffer.from(meta === undefined ? '' : JSON.stringify(meta))]);
    this.send(Kind.invoke, { format, aux: aux < 0 ? 999 : aux, id, meta: metaBytes, body: payload }, channel);
    return id;
  }

  /** The frame that ends call `id`. */
  end(id) {
    return this.frame(
      (frame) => frame.id === id && (frame.kind === 'result' || frame.kind === 'error'),
      `the end of call ${id}`,
    );
  }

  async call(name, args, options) {
    return this.end(this.begin(name, args, options));
  }

  /** The value of a JSON result; throws on anything else. */
  async value(name, args, options) {
    const { kind, format, text } = await this.call(name, args, options);
    if (kind !== 'result' || format !== JSON_FORMAT) throw new Error(`${kind} in format ${format}: ${text}`);
    return JSON.parse(text);
  }

  /** `{ code, type, message, stack }` of a call that must fail. */
  async failure(name, args, options) {
    const { kind, aux, text } = await this.call(name, args, options);
    if (kind !== 'error') throw new Error(`${name} answered ${text}`);
    return { code: aux, ...JSON.parse(text) };
  }

  of(id, kind) {
    return this.frames.filter((frame) => frame.id === id && frame.kind === kind);
  }

  logs() {
    return this.frames.filter(({ kind }) => kind === 'log').map(({ id, aux, text }) => ({ id, level: aux, text }));
  }

  /** The exit status, or the signal's name. */
  async exit() {
    const status = await Promise.race([this.exited, after(DEADLINE_MS, 'still running', { ref: false })]);
    return status;
  }

  async stop() {
    this.send(Kind.stop);
    return this.exit();
  }
}

/** `a`, `b = 2` or `...rest` as `bind` writes it. */
function parameter(text) {
  if (text.startsWith('...')) return { name: text.slice(3), kind: 'var_positional' };
  const [, name, value] = /^([^={]+) = (.*)$/.exec(text) ?? [null, text];
  return { name, default: value };
}

/** Starts a worker in a directory with `files`; nothing is sent yet. */
async function spawnWorker(t, files, { channels = 2, env = {} } = {}) {
  const directory = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'fnmesh-node-')));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
  const pairs = [];
  for (let i = 0; i < channels; i++) pairs.push(await socketPair(directory, `.${i}.sock`));
  const child = spawn(process.execPath, [WORKER, pairs.map((_, index) => 3 + index).join(',')], {
    cwd: directory,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe', ...pairs.map(([, theirs]) => theirs)],
  });
  for (const [, theirs] of pairs) theirs.destroy();
  const worker = new Worker(
    directory,
    child,
    pairs.map(([ours]) => ours),
  );
  t.after(async () => {
    child.kill('SIGKILL');
    await worker.exited;
    for (const [ours] of pairs) ours.destroy();
    fs.rmSync(directory, { recursive: true });
  });
  return worker;
}

/** A worker that serves one module, `app.js` unless told otherwise. */
async function serve(
  t,
  source,
  { file = 'app.js', files = {}, settings = {}, parameters = {}, load = {}, ...options } = {},
) {
  const worker = await spawnWorker(t, { [file]: source, ...files }, options);
  const answer = await worker.load([{ name: path.parse(file).name, file, settings }], load);
  if (answer.kind !== 'ready') throw new Error(`load failed: ${answer.text}`);
  worker.bind(parameters);
  return worker;
}

module.exports = { BYTES, JSON_FORMAT, Kind, NONE, TEXT, encode, serve, spawnWorker };
