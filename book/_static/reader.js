// What the theme leaves to do for readers on paper, by keyboard, and with a folder of their own.
"use strict";

// Paper is white, whatever the screen is.
let onScreen;
addEventListener("beforeprint", () => {
  onScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => { document.documentElement.dataset.theme = onScreen; });

// A download is a file in the reader's folder, not a page of source text.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".dropdown-download-buttons a[href*='_sources/']")
    .forEach((link) => { link.download = ""; });
});

// The theme takes the focus from a button that was pressed; by keyboard it must stay there.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && event.isTrusted && event.detail === 0) { // a key, no mouse, no finger
    setTimeout(() => { if (document.activeElement === document.body) button.focus(); });
  }
});

// A diagram that is wider than the page scrolls by keyboard, too.
addEventListener("load", () => {
  document.querySelectorAll(".diagram-box").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) { box.tabIndex = 0; }
  });
});
