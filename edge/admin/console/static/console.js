// What all pages share: the theme, the menu of phones, keys, copying, and what is live.
"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const say = (text) => { const place = find("said"); if (place) place.textContent = text; };

  function toggleTheme() {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
    document.dispatchEvent(new CustomEvent("themechange"));
    say(`${root.dataset.theme} theme`);
  }

  function toggleMenu() {
    const isOpen = find("menu").classList.toggle("open");
    find("menu-button").setAttribute("aria-expanded", String(isOpen));
  }

  const help = find("help");
  const showHelp = () => { if (help && !help.open) help.showModal(); };
  find("theme-button")?.addEventListener("click", toggleTheme);
  find("menu-button")?.addEventListener("click", toggleMenu);
  find("help-button")?.addEventListener("click", showHelp);

  // Keys: g and a letter opens a page; none while a field has the focus.
  let waitsForLetter = 0;
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input, textarea, select");
    if (field) { if (event.key === "Escape") field.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
    if (waitsForLetter && Date.now() - waitsForLetter < 1500) {
      waitsForLetter = 0;
      document.querySelector(`#menu a[data-letter="${CSS.escape(event.key)}"]`)?.click();
      return;
    }
    waitsForLetter = event.key === "g" ? Date.now() : 0;
    if (event.key === "?") showHelp();
    else if (event.key === "t") toggleTheme();
    else if (event.key === "/") {
      const search = document.querySelector("main input[type=search], main [data-search]");
      if (search) { event.preventDefault(); search.focus(); search.select?.(); }
    }
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = find(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // without https there is no clipboard: select it for the person
      getSelection().selectAllChildren(find(button.dataset.copy));
      document.execCommand("copy");
    }
    const label = button.textContent;
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = label; }, 1200);
  });

  // Live parts rest while nobody looks, while they are paused, and while the focus is in them: it would be lost.
  let isPaused = false;
  find("pause-button")?.addEventListener("click", (event) => {
    isPaused = !isPaused;
    event.currentTarget.setAttribute("aria-pressed", String(isPaused));
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.target;
    if (!part.matches("[data-live]")) return;
    if (document.hidden || isPaused || part.contains(document.activeElement)) event.preventDefault();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = document.querySelector("meta[name=csrf-token]").content;
  });
  document.addEventListener("htmx:xhr:progress", (event) => {
    const bar = event.target.querySelector("progress[data-upload]");
    if (!bar || !event.detail.lengthComputable) return;
    bar.hidden = false;
    bar.max = event.detail.total;
    bar.value = event.detail.loaded;
  });
  const rowsOf = (part) => new Set([...part.querySelectorAll("[data-row]")].map((row) => row.dataset.row));
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target.matches("[data-live]")) event.target.shown = rowsOf(event.target);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const shown = event.target.shown;
    if (!shown) return;
    for (const row of event.target.querySelectorAll("[data-row]")) row.classList.toggle("fresh", !shown.has(row.dataset.row));
  });
})();
