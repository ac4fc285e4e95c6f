// The meaning of a glossary word, shown beside it: on hover, on focus, on a first tap.
// Without this script such a word is an ordinary link to the glossary.
(function () {
  "use strict";
  var terms = Array.prototype.slice.call(document.querySelectorAll("a.tl-term[data-def]"));
  if (!terms.length) return;

  var tip = document.createElement("div"), shown = null, timer = 0, finger = false;
  tip.className = "tl-tip";
  tip.id = "tl-tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  (document.querySelector("main") || document.body).append(tip);

  function hide() {
    clearTimeout(timer);
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null;
    tip.hidden = true;
  }
  function soon(action, wait) { clearTimeout(timer); timer = setTimeout(action, wait); }

  function line(tag, text) {
    var element = document.createElement(tag);
    element.textContent = text;
    return element;
  }
  // `near`: where the pointer is, for a word that is broken over two lines.
  function show(term, near) {
    clearTimeout(timer);
    if (shown && shown !== term) hide();
    shown = term;
    tip.replaceChildren(line("b", term.dataset.term), document.createTextNode(term.dataset.def));
    if (finger) tip.append(line("i", "Tap the word again for the glossary."));
    tip.hidden = false;
    tip.style.left = tip.style.top = "0";
    place(term, near);
    term.setAttribute("aria-describedby", tip.id);
  }
  // Below the word, above it where there is no room, and inside the window in any case.
  function place(term, near) {
    var boxes = Array.prototype.slice.call(term.getClientRects());
    var at = boxes.find(function (b) { return near != null && near >= b.top && near <= b.bottom; }) || boxes[0];
    var wide = document.documentElement.clientWidth, box = tip.getBoundingClientRect();
    var left = Math.max(8, Math.min(at.left, wide - box.width - 8));
    var top = at.bottom + 7;
    if (top + box.height > innerHeight - 8) top = Math.max(8, at.top - box.height - 7);
    var frame = (tip.offsetParent || document.body).getBoundingClientRect();
    tip.style.left = left - frame.left + "px";
    tip.style.top = top - frame.top + "px";
  }

  terms.forEach(function (term) {
    term.addEventListener("pointerenter", function (event) {
      if (event.pointerType !== "mouse") return;
      finger = false;
      soon(function () { show(term, event.clientY); }, shown ? 60 : 140);
    });
    term.addEventListener("pointerleave", function (event) {
      if (event.pointerType === "mouse") soon(hide, 220);
    });
    term.addEventListener("focus", function () {
      if (!finger && term.matches(":focus-visible")) show(term);
    });
    term.addEventListener("blur", function () { if (!tip.matches(":hover")) hide(); });
    term.addEventListener("click", function (event) {
      if (!finger || shown === term) return; // a second tap follows the link
      event.preventDefault();
      show(term, event.clientY);
    });
  });
  tip.addEventListener("pointerenter", function () { clearTimeout(timer); });
  tip.addEventListener("pointerleave", function (event) { if (event.pointerType === "mouse") soon(hide, 220); });

  addEventListener("pointerdown", function (event) {
    finger = event.pointerType === "touch" || event.pointerType === "pen";
    if (shown && !tip.contains(event.target) && !shown.contains(event.target)) hide();
  }, true);
  addEventListener("keydown", function (event) {
    finger = false;
    if (event.key === "Escape") hide();
  });
  addEventListener("resize", hide);
  addEventListener("pagehide", hide);
})();
