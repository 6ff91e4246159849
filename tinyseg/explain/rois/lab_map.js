// The feature map of the RoI lab with the box on it. One module with lab.js: Python joins the two.
// Lengths are in cells, x to the right and y down: cell i covers i to i + 1, and its centre is at i + 0.5.

const MARGIN = { before: 1.45, after: 1.05 }; // drawn around the map, where samples are clamped, or count as 0: cells,
const LARGE = 12; // or as many times more as a map is larger than this, so that axes can be read
const STEP = 1 / 16; // pixels that an arrow key moves by, and that dragging snaps to
const FAR = 1e5; // cells: nothing is drawn farther out
const CORNERS = { "top left": [0, 1], "top right": [2, 1], "bottom left": [0, 3], "bottom right": [2, 3] };
const EDGES = { left: [0], top: [1], right: [2], bottom: [3] };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function make(tag, attributes = {}, ...children) {
  const shape = ["svg", "g", "rect", "path", "text", "circle", "image", "title", "line"].includes(tag);
  const made = shape ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A number as it is shown: whole, or with four digits; the exact one stands in `title` and `data-value`. */
function short(value, digits = 4) {
  if (typeof value !== "number") return value === null ? "none" : String(value).replace("-", "−");
  const whole = Number.isInteger(value) && Math.abs(value) < 1e6;
  return (whole ? String(value) : String(Number(value.toPrecision(digits)))).replace("-", "−");
}

/** A number for a small cell: two decimals at most, no 0 before them. */
function tight(value) {
  if (typeof value !== "number" || Math.abs(value) >= 100) return short(value, 3);
  return String(Number(value.toFixed(2))).replace(/^(-?)0\./, "$1.").replace("-", "−");
}

function words(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function rectangle([x1, y1, x2, y2]) {
  return `M${x1} ${y1}H${x2}V${y2}H${x1}Z`;
}

/** The feature map under the box, with what one operator makes of the box. */
class FeatureMap {
  constructor(operator, picture, moved) {
    Object.assign(this, { operator, picture, moved, pixel: 0.03 });
    const [h, w] = [picture.values.length, picture.values[0].length];
    Object.assign(this, { h, w });
    const unit = (this.unit = Math.max(1, h / LARGE, w / LARGE));
    const [before, after] = [MARGIN.before * unit, MARGIN.after * unit];
    const [width, height] = [w + before + after, h + before + after];
    this.svg = make("svg", { viewBox: `${-before} ${-before} ${width} ${height}`, class: "map", role: "group" });
    this.svg.style.setProperty("--wide", width / height);
    this.svg.style.setProperty("--unit", `${unit}px`);
    this.layers = {};
    for (const name of ["cells", "values", "bins", "chosen", "samples", "box"]) {
      this.layers[name] = this.svg.appendChild(make("g", { class: name }));
    }
    this.drawCells();
    this.makeBox();
  }

  drawCells() {
    const { h, w, picture } = this;
    const canvas = make("canvas", { width: w, height: h });
    const context = canvas.getContext("2d");
    picture.values.forEach((row, y) =>
      row.forEach((value, x) => {
        context.fillStyle = picture.colours[y][x];
        context.fillRect(x, y, 1, 1);
      }),
    );
    const { cells, values } = this.layers;
    const href = canvas.toDataURL();
    cells.append(make("image", { href, width: w, height: h, preserveAspectRatio: "none" }));
    let grid = "";
    for (let i = 0; i <= w; i++) grid += `M${i} 0V${h}`;
    for (let i = 0; i <= h; i++) grid += `M0 ${i}H${w}`;
    cells.append(make("path", { d: grid, class: "grid" }));
    const { unit } = this;
    for (let i = 0; i < w; i += Math.ceil(unit)) cells.append(label(i + 0.5, -0.35 * unit, i, "axis"));
    for (let i = 0; i < h; i += Math.ceil(unit)) cells.append(label(-0.45 * unit, i + 0.5, i, "axis"));
    cells.append(label(w / 2, -1.05 * unit, "column (feature cells)", "axis"));
    const row = label(0, 0, "row (feature cells)", "axis");
    row.setAttribute("transform", `translate(${-1.1 * unit} ${h / 2}) rotate(-90)`);
    cells.append(row);
    picture.values.forEach((line, y) =>
      line.forEach((value, x) => {
        const shown = label(x + 0.5, y + 0.5, short(value, 3), "value");
        shown.dataset.value = value;
        values.append(shown);
      }),
    );
  }

  makeBox() {
    const group = this.layers.box;
    this.halo = group.appendChild(make("path", { class: "halo" }));
    const name = this.operator === "roi_pool" ? "on the left map" : "on the right map";
    const about = { tabindex: 0, role: "button", "aria-roledescription": "draggable" };
    this.body = group.appendChild(make("path", { class: "body", ...about }));
    this.parts = [{ node: this.body, label: `Box ${name}`, moves: [0, 1, 2, 3] }];
    for (const [side, moves] of Object.entries(EDGES)) {
      this.parts.push({ node: group.appendChild(make("line", { class: `edge ${side}` })), side, moves });
    }
    for (const [corner, moves] of Object.entries(CORNERS)) {
      const node = make("g", { class: `handle ${corner.replace(" ", "-")}`, ...about });
      node.append(make("circle", { class: "reach" }), make("circle", { class: "dot" }));
      group.append(node);
      this.parts.push({ node, label: `${corner} corner ${name}`, corner, moves });
    }
    for (const part of this.parts) this.listen(part);
  }

  listen({ node, moves }) {
    let from = null;
    const end = () => {
      from = null;
      this.svg.classList.remove("dragging");
    };
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = { box: this.box, at: this.place(event) };
      node.setPointerCapture(event.pointerId);
      this.svg.classList.add("dragging");
      if (node.focus) node.focus({ preventScroll: true });
      event.preventDefault();
      event.stopPropagation();
    });
    node.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [x, y] = this.place(event);
      const shift = [(x - from.at[0]) / this.scale, (y - from.at[1]) / this.scale];
      this.moved(this.shifted(from.box, moves, shift));
    });
    // browsers that heed touch-action on boxes alone would scroll the page instead
    node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) node.addEventListener(name, end);
    node.addEventListener("keydown", (event) => {
      if (!(event.key in ARROWS)) return;
      const step = event.shiftKey ? 1 : STEP;
      this.moved(this.shifted(this.box, moves, ARROWS[event.key].map((sign) => sign * step)));
      event.preventDefault();
      event.stopPropagation();
    });
  }

  get scale() {
    return this.picture.spatial_scale;
  }

  /** Where on the map a pointer is, in cells. */
  place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [point.x, point.y];
  }

  /** The box, in pixels, with these of its coordinates moved: at sixteenths, not reversed, and within reach. */
  shifted(box, moves, shift) {
    const most = [this.w, this.h].map((cells) => (cells + 1) / this.scale);
    const least = -1 / this.scale;
    const snap = (value, axis) => Math.min(Math.max(Math.round(value / STEP) * STEP, least), most[axis]);
    const moved = [...box];
    if (moves.length === 4) {
      for (const axis of [0, 1]) {
        const room = [least - box[axis], most[axis] - box[axis + 2]]; // the box keeps its size
        const by = Math.round(shift[axis] / STEP) * STEP;
        const allowed = room[0] <= 0 && room[1] >= 0 ? Math.min(Math.max(by, room[0]), room[1]) : by;
        moved[axis] += allowed;
        moved[axis + 2] += allowed;
      }
      return moved;
    }
    for (const i of moves) {
      const value = snap(box[i] + shift[i % 2], i % 2);
      moved[i] = i < 2 ? Math.min(value, Math.max(box[i + 2], box[i])) : Math.max(value, Math.min(box[i - 2], box[i]));
    }
    return moved;
  }

  resize() {
    const matrix = this.svg.getScreenCTM();
    if (!matrix || !matrix.a) return;
    this.pixel = 1 / matrix.a;
    this.svg.classList.toggle("tiny", matrix.a < 21);
    if (this.box) this.drawBox(this.box);
    if (this.drawn) this.draw(...this.drawn);
  }

  drawBox(box) {
    this.box = box;
    const cells = box.map((value) => Math.min(Math.max(value * this.scale, -FAR), FAR));
    const [x1, y1, x2, y2] = cells;
    for (const path of [this.halo, this.body]) path.setAttribute("d", rectangle(cells));
    const ends = { left: [x1, y1, x1, y2], right: [x2, y1, x2, y2], top: [x1, y1, x2, y1], bottom: [x1, y2, x2, y2] };
    for (const { node, label: name, side, corner, moves } of this.parts) {
      if (side) ["x1", "y1", "x2", "y2"].forEach((key, i) => node.setAttribute(key, ends[side][i]));
      if (corner) {
        for (const circle of node.children) {
          circle.setAttribute("cx", cells[moves[0]]);
          circle.setAttribute("cy", cells[moves[1]]);
          circle.setAttribute("r", (circle.classList.contains("dot") ? 5.5 : 13) * this.pixel);
        }
      }
      const values = moves.map((i) => `${["x1", "y1", "x2", "y2"][i]} ${short(box[i], 8)}`).join(", ");
      if (name) node.setAttribute("aria-label", `${name}: ${values} pixels. Arrow keys move it, with Shift by 1 pixel.`);
    }
  }

  /** What the operator made of the box: its own box, bins and samples, and of one output cell all that it takes. */
  draw(found, [py, px]) {
    this.drawn = [found, [py, px]];
    const { bins, chosen, samples } = this.layers;
    for (const layer of [bins, chosen, samples]) layer.replaceChildren();
    if (found.error) return;
    for (const row of found.bins.y) {
      for (const column of found.bins.x) {
        const [y1, y2, x1, x2] = [...row, ...column];
        bins.append(make("path", { d: rectangle([x1, y1, x2, y2]), class: "bin" }));
      }
    }
    bins.append(make("path", { d: rectangle(found.box), class: "own-box" }));
    const [[y1, y2], [x1, x2]] = [found.bins.y[py], found.bins.x[px]];
    const read = found.detail.cells.map(([y, x]) => rectangle([x, y, x + 1, y + 1]));
    chosen.append(make("path", { d: read.join(""), class: "read" }));
    for (const kind of ["chosen-bin", "chosen-line"]) {
      chosen.append(make("path", { d: rectangle([x1, y1, x2, y2]), class: kind }));
    }
    if (this.operator === "roi_pool") {
      const d = found.maxima.map(brackets).join("");
      samples.append(make("path", { d, class: "maximum" }));
    } else {
      const { y, x } = found.samples;
      for (const counts of [true, false]) {
        const all = y.map((ys) => x.map((xs) => dots(ys, xs, 2.8 * this.pixel, counts)).join("")).join("");
        const mine = dots(y[py], x[px], 4.2 * this.pixel, counts);
        const kind = counts ? "sample" : "sample off";
        samples.append(make("path", { d: all, class: kind }), make("path", { d: mine, class: `${kind} mine` }));
      }
    }
  }
}

function label(x, y, text, kind) {
  return make("text", { x, y, class: kind }, short(text));
}

/** Circles at the crossings of these rows and columns, of those samples that count or of those that do not: one path. */
function dots(ys, xs, r, counts) {
  const circle = (x, y) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  const rows = ys.map(([y, yCounts]) => xs.map(([x, xCounts]) => ((yCounts && xCounts) === counts ? circle(x, y) : "")));
  return rows.flat().join("");
}

/** Brackets in the corners of a cell, which leave its number readable. */
function brackets([row, column]) {
  const [reach, arm] = [0.42, 0.2];
  const corner = (sx, sy) =>
    `M${column + 0.5 + sx * reach} ${row + 0.5 + sy * (reach - arm)}v${sy * arm}h${-sx * arm}`;
  return [-1, 1].map((sx) => [-1, 1].map((sy) => corner(sx, sy)).join("")).join("");
}
