// Bundles each widget into a classic script of its own, widgets/tl-NAME.js, so that a page loads those that
// it shows; all of them into widgets.js, for Jupyter and the gallery; and the search into finder.js:
// `node build.mjs [FOLDER]`, by default .make. Classic, because pages are opened from the file system,
// where browsers run no modules.
import { build } from "esbuild";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const ALL = 300_000, ONE = 80_000; // bytes of widgets.js and of one widget, each with lit and the model
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

async function bundle(entry, name, limit) {
  const out = `${folder}/${name}`;
  await build({
    ...entry,
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
  if (size > limit) {
    console.error(`[widgets] ${name} has ${size} bytes, the limit is ${limit}: drop a dependency or split it`);
    process.exit(1);
  }
}

await bundle({ entryPoints: [here("finder.js")] }, "finder.js", ONE);
await bundle({ entryPoints: [here("index.js")] }, "widgets.js", ALL);
mkdirSync(`${folder}/widgets`, { recursive: true });
for (const file of readdirSync(here(".")).filter((name) => name.endsWith(".js"))) {
  const source = readFileSync(here(file), "utf8"), tag = source.match(/^define\("(tl-[a-z0-9-]+)"/m)?.[1];
  if (!tag) continue;
  const fable = /"\.\/fable(-loader)?\.js"/.test(source) ? 'import * as fable from "./fable.js"; self.tinyllm ??= fable;' : "";
  await bundle({ stdin: { contents: `import "./${file}"; ${fable}`, resolveDir: here(".") } }, `widgets/${tag}.js`, ONE);
}
