// The RoI lab in a notebook. Python computes every number that is shown (trait `result`); here they are only drawn.

const PATIENCE = 1500; // milliseconds without an answer after which the lab says that it waits
const OPERATORS = ["roi_pool", "roi_align"];
const COORDINATES = ["x1", "y1", "x2", "y2"];
const MOST_BINS = 14; // along an axis, of those to choose from here

/**
 * Asks Python for numbers, one question at a time, so that dragging leaves no queue behind. What the reader wants is
 * kept here: in the model it would be overwritten by the echo of the question before.
 */
class Questions {
  constructor(model, { draw, show, busy }) {
    Object.assign(this, { model, draw, show, busy, sent: null, timer: null });
    this.adopt();
  }

  /** Want what the numbers that are there belong to. */
  adopt() {
    const { box, settings } = this.model.get("result");
    this.wanted = { box, settings };
  }

  ask(changes) {
    this.wanted = { ...this.wanted, ...changes };
    this.draw(this.wanted);
    if (this.sent === null) this.send();
  }

  send() {
    if (key(this.wanted) === key(this.model.get("result"))) return;
    this.sent = key(this.wanted);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.busy(true), (this.sent = null)), PATIENCE); // then the next one may go out
    this.model.set(this.wanted);
    this.model.save_changes();
  }

  /** The model has changed: by a question or its echo, by an answer, by Python itself, or because Python refused. */
  changed() {
    const now = key({ box: this.model.get("box"), settings: this.model.get("settings") });
    if (now !== key(this.model.get("result"))) return;
    if (now !== this.sent && now !== key(this.wanted)) this.adopt();
    clearTimeout(this.timer);
    this.sent = null;
    this.busy(false);
    this.draw(this.wanted);
    this.show(this.model.get("result"));
    this.send();
  }
}

/** What the numbers of a result belong to, to compare. */
function key({ box, settings }) {
  const { output_size, sampling_ratio, aligned, cell, gradient_of } = settings;
  return JSON.stringify([box, output_size, sampling_ratio, aligned, cell, gradient_of]);
}

/** What stands below one map: the pooled numbers, the gradient, and how the chosen number came about. */
class Findings {
  constructor(operator, picture, choose) {
    Object.assign(this, { operator, picture, choose, cells: [] });
    this.grid = make("div", { class: "outputs", role: "group" });
    this.gradient = make("svg", { class: "gradient", role: "img" });
    this.caption = make("div", { class: "caption" });
    this.detail = make("div", { class: "detail" });
    const [h, w] = [picture.values.length, picture.values[0].length];
    this.gradient.setAttribute("viewBox", `-0.05 -0.05 ${w + 0.1} ${h + 0.1}`);
    let lines = "";
    for (let i = 0; i <= w; i++) lines += `M${i} 0V${h}`;
    for (let i = 0; i <= h; i++) lines += `M0 ${i}H${w}`;
    this.layer = make("g");
    this.gradient.append(this.layer, make("path", { d: lines, class: "grid" }));
    this.grid.addEventListener("keydown", (event) => this.key(event));
  }

