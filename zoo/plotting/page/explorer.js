"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const look of data.looks) {
    look.values = Uint8Array.from(atob(look.weights), c => c.charCodeAt(0));
    [look.layers, look.heads] = look.shape;
  }
  const state = { look: 0, layer: 0, head: 0, step: null, view: "lines" };
  const views = ["lines", "matrix", "heads"];
  const root = document.documentElement;
  const percent = d3.format(".0%");
  const WORD = 24; // pixels of a line, as in the style sheet

  const look = () => data.looks[state.look];
  const row = (l, h, t) => {
    const [, heads, rows, columns] = look().shape;
    const begin = ((l * heads + h) * rows + t) * columns;
    return look().values.subarray(begin, begin + columns);
  };
  const here = t => row(state.layer, state.head, t);
  const clamp = (x, count) => Math.max(0, Math.min(count - 1, x));
  const dark = () => root.dataset.theme === "dark";
  // One hue, from the colour of the page to one that stands out: only lightness tells weights apart.
  const night = d3.interpolateRgb("#22262c", "#a9dcff");
  const shade = x => (dark() ? night : d3.interpolateBlues)(x / 255);
  const isolated = piece => `\u2068${piece}\u2069`; // keeps its direction of writing to itself
  const spoken = t => {
    const seen = d3.sort(d3.range(look().keys.length), s => -here(t)[s]).slice(0, 3);
    const shares = seen.map(s => `${isolated(look().keys[s])} ${percent(here(t)[s] / 255)}`);
    return `${isolated(look().queries[t])} looks at ${shares.join(", ")}`;
  };

  function change(difference) {
    Object.assign(state, difference);
    state.look = clamp(state.look, data.looks.length);
    state.layer = clamp(state.layer, look().layers);
    state.head = clamp(state.head, look().heads);
    if (state.step !== null) state.step = clamp(state.step, look().queries.length);
    draw();
  }

  function options(id, names, chosen) {
    d3.select(id).selectAll("option").data(names).join("option").attr("value", (_, i) => i).text(name => name);
    d3.select(id).property("value", chosen);
  }

  function draw() {
    options("#look", data.looks.map(l => l.name), state.look);
    options("#layer", d3.range(1, look().layers + 1), state.layer);
    options("#head", d3.range(1, look().heads + 1), state.head);
    d3.selectAll("[data-view]").attr("aria-pressed", function () { return this.dataset.view === state.view; });
    d3.select("#all").attr("aria-pressed", state.step === null);
    d3.select("#step").attr("max", look().queries.length - 1).property("value", state.step ?? 0)
      .attr("aria-valuetext", state.step === null ? "all steps" : look().queries[state.step]);
    d3.select("#said").text(state.step === null ? "" : spoken(state.step));
    const focused = document.activeElement?.dataset?.place;
    const view = d3.select("#view");
    if (view.attr("data-drawn") !== state.view) view.html("").attr("data-drawn", state.view);
    ({ lines, matrix, heads })[state.view](view);
    if (focused) document.querySelector(`[data-place="${focused}"]`)?.focus();
    alternatives();
  }

  function lines(view) {
    const box = view.selectAll(".columns").data([0]).join(enter => {
      const columns = enter.append("div").attr("class", "columns");
      for (const name of ["looks", "", "is looked at"]) columns.append("h3").text(name);
      columns.append("ol").attr("class", "words queries").attr("aria-label", "Pieces that look");
      columns.append("svg").attr("aria-hidden", "true");
      columns.append("ol").attr("class", "words keys").attr("aria-label", "Pieces that are looked at");
      return columns;
    });
    const { queries, keys } = look();
    const seen = state.step === null ? [] : here(state.step);
    words(box.select(".queries"), queries, "query")
      .attr("aria-pressed", (_, t) => t === state.step).attr("aria-label", (_, t) => spoken(t))
      .on("click", (_, [, t]) => change({ step: t === state.step ? null : t }));
    words(box.select(".keys"), keys, "key").attr("tabindex", -1).classed("seen", ([, s]) => seen[s] > 51);
    const svg = box.select("svg"), height = WORD * Math.max(queries.length, keys.length);
    const width = svg.attr("height", height).node().clientWidth || 240;
    svg.attr("viewBox", [0, 0, width, height]);
    const shown = state.step === null ? d3.range(queries.length) : [state.step];
    const least = state.step === null ? 13 : 3; // of 255: what is fainter cannot be seen
    const links = shown.flatMap(t => Array.from(here(t), (w, s) => ({ t, s, w })).filter(link => link.w >= least));
    const curve = d3.linkHorizontal().source(l => [0, WORD * (l.t + .5)]).target(l => [width, WORD * (l.s + .5)]);
    svg.selectAll("path").data(links).join("path").attr("d", curve)
      .attr("stroke-width", l => .5 + 7 * l.w / 255).attr("stroke-opacity", l => .15 + .8 * l.w / 255);
  }

  function words(list, pieces, kind) {
    return list.selectAll("li").data(pieces.map((piece, i) => [piece, i])).join("li").selectAll("button")
      .data(d => [d]).join("button").attr("type", "button").attr("class", "word").attr("dir", "auto")
      .attr("data-place", ([, i]) => `${kind}-${i}`).attr("title", ([piece]) => piece).text(([piece]) => piece);
  }

  function matrix(view) {
    const { queries, keys } = look();
    const table = view.selectAll("table").data([0]).join(enter => {
      const made = enter.append("table").attr("class", "matrix");
      made.append("thead").append("tr").append("td");
      made.append("tbody");
      return made;
    });
    table.select("thead tr").selectAll("th").data(keys).join("th").attr("scope", "col").append("bdi");
    table.select("thead tr").selectAll("th").text(piece => piece).attr("title", piece => piece);
    const rows = table.select("tbody").selectAll("tr").data(d3.range(queries.length)).join("tr")
      .classed("now", t => t === state.step);
    rows.selectAll("th").data(t => [t]).join("th").attr("scope", "row").attr("title", t => queries[t])
      .text(t => queries[t]);
    rows.selectAll("td").data(t => Array.from(here(t), (w, s) => ({ t, s, w }))).join("td")
      .style("background", d => shade(d.w))
      .attr("title", d => `${queries[d.t]} looks at ${keys[d.s]}: ${percent(d.w / 255)}`)
      .on("click", (_, d) => change({ step: d.t }));
  }

  function heads(view) {
    const { layers, heads, queries, keys } = look();
    const grid = view.selectAll(".heads").data([0]).join("div").attr("class", "heads")
      .style("grid-template-columns", `max-content repeat(${heads}, max-content)`);
    const cells = d3.range(layers).flatMap(l => [{ l, h: -1 }, ...d3.range(heads).map(h => ({ l, h }))]);
    grid.selectAll(":scope > *").remove();
    for (const { l, h } of cells) {
      if (h < 0) { grid.append("span").attr("class", "name").text(`layer ${l + 1}`); continue; }
      const button = grid.append("button").attr("type", "button").attr("data-place", `head-${l}-${h}`)
        .attr("aria-pressed", l === state.layer && h === state.head).attr("aria-label", `layer ${l + 1}, head ${h + 1}`)
        .attr("title", `layer ${l + 1}, head ${h + 1}`)
        .on("click", () => change({ layer: l, head: h, view: "lines" }));
      thumbnail(button.append("canvas").node(), l, h, queries.length, keys.length);
    }
  }

  const COLOURS = { light: null, dark: null };
  function palette() {
    const name = dark() ? "dark" : "light";
    return COLOURS[name] ??= d3.range(256).map(x => { const c = d3.rgb(shade(x)); return [c.r, c.g, c.b]; });
  }
  function thumbnail(canvas, l, h, rows, columns) {
    canvas.width = columns; canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows), colours = palette();
    for (let t = 0; t < rows; t++) row(l, h, t).forEach((w, s) => image.data.set([...colours[w], 255], 4 * (t * columns + s)));
    context.putImageData(image, 0, 0);
  }

  function alternatives() {
    const step = state.step !== null && look().writes ? data.steps[state.step] : null;
    d3.select("aside").attr("hidden", data.steps.some(s => s.alternatives.length) ? null : "");
    d3.select("aside h2").text(step ? "What else the model thought of" : "Choose a step to see what else it thought of");
    d3.select("#alternatives").selectAll("li").data(step ? step.alternatives : []).join(enter => {
      const item = enter.append("li");
      item.append("bdi"); item.append("span").attr("class", "number");
      item.append("div").attr("class", "bar").append("span");
      return item;
    }).classed("chosen", ([piece]) => same(piece, step.piece)).each(function ([piece, p]) {
      const item = d3.select(this);
      item.select("bdi").text(piece === "" ? "␣" : piece);
      item.select(".number").text(d3.format(".1%")(p));
      item.select(".bar span").style("width", `${100 * p}%`);
    });
  }
  const bare = piece => piece.replace(/^[▁Ġ\s]+|<\/w>$|\s+$/gu, "");
  const same = (a, b) => bare(a) === bare(b);

  const move = by => change({ step: state.step === null ? (by > 0 ? 0 : look().queries.length - 1) : state.step + by });
  for (const name of ["look", "layer", "head"])
    d3.select(`#${name}`).on("change", function () { change({ [name]: +this.value }); });
  d3.selectAll("[data-view]").on("click", function () { change({ view: this.dataset.view }); });
  d3.select("#all").on("click", () => change({ step: null }));
  d3.select("#step").on("input", function () { change({ step: +this.value }); });
  d3.select("#previous").on("click", () => move(-1));
  d3.select("#next").on("click", () => move(1));
  const theme = () => { root.dataset.theme = dark() ? "light" : "dark"; draw(); };
  d3.select("#theme").on("click", theme);
  const keys = {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), a: () => change({ step: null }),
    j: () => change({ layer: state.layer + 1 }), k: () => change({ layer: state.layer - 1 }),
    l: () => change({ head: state.head + 1 }), h: () => change({ head: state.head - 1 }),
    v: () => change({ view: views[(views.indexOf(state.view) + 1) % views.length] }),
    n: () => change({ look: (state.look + 1) % data.looks.length, step: null }), t: theme,
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  if (matchMedia("(prefers-color-scheme: dark)").matches) root.dataset.theme = "dark";
  d3.select("#title").text(data.title);
  addEventListener("resize", draw);
  draw();
})();
