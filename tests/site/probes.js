// What a page says of itself in the browser. Each probe returns a list of short findings, each with
// the element that it is about; an empty list is good. Runs as `probes.NAME()`.
"use strict";

const probes = (() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const shown = (element) => element.checkVisibility({ visibilityProperty: true });

  /** A short name that finds the element again: its nearest id, its tag and class, its text. */
  function name(element) {
    const anchor = element.id ? element : element.closest("[id]");
    const tag = element.tagName.toLowerCase() + (element.className?.trim?.()
      ? "." + element.className.trim().split(/\s+/).slice(0, 2).join(".") : "");
    const text = (element.getAttribute("src") || element.textContent || "").trim()
      .replace(/\s+/g, " ").slice(-60);
    return `#${anchor?.id ?? "?"} ${tag} '${text}'`;
  }

  /** Every image is there, and in the text has words for those who cannot see it. */
  async function images() {
    const found = [];
    for (const image of document.images) {
      await image.decode().catch(() => found.push(`does not load: ${name(image)}`));
      const alt = image.getAttribute("alt");
      if (alt === null) {
        found.push(`no alternative text: ${name(image)}`);
      } else if (image.closest("article figure") && alt.trim().split(/\s+/).length < 8) {
        found.push(`an alternative text that says little ('${alt}'): ${name(image)}`);
      }
    }
    return found;
  }

  /** Every formula is typeset, without an error, with MathML for screen readers. */
  function formulas() {
    const found = [];
    for (const element of all(".math")) {
      if (!element.querySelector("mjx-container")) found.push(`not typeset: ${name(element)}`);
    }
    for (const formula of all("mjx-container")) {
      const box = formula.getBoundingClientRect();
      const place = `${name(formula.parentElement)}`;
      if (formula.querySelector("mjx-merror, [data-mjx-error]")) found.push(`error: ${place}`);
      if (formula.querySelector("[mathcolor=red]")) found.push(`unknown command: ${place}`);
      if (!formula.querySelector("mjx-assistive-mml")) found.push(`no MathML: ${place}`);
      if (shown(formula) && !(box.width && box.height)) found.push(`empty: ${place}`);
    }
    const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode;
      if (/\\[([]|\$\$|\\[a-z]{2,}/.test(node.data)
        && !node.parentElement.closest("pre, code, script, style, mjx-container")) {
        found.push(`TeX in the text: ${name(node.parentElement)}`);
      }
    }
    return found;
  }

  /** No two elements have one id. */
  function ids() {
    const seen = new Set(), found = [];
    for (const element of all("[id]")) {
      if (seen.has(element.id)) found.push(`a second element of this id: ${name(element)}`);
      seen.add(element.id);
    }
    return found;
  }

  const scrolls = (element) => /auto|scroll/.test(getComputedStyle(element).overflowX);

  /** The page never scrolls sideways, and nothing of the text is cut off. */
  function width() {
    const page = document.documentElement, found = [];
    const inScroller = (element) => {
      for (let e = element; e && e !== page && e !== document.body; e = e.parentElement) {
        if (scrolls(e) || getComputedStyle(e).position === "fixed") return true;
      }
      return false;
    };
    if (page.scrollWidth > page.clientWidth) {
      const wide = all("body *").filter((e) => shown(e)
        && e.getBoundingClientRect().right > page.clientWidth + 1 && !inScroller(e));
      found.push(`${page.scrollWidth} px wide, because of ${wide.slice(-3).map(name).join("; ")}`);
    }
    for (const element of all("article *:not(mjx-container, mjx-container *, svg *)")) {
      if (element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1
        && getComputedStyle(element).overflowX === "hidden") {
        // The equations once more, for screen readers, are there but not seen.
        const seen = all("*", element).some((e) => !e.closest("mjx-assistive-mml") && shown(e)
          && e.getBoundingClientRect().right > element.getBoundingClientRect().right + 1);
        if (seen) found.push(`cut off: ${name(element)}`);
      }
    }
    return found;
  }

  /** What scrolls by itself can be scrolled with the keyboard. */
  function scrollers() {
    const focusable = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    return all("main *:not(mjx-container *)").filter((e) => scrolls(e) && shown(e)
      && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0
      && !all(focusable, e).some(shown)).map((e) => `scrolls only by mouse: ${name(e)}`);
  }

  // (A pixel's own array would round what is mapped.)
  const luminance = (rgb) => Array.from(rgb).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);

  function contrast(one, other) {
    const [dark, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  }

  function ground(element) {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = getComputedStyle(e).backgroundColor.match(/[\d.]+/g).map(Number);
      if (a > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  }

  const pixelsOf = new Map();

  function pixels(image) {
    if (!pixelsOf.has(image.src)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      pixelsOf.set(image.src, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return pixelsOf.get(image.src);
  }

  /** A figure is no bright box on a dark page, and its lettering is there on both grounds. */
  function figures() {
    const found = [];
    for (const image of all("article figure img").filter((e) => shown(e) && e.naturalWidth)) {
      const { data, width, height } = pixels(image), page = ground(image);
      const at = (x, y) => data.subarray(4 * (y * width + x), 4 * (y * width + x) + 4);
      let edge = 0, glaring = 0;
      for (let x = 0; x < width; x += 2) {
        for (const y of [0, height - 1]) {
          edge += 1;
          glaring += at(x, y)[3] > 200 && contrast(at(x, y), page) > 7;
        }
      }
      if (luminance(page) < 0.2 && glaring > edge / 2) found.push(`bright box: ${name(image)}`);
      // Ticks and labels stand at the left and at the bottom; where a picture fills the edge,
      // there are none.
      const margin = [];
      for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1) {
          if (x < 0.08 * width || y > 0.92 * height) margin.push(at(x, y));
        }
      }
      const ink = margin.filter((p) => p[3] > 240);
      if (ink.length < 50 || ink.length > 0.4 * margin.length) continue;
      // Some of it may be tiles of images, which are as dark as the page.
      const clear = ink.filter((p) => contrast(p, page) >= 3).length / ink.length;
      if (clear < 0.1) found.push(`lettering that the page swallows: ${name(image)}`);
    }
    return found;
  }

  /** Images have no more pixels than a sharp screen shows of them. */
  function sizes() {
    return all("article img").filter((e) => shown(e) && e.naturalWidth > 2.5 * e.clientWidth
      && e.naturalWidth > 400 && !e.src.endsWith(".svg"))
      .map((e) => `${e.naturalWidth} px wide, shown at ${e.clientWidth}: ${name(e)}`);
  }

  /** Every block of code has a button that copies it, and no output has one. */
  function buttons() {
    const found = [];
    for (const block of all("article div.highlight pre")) {
      const output = Boolean(block.closest(".cell_output"));
      const button = Boolean(block.parentElement.querySelector("button.copybtn"));
      if (output === button) found.push(`${output ? "a" : "no"} copy button: ${name(block)}`);
    }
    return found;
  }

  /** What each copy button puts into the clipboard. */
  async function copies() {
    const texts = [];
    for (const button of all("button.copybtn")) {
      await navigator.clipboard.writeText("");
      button.click();
      texts.push(await navigator.clipboard.readText());
    }
    return texts;
  }

  /** Open what is folded, so that all of the page is looked at. */
  function open() {
    all("details:not([open])").forEach((e) => { e.open = true; });
    all(".toggle-button[aria-expanded=false], .toggle-button-hidden").forEach((e) => e.click());
  }

  /** Leave the boxes of the formulas and take what is in them, of which MathJax takes care. */
  const emptyFormulas = () => all("mjx-container").forEach((e) => e.replaceChildren());

  /** Leave one token of each kind in the code: all of one kind are of one colour on one ground. */
  function thinTokens() {
    const seen = new Set();
    for (const token of all("pre span[class]")) {
      let kind = "";
      for (let e = token; e; e = e.parentElement) kind += `${e.tagName}.${e.className} `;
      if (seen.has(kind)) token.replaceWith(...token.childNodes);
      seen.add(kind);
    }
  }

  return { images, formulas, ids, width, scrollers, figures, sizes, buttons, copies, open,
    emptyFormulas, thinTokens };
})();
