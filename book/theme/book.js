// What a page can do beside being read. Classic script: pages are opened from the file system.
(function () {
  "use strict";
  var root = document.documentElement, script = document.currentScript;
  var $ = function (id) { return document.getElementById(id); };
  var all = function (selector, from) { return Array.prototype.slice.call((from || document).querySelectorAll(selector)); };
  function remember(key, value) { try { localStorage.setItem("tinyllm-" + key, value); } catch (e) { /* private window */ } }
  function recall(key) { try { return localStorage.getItem("tinyllm-" + key); } catch (e) { return null; } }

  // All code open or folded.
  var unfold = $("unfold"), folds = all("details.code-fold");
  function setCode(open) {
    folds.forEach(function (fold) { fold.open = open; });
    unfold.setAttribute("aria-checked", String(open));
  }
  setCode(recall("code") === "open");
  unfold.hidden = !folds.length;
  unfold.addEventListener("click", function () {
    var open = unfold.getAttribute("aria-checked") !== "true";
    // keep what is being read where it is
    var seen = all("article > *").find(function (e) { return e.getBoundingClientRect().bottom > 80; });
    var top = seen && seen.getBoundingClientRect().top;
    setCode(open);
    if (seen) window.scrollBy({ top: seen.getBoundingClientRect().top - top, behavior: "instant" });
    remember("code", open ? "open" : "folded");
  });

  // Light and dark.
  $("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember("theme", root.dataset.theme);
  });

  // The sidebar as a drawer on small screens.
  var menu = $("menu"), sidebar = $("sidebar"), narrow = matchMedia("(max-width: 1019px)");
  function drawer(open) {
    root.classList.toggle("drawer", open);
    menu.setAttribute("aria-expanded", String(open));
    sidebar.inert = narrow.matches && !open;
    all(".skip, .bar, .spread").forEach(function (rest) { rest.inert = open; });
    if (open) (sidebar.querySelector("[aria-current]") || sidebar.querySelector("a")).focus();
  }
  menu.addEventListener("click", function () { drawer(!root.classList.contains("drawer")); });
  function shut() { drawer(false); menu.focus(); }
  [$("shade"), $("shut")].forEach(function (e) { e.addEventListener("click", shut); });
  sidebar.addEventListener("click", function (event) { if (event.target.closest("a")) drawer(false); });
  narrow.addEventListener("change", function () { drawer(false); });
  drawer(false);
  var current = sidebar.querySelector("[aria-current]");
  if (current) sidebar.scrollTop = Math.max(0, current.offsetTop - sidebar.clientHeight / 3);

  // Search: its scripts are loaded when it is first asked for.
  var finder = all(".find"), wanted = false;
  if (script.hasAttribute("data-search")) finder.forEach(function (button) { button.hidden = false; button.addEventListener("click", find); });
  else finder = [];
  function find() {
    if (window.tinyllmFinder) { drawer(false); window.tinyllmFinder.open(); return; }
    if (wanted) return;
    wanted = true;
    load("search.js", function () { load("finder.js", find); });
  }
  function load(name, then) {
    var added = document.createElement("script");
    added.src = script.src.replace(/[^/]*$/, name);
    added.onload = then;
    document.head.append(added);
  }

  // An address within folded code, or within a solution, opens it.
  function reveal() {
    var target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
    for (var fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (target && target.closest("details")) target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  // Copy buttons.
  all("article pre").forEach(function (pre) {
    if (!pre.querySelector("code") || pre.closest(".tl-widget")) return;
    var button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", function () {
      var text = pre.innerText.replace(/\n$/, "");
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, function () { byHand(text); done(); });
      else { byHand(text); done(); }
    });
    var holder = pre.parentNode;
    if (!holder.matches(".cell-output")) {
      holder = document.createElement("div");
      pre.parentNode.insertBefore(holder, pre);
      holder.append(pre);
    }
    holder.classList.add("code-holder");
    holder.append(button);
  });
  function byHand(text) {
    var area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }

  // A picture that is shown smaller than it is opens at its own size, to be moved about.
  var zoom = document.createElement("dialog"), closing = document.createElement("button");
  zoom.className = "zoom";
  closing.textContent = "Close";
  closing.addEventListener("click", function () { zoom.close(); });
  zoom.addEventListener("click", function (event) { if (event.target.localName === "img") zoom.close(); });
  function enlarge(picture) {
    var image = picture.querySelector("img"), whole = image.cloneNode();
    zoom.setAttribute("aria-label", "The picture at its own size");
    whole.loading = "eager";
    whole.style.width = image.getAttribute("width") + "px";
    zoom.replaceChildren(closing, whole);
    document.body.append(zoom);
    zoom.showModal();
  }
  function fit() {
    all("article .picture").forEach(function (picture) {
      var image = picture.querySelector("img[width]");
      var smaller = Boolean(image && image.clientWidth && image.clientWidth < 0.9 * image.getAttribute("width"));
      picture.classList.toggle("smaller", smaller);
      if (smaller) {
        picture.tabIndex = 0;
        picture.setAttribute("role", "button");
        picture.setAttribute("aria-label", "Enlarge the picture: " + image.alt);
      } else ["tabindex", "role", "aria-label"].forEach(function (name) { picture.removeAttribute(name); });
    });
  }
  all("article .picture").forEach(function (picture) {
    picture.addEventListener("click", function () { if (picture.matches(".smaller")) enlarge(picture); });
    picture.addEventListener("keydown", function (event) {
      if (!picture.matches(".smaller") || (event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      enlarge(picture);
    });
  });
  fit();
  addEventListener("resize", fit);
  addEventListener("toggle", fit, true); // what was folded has no width before

  // What scrolls can be reached by keyboard.
  all("article pre, .table-wrap, .numbered-equation, article math").forEach(function (box) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  });

  // Footnotes beside the text, where there is a margin; elsewhere they stand at the end.
  var margin = matchMedia("(min-width: 1280px)"), notes = [];
  all("article a.footnote-ref").forEach(function (link) {
    var text = $(link.hash.slice(1)), block = link.closest("article > *"), note = document.createElement("span");
    if (!text || !block) return;
    note.className = "margin-note";
    note.setAttribute("role", "note");
    note.id = "margin-" + text.id;
    note.tabIndex = -1;
    note.append(link.textContent + " ");
    Array.prototype.slice.call(text.cloneNode(true).childNodes).forEach(function (part) { note.append(part); });
    all(".footnote-back", note).forEach(function (back) { back.remove(); });
    all("[id]", note).forEach(function (e) { e.removeAttribute("id"); });
    if (block.matches("p")) link.after(note); else block.before(note);
    notes.push(note);
    link.addEventListener("click", function (event) {
      if (!margin.matches) return;
      event.preventDefault();
      note.focus();
    });
  });
  root.classList.toggle("has-notes", notes.length > 0);

  // The section being read, in the page's contents.
  var links = {};
  all(".toc a").forEach(function (a) { links[decodeURIComponent(a.hash.slice(1))] = a; });
  var sections = all("article h2[id], article h3[id]").filter(function (h) { return links[h.id]; });
  function follow() {
    var here = null;
    sections.forEach(function (h) { if (h.getBoundingClientRect().top < 140) here = h.id; });
    Object.keys(links).forEach(function (id) { links[id].classList.toggle("here", id === here); });
    var toc = document.querySelector(".toc"), box = toc.getBoundingClientRect();
    toc.classList.toggle("covered", margin.matches && notes.some(function (note) { // a note needs the place
      var at = note.getBoundingClientRect();
      return at.top < box.bottom + 16 && at.bottom > box.top - 16;
    }));
  }
  addEventListener("scroll", follow, { passive: true });
  follow();

  // A footnote, a cited work, a figure or an equation shown beside the words that point to it.
  var card = document.createElement("div"), timer;
  card.className = "peek";
  card.hidden = true;
  card.setAttribute("role", "tooltip");
  card.id = "peek";
  document.body.append(card);
  function hide() { clearTimeout(timer); card.hidden = true; all("[aria-describedby=peek]").forEach(function (a) { a.removeAttribute("aria-describedby"); }); }
  function show(link) {
    var target = $(decodeURIComponent(link.hash.slice(1)));
    if (margin.matches && link.matches(".footnote-ref")) return; // it stands beside
    if (!target || /^H[1-6]$/.test(target.tagName)) return;
    var copy = target.cloneNode(true);
    all("[id]", copy).forEach(function (e) { e.removeAttribute("id"); });
    all(".footnote-back, .anchor, .copy", copy).forEach(function (e) { e.remove(); });
    card.replaceChildren.apply(card, copy.tagName === "FIGURE" || copy.matches(".numbered-equation") ? [copy] : Array.prototype.slice.call(copy.childNodes));
    card.hidden = false;
    var at = link.getBoundingClientRect(), box = card.getBoundingClientRect();
    var left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8));
    var top = at.bottom + 8 + box.height > innerHeight ? at.top - box.height - 8 : at.bottom + 8;
    card.style.left = left + scrollX + "px";
    card.style.top = Math.max(8, top) + scrollY + "px";
    link.setAttribute("aria-describedby", "peek");
  }
  all("article a.footnote-ref, article a[role=doc-biblioref], article a.quarto-xref").forEach(function (link) {
    if (link.getAttribute("href").charAt(0) !== "#") return;
    link.addEventListener("mouseenter", function () { clearTimeout(timer); timer = setTimeout(show, 150, link); });
    link.addEventListener("mouseleave", function () { clearTimeout(timer); timer = setTimeout(hide, 200); });
    link.addEventListener("focus", function () { if (link.matches(":focus-visible")) show(link); });
    link.addEventListener("blur", hide);
  });
  card.addEventListener("mouseenter", function () { clearTimeout(timer); });
  card.addEventListener("mouseleave", hide);
  addEventListener("keydown", function (event) {
    if (event.key === "Escape") { hide(); if (root.classList.contains("drawer")) shut(); return; }
    if (finder.length && (event.ctrlKey || event.metaKey) && event.key === "k") { event.preventDefault(); find(); return; }
    // a key that somebody types, or that moves something else, is not for the page
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.composedPath().some(function (e) { return e.matches && e.matches("input, textarea, select, [contenteditable], [role=slider], [tabindex]"); })) return;
    if (finder.length && event.key === "/") { event.preventDefault(); find(); return; }
    var turn = event.key === "ArrowLeft" ? "prev" : event.key === "ArrowRight" ? "next" : null;
    var link = turn && document.querySelector("link[rel=" + turn + "]");
    if (link) location.href = link.href;
  });
})();
