// What a page can do beside being read. Classic script: pages are opened from the file system.
(function () {
  "use strict";
  var root = document.documentElement;
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
    if (open) (sidebar.querySelector("[aria-current]") || sidebar.querySelector("a")).focus();
  }
  menu.addEventListener("click", function () { drawer(!root.classList.contains("drawer")); });
  $("shade").addEventListener("click", function () { drawer(false); });
  sidebar.addEventListener("click", function (event) { if (event.target.closest("a")) drawer(false); });
  narrow.addEventListener("change", function () { drawer(false); });
  drawer(false);
  var current = sidebar.querySelector("[aria-current]");
  if (current) sidebar.scrollTop = Math.max(0, current.offsetTop - sidebar.clientHeight / 3);

  // Copy buttons.
  all("article pre").forEach(function (pre) {
    if (!pre.querySelector("code") || pre.closest(".cell-output")) return;
    var button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", function () {
      var text = pre.innerText.replace(/\n$/, "");
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, function () { byHand(text); done(); });
      else { byHand(text); done(); }
    });
    var holder = document.createElement("div");
    holder.className = "code-holder";
    pre.parentNode.insertBefore(holder, pre);
    holder.append(pre, button);
  });
  function byHand(text) {
    var area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }

  // What scrolls can be reached by keyboard.
  all("article pre, .table-wrap, mjx-container, .numbered-equation").forEach(function (box) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  });

  // The section being read, in the page's contents.
  var links = {};
  all(".toc a").forEach(function (a) { links[decodeURIComponent(a.hash.slice(1))] = a; });
  var sections = all("article h2[id], article h3[id]").filter(function (h) { return links[h.id]; });
  function follow() {
    var here = null;
    sections.forEach(function (h) { if (h.getBoundingClientRect().top < 140) here = h.id; });
    Object.keys(links).forEach(function (id) { links[id].classList.toggle("here", id === here); });
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
    var target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
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
    if (event.key === "Escape") { hide(); drawer(false); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable], [role=slider], [tabindex]")) return;
    var turn = event.key === "ArrowLeft" ? "prev" : event.key === "ArrowRight" ? "next" : null;
    var link = turn && document.querySelector("link[rel=" + turn + "]");
    if (link) location.href = link.href;
  });
})();
