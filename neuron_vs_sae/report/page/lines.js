// Panels of lines with bands: side by side where there is room, else one below the other.
function linePanels(place, panels, width, label) {
  const columns = width >= 900 ? panels.length : width >= 600 ? Math.min(2, panels.length) : 1;
  const lines = Math.ceil(panels.length / columns), height = 250, foot = 48, head = 22;
  const each = width / columns;
  const picture = canvas(place, width, lines * (head + height + foot), label);
  panels.forEach((panel, number) => {
    const left = (number % columns) * each + 40, right = (number % columns) * each + each - 14;
    const top = Math.floor(number / columns) * (head + height + foot) + head, bottom = top + height;
    linePanel(picture, panel, { left, right, top, bottom });
  });
}

function linePanel(picture, panel, { left, right, top, bottom }) {
  const xs = panel.series.flatMap((s) => s.points.map((p) => p[0]));
  const ys = panel.series.flatMap((s) => s.points.flatMap((p) => p.slice(1).filter(Number.isFinite)));
  const envelope = panel.envelope ?? [];
  const across = [...xs, ...envelope.map((p) => p[0])];
  svg(picture, "text", { x: left, y: top - 8, "font-weight": 600 }, fitted(panel.title, right - left));
  if (!across.length) return void svg(picture, "text", { x: left, y: top + 20 }, "nothing is shown");
  const kind = (log) => (log ? logarithmic : linear);
  const [low, high] = panel.range ?? [Math.min(...ys), Math.max(...ys)];
  const x = kind(panel.xlog)([Math.min(...across), Math.max(...across)], [left, right]);
  const y = kind(panel.ylog)([Math.min(low, ...ys), Math.max(high, ...ys)], [bottom, top]);
  xAxis(picture, x, x.ticks(4), { top, bottom, from: left, to: right, label: panel.xlabel });
  yAxis(picture, y, y.ticks(5), { left, right, top, bottom });
  if (envelope.length) {
    const there = envelope.map((p) => `${x(p[0])},${y(p[2])}`), back = envelope.map((p) => `${x(p[0])},${y(p[1])}`).reverse();
    svg(picture, "path", { d: `M${[...there, ...back].join("L")}Z`, fill: "#888", "fill-opacity": 0.35 });
  }
  for (const level of panel.levels ?? [])
    svg(picture, "line", { x1: left, x2: right, y1: y(level), y2: y(level), stroke: "currentColor", "stroke-dasharray": "2 3" });
  for (const s of panel.series) {
    const banded = s.points.filter((p) => Number.isFinite(p[2]));
    if (banded.length > 1) {
      const there = banded.map((p) => `${x(p[0])},${y(p[3])}`), back = banded.map((p) => `${x(p[0])},${y(p[2])}`).reverse();
      svg(picture, "path", { d: `M${[...there, ...back].join("L")}Z`, fill: s.colour, "fill-opacity": 0.16 });
    }
    if (s.points.length) svg(picture, "path", { d: `M${s.points.map((p) => `${x(p[0])},${y(p[1])}`).join("L")}`, fill: "none", stroke: s.colour, "stroke-width": 2 });
    if (s.shape) s.points.forEach((p, i) => tip(marker(picture, { shape: s.shape, x: x(p[0]), y: y(p[1]), r: 3, colour: s.colour }), s.tips[i]));
  }
}

// Curves of one task: what is shown is chosen by its legend and, where there are several, its conventions.
function drawCurves(place, data, width, task) {
  const state = (place.state ??= { shown: new Set(data.shown), chosen: data.choices.map(() => 0) });
  const again = () => drawCurves(place, data, place.clientWidth, place.task);
  place.task = task;
  if (!place.legend) {
    const bar = html(place, "div", { class: "choices" });
    data.choices.forEach((choice, i) => {
      if (choice.levels.length < 2) return;
      select(bar, choice.label, choice.levels, (value) => { state.chosen[i] = value; again(); });
    });
    place.legend = html(place, "div", { class: "legend", role: "group", "aria-label": "Bases shown" });
    const chance = { key: "chance", label: "chance: random rankings", colour: "#888888", shape: "band" };
    legend(place.legend, [...data.bases.map((b, key) => ({ key, ...b })), ...(data.chance.length ? [chance] : [])], state.shown, again);
  }
  const at = (one) => one.task === task && one.case.every((level, i) => level === state.chosen[i]);
  const curves = data.curves.filter((one) => at(one) && state.shown.has(one.basis));
  const chance = state.shown.has("chance") ? data.chance.find((one) => one.task === task && one.case.every((level, i) => level < 0 || level === state.chosen[i])) : null;
  const of = (score) => curves.map((one) => {
    const { label, colour, shape } = data.bases[one.basis];
    const points = one.sizes.map((size, i) => [size, ...one[score].map((values) => values[i])]).filter((p) => Number.isFinite(p[1]));
    return { colour, shape, points, tips: one.sizes.map((size, i) => `${label}: ${size} nodes, ${one.errors[i]} of them error nodes; ${score} ${signed(one[score][0][i])}`) };
  });
  const share = curves.map((one) => {
    const { label, colour, shape } = data.bases[one.basis];
    const points = one.sizes.map((size, i) => [size, (100 * one.errors[i]) / size]);
    return { colour, shape, points, tips: points.map(([size, part]) => `${label}: ${signed(part, 0)} % of ${size} nodes are error nodes`) };
  });
  const shared = { xlog: true, xlabel: "nodes in the circuit (log scale)" };
  linePanels(place, [
    { ...shared, title: "Faithfulness (1: the model)", series: of("faithfulness"), envelope: chance?.faithfulness, levels: [0, 1], range: [0, 1] },
    { ...shared, title: "Completeness (0: nothing is left)", series: of("completeness"), envelope: chance?.completeness, levels: [0, 1], range: [0, 1] },
    { ...shared, title: "Error nodes among them (%)", series: share, range: [0, 100] },
  ], width, `Curves of ${data.tasks[task]}`);
}

// How many nodes have at least a score, by its size.
function drawDistributions(place, data, width, task) {
  const state = (place.state ??= { shown: new Set(data.shown) });
  place.task = task;
  if (!place.legend) {
    place.legend = html(place, "div", { class: "legend", role: "group", "aria-label": "Bases shown" });
    const entries = data.bases.map((b, key) => ({ key, ...b, shape: "circle" }));
    legend(place.legend, entries, state.shown, () => drawDistributions(place, data, place.clientWidth, place.task));
  }
  const panel = (side, title, xlabel) => ({
    title, xlabel, xlog: true, ylog: true,
    series: data.lines.filter((one) => one.task === task && state.shown.has(one.basis)).map((one) => ({ colour: data.bases[one.basis].colour, points: one[side] })),
  });
  linePanels(place, [panel("helps", "Nodes with at least this score", "score (metric units)"), panel("hinders", "Nodes with at most minus this score", "\u2212score (metric units)")], width, `Scores of ${data.tasks[task]}`);
}

function select(parent, label, options, changed) {
  const holder = html(parent, "label", { class: "choice" }, `${label} `);
  const box = html(holder, "select");
  options.forEach((option, i) => box.add(new Option(option, i)));
  box.addEventListener("change", () => changed(+box.value));
}
