// The specification curve: every specification's difference in growing order, and below which choices made it.
function drawSpecifications(place, data, width, task) {
  const state = (place.state ??= { pair: 0, score: 0 });
  const again = () => drawSpecifications(place, data, place.clientWidth, place.task);
  place.task = task;
  if (!place.said) {
    const bar = html(place, "div", { class: "choices" });
    if (data.pairs.length > 1) select(bar, "neurons against", data.pairs.map((pair) => pair.b), (value) => { state.pair = value; again(); });
    if (data.scores.length > 1) select(bar, "score", data.scores, (value) => { state.score = value; again(); });
    place.said = html(place, "p", { class: "said" });
  }
  const pair = data.pairs[state.pair], score = data.scores[state.score];
  const rows = data.rows.filter((r) => r.task === task && r.pair === state.pair && r.score === score).sort((a, b) => a.value - b.value);
  place.said.textContent = data.said.find((one) => one.task === task && one.pair === state.pair && one.score === score)?.text ?? "";
  const gutter = Math.min(170, width * 0.36), left = gutter, right = width - 10, top = 24, bottom = 210;
  const step = 15, listing = data.factors.flatMap((factor) => [null, ...factor.levels]);
  const picture = canvas(place, width, bottom + 28 + listing.length * step + 10, `Specification curve of ${data.tasks[task]}`);
  if (!rows.length) return void svg(picture, "text", { x: 0, y: 40 }, "no specification of this score");
  const ends = rows.flatMap((r) => [r.low, r.high, r.value]);
  const y = linear([Math.min(0, ...ends), Math.max(0, ...ends)], [bottom, top]);
  const x = (i) => left + ((i + 0.5) / rows.length) * (right - left);
  yAxis(picture, y, y.ticks(5), { left, right, top, bottom });
  const less = score === "completeness";
  svg(picture, "text", { x: left, y: 12 }, fitted(`${less ? "↓" : "↑"} ${pair.a} better`, right - left));
  svg(picture, "text", { x: left, y: bottom + 16 }, fitted(`${less ? "↑" : "↓"} ${pair.b} better`, right - left));
  svg(picture, "line", { x1: left, x2: right, y1: y(0), y2: y(0), stroke: "currentColor", "stroke-width": 1.5 });
  const radius = Math.min(4, Math.max(1.6, (right - left) / rows.length / 2.4));
  rows.forEach((r, i) => {
    const colour = { "a better": pair.colourA, "b better": pair.colourB }[r.verdict] ?? "#808080";
    const mark = svg(picture, "g");
    svg(mark, "line", { x1: x(i), x2: x(i), y1: y(r.low), y2: y(r.high), stroke: colour, "stroke-width": Math.max(1, radius / 2) });
    marker(mark, { shape: "circle", x: x(i), y: y(r.value), r: radius, colour, open: r.control });
    const choices = data.factors.map((factor, f) => `${factor.label} ${factor.levels[r.levels[f]]}`).join(", ");
    tip(mark, `${signed(r.value)} [${signed(r.low)}, ${signed(r.high)}], ${data.verdicts[r.verdict] ?? r.verdict}: ${choices}`);
  });
  let line = bottom + 30;
  data.factors.forEach((factor, f) => {
    svg(picture, "text", { x: 0, y: line + 4, "font-weight": 600, "font-size": 11 }, fitted(factor.label, left - 8, 11));
    line += step;
    factor.levels.forEach((level, number) => {
      svg(picture, "text", { x: 10, y: line + 4, "font-size": 11 }, fitted(level, left - 18, 11));
      svg(picture, "line", { x1: left, x2: right, y1: line, y2: line, stroke: "currentColor", "stroke-opacity": 0.1 });
      rows.forEach((r, i) => {
        if (r.levels[f] === number) svg(picture, "rect", { x: x(i) - radius, y: line - 4, width: 2 * radius, height: 8, fill: "currentColor", "fill-opacity": 0.75 });
      });
      line += step;
    });
  });
}
