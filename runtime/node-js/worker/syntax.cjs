'use strict';
// What a source file is, and where its syntax error sits.

const { spawnSync } = require('node:child_process');
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
/** How many files are checked, one Node each, to find the one with the error. */
const MAX_FILES = 20;
const CHECK_TIMEOUT_MS = 2000;
const STDIN = '[stdin]';

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

/** Adds to a `SyntaxError` of `import(file)` what Node leaves out. */
function explainSyntaxError(error, file, sources) {
  if (ESM_ERRORS.includes(error.message)) {
    const where = '.mjs files or with "type": "module" in package.json';
    error.message += `; this Node (${process.version}) takes import and export only in ${where}`;
  } else if (!/^\S+:\d+\n/.test(error.stack)) {
    locateSyntaxError(error, file, sources);
  }
}

/**
 * Puts file and line before the stack of a `SyntaxError` from an ES module. Node tells them to nobody but its own
 * error printer, so a second Node checks the file and those it imports until one fails the same way.
 */
function locateSyntaxError(error, file, sources) {
  for (const [name, input] of reachable(file, sources)) {
    const args = ['--input-type=module', '--check', '-'];
    const { stderr } = spawnSync(process.execPath, args, {
      input,
      env: {},
      encoding: 'utf8',
      timeout: CHECK_TIMEOUT_MS,
    });
    if (stderr?.startsWith(STDIN) && stderr.includes(`SyntaxError: ${error.message}\n`)) {
      error.stack = name + stderr.slice(STDIN.length, stderr.indexOf('\n    at '));
      return;
    }
  }
}

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

module.exports = { explainSyntaxError, isModule };
