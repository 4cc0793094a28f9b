'use strict';
// The life of a worker: load, ready, bind, calls, stop.

const { Channel, unreadable } = require('./channel.cjs');
const { context, currentCall } = require('./call.cjs');
const { describe, explain, userStack } = require('./failure.cjs');
const { Code, Format, HEADER_BYTES, Kind } = require('./frame.cjs');
const { loadApp } = require('./load.cjs');
const logs = require('./logs.cjs');
const { limits } = require('./reply.cjs');
const { receive, serve } = require('./serve.cjs');

const ERROR_LEVEL = 40;

const exit = process.exit.bind(process);
const channels = [];
/** Of a worker that waits for an app. */
const confinement = { exports: {} };
let descriptors = [];
let loading = false;
let targets = [];
let finalizers = [];

/**
 * Runs the worker on the channels at these file descriptors, the control channel first. `modulePath` is for one that
 * waits for an app.
 */
function start(fds, modulePath) {
  descriptors = fds;
  // The node is gone: nobody is left to work for.
  const control = new Channel(descriptors[0], onControl, () => process.reallyExit(0));
  channels.push(control);
  process.argv.splice(1);
  logs.capture(control, currentCall);
  globalThis.fnmesh = Object.freeze({ context });
  process.on('uncaughtException', onUncaught);
  process.on('unhandledRejection', onUncaught);
  process.on('exit', onExit);
  if (modulePath !== undefined) process.dlopen(confinement, modulePath);
}

function onControl(channel, bytes, at, end) {
  switch (bytes[at + 4]) {
    case Kind.LOAD:
      load(JSON.parse(bytes.utf8Slice(at + HEADER_BYTES, end)));
      break;
    case Kind.ENTER:
      enter(JSON.parse(bytes.utf8Slice(at + HEADER_BYTES, end)));
      break;
    case Kind.BIND:
      bind(JSON.parse(bytes.utf8Slice(at + HEADER_BYTES, end)).functions);
      break;
    case Kind.STOP:
      stop();
      break;
    default:
      receive(channel, bytes, at, end);
  }
}

/** Makes this one of an app's workers. From here on only what the app may reach can be reached. */
function enter({ directory, environment, rules }) {
  for (const [name, value] of environment) process.env[name] = value;
  process.chdir(directory);
  if (rules !== null) confinement.exports.enter(rules);
}

async function load(app) {
  if (app.protocol !== 1) unreadable(`version ${app.protocol} of the protocol`);
  limits.replyBytes = app.max_reply_bytes;
  loading = true;
  try {
    ({ targets, finalizers } = await loadApp(app));
  } catch (error) {
    loading = false;
    sendLoadError(describe(error));
    channels[0].finish(() => exit(1));
    return;
  }
  loading = false;
  const functions = targets.map((target) => target.describe());
  const ready = { language: 'node', version: process.versions.node, functions };
  channels[0].text(Kind.READY, Format.JSON, 0, 0, '', JSON.stringify(ready));
  channels[0].flush();
  if (targets.length === 0) openChannels();
}

function sendLoadError(failure) {
  logs.flushPartial();
  channels[0].text(Kind.ERROR, Format.JSON, Code.LOAD_FAILED, 0, '', JSON.stringify(failure));
}

function bind(functions) {
  functions.forEach((parameters, index) => targets[index]?.bind(parameters));
  openChannels();
}

function openChannels() {
  serve(targets);
  for (const fd of descriptors.slice(1)) {
    const channel = new Channel(fd, receive, () => channel.socket.destroy());
    channels.push(channel);
  }
}

async function stop() {
  for (const finalize of finalizers) {
    try {
      await finalize();
    } catch (error) {
      logs.log(null, ERROR_LEVEL, explain(error));
    }
  }
  logs.flushPartial();
  let open = channels.length;
  for (const channel of channels) channel.finish(() => --open === 0 && exit(0));
}

/** An error nobody caught. It fails the call it belongs to; where none is known, the state of the app is not either. */
function onUncaught(error) {
  const call = currentCall();
  if (call !== null && !call.done) {
    call.fail(error);
    return;
  }
  logs.log(null, ERROR_LEVEL, `uncaught: ${explain(error)}`);
  const handledByApp =
    process.listenerCount('uncaughtException') > 1 || process.listenerCount('unhandledRejection') > 1;
  if (call !== null || handledByApp) return;
  if (loading) sendLoadError(describe(error));
  loading = false;
  exit(1);
}

/** Answers that are ready survive a function that ends the process. */
function onExit(code) {
  if (loading) {
    const message = `the app called process.exit(${code}) while it was loaded`;
    sendLoadError({ type: 'ProcessExit', message, stack: userStack(new Error(message).stack) });
    process.exitCode = 1;
  }
  logs.flushPartial();
  for (const channel of channels) channel.flush();
}

module.exports = { start };
