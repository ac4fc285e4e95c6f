// Bundles every widget into one classic script, widgets.js, and the search into another, finder.js:
// `node build.mjs [FOLDER]`, by default .make. Classic, because pages are opened from the file system,
// where browsers run no modules.
import { build } from "esbuild";
import { readFileSync, renameSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const LIMIT = 200_000; // bytes of widgets.js: every widget, lit and the model
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = process.argv[2] ?? here("../../.make");

/** Indentation inside templates, which esbuild has to leave alone: in HTML and CSS it means nothing. */
const squeeze = {
  name: "squeeze",
  setup(build) {
    build.onLoad({ filter: /[\\/]book[\\/]widgets[\\/][^\\/]+\.js$/ }, ({ path }) => {
      const flat = readFileSync(path, "utf8").replace(/\n[ \t]+/g, "\n");
      const part = /(\$\{[^}]*\})|\s*([{};,])\s*|(:)\s+|\n/g; // a space after what is put in may be meant
      return { contents: flat.replace(/css`[^`]*`/g, (style) => style.replace(part, "$1$2$3")) };
    });
  },
};

async function bundle(source, name) {
  const out = `${folder}/${name}`;
  await build({
    entryPoints: [here(source)],
    outfile: `${out}.new`,
    bundle: true,
    format: "iife",
    target: "es2020",
    minify: true,
    charset: "utf8", // as the pages say of themselves
    legalComments: "inline",
    logLevel: "warning",
    plugins: [squeeze],
  });
  const size = statSync(`${out}.new`).size;
  renameSync(`${out}.new`, out);
  console.log(`[widgets] ${out}: ${(size / 1000).toFixed(1)} KB`);
  if (size > LIMIT) {
    console.error(`[widgets] ${name} has ${size} bytes, the limit is ${LIMIT}: drop a dependency or split it`);
    process.exit(1);
  }
}

await bundle("finder.js", "finder.js");
await bundle("index.js", "widgets.js");
