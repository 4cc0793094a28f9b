'use strict';
// TypeScript, already stripped by the node, in the place of the files Node would read.

const Module = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const hooks = require('./hooks.cjs');
const { isModule } = require('./syntax.cjs');

/** Absolute path to source text. */
const sources = new Map();
let importsPrepared = false;

/** Makes `require` use `entries`, absolute path to source text. */
function install(entries) {
  for (const [file, source] of Object.entries(entries)) sources.set(file, source);
  if (sources.size === 0) return;
  for (const extension of ['.ts', '.cts', '.mts']) Module._extensions[extension] = compile;
  const resolveFilename = Module._resolveFilename;
  Module._resolveFilename = function (request, parent, ...rest) {
    const found = parent?.filename && hooks.find(request, path.dirname(parent.filename), sources);
    return found || resolveFilename.call(this, request, parent, ...rest);
  };
  // Enums and the like are rewritten, and bring a map back to their lines.
  if ([...sources.values()].some((source) => source.includes('\n//# sourceMappingURL=')))
    process.setSourceMapsEnabled(true);
}

function compile(module, file) {
  const source = sources.get(file);
  if (source === undefined) throw new Error(`${file} is not a source file of this app`);
  if (isModule(file, source)) {
    throw new Error(`${file} is an ES module (it uses import or export): load it with import instead of require`);
  }
  module._compile(source, file);
}

/** Makes `import` use the sources. Not before the first one: the hooks thread of older Nodes takes time to start. */
function prepareImports() {
  if (importsPrepared || sources.size === 0) return;
  importsPrepared = true;
  const known = new Map(Array.from(sources, ([file, source]) => [file, { source, module: isModule(file, source) }]));
  if (Module.registerHooks) {
    hooks.initialize({ sources: known, givesCommonJs: true });
    Module.registerHooks({ resolve: hooks.resolve, load: hooks.load });
  } else if (Module.register) {
    Module.register(pathToFileURL(require.resolve('./hooks.cjs')), { data: { sources: known, givesCommonJs: false } });
  } else {
    throw new Error(`TypeScript with import and export needs Node 18.19 or newer, this is ${process.version}`);
  }
}

module.exports = { install, prepareImports, sources };
