'use strict';
// The standard `Request` for functions that take one, and the standard `Response` as an answer.

const { Format, Kind } = require('./frame.cjs');
const { InputError } = require('./json.cjs');
const { ResultError } = require('./serialize.cjs');
const { Stream } = require('./stream.cjs');

const TYPES = ['application/json', 'application/octet-stream', 'text/plain;charset=UTF-8'];

/** Arguments of a request function: the `Request`, and what it does not say. */
function requestArguments(call, format, body) {
  const { request, invocationId } = call.about();
  const { signal } = call;
  const head = request ?? madeUp(call.target, format);
  return [makeRequest(head, body, signal), { path: head.path, invocationId, signal }];
}

/** For callers that do not come by HTTP. */
function madeUp({ app, name }, format) {
  return {
    method: 'POST',
    url: `http://localhost/${app}/${name}`,
    path: '',
    headers: [['content-type', TYPES[format]]],
  };
}

function makeRequest({ method, url, headers }, body, signal) {
  const bodyless = method === 'GET' || method === 'HEAD' || body.length === 0;
  try {
    const pairs = headers.map(([name, value]) => [name, byteString(value)]);
    return new Request(new URL(url, 'http://localhost'), {
      method,
      headers: pairs,
      signal,
      body: bodyless ? null : Buffer.from(body),
    });
  } catch (error) {
    throw new InputError(`${method} ${url} cannot be given to a function that takes the request: ${error.message}`);
  }
}

/** Header values are bytes, which `Headers` takes as Latin-1 only. */
function byteString(value) {
  return /^[\0-\xff]*$/.test(value) ? value : Buffer.from(value).toString('latin1');
}

/** Whether this is a `Response`; does not touch the global, which loads undici. */
function isResponse(value) {
  return value[Symbol.toStringTag] === 'Response' && value instanceof Response;
}

/** Sends a response; false if its body is still to come. */
function sendResponse(call, response, limit) {
  if (response.bodyUsed) throw new ResultError('the body of the Response at $ was read already');
  if (response.status < 200) throw new ResultError(`a Response with status ${response.status} at $ cannot be sent`);
  const head = JSON.stringify({ status: response.status, headers: headerPairs(response.headers) });
  if (response.body === null) {
    sendBody(call, Kind.RESULT, head, Buffer.alloc(0));
    return true;
  }
  new ResponseStream(call, response.body.getReader(), head, limit).start();
  return false;
}

function headerPairs(headers) {
  const pairs = [...headers].filter(([name]) => name !== 'set-cookie');
  for (const cookie of headers.getSetCookie()) pairs.push(['set-cookie', cookie]);
  return pairs;
}

function sendBody(call, kind, head, body) {
  if (!(body instanceof Uint8Array))
    throw new ResultError('the body of the Response at $ has a part that is no Uint8Array');
  call.channel.bytes(kind, Format.BYTES, 0, call.id, head, body);
}

/** The body of a response: one frame when all of it is there at once, else chunks. */
class ResponseStream extends Stream {
  constructor(call, reader, head, limit) {
    const iterator = { next: () => reader.read(), return: () => reader.cancel() };
    super(call, iterator, sendBody, head);
    this.limit = limit;
  }

  start() {
    this.register();
    this.waiting = true;
    this.startWhole().then(
      (whole) => whole || this.resume(),
      (error) => this.fail(error),
    );
  }

  /** Reads what is there at once; true if that was all. */
  async startWhole() {
    const first = this.iterator.next();
    const head = await atOnce(first);
    if (this.ended) return true;
    if (head === null) return this.startChunks([first], true);
    if (head.done) return this.sendWhole(Buffer.alloc(0));
    const second = this.iterator.next();
    const end = await atOnce(second);
    if (this.ended) return true;
    if (end?.done && head.value.length <= this.limit) return this.sendWhole(head.value);
    return this.startChunks([first, second], false);
  }

  sendWhole(body) {
    sendBody(this.call, Kind.RESULT, this.head, body);
    this.ended = true;
    this.call.end();
    return true;
  }

  /** `reads` were begun already and come first. The caller need not wait for the head. */
  startChunks(reads, headFirst) {
    const { next } = this.iterator;
    this.iterator.next = () => reads.shift() ?? next();
    if (headFirst) this.chunk(Buffer.alloc(0));
    return false;
  }
}

/** What `promise` gives without waiting for I/O or timers; null if it takes longer. */
function atOnce(promise) {
  return Promise.race([promise, new Promise((resolve) => setImmediate(resolve, null))]);
}

module.exports = { isResponse, requestArguments, sendResponse };
