// What every page needs: the chosen theme, and one small poll that tells the parts of the page when something is new.
(() => {
  "use strict";
  const THEME = "cap-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  const isDark = () => document.body.classList.contains("dark");
  const wanted = () => localStorage.getItem(THEME) || (system.matches ? "dark" : "light");
  const paint = () => {
    document.body.classList.toggle("dark", wanted() === "dark");
    document.documentElement.style.colorScheme = wanted();
  };
  const toggle = () => {
    localStorage.setItem(THEME, isDark() ? "light" : "dark");
    paint();
  };

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-cap-theme]")) toggle();
    const copy = event.target.closest("[data-cap-copy]");
    if (copy) copyText(copy, document.getElementById(copy.dataset.capCopy));
  });
  const copyText = async (button, source) => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // over plain http, other than to this machine, pages have no clipboard
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it by hand";
    }
    setTimeout(() => (button.textContent = "Copy"), 3000);
  };
  // One open menu at a time; a click elsewhere and Escape close it.
  document.addEventListener("pointerdown", (event) => {
    for (const menu of document.querySelectorAll("details.cap-menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.cap-menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  if (document.body) paint();
  document.addEventListener("DOMContentLoaded", paint);
  system.addEventListener("change", paint);

  // Make the content of `root` anew and leave the reader where they were: what has the same data-keep has the focus
  // again, is as open and as far scrolled as before.
  const anew = (root, make) => {
    const before = new Map();
    for (const node of root.querySelectorAll("[data-keep]")) {
      before.set(node.dataset.keep, { open: node.open, top: node.scrollTop, focused: node === document.activeElement });
    }
    make();
    for (const node of root.querySelectorAll("[data-keep]")) {
      const was = before.get(node.dataset.keep);
      if (!was) continue;
      if (node.tagName === "DETAILS") node.open = was.open;
      node.scrollTop = was.top;
      if (was.focused) node.focus({ preventScroll: true });
    }
  };

  const POLL_MS = 2000;
  const known = {}; // part -> version that the page shows, or is about to
  const renewals = { board: [], queue: [] };
  const forget = (part) => delete known[part];
  const look = async () => {
    if (document.hidden) return;
    const answer = await fetch("api/version", { cache: "no-store" });
    if (!answer.ok) return;
    const version = await answer.json();
    for (const [part, waiting] of Object.entries(renewals)) {
      if (version[part] === known[part]) continue;
      known[part] = version[part];
      for (const renew of waiting) renew().catch(() => forget(part)); // the next look tries again
    }
  };
  let polling = null;
  const watch = (part, renew) => {
    renewals[part].push(renew);
    forget(part); // it may have been noted before this one listened
    polling ??= setInterval(() => look().catch(() => {}), POLL_MS); // the server is away: the next look tells
  };
  window.capPage = { paint, watch, forget, anew };
})();
