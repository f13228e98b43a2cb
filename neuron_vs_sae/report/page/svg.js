// Drawing: elements, scales, axes and markers. Colours are attributes and `currentColor`, so a saved figure keeps them.
const NS = document.querySelector("svg").namespaceURI;
const FONT = 12;
const pen = document.createElement("canvas").getContext("2d");

function svg(parent, name, attributes = {}, text = null) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, attributes = {}, text = null) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

function textWidth(text, size = FONT) {
  pen.font = `${size}px system-ui, sans-serif`;
  return pen.measureText(text).width;
}

// The text, shortened to a width in pixels.
function fitted(text, width, size = FONT) {
  if (textWidth(text, size) <= width) return text;
  let end = text.length;
  while (end > 1 && textWidth(`${text.slice(0, end)}…`, size) > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

// An empty picture in the place, which takes the place of the one before.
function canvas(place, width, height, label) {
  place.querySelector(":scope > svg")?.remove();
  const picture = svg(place, "svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, "font-size": FONT, fill: "currentColor",
    "font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
  });
  return picture;
}

function linear([low, high], [from, to]) {
  const scale = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  scale.ticks = (count) => {
    const rough = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  };
  scale.text = (value) => signed(value, scale.digits ?? 3);
  return scale;
}

function logarithmic([low, high], [from, to]) {
  const inner = linear([Math.log10(low), Math.log10(high)], [from, to]);
  const scale = (value) => inner(Math.log10(value));
  const wide = Math.log10(high / low) > 1.3;
  scale.ticks = () => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power++)
      for (const times of wide ? [1] : [1, 2, 5])
        if (times * 10 ** power >= low * 0.999 && times * 10 ** power <= high * 1.001) found.push(times * 10 ** power);
    return found;
  };
  scale.text = (value) => {
    const power = Math.round(Math.log10(value));
    return value >= 1e5 || value < 1e-3 ? `1e${power}` : value.toLocaleString("en", { maximumSignificantDigits: 2 });
  };
  return scale;
}

function signed(value, digits = 3) {
  const text = String(+value.toFixed(digits));
  return text.replace("-", "\u2212");
}

function xAxis(parent, scale, ticks, { top, bottom, from, to, label }) {
  svg(parent, "line", { x1: from, x2: to, y1: bottom, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.6 });
  for (const tick of ticks) {
    const x = scale(tick);
    svg(parent, "line", { x1: x, x2: x, y1: top, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.12 });
    svg(parent, "text", { x, y: bottom + 16, "text-anchor": "middle", "fill-opacity": 0.8 }, scale.text(tick));
  }
  if (label) svg(parent, "text", { x: (from + to) / 2, y: bottom + 34, "text-anchor": "middle" }, fitted(label, to - from + 60));
}

function yAxis(parent, scale, ticks, { left, right, top, bottom }) {
  svg(parent, "line", { x1: left, x2: left, y1: top, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.6 });
  for (const tick of ticks) {
    const y = scale(tick);
    svg(parent, "line", { x1: left, x2: right, y1: y, y2: y, stroke: "currentColor", "stroke-opacity": 0.12 });
    svg(parent, "text", { x: left - 6, y: y + 4, "text-anchor": "end", "fill-opacity": 0.8 }, scale.text(tick));
  }
}

const SHAPES = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  square: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  "triangle-up": (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}Z`,
  "triangle-down": (r) => `M0,${1.2 * r}L${1.2 * r},${-r}H${-1.2 * r}Z`,
  cross: (r) => `M${-r},0H${r}M0,${-r}V${r}`,
  x: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
};

// A marker; one that is `open` (or named so) is an outline.
function marker(parent, { shape, x, y, r = 4, colour, open = false }) {
  const kind = shape.replace("-thin", "").replace("-open", "");
  const outline = open || (shape.endsWith("-open") && kind !== "x");
  return svg(parent, "path", {
    d: (SHAPES[kind] ?? SHAPES.circle)(r), transform: `translate(${x},${y})`, stroke: colour, "stroke-width": 2,
    fill: kind === "x" || kind === "cross" ? "none" : outline ? "var(--paper, #fff)" : colour,
  });
}

function tip(element, text) {
  svg(element, "title", {}, text);
}

// Buttons that show and hide what has their colour and marker; `shown` is the set of keys that are drawn.
function legend(holder, entries, shown, changed) {
  holder.replaceChildren();
  for (const { key, label, colour, shape } of entries) {
    const button = html(holder, "button", { type: "button", class: "entry", "aria-pressed": shown.has(key) });
    const swatch = svg(button, "svg", { width: 22, height: 14, "aria-hidden": "true" });
    if (shape === "band") svg(swatch, "rect", { x: 1, y: 2, width: 20, height: 10, fill: colour, "fill-opacity": 0.35 });
    else {
      svg(swatch, "line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: colour, "stroke-width": 2 });
      marker(swatch, { shape, x: 11, y: 7, colour });
    }
    html(button, "span", {}, label);
    button.addEventListener("click", () => {
      if (shown.has(key)) shown.delete(key);
      else shown.add(key);
      button.setAttribute("aria-pressed", shown.has(key));
      changed();
    });
  }
}