  /** Make as many buttons as there are outputs. */
  build([h, w]) {
    this.size = [h, w];
    this.grid.style.setProperty("--columns", w);
    this.grid.classList.toggle("many", w > 4);
    this.cells = [];
    for (let i = 0; i < h * w; i++) {
      const at = [Math.floor(i / w), i % w];
      const button = make("button", { type: "button", class: "output", "data-row": at[0], "data-column": at[1] });
      button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.choose(at, false));
      button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.choose(null, false));
      button.addEventListener("focus", () => this.choose(at, true));
      button.addEventListener("click", () => this.choose(at, true));
      this.cells.push(button);
    }
    this.grid.replaceChildren(...this.cells);
  }

  key(event) {
    if (!(event.key in ARROWS)) return;
    const [h, w] = this.size;
    const at = this.cells.indexOf(event.target);
    const [dx, dy] = ARROWS[event.key];
    const [row, column] = [Math.floor(at / w) + dy, (at % w) + dx];
    if (row >= 0 && row < h && column >= 0 && column < w) this.cells[row * w + column].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  draw(found, settings) {
    const [h, w] = settings.output_size;
    if (String(this.size) !== String([h, w])) this.build([h, w]);
    const failed = Boolean(found.error);
    for (const part of [this.grid, this.gradient, this.caption]) part.classList.toggle("gone", failed);
    if (failed) {
      this.detail.replaceChildren(make("p", { class: "error" }, found.error));
      return;
    }
    const [py, px] = settings.cell;
    this.cells.forEach((button, i) => {
      const [row, column] = [Math.floor(i / w), i % w];
      const value = found.output[row][column];
      const mine = row === py && column === px;
      button.textContent = short(value, w > 4 ? 3 : 4);
      button.tabIndex = mine ? 0 : -1;
      button.dataset.value = value;
      button.title = String(value);
      button.setAttribute("aria-pressed", mine);
      button.setAttribute("aria-label", `output row ${row}, column ${column}: ${short(value)}`);
    });
    this.drawGradient(found.gradient, settings);
    this.explain(found.detail);
  }

  drawGradient({ cells, sum, largest }, settings) {
    this.layer.replaceChildren();
    for (const [y, x, value] of cells) {
      const strength = largest ? 0.12 + 0.88 * (value / largest) : 0;
      const square = make("rect", { x, y, width: 1, height: 1, class: "flow" });
      square.style.setProperty("--strength", strength);
      square.append(make("title", {}, `row ${y}, column ${x}: ${value}`));
      const tone = strength > 0.5 ? "strong" : "weak";
      this.layer.append(square, label(x + 0.5, y + 0.5, tight(value), `amount ${tone}`));
    }
    const from = settings.gradient_of === "all" ? "all outputs" : `output (${settings.cell})`;
    this.caption.textContent = `${words(cells.length, "cell")} of the map, sum ${short(sum)}`;
    this.gradient.setAttribute("aria-label", `Gradient of ${from}: ${this.caption.textContent}`);
  }

  resize() {
    this.gradient.classList.toggle("tiny", this.gradient.clientWidth < 15 * this.picture.values[0].length);
  }

  explain(detail) {
    this.detail.replaceChildren(make("p", {}, detail.text));
    if (!detail.samples.length) return;
    const head = ["sample", "row", "column", "value = sum of weight × cell"].map((text) => make("th", {}, text));
    const rows = detail.samples.map(([y, x, value, parts], i) => {
      const sum = parts.map(([weight, cell]) => `${short(weight)}·${short(cell, 3)}`).join(" + ");
      const cells = [i + 1, short(y), short(x), parts.length ? `${short(value)} = ${sum}` : "0: it lies off the map"];
      return make("tr", {}, ...cells.map((text) => make("td", {}, String(text))));
    });
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
    this.detail.append(make("div", { class: "scroll" }, table));
    if (detail.left_out) this.detail.append(make("p", {}, `and ${words(detail.left_out, "more sample")}.`));
  }
}

/** The row of controls; each tells Python what was chosen. */
class Controls {
  constructor(settings, changed) {
    Object.assign(this, { changed, fields: {} });
    this.node = make("div", { class: "controls" });
    const bins = Array.from({ length: MOST_BINS }, (_, i) => [i + 1, String(i + 1)]);
    this.select("height", "Output height", bins, (value) => ({ output_size: [value, this.now.output_size[1]] }));
    this.select("width", "width", bins, (value) => ({ output_size: [this.now.output_size[0], value] }));
    const ratios = [[-1, "adaptive"], ...[1, 2, 3, 4].map((n) => [n, `${n} × ${n}`])];
    this.select("ratio", "Samples per bin", ratios, (value) => ({ sampling_ratio: value }));
    const aligned = make("input", { type: "checkbox", name: "aligned" });
    aligned.addEventListener("change", () => this.changed({ aligned: aligned.checked }));
    this.fields.aligned = aligned;
    this.node.append(make("label", { class: "switch" }, aligned, "aligned (half a cell off)"));
    const outputs = [["all", "all outputs"], ["cell", "the chosen output"]];
    this.select("gradient", "Gradient from", outputs, (value) => ({ gradient_of: value }));
    this.show(settings);
  }

