'use strict';
// Lets `import` find and read sources that Node cannot load itself. Runs in Node's hooks thread
// (`module.register`) or, where Node has `module.registerHooks`, in the main one: hence nothing here waits.

const fs = require('node:fs');
const path = require('node:path');
const { fileURLToPath, pathToFileURL } = require('node:url');

/** TypeScript spells imports of `x.ts` as `x`, `x.js` or `x.ts`. */
const ENDINGS = ['.ts', '.mts', '.cts', '/index.ts'];
const EMITTED = { '.js': '.ts', '.mjs': '.mts', '.cjs': '.cts' };

/** Absolute path to `{ source, module }`. */
let sources = new Map();
/** Whether Node wants the text of CommonJS from here too, instead of from `require` and its own hook. */
let givesCommonJs = false;

function initialize(data) {
  sources = data.sources;
  givesCommonJs = data.givesCommonJs;
}

/** The file in `sources` that `specifier` means when imported from `directory`. */
function find(specifier, directory, known) {
  if (!/^\.{0,2}\//.test(specifier)) return undefined;
  const base = path.resolve(directory, specifier);
  if (known.has(base)) return base;
  if (fs.statSync(base, { throwIfNoEntry: false })?.isFile()) return undefined;
  const extension = path.extname(base);
  const candidates = ENDINGS.map((ending) => base + ending);
  if (extension in EMITTED) candidates.unshift(base.slice(0, -extension.length) + EMITTED[extension]);
  return candidates.find((candidate) => known.has(candidate));
}

function resolve(specifier, context, next) {
  const { parentURL } = context;
  if (parentURL?.startsWith('file:')) {
    const file = find(specifier, path.dirname(fileURLToPath(parentURL)), sources);
    if (file !== undefined) return { url: pathToFileURL(file).href, format: formatOf(file), shortCircuit: true };
  }
  return next(specifier, context);
}

function load(url, context, next) {
  if (url.startsWith('file:')) {
    const file = fileURLToPath(url);
    const found = sources.get(file);
    if (found !== undefined) {
      const source = found.module || givesCommonJs ? found.source : undefined;
      return { format: formatOf(file), source, shortCircuit: true };
    }
  }
  return next(url, context);
}

function formatOf(file) {
  return sources.get(file).module ? 'module' : 'commonjs';
}

module.exports = { find, initialize, load, resolve };
