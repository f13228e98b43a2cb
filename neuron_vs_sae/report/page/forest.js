// The forest plot: a row per task, a mark per error policy, a panel per trained dictionary.
function drawForest(place, data, width) {
  const state = (place.state ??= { shown: new Set(data.levels.map((_, i) => i)) });
  const again = () => drawForest(place, data, place.clientWidth);
  const names = data.panels[0].rows.map((row) => row.task);
  const gutter = Math.min(Math.max(...names.map((name) => textWidth(name))) + 12, width * 0.36);
  const columns = width >= 760 ? Math.min(data.panels.length, 2) : 1;
  const levels = data.levels.filter((_, i) => state.shown.has(i));
  const row = 15 * Math.max(levels.length, 1) + 12, body = names.length * row, foot = 52;
  const lines = Math.ceil(data.panels.length / columns);
  const panelWidth = (width - (columns === 1 ? gutter : gutter * columns)) / columns;
  const picture = canvas(place, width, lines * (24 + body + foot), data.label);
  const all = data.panels.flatMap((panel) => panel.rows.flatMap((r) => r.points.flatMap((p) => [p.low, p.high, p.value])));
  const far = 1.08 * Math.max(...all.map(Math.abs), 0.02);
  data.panels.forEach((panel, number) => {
    const left = (number % columns) * (panelWidth + gutter) + gutter, right = left + panelWidth - 10;
    const top = Math.floor(number / columns) * (24 + body + foot) + 24, bottom = top + body;
    const x = linear([-far, far], [left, right]);
    svg(picture, "text", { x: left, y: top - 8, "font-weight": 600 }, fitted(panel.label, panelWidth));
    xAxis(picture, x, x.ticks(panelWidth < 260 ? 3 : 5), { top, bottom, from: left, to: right });
    svg(picture, "line", { x1: x(0), x2: x(0), y1: top, y2: bottom, stroke: "currentColor", "stroke-width": 1.5 });
    const room = (right - left) / 2 - 4;
    svg(picture, "text", { x: right, y: bottom + 36, "text-anchor": "end" }, fitted(`${panel.a} better →`, room));
    svg(picture, "text", { x: left, y: bottom + 36 }, fitted(`← ${panel.b} better`, room));
    panel.rows.forEach((r, i) => {
      const middle = top + (i + 0.5) * row;
      svg(picture, "text", { x: left - 8, y: middle + 4, "text-anchor": "end" }, fitted(r.task, gutter - 10));
      if (i) svg(picture, "line", { x1: left - gutter + 4, x2: right, y1: top + i * row, y2: top + i * row, stroke: "currentColor", "stroke-opacity": 0.12 });
      r.points.filter((p) => state.shown.has(p.level)).forEach((p) => {
        const level = data.levels[p.level], y = middle + 15 * (levels.indexOf(level) - (levels.length - 1) / 2);
        const mark = svg(picture, "g");
        svg(mark, "line", { x1: x(p.low), x2: x(p.high), y1: y, y2: y, stroke: level.colour, "stroke-width": 2.5 });
        marker(mark, { shape: level.shape, x: x(p.value), y, colour: level.colour, open: !p.decided });
        tip(mark, `${r.task}, error nodes ${level.label}: ${signed(p.value)} [${signed(p.low)}, ${signed(p.high)}], ${p.verdict}`);
      });
    });
  });
  if (!place.legend) {
    place.legend = html(place, "div", { class: "legend", role: "group", "aria-label": "Error policies shown" });
    place.prepend(place.legend);
    const entries = data.levels.map((level, i) => ({ ...level, key: i, label: `error nodes ${level.label}` }));
    legend(place.legend, entries, state.shown, again);
  }
}
