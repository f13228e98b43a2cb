// The circuit: layers by tokens, a square per node, its area its share of |score|; the same scale in both bases.
function drawCircuit(place, data, width, task) {
  const state = (place.state ??= { other: 0 });
  const again = () => drawCircuit(place, data, place.clientWidth, place.task);
  place.task = task;
  if (!place.card) {
    if (data.others.length > 1) select(html(place, "div", { class: "choices" }), "beside neurons", data.others.map((i) => data.bases[i].label), (value) => { state.other = value; again(); });
    place.card = html(place, "aside", { class: "card", "aria-live": "polite" });
  }
  const here = data.tasks[task];
  const bases = [data.first, data.others[state.other]].filter((i) => i !== undefined && here.circuits[i]);
  const columns = width >= 760 ? bases.length : 1, gap = 24, each = (width - gap * (columns - 1)) / columns;
  const rows = Math.max(...bases.map((i) => here.circuits[i].rows.length)), tokens = here.tokens;
  const groups = bases.map((i) => cells(here.circuits[i])), head = 26, gutter = 46;
  const foot = Math.min(90, 14 + 0.72 * Math.max(...tokens.map((token) => textWidth(token))));
  const across = shared(groups.flat(), "column", tokens.length, each - gutter, Math.min(22, (each - gutter) / tokens.length));
  const up = shared(groups.flat(), "row", rows, Math.max(280, 14 * rows), Math.min(24, 400 / rows));
  const height = head + up.total + foot;
  const picture = canvas(place, width, height * Math.ceil(bases.length / columns), `Circuits of ${here.label}`);
  place.card.before(picture);
  hatching(picture);
  const scale = largestScale(groups.flat(), across.sizes, up.sizes);
  const marks = [];
  bases.forEach((i, number) => {
    const left = (number % columns) * (each + gap) + gutter, top = Math.floor(number / columns) * height + head;
    const circuit = here.circuits[i], basis = data.bases[i];
    svg(picture, "text", { x: left, y: top - 9, "font-weight": 600 }, fitted(`${basis.label}: ${circuit.nodes.length} nodes, ${circuit.held} of |score|`, each - gutter));
    const bottom = top + up.total;
    circuit.rows.forEach((label, row) => {
      const y = bottom - up.starts[row] - up.sizes[row];
      svg(picture, "text", { x: left - 6, y: y + up.sizes[row] / 2 + 4, "text-anchor": "end", "fill-opacity": 0.8 }, fitted(label, gutter - 8, 11));
      tokens.forEach((_, column) => svg(picture, "rect", { x: left + across.starts[column], y, width: across.sizes[column], height: up.sizes[row], fill: "none", stroke: "currentColor", "stroke-opacity": 0.14 }));
    });
    tokens.forEach((token, column) => {
      const x = left + across.starts[column] + across.sizes[column] / 2, y = bottom + 12;
      svg(picture, "text", { x, y, "text-anchor": "end", transform: `rotate(-45 ${x} ${y})`, "fill-opacity": 0.9 }, fitted(token, 110));
    });
    for (const group of groups[number]) {
      const { row, column } = group[0];
      const x = left + across.starts[column] + 1, y = bottom - up.starts[row] - up.sizes[row] + 1;
      for (const placed of packed(group, scale, across.sizes[column] - 2).squares)
        marks.push(node(picture, placed, { x, y, basis, circuit, here, card: place.card }));
    }
  });
  roving(marks);
}

