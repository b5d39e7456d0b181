"use strict";
(() => {
  const PAGE = 20;
  const LANE = 17; // px: a line under the text and the label below it; --lane in the style sheet
  const MARKS = { asked: "▸", correct: "✓", missed: "−", spurious: "+" };
  const RANK = { asked: 0, correct: 0, missed: 1, spurious: 2 };
  const sets = JSON.parse(document.getElementById("cases").textContent);
  const form = document.getElementById("filters");
  if (!form || !sets.length) return;

  const element = (id) => document.getElementById(id);
  let page = 0;

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const current = () => sets[Number(form.elements.set.value) || 0];
  const number = (value) => Number(value).toLocaleString("en");
  const wide = (char) => /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]|[^\u0000-\uffff]/u.test(char);

  // ---- filters -------------------------------------------------------------------------------------------

  function fill(select, values, order) {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    const names = order ? order.filter((name) => counts.has(name)) : [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
    select.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(`${name} (${number(counts.get(name))})`, name)));
    select.closest("label").hidden = names.length === 0;
  }

  function openSet() {
    const { cases, slices, total, errors } = current();
    fill(form.elements.kind, cases.flatMap((item) => item.kinds));
    fill(form.elements.label, cases.flatMap((item) => item.labels));
    fill(form.elements.slice, cases.map((item) => item.slice), slices);
    const judged = cases.some((item) => item.right !== null);
    form.querySelector("[data-filter=show]").hidden = !judged;
    form.elements.show.value = judged && errors ? "errors" : "all";
    form.querySelector("[data-filter=seen]").hidden = !cases.some((item) => item.seen !== null);
    element("legend").hidden = !cases.some((item) => item.spans.some(({ status }) => status !== "asked"));
    const wrong = judged ? ` ${number(errors)} of them hold${errors === 1 ? "s" : ""} an error.` : "";
    const left = cases.length < total ? ` This page shows ${number(cases.length)}, errors first; all are in predictions.jsonl.` : "";
    element("shown-of").textContent = `${number(total)} examples were evaluated.${wrong}${left}`;
  }

  function matches(item, wanted) {
    return (
      (wanted.show === "all" || item.right === null || item.right === (wanted.show === "right")) &&
      (!wanted.kind || item.kinds.includes(wanted.kind)) &&
      (!wanted.label || item.labels.includes(wanted.label)) &&
      (!wanted.slice || item.slice === wanted.slice) &&
      (!wanted.seen || (item.seen !== null && item.seen === (wanted.seen === "seen"))) &&
      (!wanted.search || item.texts.some(([, text]) => text.toLowerCase().includes(wanted.search)))
    );
  }

  function show() {
    const wanted = Object.fromEntries(new FormData(form));
    wanted.search = wanted.search.trim().toLowerCase();
    const found = current().cases.filter((item) => matches(item, wanted));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    element("count").textContent = found.length === 1 ? "1 example" : `${number(found.length)} examples`;
    element("page").textContent = `Page ${number(page + 1)} of ${number(pages)}`;
    element("pager").hidden = pages === 1;
    element("previous").disabled = page === 0;
    element("next").disabled = page === pages - 1;
    element("list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(drawCase));
  }

  function turn(by) {
    page += by;
    show();
    element("count").scrollIntoView({ block: "start" });
  }

  // ---- one example ---------------------------------------------------------------------------------------

  function drawCase(item) {
    const box = make("li", "case");
    box.dataset.line = item.line;
    const head = make("header");
    head.append(make("span", "", `line ${number(item.line)}${item.id === null ? "" : ` · id ${item.id}`}`));
    head.append(make("span", "", `${number(item.length)} characters`));
    if (item.seen === false) head.append(make("span", "", "not all seen in training"));
    for (const kind of new Set(item.kinds)) head.append(make("span", "kind", kind));
    box.append(head);
    for (const [name, text] of item.texts) {
      if (item.texts.length > 1) box.append(make("div", "text-name", name));
      box.append(drawText(text, name === "text" || name === "context" ? item.spans : []));
    }
    if (item.spans.length) box.append(drawSpans(item));
    if (item.gold !== null || item.predicted !== null) box.append(drawVerdict(item));
    if (item.scores.length) box.append(drawScores(item.scores));
    return box;
  }

  /** Lines under the text, one lane each, so that nested and crossing spans and their labels never overlap. */
  function lanesOf(characters, spans) {
    const left = [0];
    for (const char of characters) left.push(left[left.length - 1] + (wide(char) ? 17 : 8.5));
    const ends = [];
    const order = spans.map((_, index) => index).sort((a, b) => spans[a].start - spans[b].start || spans[b].end - spans[a].end || RANK[spans[a].status] - RANK[spans[b].status]);
    const lanes = new Array(spans.length);
    for (const index of order) {
      const { start, end, label } = spans[index];
      const written = 16 + Array.from(label).reduce((sum, char) => sum + (wide(char) ? 11 : 7), 0);
      const stop = Math.max(left[end], left[start] + written);
      let lane = ends.findIndex((taken) => taken <= left[start]);
      if (lane < 0) lane = ends.length;
      ends[lane] = stop;
      lanes[index] = lane;
    }
    return lanes;
  }

  function drawText(text, spans) {
    // offsets count code points; a JavaScript string counts UTF-16 units
    const characters = Array.from(text);
    const box = make("div", "text");
    box.lang = "zh";
    box.dir = "auto";
    const lanes = lanesOf(characters, spans);
    const depth = Math.max(0, ...lanes.map((lane) => lane + 1));
    box.style.setProperty("--lanes", depth);
    const cuts = [...new Set([0, characters.length, ...spans.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i++) {
      const [start, end] = [cuts[i], cuts[i + 1]];
      const surface = characters.slice(start, end).join("");
      const here = spans.map((_, index) => index).filter((index) => spans[index].start <= start && end <= spans[index].end);
      if (!here.length) {
        box.append(surface);
        continue;
      }
      const segment = make("span", "seg");
      segment.dataset.start = start;
      segment.dataset.end = end;
      segment.dataset.spans = here.join(" ");
      segment.style.backgroundImage = here.map((index) => lineOf(spans[index].status)).join(", ");
      segment.style.backgroundSize = here.map(() => "100% 3px").join(", ");
      segment.style.backgroundPosition = here.map((index) => `left 0 bottom ${(depth - lanes[index]) * LANE - 3}px`).join(", ");
      for (const index of here.filter((at) => spans[at].start === start)) {
        const tag = make("span", `tag ${spans[index].status}`);
        tag.dataset.label = `${MARKS[spans[index].status]} ${spans[index].label}`;
        tag.style.setProperty("--at", lanes[index]);
        segment.append(tag);
      }
      segment.append(surface);
      box.append(segment);
    }
    return box;
  }

  function lineOf(status) {
    if (status === "asked") return "linear-gradient(var(--muted), var(--muted))";
    if (status === "correct") return "linear-gradient(var(--correct), var(--correct))";
    if (status === "missed") return "repeating-linear-gradient(90deg, var(--missed) 0 5px, transparent 5px 8px)";
    return "linear-gradient(var(--spurious) 1px, transparent 1px 2px, var(--spurious) 2px)";
  }

  function drawSpans({ texts, spans }) {
    const characters = Array.from(texts[0][1]);
    const list = make("ul", "spans");
    spans.forEach(({ start, end, label, status, kind, score }, index) => {
      const row = make("li", `span ${status}`);
      row.dataset.span = index;
      row.append(make("b", "", `${MARKS[status]} ${label}`), " ", make("span", "surface", characters.slice(start, end).join("")), " ");
      const certainty = score === null ? "" : ` · ${score.toFixed(2)}`;
      const why = status === "correct" || status === "asked" ? "" : ` · ${kind}`;
      row.append(make("span", "where", `${start}–${end}${certainty}${why}`));
      row.addEventListener("pointerenter", () => light(row, index, true));
      row.addEventListener("pointerleave", () => light(row, index, false));
      list.append(row);
    });
    return list;
  }

  function light(row, index, on) {
    for (const segment of row.closest(".case").querySelectorAll(".seg")) {
      if (segment.dataset.spans.split(" ").includes(String(index))) segment.classList.toggle("lit", on);
    }
  }

  function drawVerdict({ gold, predicted, right: whole, predicted_right: right = whole }) {
    const list = make("dl", "verdict");
    const mark = right === null ? "" : right ? "right" : "wrong";
    const sign = right === null ? "" : right ? "✓ " : "✗ ";
    if (gold !== null) list.append(make("dt", "", "gold"), make("dd", "gold", gold));
    list.append(make("dt", "", "predicted"), make("dd", `predicted ${mark}`, `${sign}${predicted}`));
    return list;
  }

  function drawScores(scores) {
    const table = make("div", "scores");
    for (const [label, score] of scores) {
      const bar = make("span", "bar");
      const filled = make("i");
      filled.style.width = `${Math.round(100 * score)}%`;
      bar.append(filled);
      table.append(make("span", "", label), bar, make("span", "number", score.toFixed(3)));
    }
    return table;
  }

  // ---- start ---------------------------------------------------------------------------------------------

  form.elements.set.replaceChildren(...sets.map(({ name }, index) => new Option(name, String(index))));
  form.querySelector("[data-filter=set]").hidden = sets.length === 1;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "set") openSet();
    page = 0;
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => {
    openSet();
    page = 0;
    show();
  }));
  element("previous").addEventListener("click", () => turn(-1));
  element("next").addEventListener("click", () => turn(1));
  openSet();
  show();
})();
