// Sort and filter the table, and run the image explorer. All content is inserted as text, never as HTML.
"use strict";

const create = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// ---------------------------------------------------------------- table

function startTable() {
  const table = document.getElementById("lines");
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const texts = lines.map((line) => line.textContent.toLowerCase());
  // Narrow pages show the rows as cards; the roles keep them a table for screen readers.
  table.setAttribute("role", "table");
  [table.tHead, body].forEach((group) => group.setAttribute("role", "rowgroup"));
  [...table.rows].forEach((line) => line.setAttribute("role", "row"));
  headers.forEach((header) => header.setAttribute("role", "columnheader"));
  lines.forEach((line) => [...line.cells].forEach((cell) => cell.setAttribute("role", "cell")));

  const value = (line, column) => {
    const cell = line.cells[column];
    if ("v" in cell.dataset) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    return cell.textContent.trim() || null;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));

  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = lines.map((line, place) => ({ line, place, key: value(line, column) }));
      // Rows without a value stay last in either direction; equal ones keep the table's order.
      keyed.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
        return (down ? -1 : 1) * compare(a.key, b.key) || a.place - b.place;
      });
      body.append(...keyed.map((item) => item.line));
    });
  });

  const search = document.getElementById("filter-text");
  const selects = [...document.querySelectorAll(".filters select")];
  const count = document.getElementById("filter-count");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    lines.forEach((line, i) => {
      const fits = words.every((word) => texts[i].includes(word))
        && selects.every((select) => !select.value || line.dataset[select.dataset.column] === select.value);
      line.hidden = !fits;
      shown += fits;
    });
    count.textContent = shown === lines.length ? `${shown} rows` : `${shown} of ${lines.length} rows`;
  };
  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  search.form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

// ---------------------------------------------------------------- image explorer

const FACETS = ["judge", "threat", "source", "route", "attack", "variant", "norm", "budget"];
const HIDDEN_WHEN_SINGLE = ["source", "variant"];
const SMALL = 96; // images up to this width are shown unsmoothed