function hatching(picture) {
  const pattern = svg(svg(picture, "defs"), "pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  svg(pattern, "rect", { width: 5, height: 5, fill: "var(--paper, #fff)" });
  svg(pattern, "rect", { width: 2, height: 5, fill: "currentColor" });
}

// The circuit's nodes, largest first, by the cell that they stand in.
function cells(circuit) {
  const groups = new Map();
  for (const [row, column, unit, score, share, rank] of circuit.nodes) {
    const key = `${row},${column}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push({ row, column, unit, score, share, rank });
  }
  return [...groups.values()];
}

// A length dealt out to columns (or rows): as much as each needs at least, and the rest by what its fullest cell holds.
function shared(groups, name, count, length, least) {
  const full = new Array(count).fill(0);
  for (const group of groups) {
    const at = group[0][name];
    full[at] = Math.max(full[at], Math.sqrt(group.reduce((sum, one) => sum + one.share, 0)));
  }
  const sum = full.reduce((a, b) => a + b, 0) || 1, spare = Math.max(length - count * least, 0);
  const sizes = full.map((one) => least + (spare * one) / sum), starts = [0];
  for (const size of sizes) starts.push(starts.at(-1) + size);
  return { sizes, starts, total: starts.at(-1) };
}

// Squares of area share x scale^2 in rows, from the left; `height` is what they take.
function packed(group, scale, width) {
  const squares = [];
  let x = 0, y = 0, line = 0;
  for (const one of group) {
    const side = scale * Math.sqrt(one.share);
    if (x && x + side > width) [x, y, line] = [0, y + line, 0];
    squares.push({ ...one, x, y, side });
    x += side;
    line = Math.max(line, side);
  }
  return { squares, height: y + line };
}

function largestScale(groups, widths, heights) {
  const fits = (scale) => groups.every((group) => {
    const width = widths[group[0].column] - 2, height = heights[group[0].row] - 2;
    return scale * Math.sqrt(group[0].share) <= width && packed(group, scale, width).height <= height;
  });
  let low = 0, high = 4000;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function node(picture, { x: dx, y: dy, side, row, column, unit, score, share, rank }, { x, y, basis, circuit, here, card }) {
  const isError = unit < 0, name = isError ? "error node" : `unit ${unit}`;
  const gap = Math.min(0.5, side / 8);
  const mark = svg(picture, "rect", {
    x: x + dx + gap, y: y + dy + gap, width: Math.max(side - 2 * gap, 0.5), height: Math.max(side - 2 * gap, 0.5), class: "node", role: "button",
    tabindex: -1, color: basis.colour, stroke: isError || score < 0 ? basis.colour : "var(--paper, #fff)", "stroke-width": side > 6 ? 1 : 0.4,
    fill: isError ? "url(#hatch)" : score < 0 ? "none" : basis.colour,
  });
  if (score < 0 && !isError) mark.setAttribute("pointer-events", "all");
  const where = here.tokens.length > 1 || here.separate ? `at ${here.tokens[column]} (position ${column})` : "at all positions";
  const said = `${name}, ${circuit.sites[row]}, ${where}, rank ${rank}`;
  mark.setAttribute("aria-label", said);
  tip(mark, said);
  const open = () => {
    picture.querySelector(".chosen")?.classList.remove("chosen");
    mark.classList.add("chosen");
    showCard(card, {
      title: `${basis.label}: ${name}`,
      rows: [["site", circuit.sites[row]], ["position", here.separate ? `${column}, ${here.tokens[column]}` : "all"], ["unit", isError ? "error node: what the dictionary does not reconstruct here" : unit],
        ["score", `${signed(score, 4)} (${score < 0 ? "hinders" : "helps"} the answer)`], ["rank", rank], ["share of |score|", `${signed(100 * share, 2)} %`]],
    });
  };
  mark.addEventListener("click", open);
  mark.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
  });
  return { mark, rank };
}

// What is known of a node. Anything more that is known of its unit is one more row.
function showCard(card, { title, rows }) {
  card.replaceChildren();
  html(card, "h4", {}, title);
  const list = html(card, "dl");
  for (const [name, value] of rows) {
    html(list, "dt", {}, name);
    html(list, "dd", {}, value);
  }
}

// One stop for the Tab key; the arrow keys go from node to node by rank.
function roving(marks) {
  const stops = marks.map(({ mark }) => mark);
  if (stops.length) stops[0].setAttribute("tabindex", 0);
  stops.forEach((mark, i) => mark.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = stops[(i + step + stops.length) % stops.length];
    mark.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  }));
}
