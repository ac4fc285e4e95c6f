// The search of the book: a dialog over an inverted index that is made when it is first opened, from
// the texts in assets/search.js. A script of its own: book.js loads it when somebody asks for it.
import MiniSearch from "minisearch";

const home = new URL("../", document.currentScript.src);
const MOST = 30; // results that are shown
const AROUND = 70; // letters of an excerpt before and after what was found

const entries = window.tinyllmIndex.flatMap(([page, number, chapter, found]) =>
  found.map(([kind, anchor, title, text]) => ({ page, number, chapter, kind, anchor, title, text })),
);
entries.forEach((entry, id) => Object.assign(entry, { id }));

/** The words of a text; a name is found by its parts too: `block_table`, `BlockTable` by "table". */
function words(text) {
  return [...text.matchAll(/[\p{L}\p{N}_]+/gu)].flatMap(([word]) => {
    const parts = word.split(/_+|(?<=\p{Ll})(?=\p{Lu})/u).filter(Boolean);
    return parts.length > 1 ? [word, ...parts] : parts;
  });
}

const index = new MiniSearch({ fields: ["title", "text", "chapter"], tokenize: words });
index.addAll(entries);

/** Entries with the query's words, best first: names and headings before what is only mentioned. */
export function search(query) {
  const wanted = query.trim().toLowerCase();
  const named = ({ title }) => [title, title.split(".").pop()].some((name) => name.toLowerCase() === wanted);
  const options = {
    boost: { title: 8, chapter: 0.5 },
    prefix: (_, place, terms) => place === terms.length - 1,
    fuzzy: (term) => (term.length > 3 ? 0.25 : 0),
    weights: { fuzzy: 0.25, prefix: 0.6 },
    boostDocument: (id) => (named(entries[id]) ? 10 : 1) * { code: 1.2, term: 1.4, section: 1 }[entries[id].kind],
  };
  const all = index.search(query, { ...options, combineWith: "AND" });
  const found = all.length ? all : index.search(query, options);
  return found.slice(0, MOST).map(({ id, terms }) => ({ ...entries[id], terms }));
}

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...children);
  return made;
};

const pattern = (terms) => new RegExp(`(${terms.join("|")})`, "giu"); // of letters, digits and _ alone

/** The text with what was found marked. */
const marked = (text, terms) =>
  text.split(pattern(terms)).map((piece, place) => (place % 2 ? element("mark", {}, piece) : piece));

function excerpt(text, terms) {
  const at = Math.max(0, text.search(pattern(terms)));
  const start = at > AROUND ? text.indexOf(" ", at - AROUND) + 1 : 0;
  const end = text.length > at + 2 * AROUND ? text.lastIndexOf(" ", at + 2 * AROUND) : text.length;
  return [start ? "… " : "", ...marked(text.slice(start, Math.max(end, at)), terms), end < text.length ? " …" : ""];
}

function shown(result, place) {
  const chapter = `${result.number} ${result.chapter}`.trim();
  const title = element("span", { class: "found-title" }, ...marked(result.title, result.terms));
  if (result.kind === "code") title.classList.add("found-code");
  const where = element("span", { class: "found-where" }, result.anchor ? chapter : result.number && "Chapter " + result.number);
  const link = element(
    "a",
    { role: "option", id: `found-${place}`, tabindex: "-1", "aria-selected": "false", href: new URL(result.page, home) },
    element("span", { class: "found-head" }, title, where),
    element("span", { class: "found-text" }, ...excerpt(result.text, result.terms)),
  );
  if (result.anchor) link.hash = result.anchor;
  return link;
}

const input = element("input", {
  type: "search", role: "combobox", "aria-label": "Search the book", "aria-controls": "found", "aria-expanded": "false",
  "aria-autocomplete": "list", placeholder: "Terms, headings, functions …", autocomplete: "off", spellcheck: "false",
  enterkeyhint: "go",
});
const list = element("div", { role: "listbox", id: "found", "aria-label": "Results", hidden: "" });
const status = element("p", { role: "status" });
const close = element("button", { type: "button", class: "finder-close" }, "Close");
const dialog = element("dialog", { class: "finder", "aria-label": "Search" }, element("div", { class: "finder-field" }, input, close), status, list);
let selected = -1;

function select(place) {
  const options = [...list.children];
  options[selected]?.setAttribute("aria-selected", "false");
  selected = options.length ? (place + options.length) % options.length : -1;
  const chosen = options[selected];
  chosen?.setAttribute("aria-selected", "true");
  chosen?.scrollIntoView({ block: "nearest" });
  if (chosen) input.setAttribute("aria-activedescendant", chosen.id);
  else input.removeAttribute("aria-activedescendant");
}

function shut() {
  dialog.close(); // gives the focus back to what had it
  input.blur(); // nothing had it: the next key is the page's
}

function update() {
  const query = input.value.trim();
  const found = query ? search(query) : [];
  list.replaceChildren(...found.map(shown));
  list.hidden = !found.length;
  list.scrollTop = 0;
  input.setAttribute("aria-expanded", String(found.length > 0));
  selected = -1;
  select(0);
  const count = found.length === MOST ? `The best ${MOST}` : `${found.length} found`;
  status.textContent = !query ? "" : found.length ? count : `Nothing in the book matches “${query}”.`;
}

input.addEventListener("input", update);
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) select(selected + step);
  else if (event.key === "Enter" && event.target === input) list.children[selected]?.click();
  else if (event.key === "Escape") shut(); // at once: a search field would be emptied first
  else return event.stopPropagation(); // the page's own keys
  event.preventDefault();
  event.stopPropagation();
});
list.addEventListener("click", (event) => event.target.closest("a") && !event.ctrlKey && !event.metaKey && shut());
close.addEventListener("click", shut);
dialog.addEventListener("click", (event) => event.target === dialog && shut()); // beside it
document.body.append(dialog);

window.tinyllmFinder = {
  open() {
    if (!dialog.open) dialog.showModal();
    input.select();
  },
};
