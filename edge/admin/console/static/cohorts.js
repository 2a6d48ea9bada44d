// The lines of cohorts: revenue per contact by days since they came, a currency at a time, drawn by uPlot.
"use strict";
(() => {
  const place = document.getElementById("lines");
  const choice = document.getElementById("currencies");
  if (!place) return;
  const HEIGHT = 250; // the legend stands below it, however many lines it needs
  let plot = null, data = null, shown = 0;

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const money = (n) => n?.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }) ?? "–";

  function draw() {
    if (!data?.currencies.length) { place.closest("section").hidden = true; return; }
    plot?.destroy();
    const { currency, lines } = data.currencies[shown];
    const [muted, line] = ["--muted", "--line"].map(colour);
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const isAll = (one) => one.label.startsWith("All");
    const fewer = lines.filter((one) => !isAll(one));
    plot = new uPlot({
      width: place.clientWidth - 20, height: HEIGHT,
      padding: [8, 24, 0, 4],
      scales: { x: { time: false }, y: { range: (u, from, to) => [0, to > 0 ? to * 1.08 : 1] } },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      axes: [
        { ...axis, grid: { show: false }, space: 58, values: (u, splits) => splits.map((n) => (Number.isInteger(n) ? `${n} d` : "")) },
        { ...axis, values: (u, splits) => splits.map(money), size: 62 },
      ],
      series: [
        { label: "Days", value: (u, n) => n ?? "–" },
        ...lines.map((one) => {
          const stroke = colour(isAll(one) ? "--second" : `--line-${(fewer.indexOf(one) % 5) + 1}`);
          return { label: `${one.label}, ${currency}`, stroke, width: isAll(one) ? 3 : 1.6, points: { show: false }, value: (u, n) => money(n) };
        }),
      ],
    }, [data.days, ...lines.map((one) => [...one.values, ...Array(data.days.length - one.values.length).fill(null)])], place);
  }

  function offerCurrencies() {
    if (data.currencies.length < 2) return;
    choice.replaceChildren(...data.currencies.map((one, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = one.currency;
      button.setAttribute("aria-pressed", String(number === shown));
      button.addEventListener("click", () => { shown = number; offerCurrencies(); draw(); choice.children[number].focus(); });
      return button;
    }));
  }

  async function load() {
    const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
    if (!answer.ok || !answer.headers.get("content-type").includes("json")) return;
    data = await answer.json();
    offerCurrencies();
    draw();
  }

  load().catch(() => {}); // the server is away: the table says the same
  document.addEventListener("themechange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = place.clientWidth;
  new ResizeObserver(() => { if (data && place.clientWidth !== width) { width = place.clientWidth; draw(); } }).observe(place);
})();
