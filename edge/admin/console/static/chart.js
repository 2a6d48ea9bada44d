// The overview's chart: clicks as bars, conversions as a line on a scale of their own, drawn by uPlot.
"use strict";
(() => {
  const place = document.getElementById("chart");
  if (!place) return;
  const REDRAW_MS = 30000;
  let plot = null, data = null;

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };

  function draw() {
    if (!data) return;
    plot?.destroy();
    const [muted, line, bars, curve] = ["--muted", "--line", "--bar", "--second"].map(colour);
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const whole = (u, splits) => splits.map((n) => (Number.isInteger(n) ? n.toLocaleString("en") : ""));
    plot = new uPlot({
      width: place.clientWidth, height: place.clientHeight - 34,
      padding: [8, 4, 0, 4],
      scales: { x: { time: false, range: (u, from, to) => [from - 0.6, to + 0.6] }, y: { range: (u, from, to) => [0, Math.max(to * 1.08, 4)] }, conv: { range: (u, from, to) => [0, Math.max(to * 1.08, 4)] } },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      axes: [
        { ...axis, grid: { show: false }, space: 58, values: (u, splits) => splits.map((i) => data.labels[i] ?? "") },
        { ...axis, values: whole, size: 52 },
        { ...axis, scale: "conv", side: 1, grid: { show: false }, values: whole, size: 48 },
      ],
      series: [
        { value: (u, i) => data.labels[i] ?? "–", label: data.step === "hour" ? "Hour" : "Day" },
        { label: "Clicks", fill: bars, stroke: bars, width: 0, paths: uPlot.paths.bars({ size: [0.72, 48], radius: 0.18 }), points: { show: false }, value: (u, n) => n?.toLocaleString("en") ?? "–" },
        { label: "Conversions", scale: "conv", stroke: curve, width: 2.2, points: { size: 6, fill: curve }, value: (u, n) => n?.toLocaleString("en") ?? "–" },
      ],
    }, [data.at.map((_, i) => i), data.clicks, data.conversions], place);
  }

  function fillTable() {
    const body = document.querySelector("#chart-table tbody");
    body.replaceChildren(...data.at.map((_, i) => {
      const row = document.createElement("tr");
      for (const text of [data.labels[i], data.clicks[i].toLocaleString("en"), data.conversions[i].toLocaleString("en")]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (row.children.length) cell.className = "n";
        row.append(cell);
      }
      return row;
    }));
  }

  async function load() {
    if (document.hidden) return;
    const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
    if (!answer.ok || !answer.headers.get("content-type").includes("json")) return;
    data = await answer.json();
    draw();
    fillTable();
  }

  const loadQuietly = () => load().catch(() => {}); // the server is away: the next turn asks again
  loadQuietly();
  setInterval(loadQuietly, REDRAW_MS);
  document.addEventListener("themechange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = place.clientWidth;
  new ResizeObserver(() => { if (place.clientWidth !== width) { width = place.clientWidth; draw(); } }).observe(place);
})();
