'use strict';
// What a source file is, and where its syntax error sits.

const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

const WRAPPER = ['exports', 'require', 'module', '__filename', '__dirname'];
/** What V8 says of ES module syntax outside of a module; Node decides by the same messages. */
const ESM_ERRORS = [
  'Cannot use import statement outside a module',
  "Unexpected token 'export'",
  "Cannot use 'import.meta' outside a module",
  'await is only valid in async functions and the top level bodies of modules',
];
const IMPORTS = /\b(?:from|import)\s*\(?\s*(['"])(\.{1,2}\/[^'"]*)\1/g;
const MAX_FILES = 200;

/** Whether a file is an ES module: by its extension, else by the nearest package.json, else by its syntax. */
function isModule(file, source) {
  const extension = path.extname(file);
  if (extension === '.mjs' || extension === '.mts') return true;
  if (extension === '.cjs' || extension === '.cts') return false;
  return packageType(path.dirname(file)) === 'module' || hasModuleSyntax(source);
}

function hasModuleSyntax(source) {
  if (!/\b(?:import|export|await)\b/.test(source)) return false;
  try {
    vm.compileFunction(source.replace(/^#!.*/, ''), WRAPPER);
    return false;
  } catch (error) {
    return ESM_ERRORS.some((message) => error.message.includes(message));
  }
}

function packageType(directory) {
  for (;;) {
    try {
      return JSON.parse(fs.readFileSync(path.join(directory, 'package.json'), 'utf8')).type;
    } catch (error) {
      // A broken package.json is reported by Node itself when the module is loaded.
      if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') return undefined;
    }
    const parent = path.dirname(directory);
    if (parent === directory) return undefined;
    directory = parent;
  }
}

/**
 * Puts file and line before the stack of a `SyntaxError` from an ES module, which Node tells nobody but its own
 * fatal error printer: a second thread with `vm.SourceTextModule` compiles the file and those it imports.
 */
async function locateSyntaxError(error, file, sources) {
  const { Worker } = require('node:worker_threads');
  const files = reachable(file, sources);
  const worker = new Worker(COMPILE, { eval: true, workerData: files, execArgv: ['--experimental-vm-modules', '--no-warnings'] });
  const found = await new Promise((resolve) => {
    worker.once('message', resolve);
    worker.once('error', () => resolve(null));
    worker.once('exit', () => resolve(null));
  });
  await worker.terminate();
  if (found !== null) error.stack = found;
}

const COMPILE = `
const { parentPort, workerData } = require('node:worker_threads');
const { SourceTextModule } = require('node:vm');
let found = null;
for (const [identifier, source] of workerData) {
  try {
    new SourceTextModule(source, { identifier });
  } catch (error) {
    found = String(error.stack);
    break;
  }
}
parentPort.postMessage(found);
`;

/** The file and the app's own files it imports, with their sources. */
function reachable(file, sources) {
  const found = new Map();
  const open = [file];
  while (open.length > 0 && found.size < MAX_FILES) {
    const next = open.shift();
    const source = found.has(next) ? null : readSource(next, sources);
    if (source === null) continue;
    found.set(next, source);
    for (const [, , specifier] of source.matchAll(IMPORTS)) {
      const base = path.resolve(path.dirname(next), specifier);
      open.push(base, base.replace(/\.(c|m)?js$/, '.$1ts'), `${base}.ts`);
    }
  }
  return [...found].filter(([name]) => !/\.(cjs|cts|json|node|wasm)$/.test(name));
}

function readSource(file, sources) {
  try {
    return sources.get(file) ?? fs.readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

module.exports = { isModule, locateSyntaxError };