  select(name, text, options, change) {
    const field = make("select", { name });
    for (const [value, shown] of options) field.append(make("option", { value }, shown));
    const numeric = typeof options[0][0] === "number";
    field.addEventListener("change", () => this.changed(change(numeric ? Number(field.value) : field.value)));
    this.fields[name] = field;
    this.node.append(make("label", {}, text, field));
  }

  show(settings) {
    this.now = settings;
    const { output_size, sampling_ratio, aligned, gradient_of } = settings;
    const values = { height: output_size[0], width: output_size[1], ratio: sampling_ratio, gradient: gradient_of };
    for (const [name, value] of Object.entries(values)) {
      const field = this.fields[name];
      const known = [...field.options].some((option) => option.value === String(value));
      if (!known) field.append(make("option", { value }, String(value))); // set from Python
      field.value = String(value);
    }
    this.fields.aligned.checked = aligned;
  }
}

/** The four numbers of the box, to read and to type. */
class BoxFields {
  constructor(moved) {
    this.node = make("div", { class: "box-fields" }, make("span", { class: "what" }, "Box in pixels"));
    this.fields = COORDINATES.map((name, i) => {
      const field = make("input", { type: "number", step: STEP, name });
      const typed = () => {
        const value = field.valueAsNumber;
        if (Number.isFinite(value)) moved(this.box.map((old, j) => (i === j ? value : old)));
        else field.value = String(this.box[i]);
      };
      field.addEventListener("change", typed);
      field.addEventListener("keydown", (event) => event.key === "Enter" && typed());
      this.node.append(make("label", {}, name, field));
      return field;
    });
  }

  show(box) {
    this.fields.forEach((field, i) => {
      if (this.box?.[i] !== box[i]) field.value = String(box[i]); // else it may be half typed
    });
    this.box = box;
  }
}

