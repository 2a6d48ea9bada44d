// The Reports page: the chart, the dialog that opens a row by another dimension, and what a swap leaves to be done.
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const say = (text) => { const place = find("said"); if (place) place.textContent = text; };
  let plot = null, data = null, wanted = "", shown = "";

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const COLOURS = ["--accent", "--second", "--wait", "--bad", "--good", "--muted"];

  function lines(metric) {
    const columns = [], series = [];
    data.series.forEach((one, i) => {
      const stroke = colour(COLOURS[i % COLOURS.length]);
      columns.push(one.now[metric]);
      series.push({ label: one.name || metricOf(metric)[1], stroke, width: 2.2, points: { size: 5, fill: stroke, show: data.labels.length < 100 }, value: write(metric) });
      if (one.before) {
        columns.push(data.labels.map((_, at) => one.before[metric][at] ?? null));
        series.push({ label: `${one.name} before`.trim(), stroke: colour("--muted"), width: 1.6, dash: [5, 5], points: { show: false }, value: write(metric) });
      }
    });
    return { columns, series };
  }
  const metricOf = (name) => data.metrics.find((one) => one[0] === name) ?? data.metrics[0];
  const write = (metric) => (u, n) => {
    if (n === null || n === undefined) return "—";
    const unit = metricOf(metric)[2];
    const text = n.toLocaleString("en", unit === "count" ? { maximumFractionDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 4 });
    return unit === "percent" ? `${text} %` : text;
  };

  function draw() {
    const place = find("chart");
    plot?.destroy();
    plot = null;
    if (!place || !data) return;
    const metric = metricOf(find("chart-metric").value)[0];
    const [muted, line] = ["--muted", "--line"].map(colour);
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const { columns, series } = lines(metric);
    plot = new uPlot({
      width: place.clientWidth, height: 210, padding: [8, 24, 0, 4],
      scales: { x: { time: false, range: (u, from, to) => [from - 0.3, to + 0.3] }, y: { range: (u, from, to) => [Math.min(0, from ?? 0), Math.max((to ?? 0) * 1.08, 0.01)] } },
      cursor: { y: false, drag: { x: false, y: false } },
      axes: [
        { ...axis, grid: { show: false }, space: 84, incrs: [1, 2, 3, 7, 14, 24, 48, 168, 336, 672], values: (u, splits) => splits.map((i) => data.labels[i] ?? "") },
        { ...axis, size: 64, values: (u, splits) => splits.map((n) => n.toLocaleString("en", { maximumFractionDigits: 4 })) },
      ],
      series: [{ label: data.step, value: (u, i) => (i === null || i === undefined ? "—" : data.labels[i] + (data.labels_before[i] ? ` / ${data.labels_before[i]}` : "")) }, ...series],
    }, [data.labels.map((_, i) => i), ...columns], place);
  }

  async function load() {
    const place = find("chart");
    if (!place) { draw(); shown = ""; return; }
    const choice = find("chart-metric");
    if ([...choice.options].some((one) => one.value === wanted)) choice.value = wanted;
    if (place.dataset.url === shown && data) { draw(); return; }
    const url = shown = place.dataset.url;
    data = null;
    draw();
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    const isJson = answer.ok && answer.headers.get("content-type").includes("json");
    const found = isJson ? await answer.json() : null;
    if (url !== shown) return; // another report is shown by now
    data = found;
    if (data) draw(); else place.closest("section").hidden = true;
  }
  const loadQuietly = () => load().catch(() => {});

  document.addEventListener("change", (event) => {
    if (event.target.id === "chart-metric") { wanted = event.target.value; draw(); }
    if (event.target.id === "filter-by") suggest();
  });
  const suggest = () => {
    const field = find("filter-value"), list = `values-${find("filter-by").value}`;
    if (find(list)) field.setAttribute("list", list); else field.removeAttribute("list");
  };

  // On a phone the form makes room for the result.
  function fold(isFolded) {
    const form = find("builder"), button = find("fold");
    if (!form) return;
    form.classList.toggle("folded", isFolded);
    button.setAttribute("aria-expanded", String(!isFolded));
    button.textContent = isFolded ? "Change" : "Less";
  }
  function prepare() {
    const isPhone = matchMedia("(max-width: 820px)").matches;
    find("fold").hidden = !isPhone;
    fold(isPhone && Boolean(find("result")) && !document.querySelector("#builder .fault"));
    suggest();
    loadQuietly();
  }

  const dialog = find("open-by");
  document.addEventListener("click", (event) => {
    if (event.target.closest("#fold")) fold(!find("builder").classList.contains("folded"));
    if (event.target.closest("[data-close]")) dialog.close();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target === dialog) { dialog.showModal(); dialog.querySelector("a")?.focus(); }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id !== "report") return;
    dialog.close();
    prepare();
    const fault = document.querySelector("#report [role=alert]"), title = find("result-title");
    say(fault?.textContent ?? title?.textContent ?? "");
    if (document.activeElement === document.body) title?.focus({ preventScroll: true });
  });
  const lost = () => say("The server did not answer. Try again.");
  document.addEventListener("htmx:sendError", lost);
  document.addEventListener("htmx:timeout", lost);

  document.addEventListener("themechange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = 0;
  new ResizeObserver(() => { const now = find("chart")?.clientWidth ?? 0; if (now !== width) { width = now; draw(); } }).observe(find("report"));
  prepare();
})();
