// Shows what a reference refers to (a term, equation, figure, work or section) beside it, while the pointer or the keyboard
// focus is on it. The texts are in previews_data.js, which book/_ext/previews.py writes. As WCAG 1.4.13 asks, the pointer may
// move onto the preview, which stays until it leaves, and Escape puts it away.
"use strict";

(() => {
  const REFERENCES = 'article a.reference.internal[href*="#"]';
  const MATHJAX = "_static/mathjax/tex-chtml.js";
  const OPEN_MS = 200; // a pointer that only passes by opens nothing
  const CLOSE_MS = 250; // time to move from the reference to its preview
  const GAP = 6; // pixels between the two, and to the edges of the window
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);

  const box = document.createElement("div");
  box.id = "quide-preview";
  box.setAttribute("role", "tooltip");
  box.hidden = true;

  let shown = null; // the reference whose preview is open
  let wanted = null; // the reference that the pointer or the focus is on
  let timer = 0;
  const scripts = new Map(); // address -> promise

  const load = (address) => {
    if (!scripts.has(address)) {
      scripts.set(address, new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = new URL(address, root).href;
        script.onload = script.onerror = resolve; // without its data a reference is a plain link
        document.head.append(script);
      }));
    }
    return scripts.get(address);
  };

  // Where a reference leads, as previews_data.js names it: the page below the book's root, and the anchor.
  function nameOf(reference) {
    const target = new URL(reference.href);
    return target.pathname.startsWith(root.pathname)
      ? decodeURIComponent(target.pathname.slice(root.pathname.length)) + decodeURIComponent(target.hash)
      : "";
  }

  async function typeset() {
    if (!box.querySelector(".math")) return;
    if (!window.MathJax?.version) { // a page without equations of its own
      if (!scripts.has(MATHJAX)) window.MathJax = { startup: { typeset: false } };
      await load(MATHJAX);
    }
    await window.MathJax.startup?.promise;
    await window.MathJax.typesetPromise?.([box]);
  }

  async function open(reference) {
    await load("_static/previews_data.js");
    const text = window.quidePreviews?.[nameOf(reference)];
    if (!text || wanted !== reference || shown === reference) return;
    close();
    window.MathJax?.typesetClear?.([box]);
    box.innerHTML = text.replaceAll('src="', `src="${root.href}`);
    await typeset();
    if (wanted !== reference) return;
    shown = reference;
    if (reference.title) reference.dataset.title = reference.title; // the browser would show it over the preview
    reference.removeAttribute("title");
    reference.setAttribute("aria-describedby", box.id);
    box.hidden = false;
    place(reference);
    box.querySelector("img")?.addEventListener("load", () => shown === reference && place(reference));
  }

  function close() {
    if (!shown) return;
    shown.removeAttribute("aria-describedby");
    if (shown.dataset.title) shown.title = shown.dataset.title;
    shown = null;
    box.hidden = true;
  }

  // Below the reference, or above it where there is more room; never beyond the edges of the window.
  function place(reference) {
    const line = reference.getClientRects()[0];
    const width = document.documentElement.clientWidth;
    const below = window.innerHeight - line.bottom;
    const fits = box.offsetHeight + GAP <= below || below >= line.top;
    const left = Math.max(GAP, Math.min(line.left, width - box.offsetWidth - GAP));
    const top = fits ? line.bottom + GAP : line.top - GAP - box.offsetHeight;
    box.style.left = `${left + window.scrollX}px`;
    box.style.top = `${top + window.scrollY}px`;
  }

  function want(reference, delay) {
    clearTimeout(timer);
    wanted = reference;
    timer = setTimeout(() => (reference ? open(reference) : close()), delay);
  }

  const referenceAt = (event) => (event.target instanceof Element ? event.target.closest(REFERENCES) : null);

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return; // a touch follows the link
    const reference = referenceAt(event);
    if (box.contains(event.target)) want(shown, 0);
    else if (reference) want(reference, OPEN_MS);
    else if (wanted && !wanted.matches(":focus-visible")) want(null, CLOSE_MS);
  });
  document.addEventListener("focusin", (event) => {
    const reference = referenceAt(event);
    if (reference?.matches(":focus-visible")) want(reference, 0);
  });
  document.addEventListener("focusout", (event) => {
    if (referenceAt(event)) want(null, 0);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    clearTimeout(timer);
    wanted = null;
    close();
  });
  document.body.append(box);
})();
