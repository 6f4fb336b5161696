"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const results = data.results;
  const $ = (id) => document.getElementById(id);

  // Everything that comes from a run is set as text, never as markup.
  function el(tag, options = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "text") node.textContent = value;
      else if (name === "on") node.addEventListener(...value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  function svg(tag, attributes = {}, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const number = (value) => Number(value).toLocaleString("en");
  const seconds = (value) => `${value.toFixed(3)} s`;
  const pill = (kind, text = kind) => el("span", { class: `pill ${kind}`, text });
  function table(heads, rows) {
    const head = el("tr");
    heads.forEach(([text, kind]) => head.append(el("th", kind ? { text, class: kind } : { text })));
    return el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
  }

  // Dark or light: as the system has it, until the reader chooses.
  const root = document.documentElement;
  root.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => root.classList.toggle("dark"));

  // Head ------------------------------------------------------------------------------------
  const broken = results.promises.filter((p) => p.verdict === "INVALID");
  const open = results.promises.filter((p) => p.verdict === "UNKNOWN");
  const names = (list) => list.map((p) => `${p.id} ${p.name}`).join(", ");
  const missed = (results.gates || []).filter((gate) => !gate.met);
  $("verdict").append(pill(results.verdict));
  $("headline").textContent = broken.length
    ? `Broken: ${names(broken)}`
    : open.length
      ? `Not known: ${names(open)}`
      : results.verdict === "VALID"
        ? "Every promise was kept"
        : missed.length
          ? `Coverage gates not met: ${missed.map((gate) => gate.name).join(", ")}`
          : "The run is not whole";
  document.title = `${results.verdict}: ddq chaos run`;
  const run = data.run;
  $("subtitle").textContent = [
    run.scenario && `scenario ${run.scenario}`,
    run.durability && `durability ${run.durability}`,
    run.seed && `seed ${run.seed}`,
    run.version && `ddq ${run.version}`,
    run.wall_ms && new Date(run.wall_ms).toISOString().replace("T", " ").slice(0, 19) + " UTC",
  ].filter(Boolean).join(" · ");
  const asked = Object.values(results.operations || {}).reduce((a, b) => a + b, 0);
  const unknowns = results.unknowns || {};
  const tiles = [
    [number(asked), "operations"],
    [number(results.tasks || 0), "tasks"],
    [seconds(data.duration), "duration"],
    [number(results.failovers || 0), "failovers"],
    [number(data.windows.length), "faults"],
    [number(unknowns.all || 0), `unknown outcomes, ${unknowns.applied || 0} proved applied, ${unknowns.absent || 0} absent`],
  ];
  $("tiles").append(...tiles.map(([value, name]) => el("div", { class: "tile" }, el("b", { text: value }), el("span", { text: name }))));
  if ((results.problems || []).length) {
    $("problems").hidden = false;
    $("problems").querySelector("ul").append(...results.problems.map((text) => el("li", { text })));
  }

  // Promises --------------------------------------------------------------------------------
  $("promises").append(table(
    [["id"], ["promise"], ["verdict"], ["judged", "n"], ["broken", "n"], ["in a lost lineage", "n"]],
    results.promises.map((p) => {
      const what = el("td", {}, el("b", { text: p.name }), el("small", { text: p.sentence }));
      (p.unknown || []).forEach((text) => what.append(el("small", { class: "why", text })));
      return el("tr", {}, el("td", { text: p.id }), what, el("td", {}, pill(p.verdict)),
        el("td", { class: "n", text: number(p.judged || 0) }),
        el("td", { class: "n", text: p.anomaly_count ? number(p.anomaly_count) : "–" }),
        el("td", { class: "n", text: p.lost_lineage_count ? number(p.lost_lineage_count) : "–" }));
    }),
  ));

  // Anomalies -------------------------------------------------------------------------------
  const anomalies = results.promises.flatMap((p) => p.anomalies || []);
  if (anomalies.length) {
    $("anomalies").hidden = false;
    anomalies.forEach((anomaly) => {
      const button = el("button", { type: "button", class: "anomaly" }, el("span", { text: anomaly.summary }));
      if (anomaly.lost_lineage) button.append(el("div", { class: "tag", text: "involves a lineage that was lost" }));
      button.addEventListener("click", () => choose(button, anomaly));
      $("anomaly-list").append(el("li", {}, button));
    });
    const count = results.promises.reduce((sum, p) => sum + (p.anomaly_count || 0), 0);
    if (count > anomalies.length) {
      $("anomaly-list").append(el("li", { class: "quiet", text: `and ${number(count - anomalies.length)} more` }));
    }
  }
  function choose(button, anomaly) {
    document.querySelectorAll("#anomaly-list button").forEach((other) => other.setAttribute("aria-current", other === button));
    const article = $("timeline");
    article.hidden = false;
    article.parentElement.classList.add("open");
    const name = `${anomaly.topic}/${anomaly.task}`;
    const steps = data.timelines[name];
    article.replaceChildren(el("h3", { text: anomaly.task ? `Task ${name}` : anomaly.topic || "The run" }), el("p", { text: anomaly.summary }));
    if (!steps) {
      article.append(el("p", { class: "quiet", text: "It is not about a task of its own; history.jsonl has the events." }));
      return;
    }
    const witnesses = new Set(anomaly.events);
    const entries = new Set(anomaly.entries);
    article.append(el("ol", { class: "steps" }, ...steps.map((step) => {
      const witness = step.events.some((event) => witnesses.has(event)) || (step.entry !== undefined && entries.has(step.entry));
      const took = step.end - step.begin;
      const line = el("summary", {}, el("time", { text: seconds(step.begin) }), el("b", { text: step.what }), ` ${headline(step)} `,
        el("span", { class: "quiet", text: step.outcome === "journal" ? "journal" : `${step.who}, ${took ? `${(took * 1000).toFixed(1)} ms` : "at once"}, op ${step.events.join("–")}` }));
      if (step.lost) line.append(el("span", { class: "quiet", text: " · lost lineage" }));
      return el("li", { class: `${step.outcome}${witness ? " witness" : ""}` },
        el("details", {}, line, el("pre", { text: JSON.stringify(step.detail, null, 1) })));
    })));
  }
  function headline(step) {
    const detail = step.detail;
    if (step.outcome === "journal") return `${detail.from} → ${detail.to}, revision ${detail.revision}`;
    if (step.outcome === "fail") return `refused: ${detail.error}`;
    if (step.outcome === "info") return `unknown: ${detail.error || "never answered"}${detail["later proved"] ? `, later proved ${detail["later proved"]}` : ""}`;
    const reply = detail.reply || {};
    const parts = [];
    if (step.what === "retrieve") parts.push(`leased, attempt ${reply.attempt}`);
    else parts.push(reply.state ? `ok, ${reply.state}` : "ok");
    if (reply.incarnation) parts.push(`incarnation ${reply.incarnation}`);
    if (reply.revision) parts.push(`revision ${reply.revision}`);
    return parts.join(", ");
  }

  // Charts ----------------------------------------------------------------------------------
  const WIDTH = 1120, LEFT = 84, RIGHT = 12, MOST_ROWS = 40;
  const span = Math.max(data.duration, 1e-9);
  const x = (time) => LEFT + (WIDTH - LEFT - RIGHT) * Math.min(1, Math.max(0, time / span));
  const colour = (name) => `var(--${name})`;
  function nice(value) {
    const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
    return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value);
  }
  function shade(picture, height) {
    data.windows.forEach((fault) => {
      const box = svg("rect", { class: "fault", x: x(fault.begin), y: 0, width: Math.max(2, x(fault.end) - x(fault.begin)), height });
      box.append(svg("title", {}, `${fault.kind} ${fault.target}, ${seconds(fault.begin)} to ${seconds(fault.end)}`));
      picture.append(box);
    });
    data.failovers.forEach((time) => picture.append(svg("line", { class: "failover", x1: x(time), x2: x(time), y1: 0, y2: height })));
  }
  function timeAxis(picture, height) {
    const step = nice(span / 8);
    for (let time = 0; time <= span; time += step) {
      picture.append(svg("text", { x: x(time), y: height + 15, "text-anchor": "middle" }, `${+time.toPrecision(6)} s`));
    }
  }
  function chart(title, unit, lines, options = {}) {
    const height = options.height || 130, bins = data.curves.bins;
    const stacked = options.stacked;
    const sums = Array.from({ length: bins }, (_, i) => lines.reduce((sum, line) => sum + (line.values[i] || 0), 0));
    const seen = stacked ? sums : lines.flatMap((line) => line.values.filter((value) => value !== null));
    const top = nice(Math.max(1, options.bound || 0, ...seen) * 1.02);
    const y = (value) => height - (height - 8) * Math.min(1, value / top);
    const at = (i) => x(((i + 0.5) / bins) * span);
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height + 20}`, role: "img", "aria-label": `${title} over time` });
    shade(picture, height);
    for (let i = 0; i <= 2; i++) {
      const value = (top * i) / 2;
      picture.append(svg("line", { class: i ? "grid" : "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
      picture.append(svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)));
    }
    let base = Array(bins).fill(0);
    lines.forEach((line) => {
      if (stacked) {
        const upper = base.map((low, i) => low + (line.values[i] || 0));
        const forth = upper.map((value, i) => `${at(i)},${y(value)}`);
        const back = base.map((value, i) => `${at(i)},${y(value)}`).reverse();
        picture.append(svg("polygon", { points: [...forth, ...back].join(" "), fill: colour(line.colour), opacity: 0.85 }));
        base = upper;
        return;
      }
      let path = "", pen = false;
      line.values.forEach((value, i) => {
        if (value === null) { pen = false; return; }
        path += `${pen ? "L" : "M"}${at(i).toFixed(1)} ${y(value).toFixed(1)}`;
        if (!pen && (i + 1 >= bins || line.values[i + 1] === null)) path += "h1.5";
        pen = true;
      });
      picture.append(svg("path", { d: path, fill: "none", stroke: colour(line.colour), "stroke-width": 2, "stroke-linejoin": "round", "stroke-linecap": "round" }));
    });
    if (options.bound) {
      picture.append(svg("line", { class: "bound", x1: LEFT, x2: WIDTH - RIGHT, y1: y(options.bound), y2: y(options.bound) }));
      picture.append(svg("text", { x: WIDTH - RIGHT, y: y(options.bound) - 5, "text-anchor": "end" }, `bound when healthy: ${number(options.bound)} ${unit}`));
    }
    timeAxis(picture, height);
    const cross = svg("line", { class: "cross", y1: 0, y2: height, visibility: "hidden" });
    picture.append(cross);
    const legend = el("span", { class: "legend" }, ...lines.map((line) => el("span", {}, el("i", { style: `background:${colour(line.colour)}` }), line.name)));
    const figure = el("figure", { class: "chart" }, el("figcaption", {}, el("b", { text: `${title} (${unit})` }), legend), picture);
    const tip = el("div", { class: "tip", hidden: "" });
    figure.append(tip);
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const spot = ((event.clientX - box.left) / box.width) * WIDTH;
      const i = Math.round(((spot - LEFT) / (WIDTH - LEFT - RIGHT)) * bins - 0.5);
      if (i < 0 || i >= bins) { tip.hidden = true; cross.setAttribute("visibility", "hidden"); return; }
      cross.setAttribute("x1", at(i)); cross.setAttribute("x2", at(i)); cross.setAttribute("visibility", "visible");
      tip.hidden = false;
      tip.replaceChildren(el("b", { text: seconds(((i + 0.5) / bins) * span) }),
        ...lines.map((line) => el("div", { text: `${line.name}: ${line.values[i] === null ? "–" : number(line.values[i])} ${unit}` })));
      const left = event.clientX - figure.getBoundingClientRect().left + 14;
      tip.style.left = `${Math.min(left, figure.clientWidth - tip.offsetWidth - 4)}px`;
      tip.style.top = "24px";
    });
    picture.addEventListener("pointerleave", () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); });
    return figure;
  }
  function stateRows(title, spans, colours) {
    // Who leads several shards has a row for each.
    const shards = new Set(spans.map((one) => one.state.split(" epoch ")[0]));
    const rowOf = (one) => one.state.includes(" epoch ") && shards.size > 1 ? `${one.process} ${one.state.split(" epoch ")[0]}` : one.process;
    const processes = [...new Set(spans.map(rowOf))].sort().slice(0, MOST_ROWS);
    const states = [...new Set(spans.map((one) => one.state))];
    const tint = (state) => colours[state] || `hsl(${(states.indexOf(state) * 67 + 210) % 360} 55% 55%)`;
    const rowHeight = 22, height = processes.length * rowHeight;
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height + 20}`, role: "img", "aria-label": title });
    shade(picture, height);
    processes.forEach((process, i) => picture.append(svg("text", { x: LEFT - 8, y: i * rowHeight + 15, "text-anchor": "end" }, process.length > 13 ? `${process.slice(0, 12)}…` : process)));
    spans.filter((one) => processes.includes(rowOf(one))).forEach((one) => {
      const width = Math.max(1.5, x(one.end) - x(one.begin));
      const bar = svg("rect", { x: x(one.begin), y: processes.indexOf(rowOf(one)) * rowHeight + 4, width, height: rowHeight - 8, rx: 3, fill: tint(one.state) });
      bar.append(svg("title", {}, `${one.process}: ${one.state}, ${seconds(one.begin)} to ${seconds(one.end)}`));
      picture.append(bar);
    });
    timeAxis(picture, height);
    const legend = el("span", { class: "legend" }, ...states.slice(0, 6).map((state) => el("span", {}, el("i", { style: `background:${tint(state)}` }), state)));
    return el("figure", { class: "chart" }, el("figcaption", {}, el("b", { text: title }), legend), picture);
  }
  const curves = data.curves;
  $("charts").append(
    chart("Operations by outcome", "per second", [
      { name: "ok", values: curves.throughput.ok, colour: "a" },
      { name: "refused", values: curves.throughput.fail, colour: "c" },
      { name: "unknown", values: curves.throughput.info, colour: "b" },
    ], { stacked: true }),
    chart("Latency, without Retrieve", "ms", [
      { name: "p50", values: curves.latency.p50, colour: "a" },
      { name: "p99", values: curves.latency.p99, colour: "b" },
    ]),
    chart("Lateness by due time", "ms", [
      { name: "p50", values: curves.lateness.p50, colour: "a" },
      { name: "max", values: curves.lateness.max, colour: "b" },
    ], { bound: results.bounds.lateness_ms || 250 }),
  );
  if (data.roles.length) {
    $("charts").append(stateRows("Roles of store nodes", data.roles, { master: "var(--a)", replica: "var(--line)", down: "var(--invalid)", unknown: "var(--b)" }));
  }
  if (data.leaders.length) $("charts").append(stateRows("Leadership of schedulers", data.leaders, {}));
  $("faults").append(...data.windows.map((fault) => el("span", {
    class: fault.verified ? "" : "unseen",
    title: fault.detail || "",
    text: `${fault.kind} ${fault.target} ${seconds(fault.begin)}–${seconds(fault.end)}${fault.verified ? "" : " (not seen to happen)"}`,
  })));

  // Gates, outages, figures -----------------------------------------------------------------
  $("gates").append((results.gates || []).length
    ? table([["gate"], ["measured", "n"], ["required", "n"], [""]], results.gates.map((gate) => el("tr", {},
      el("td", { text: gate.name }), el("td", { class: "n", text: number(gate.measured) }),
      el("td", { class: "n", text: number(gate.required) }),
      el("td", {}, pill(gate.met ? "met" : "missed", gate.met ? "met" : "not met")))))
    : el("p", { class: "quiet", text: "None was declared: nothing says how much this run has proved." }));
  const outages = Object.entries(results.outage_ms || {}).sort((a, b) => b[1] - a[1]);
  const worst = Math.max(1, ...outages.map(([, ms]) => ms));
  $("outages").append(table([["operation"], [""], ["longest, ms", "n"]], outages.map(([name, ms]) => el("tr", {},
    el("td", { text: name }), el("td", { style: "width:50%" }, el("div", { class: "bar", style: `width:${(100 * ms) / worst}%` })),
    el("td", { class: "n", text: number(Math.round(ms)) })))));
  const figures = results.promises.flatMap((p) => Object.entries(p.figures || {}).map(([name, value]) => el("tr", {},
    el("td", { text: p.id }), el("td", { text: name }),
    el("td", { text: typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k}: ${typeof v === "number" ? number(v) : v}`).join(" · ") : number(value) }))));
  const bounds = Object.entries(results.bounds || {}).map(([name, value]) => el("tr", {},
    el("td", { text: "bound" }), el("td", { text: name }), el("td", { text: number(value) })));
  $("figures").append(table([[""], ["what"], ["value"]], [...figures, ...bounds]));
  $("footer").textContent = `${number(results.events || 0)} events judged in ${(results.seconds || 0).toFixed(1)} s. ${run.command ? `Again: ${run.command}` : ""}`;
})();
