'use strict';
// Loads an app's modules and finds their public functions and hooks.

const fs = require('node:fs');
const path = require('node:path');
const { types } = require('node:util');
const { pathToFileURL } = require('node:url');
const { install, prepareImports, sources } = require('./sources.cjs');
const { explainSyntaxError, isModule } = require('./syntax.cjs');
const { Target } = require('./target.cjs');

const HOOK = '__metacall_';
const IDENTIFIER = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;

/** Loads what `load` names. Resolves to its functions, and its finalize hooks in the order to run them. */
async function loadApp({ app, directory, modules, sources: replaced = {} }) {
  install(replaced);
  const loaded = [];
  for (const { name, file, settings } of modules) {
    loaded.push({ name, file, settings: settings ?? {}, exports: await loadFile(path.join(directory, file)) });
  }
  for (const { exports } of loaded) await hook(exports, 'initialize')?.();
  const targets = loaded.flatMap((module) => functionsOf(module).map((found) => new Target(app, found)));
  const finalizers = loaded
    .map(({ exports }) => hook(exports, 'finalize'))
    .filter(Boolean)
    .reverse();
  return { targets, finalizers };
}

async function loadFile(file) {
  const source = sources.get(file) ?? fs.readFileSync(file, 'utf8');
  if (!isModule(file, source)) return require(file);
  prepareImports();
  try {
    const namespace = await import(pathToFileURL(file).href);
    // Node may have seen a CommonJS module in it after all.
    return require.cache[file]?.exports ?? namespace;
  } catch (error) {
    if (error instanceof SyntaxError) explainSyntaxError(error, file, sources);
    throw error;
  }
}

function hook(exports, name) {
  const found = membersOf(exports)[`${HOOK}${name}__`];
  return typeof found === 'function' ? found : undefined;
}

/** `{ module, file, name, callable, owner, settings }` of each public function. */
function functionsOf({ name: module, file, settings, exports }) {
  const found = new Map();
  const add = (name, callable, owner) => {
    if (!isFunction(callable) || name.startsWith(HOOK) || found.has(name)) return;
    found.set(name, { module, file, name, callable, owner, settings: settings[name] ?? {} });
  };
  const named = (callable) => (callable.name !== 'default' && IDENTIFIER.test(callable.name) ? callable.name : module);

  if (isFunction(exports)) {
    add(named(exports), exports, undefined);
    return [...found.values()];
  }
  const isEsm = types.isModuleNamespaceObject(exports);
  const { default: fallback, ...members } = membersOf(exports);
  for (const [name, callable] of Object.entries(members)) add(name, callable, isEsm ? undefined : exports);
  if (isFunction(fallback)) add(named(fallback), fallback, undefined);
  else for (const [name, callable] of Object.entries(membersOf(fallback))) add(name, callable, fallback);
  return [...found.values()];
}

function membersOf(exports) {
  return (typeof exports === 'object' || typeof exports === 'function') && exports !== null ? { ...exports } : {};
}

function isFunction(value) {
  return typeof value === 'function' && !/^class\b/.test(Function.prototype.toString.call(value));
}

module.exports = { loadApp };