/** Whether what surrounds the lab is dark: its text is light. */
function isDark(element) {
  const [r, g, b] = (getComputedStyle(element).color.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140;
}

const TITLES = {
  roi_pool: () => ["RoIPool", "rounds the box to whole cells; the largest of each bin"],
  roi_align: ({ aligned }) => [aligned ? "RoIAlign, aligned" : "RoIAlign, not aligned", "rounds nothing; the mean of samples in each bin"],
};
const LEGENDS = {
  roi_pool: [["user", "your box"], ["own", "rounded box and its bins"], ["best", "largest of a bin"], ["mine", "chosen bin"]],
  roi_align: [["user", "your box"], ["own", "its bins"], ["dot", "sample"], ["mine", "chosen bin"], ["read", "cells it reads"]],
};

function render({ model, el }) {
  const picture = model.get("picture");
  const root = make("div", { class: "tinyseg-roi-lab", "data-lm-suppress-shortcuts": "true" });
  const status = make("div", { class: "status" });
  const live = make("div", { class: "unseen", role: "status", "aria-live": "polite" });
  const first = model.get("result");
  let saying;
  let kept = first.settings.cell; // the chosen output, to come back to once the mouse has gone

  const moved = (box) => questions.ask({ box });
  const changed = (changes) => {
    const settings = { ...questions.wanted.settings, ...changes };
    settings.cell = settings.cell.map((at, axis) => Math.min(at, settings.output_size[axis] - 1));
    questions.ask({ settings });
  };
  const choose = (at, keep) => {
    if (keep) kept = at;
    const cell = at || kept;
    if (String(cell) !== String(questions.wanted.settings.cell)) changed({ cell });
  };

  const controls = new Controls(first.settings, changed);
  const fields = new BoxFields(moved);
  const maps = OPERATORS.map((operator) => new FeatureMap(operator, picture, moved));
  const findings = OPERATORS.map((operator) => new Findings(operator, picture, choose));
  const heads = OPERATORS.map(() => make("h4"));
  const columns = OPERATORS.map((operator, i) => {
    const legend = LEGENDS[operator].map(([kind, text]) => make("span", { class: `key ${kind}` }, text));
    const pooled = make("div", { class: "part" }, make("h5", {}, "Output"), findings[i].grid);
    const title = make("h5", { class: "flow-title" });
    const flow = make("div", { class: "part" }, title, findings[i].gradient, findings[i].caption);
    const found = make("div", { class: "found" }, pooled, flow);
    const parts = [heads[i], maps[i].svg, make("div", { class: "legend" }, ...legend), found, findings[i].detail];
    return make("section", { class: operator.replace("_", "-") }, ...parts);
  });
  const help = "Drag the box or its corners, or focus them and press the arrow keys: 1/16 pixel, with Shift 1 pixel.";
  root.append(controls.node, fields.node, make("p", { class: "help" }, help));
  root.append(make("div", { class: "columns" }, ...columns), status, live);
  el.append(root);

  /** What the reader wants, at once: the box and the controls. */
  const draw = ({ box, settings }) => {
    fields.show(box);
    controls.show(settings);
    for (const map of maps) map.drawBox(box);
  };
  /** What Python found. */
  const show = ({ settings, box, ...found }) => {
    if (kept.some((at, axis) => at >= settings.output_size[axis])) kept = settings.cell;
    OPERATORS.forEach((operator, i) => {
      maps[i].draw(found[operator], settings.cell);
      findings[i].draw(found[operator], settings);
      const [name, what] = TITLES[operator](settings);
      heads[i].replaceChildren(name, make("small", {}, what));
    });
    for (const title of root.querySelectorAll(".flow-title")) {
      title.textContent = `Gradient of ${settings.gradient_of === "all" ? "all outputs" : "the chosen output"}`;
    }
    status.textContent = `Numbers of tinyseg's kernels for the box ${box.map((value) => short(value, 8)).join(", ")}`;
    Object.assign(root.dataset, {
      box: JSON.stringify(box),
      settings: JSON.stringify(settings),
      scale: picture.spatial_scale,
      dtype: picture.dtype,
    });
    clearTimeout(saying);
    saying = setTimeout(() => (live.textContent = spoken(box, found)), 400); // not at each step of a drag
  };
  const questions = new Questions(model, { draw, show, busy: (busy) => root.classList.toggle("busy", busy) });

  const traits = ["box", "settings", "result"].map((name) => `change:${name}`).join(" ");
  const heard = () => questions.changed();
  const theme = () => (root.dataset.theme = isDark(el) ? "dark" : "light");
  model.on(traits, heard);
  const sizes = new ResizeObserver(() => {
    for (const part of [...maps, ...findings]) part.resize();
  });
  sizes.observe(root);
  const themes = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body]) themes.observe(node, { attributes: true });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", theme);
  theme();
  draw(questions.wanted);
  show(first);

  return () => {
    model.off(traits, heard);
    sizes.disconnect();
    themes.disconnect();
    system.removeEventListener("change", theme);
    clearTimeout(saying);
    clearTimeout(questions.timer);
  };
}

/** What a screen reader says once the box rests. */
function spoken(box, found) {
  const said = OPERATORS.map((operator) => {
    const name = operator === "roi_pool" ? "RoIPool" : "RoIAlign";
    const { error, output } = found[operator];
    return `${name}: ${error || output.map((row) => row.map((value) => short(value)).join(", ")).join("; ")}.`;
  });
  return [`Box ${box.map((value) => short(value, 8)).join(", ")}.`, ...said].join(" ");
}

export default { render };