async function startExplorer() {
  const holder = document.getElementById("explorer-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const { width, height } = data;
  const root = document.getElementById("explorer");
  const part = (selector) => root.querySelector(selector);
  root.hidden = false;
  root.style.setProperty("--shape", `${width} / ${height}`);

  const seen = {};
  for (const cell of data.cells) {
    const key = [cell.threat, cell.source, cell.route, cell.attack, cell.norm, cell.budget].join("/");
    cell.variant = seen[key] = (seen[key] || 0) + 1;
  }
  const opening = data.cells[data.start.cell];
  const state = { ...opening, judge: data.start.judge, image: data.start.image };

  // Sheets are decoded on first use.
  const sheets = new Map();
  const pixels = (sheet) => {
    if (!sheets.has(sheet)) sheets.set(sheet, decode(sheet));
    return sheets.get(sheet);
  };
  const decode = async (sheet) => {
    const image = new Image();
    image.src = `data:image/png;base64,${sheet}`;
    await image.decode();
    const canvas = create("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context;
  };
  const tile = async (sheet, image) => (await pixels(sheet)).getImageData(image * width, 0, width, height);

  const blank = (alt) => {
    const canvas = create("canvas", { width, height, className: width <= SMALL ? "small-image" : "" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", alt);
    return canvas;
  };
  const paint = (canvas, tileData) => canvas.getContext("2d").putImageData(tileData, 0, 0);

  // The sheet holds the change divided by the image's largest change; 128 is no change.
  const add = (clean, change, peak) => {
    const sum = new ImageData(width, height);
    for (let i = 0; i < sum.data.length; i++) {
      sum.data[i] = i % 4 === 3 ? 255 : clean.data[i] + ((change.data[i] - 128) / 127) * peak * 255;
    }
    return sum;
  };
  // One channel: blue darkens, orange brightens, white is unchanged. Three channels: gray is unchanged.
  const magnified = (change) => {
    if (data.channels === 3) return change;
    const shown = new ImageData(width, height);
    for (let i = 0; i < shown.data.length; i += 4) {
      const level = (change.data[i] - 128) / 127;
      const [r, g, b] = level < 0 ? [28, 84, 158] : [196, 86, 18];
      const amount = Math.abs(level);
      shown.data.set([255 + (r - 255) * amount, 255 + (g - 255) * amount, 255 + (b - 255) * amount, 255], i);
    }
    return shown;
  };

  const className = (index) => (index === null || index === undefined ? "?" : index < 0 ? "no prediction" : data.classes[index] ?? `class ${index}`);
  const percent = (share) => (share === null ? "" : `${(100 * share).toFixed(1)}\u00a0%`);
  const title = (name) => data.titles[name] ?? name;
  const isRight = (answer) => answer[0] === data.labels[state.image];
  const mark = (answer) => create("span", { className: `mark ${isRight(answer) ? "right" : "wrong"}` }, isRight(answer) ? "\u2713 correct" : "\u2717 wrong");

  // ------------------------------------------------ selection: each choice restricts the next to existing cells

  const offered = (cells, facet) => {
    const values = facet === "judge"
      ? data.judges.map((_, i) => i).filter((i) => cells.some((cell) => cell.answers[i]))
      : [...new Set(cells.map((cell) => cell[facet]))];
    return facet === "budget" ? values.sort((a, b) => a - b) : values;
  };
  const nearest = (values, target) => values.reduce((best, v) => (Math.abs(v - target) < Math.abs(best - target) ? v : best));
  const resolve = () => {
    let cells = data.cells;
    const options = {};
    for (const facet of FACETS) {
      const values = (options[facet] = offered(cells, facet));
      if (!values.includes(state[facet])) state[facet] = facet === "budget" ? nearest(values, state.budget) : values[0];
      cells = cells.filter((cell) => (facet === "judge" ? cell.answers[state.judge] : cell[facet] === state[facet]));
    }
    return { cell: cells[0], options };
  };

  const named = (facet, value) => {
    if (facet === "judge") return data.judges[value].title;
    if (facet === "budget") return data.cells.find((cell) => cell.budget === value && cell.norm === state.norm).text;
    return facet === "variant" ? `no. ${value}` : title(value);
  };
  const controls = (options) => {
    const form = part(".choices");
    const focused = document.activeElement?.form === form ? document.activeElement.dataset.facet : null;
    const boxes = [];
    for (const facet of FACETS) {
      if (HIDDEN_WHEN_SINGLE.includes(facet) && options[facet].length < 2) continue;
      const choose = (index) => {
        state[facet] = options[facet][index];
        update();
      };
      if (facet === "budget") {
        const chips = create("div", { className: "chips" });
        options.budget.forEach((value, i) => {
          const input = create("input", { type: "radio", name: "budget", value: i, checked: value === state.budget });
          input.dataset.facet = facet;
          input.addEventListener("change", () => choose(i));
          chips.append(create("label", {}, input, create("span", {}, named(facet, value))));
        });
        boxes.push(create("fieldset", {}, create("legend", {}, "budget"), chips));
        continue;
      }
      const select = create("select", {}, ...options[facet].map((value, i) => create("option", { value: i, selected: value === state[facet] }, named(facet, value))));
      select.dataset.facet = facet;
      select.addEventListener("change", () => choose(Number(select.value)));
      boxes.push(create("label", {}, facet, select));
    }
    form.replaceChildren(...boxes);
    if (focused) form.querySelector(`[data-facet="${focused}"]${focused === "budget" ? ":checked" : ""}`)?.focus();
  };
  part(".choices").addEventListener("submit", (event) => event.preventDefault());

  // ------------------------------------------------ thumbnails

  const thumbs = data.images.map((image, i) => {
    const canvas = blank("");
    canvas.setAttribute("aria-hidden", "true");
    tile(data.clean, i).then((tileData) => paint(canvas, tileData));
    const button = create("button", { type: "button" }, canvas);
    button.addEventListener("click", () => {
      state.image = i;
      update();
    });
    return button;
  });
  part(".thumbs").append(...thumbs);
  const markThumbs = (cell) => thumbs.forEach((button, i) => {
    const answer = cell.answers[state.judge]?.[i];
    const outcome = answer ? (answer[0] === data.labels[i] ? "right" : "wrong") : "unknown";
    button.className = outcome;
    button.setAttribute("aria-pressed", i === state.image);
    button.setAttribute("aria-label", `Image ${data.images[i]}, ${className(data.labels[i])}: ${outcome} after the attack`);
  });

  // ------------------------------------------------ plates

  const reading = (answer) => answer
    ? create("div", { className: "reading" }, create("b", {}, className(answer[0])), mark(answer), answer[1] === null ? "" : `, confidence ${percent(answer[1])}`)
    : create("div", { className: "reading" }, "not judged");
  const plate = (caption, tileData, alt, below = "") => {
    const canvas = blank(alt);
    if (tileData) paint(canvas, tileData);
    return create("figure", {}, create("figcaption", {}, caption), canvas, below);
  };
  const gap = (text = "", className = "") => create("div", { className, ariaHidden: "true" }, text);

  let turn = 0;
  const update = async () => {
    const { cell, options } = resolve();
    const mine = ++turn;
    controls(options);
    markThumbs(cell);
    const { image, judge } = state;
    const who = data.judges[judge];
    const truth = className(data.labels[image]);
    const peak = cell.peak[image];
    const answer = cell.answers[judge]?.[image];
    const before = data.answers_clean[judge]?.[image];
    const clean = await tile(data.clean, image);
    const change = await tile(cell.delta, image);
    const purified = cell.purified[judge] && (await tile(cell.purified[judge], image));
    const purifiedClean = data.purified_clean[judge] && (await tile(data.purified_clean[judge], image));
    if (mine !== turn) return; // superseded by a later selection

    const factor = peak > 0 ? 0.5 / peak : 0;
    const scale = peak > 0 ? `change, \u00d7${factor >= 10 ? factor.toFixed(0) : factor.toFixed(1)}` : "change: none";
    const direct = !purified && !purifiedClean;
    const plates = [
      plate("clean", clean, `Image ${data.images[image]}, ${truth}, clean`, direct ? reading(before) : ""),
      gap("+", "sign"),
      plate(scale, magnified(change), `The perturbation, signed, magnified ${factor.toFixed(1)} times`),
      gap("=", "sign"),
      plate("adversarial", add(clean, change, peak), "The adversarial image", direct ? reading(answer) : ""),
    ];
    if (!direct) {
      const none = create("div", { className: "note" }, "not kept");
      plates.push(
        gap("\u2193 purifier", "arrow"), gap(), gap(), gap(), gap("\u2193 purifier", "arrow"),
        create("div", {}, purifiedClean ? plate("purified clean", purifiedClean, "The clean image after the purifier") : none, reading(before)),
        gap(), gap(), gap(),
        create("div", {}, purified ? plate("purified", purified, "The adversarial image after the purifier") : none.cloneNode(true), reading(answer)),
      );
    }
    part(".plates").replaceChildren(...plates);

    const how = `${title(cell.threat)}, ${title(cell.route)}, ${title(cell.attack)} at ${title(cell.norm)} ${cell.text}`;
    const verdict = !answer ? "was not evaluated on this image" : answer[0] < 0 ? "gives no valid prediction" : isRight(answer) ? `still predicts ${truth}` : `predicts ${className(answer[0])} instead of ${truth}`;
    part(".caption").textContent = `${how[0].toUpperCase()}${how.slice(1)}: ${who.title} ${verdict}.`;

    const rows = data.judges.map((other, i) => [other, i, cell.answers[i]?.[image]]).filter(([, , prediction]) => prediction);
    part(".answers tbody").replaceChildren(...rows.map(([other, i, prediction]) => create("tr", { className: i === judge ? "chosen" : "" },
      create("td", {}, other.title), create("td", {}, `${className(prediction[0])} `, mark(prediction)), create("td", {}, percent(prediction[1])))));
    const distances = cell.linf[image] === null ? "" : `Largest pixel change ${(cell.linf[image] * 255).toFixed(1)}/255; L\u2082 distance ${cell.l2[image].toPrecision(3)}.`;
    const legend = data.channels === 3 ? "gray is no change" : "orange is brighter, blue is darker, white is no change";
    part(".distance").textContent = `True class: ${truth}. ${distances} In the perturbation, ${legend}.`;
    root.dataset.shown = `${data.images[image]}/${who.name}/${cell.threat}/${cell.route}/${cell.attack}/${cell.norm}/${cell.text}`;
  };
  await update();
}

startTable();
startExplorer();
