"use strict";
// The schedule viewer: Gantt charts of up to two policies on one time axis, the graph beside them, what
// devices hold below the bars, and what a decision was compared with. `tools` are helpers of the page.
const scheduleViewer = (node, tools) => {
  const { esc, sig, isNum, cut, tip, scale, entries, best, strongest } = tools;
  const V = { entry: null, a: "", b: "", rows: "memory", path: true, stage: -1, flow: 0, time: d3.zoomIdentity, width: 0 };
  const TRACK = 13, MODELS = 10;
  const KINDS = [["load", "load weights"], ["move", "transfer inputs"], ["fill", "prefill"], ["decode", "decode"]];
  const TRACKS = [["memory", "memory"], ["models", "resident models"], ["queries", "queries in service"], ["none", "nothing"]];
  const at = (name) => node.querySelector(`[data-v="${name}"]`);
  const modelColour = (m) => (m < 0 ? "var(--other)" : `var(--m${m % MODELS})`);
  const gib = (v) => `${sig(v / 2 ** 30)} GiB`;
  const short = (v) => (isNum(v) ? sig(Number(v.toFixed(4))) : "–"); // a tenth of a millisecond
  const percent = (v) => `${Math.round(100 * v)} %`;

  node.innerHTML = `<figcaption>Schedules: what ran where, when, and why there</figcaption>
    <p class="note" data-v="note"></p>
    <div class="filters inline">
      <label>Problem <select data-v="problem"></select></label>
      <label>Policy <select data-v="a"></select></label>
      <label>against <select data-v="b"></select></label>
      <label>Below each device <select data-v="rows">${TRACKS.map(([k, t]) => `<option value="${k}">${t}</option>`).join("")}</select></label>
      <label><input type="checkbox" data-v="path" checked> Critical path</label>
    </div>
    <div class="filters inline" role="group" aria-label="Zoom and selection">
      <button type="button" data-do="in" aria-label="Zoom in">+</button><button type="button" data-do="out" aria-label="Zoom out">−</button>
      <button type="button" data-do="left" aria-label="Earlier">←</button><button type="button" data-do="right" aria-label="Later">→</button>
      <button type="button" data-do="all">Whole schedule</button>
      <button type="button" data-do="previous">Previous stage</button><button type="button" data-do="next">Next stage</button>
    </div>
    <div class="viewer"><div class="gantts" data-v="gantts"></div>
      <div class="graph" data-v="graph"><label data-v="flows">Workflow <select data-v="flow"></select></label><div data-v="dag"></div></div></div>
    <p class="note" data-v="keys">Drag to pan; zoom with Ctrl and the wheel, with two fingers, or with the keys + − 0 ← → once a chart has the focus; N and P step through the stages, Escape lets go. Click a bar or a stage to see what it was compared with.</p>
    <div data-v="legend"></div>
    <section class="why" data-v="why" aria-live="polite" aria-label="Why here"></section>`;

  const chosen = () => [V.a, V.b].filter(Boolean).map((name) => V.entry.schedules.find((s) => s.policy === name)).filter(Boolean);
  const horizon = () => Math.max(...chosen().map((s) => s.makespan), 1e-9);
  const stageName = (s) => (V.entry.flows.length > 1 ? `${V.entry.flows[V.entry.flow[s]]}: ` : "") + V.entry.stages[s];

  // ---------- what is shown ----------
  function update(width) {
    const all = entries(), before = V.entry;
    V.width = width;
    if (!all.includes(V.entry)) V.entry = all[0] || null;
    node.hidden = V.entry === null;
    if (V.entry === null) return;
    if (V.entry !== before) enter();
    const option = (value, text, on) => `<option value="${esc(value)}" ${on ? "selected" : ""}>${esc(text)}</option>`;
    at("problem").innerHTML = all.map((g, i) => option(i, `${g.suite}: ${g.problem}`, g === V.entry)).join("");
    const names = V.entry.schedules.map((s) => s.policy);
    at("a").innerHTML = names.map((n) => option(n, n, n === V.a)).join("");
    at("b").innerHTML = option("", "no other", !V.b) + names.map((n) => option(n, n, n === V.b)).join("");
    at("rows").value = V.rows;
    at("flows").hidden = V.entry.flows.length < 2;
    at("flow").innerHTML = V.entry.flows.map((n, i) => option(i, n, i === V.flow)).join("");
    draw();
  }
  function enter() {
    const names = V.entry.schedules.map((s) => s.policy), there = (n) => names.includes(n);
    if (!there(V.a)) V.a = there(best) ? best : names[0];
    if (!there(V.b)) V.b = [strongest, "round_robin", ...names].find((n) => n && there(n) && n !== V.a) || "";
    if (!V.entry.memory.length && ["memory", "models"].includes(V.rows)) V.rows = "queries";
    V.stage = -1;
    V.flow = 0;
    V.time = d3.zoomIdentity;
  }
  function draw() {
    const traced = V.entry.edges !== undefined;
    at("note").textContent = traced ? "" : "The graph, the critical path, memory, and what a decision was compared with are kept by jobs that run with trace=true.";
    at("graph").hidden = !traced;
    at("path").disabled = !traced;
    for (const value of ["memory", "models"]) at("rows").querySelector(`[value=${value}]`).disabled = !traced;
    drawGantts();
    if (traced) drawGraph();
    drawLegend();
    mark();
    why();
  }

  // ---------- Gantt charts ----------
  function drawGantts() {
    const box = at("gantts"), w = Math.max(280, box.clientWidth || V.width), g = V.entry, shown = chosen();
    const L = w > 520 ? 84 : 62, R = 8, track = V.rows === "none" ? 0 : TRACK;
    V.row = Math.max(...shown.flatMap((c) => c.lanes)) > 6 ? 27 : 16; // of bars that overlap, more than hairlines
    const row = V.row + track + 3;
    const one = 30 + g.devices.length * row, h = shown.length * one + 40, x = scale(0, horizon(), L, w - R);
    let bars = "", still = "";
    shown.forEach((c, n) => {
      const Y = n * one;
      still += `<text x="4" y="${Y + 15}" font-weight="600">${esc(cut(`${c.policy}: ${sig(c.makespan)} s`, Math.floor(w / 7)))}</text>`;
      g.devices.forEach((d, i) => {
        const y = Y + 24 + i * row;
        still += `<text class="soft" x="${L - 5}" y="${y + V.row * 0.75}" text-anchor="end">${esc(cut(d, w > 520 ? 12 : 8))}</text><line class="gridline" x1="${L}" x2="${w - R}" y1="${y + row - 1.5}" y2="${y + row - 1.5}"/>`;
        if (track) bars += tracks(c, i, x, y + V.row, track - 1);
      });
      c.start.forEach((_, i) => { bars += bar(c, n, i, x, Y + 24 + c.device[i] * row); });
      if (V.path && c.path) bars += pathLines(c, x, (d) => Y + 24 + d * row + V.row / 2);
      bars += `<line class="end" x1="${x(c.makespan)}" x2="${x(c.makespan)}" y1="${Y + 22}" y2="${Y + one - 6}"/>`;
    });
    const label = `Gantt charts of ${g.problem}: ${shown.map((c) => `${c.policy} ends at ${sig(c.makespan)} s`).join(", ")}`;
    box.innerHTML = `<svg viewBox="0 0 ${w} ${h}" role="img" tabindex="0" aria-label="${esc(label)}" data-svg="time"><defs><clipPath id="time-clip"><rect x="${L}" y="0" width="${w - L - R}" height="${h - 36}"/></clipPath></defs><g data-v="ticks"></g>${still}<g clip-path="url(#time-clip)"><g data-v="bars">${bars}</g></g></svg>` +
      shown.map((c) => `<p class="note">${pathText(c)}</p>`).join("");
    const picture = box.firstChild;
    const zoom = d3.zoom().scaleExtent([1, 400]).extent([[L, 0], [w - R, h]]).translateExtent([[L, 0], [w - R, h]])
      .filter((e) => (e.type === "wheel" ? e.ctrlKey || e.metaKey : e.type.startsWith("touch") ? e.touches.length > 1 : !e.button))
      .on("zoom", (e) => { V.time = e.transform; move(w, h, L, R); });
    d3.select(picture).call(zoom).call(zoom.transform, V.time);
    V.zoom = (how) => {
      const target = d3.select(picture), k = V.time.k;
      if (how === "in" || how === "out") zoom.scaleBy(target, how === "in" ? 1.6 : 1 / 1.6);
      else if (how === "all") zoom.transform(target, d3.zoomIdentity);
      else zoom.translateBy(target, ((how === "left" ? 1 : -1) * (w - L) * 0.25) / k, 0);
    };
    V.show = (from, to) => { // bring a time into view
      const a = V.time.applyX(x(from)), b = V.time.applyX(x(to));
      if (V.time.k > 1 && (a < L || b > w - R)) zoom.translateTo(d3.select(picture), (x(from) + x(to)) / 2, 0);
    };
  }
  function move(w, h, L, R) {
    const { k, x: shift } = V.time;
    const time = (px) => ((px - L) / (w - R - L)) * horizon();
    const low = time(V.time.invertX(L)), high = time(V.time.invertX(w - R)), x = scale(low, high, L, w - R);
    at("bars").setAttribute("transform", `translate(${shift},0) scale(${k},1)`);
    const digits = Math.max(0, Math.ceil(2 - Math.log10(Math.max(high - low, 1e-9))));
    const text = (t) => (digits > 2 ? Number(t.toFixed(Math.min(digits, 9))).toString() : sig(t));
    at("ticks").innerHTML = x.ticks(Math.max(3, Math.floor((w - L) / 90))).map((t) => `<line class="gridline" x1="${x(t)}" x2="${x(t)}" y1="20" y2="${h - 36}"/><text class="soft" x="${x(t)}" y="${h - 22}" text-anchor="middle">${text(t)}</text>`).join("") +
      `<text class="soft" x="${(L + w) / 2}" y="${h - 5}" text-anchor="middle">time, s${k > 1.001 ? ` (${sig(k)} times enlarged)` : ""}</text>`;
  }
  const rect = (x, a, b, y, h, fill) => (b > a ? `<rect x="${x(a).toFixed(2)}" y="${y.toFixed(1)}" width="${Math.max(0.4, x(b) - x(a)).toFixed(2)}" height="${h.toFixed(1)}" fill="${fill}"/>` : "");
  function bar(c, n, i, x, top) {
    const t = c.start[i], h = (V.row - 2) / c.lanes[c.device[i]], y = top + c.lane[i] * h, begin = t + Math.max(c.load[i], c.move[i]), mid = begin + c.fill[i], end = c.end[i];
    const on = V.path && c.path && c.path.includes(c.stage[i]);
    const text = `${stageName(c.stage[i])}\n${V.entry.models[c.model[i]] || "no model"} on ${V.entry.devices[c.device[i]]}, ${c.queries[i]} ${c.queries[i] === 1 ? "query" : "queries"}\n${sig(t)} to ${sig(end)} s: load ${sig(c.load[i])}, transfer ${sig(c.move[i])}, prefill ${sig(c.fill[i])}, decode ${sig(Math.max(0, end - mid))} s${on ? "\non the critical path" : ""}`;
    return `<g class="shard${on ? " critical" : ""}" data-stage="${c.stage[i]}" data-n="${n}" ${tip(text)}>` +
      rect(x, t, t + c.load[i], y, h / 2, "var(--load)") + rect(x, t, t + c.move[i], y + h / 2, h / 2, "var(--move)") + rect(x, begin, mid, y, h, "var(--fill)") + rect(x, mid, end, y, h, "var(--decode)") +
      `<rect class="hull" x="${x(t).toFixed(2)}" y="${y.toFixed(1)}" width="${Math.max(0.4, x(end) - x(t)).toFixed(2)}" height="${h.toFixed(1)}"/></g>`;
  }
  const lastShard = (c, s) => c.stage.reduce((found, one, i) => (one === s && (found < 0 || c.end[i] > c.end[found]) ? i : found), -1);
  function pathLines(c, x, y) {
    const rows = c.path.map((s) => lastShard(c, s)).filter((i) => i >= 0);
    return rows.slice(1).map((i, n) => { const j = rows[n]; return `<line class="path" x1="${x(c.end[j])}" y1="${y(c.device[j])}" x2="${x(c.start[i])}" y2="${y(c.device[i])}"/>`; }).join("");
  }
  function pathText(c) {
    if (!c.path) return "";
    const sums = [0, 0, 0, 0], rows = c.path.map((s) => lastShard(c, s)).filter((i) => i >= 0);
    for (const i of rows) {
      const both = Math.max(c.load[i], c.move[i]);
      sums[0] += c.load[i]; sums[1] += both - c.load[i]; sums[2] += c.fill[i];
      sums[3] += Math.max(0, c.end[i] - c.start[i] - both - c.fill[i]);
    }
    const first = (c.ready && c.path.length && c.ready[c.path[0]]) || 0, all = c.makespan - first || 1, held = c.held_up.filter(Boolean).length, rest = Math.max(0, all - sums.reduce((u, v) => u + v, 0));
    return `<b>${esc(c.policy)}</b>, critical path${first > 0 ? ` from ${sig(first)} s on` : ""}: ${c.path.length} stages, of which ${held} waited for their device and the others for their inputs; load ${percent(sums[0] / all)}, transfer ${percent(sums[1] / all)}, prefill ${percent(sums[2] / all)}, decode ${percent(sums[3] / all)}, tools and waiting ${percent(rest / all)}.`;
  }

  // ---------- what a device holds, below its bars ----------
  function tracks(c, d, x, y, h) {
    if (V.rows === "queries") return queries(c, d, x, y, h);
    if (!c.held) return "";
    const some = c.held.device.map((one, i) => (one === d ? i : -1)).filter((i) => i >= 0);
    const room = V.entry.memory[d] || Math.max(1, ...some.map((i) => c.held.weights[i] + c.held.cached[i]));
    return some.map((i, n) => {
      const from = c.held.time[i], to = n + 1 < some.length ? c.held.time[some[n + 1]] : c.makespan, kept = c.held.models[i], names = kept.map((m) => V.entry.models[m]);
      if (to <= from) return "";
      const a = (c.held.weights[i] / room) * h, b = (c.held.cached[i] / room) * h;
      const text = `${V.entry.devices[d]}, from ${sig(from)} s\nweights ${gib(c.held.weights[i])}${names.length ? `: ${names.join(", ")}` : ""}\nKV ${gib(c.held.cached[i])}${V.entry.memory[d] ? `; memory ${gib(room)}` : ""}`;
      const inner = V.rows === "memory"
        ? rect(x, from, to, y + h - a, a, "var(--weights)") + rect(x, from, to, y + h - a - b, b, "var(--kv)")
        : kept.map((m, j) => rect(x, from, to, y + (j * h) / kept.length, h / kept.length, modelColour(m))).join("");
      return `<g ${tip(text)}><rect class="room" x="${x(from).toFixed(2)}" y="${y}" width="${Math.max(0, x(to) - x(from)).toFixed(2)}" height="${h}"/>${inner}</g>`;
    }).join("");
  }
  function steps(c, d) { // queries in service: [time, from there on]
    const changes = new Map();
    c.start.forEach((t, i) => {
      if (c.device[i] !== d || c.end[i] <= t) return;
      changes.set(t, (changes.get(t) || 0) + c.service[i]);
      changes.set(c.end[i], (changes.get(c.end[i]) || 0) - c.service[i]);
    });
    let now = 0;
    return [...changes].sort((p, q) => p[0] - q[0]).map(([t, v]) => [t, (now += v)]);
  }
  function queries(c, d, x, y, h) {
    if (V.mostFor !== V.entry) {
      V.most = Math.max(1, ...V.entry.schedules.flatMap((s) => V.entry.devices.flatMap((_, i) => steps(s, i).map((q) => q[1]))));
      V.mostFor = V.entry;
    }
    const line = steps(c, d);
    return line.map(([t, v], i) => (v > 0 && i + 1 < line.length ? `<g ${tip(`${V.entry.devices[d]}, ${sig(t)} to ${sig(line[i + 1][0])} s\n${v} ${v === 1 ? "query" : "queries"} in service; at most ${V.most} on any device`)}>${rect(x, t, line[i + 1][0], y + h - (v / V.most) * h, (v / V.most) * h, "var(--kv)")}</g>` : "")).join("");
  }

  // ---------- the graph ----------
  function drawGraph() {
    const g = V.entry, own = g.flow.map((f, s) => (f === V.flow ? s : -1)).filter((s) => s >= 0), inside = new Set(own);
    const columns = new Map();
    for (const s of own) columns.set(g.column[s], [...(columns.get(g.column[s]) || []), s]);
    for (const list of columns.values()) list.sort((p, q) => g.place[p] - g.place[q]);
    const tall = Math.max(...[...columns.values()].map((l) => l.length)), deep = Math.max(...columns.keys()) + 1;
    const box = at("dag"), w = Math.max(240, box.clientWidth || 300), h = Math.min(420, Math.max(180, at("gantts").firstChild.clientHeight - 40));
    const px = new Map(), py = new Map();
    for (const [column, list] of columns) list.forEach((s, i) => { px.set(s, ((column + 0.5) / deep) * w); py.set(s, ((i + 0.5) / list.length) * h); });
    const critical = new Set(V.path ? (chosen()[0]?.path || []) : []), links = g.edges.filter(([p, c]) => inside.has(p) && inside.has(c));
    const radius = Math.min(7, Math.max(0.8, 0.4 * Math.min(w / deep, h / tall))).toFixed(1); // in wide graphs the zoom tells them apart
    const line = ([p, c]) => `<line class="edge${critical.has(p) && critical.has(c) ? " critical" : ""}" x1="${px.get(p).toFixed(1)}" y1="${py.get(p).toFixed(1)}" x2="${px.get(c).toFixed(1)}" y2="${py.get(c).toFixed(1)}"/>`;
    const circle = (s) => {
      const model = g.models[g.model[s]] || "", ran = chosen().map((c) => { const i = lastShard(c, s); return i < 0 ? "" : `\n${c.policy}: ${g.devices[c.device[i]]}, ${sig(c.start[i])} to ${sig(c.end[i])} s`; }).join("");
      return `<circle class="node${critical.has(s) ? " critical" : ""}" data-stage="${s}" cx="${px.get(s).toFixed(1)}" cy="${py.get(s).toFixed(1)}" r="${radius}" fill="${model ? modelColour(g.model[s]) : "var(--other)"}" ${tip(`${stageName(s)}\n${model || "no model (a tool, or a fixed time)"}${ran}`)}/>`;
    };
    const name = `Graph of ${V.entry.flows[V.flow]}: ${own.length} stages, ${links.length} edges, ${deep} columns; ${critical.size} on the critical path`;
    box.innerHTML = `<svg viewBox="0 0 ${w} ${h}" role="img" tabindex="0" aria-label="${esc(name)}" data-svg="graph"><g data-v="nodes">${links.map(line).join("")}${own.map(circle).join("")}</g></svg>`;
    const zoom = d3.zoom().scaleExtent([1, 40]).translateExtent([[0, 0], [w, h]]).extent([[0, 0], [w, h]])
      .filter((e) => (e.type === "wheel" ? e.ctrlKey || e.metaKey : e.type.startsWith("touch") ? e.touches.length > 1 : !e.button))
      .on("zoom", (e) => at("nodes").setAttribute("transform", e.transform));
    const picture = d3.select(box.firstChild).call(zoom);
    V.zoomGraph = (how) => {
      if (how === "all") zoom.transform(picture, d3.zoomIdentity);
      else if (how === "in" || how === "out") zoom.scaleBy(picture, how === "in" ? 1.5 : 1 / 1.5);
      else zoom.translateBy(picture, how === "left" ? 60 : -60, 0);
    };
  }

  function drawLegend() {
    const key = (colour, text) => `<li><span class="box" style="background:${colour}"></span>${esc(text)}</li>`;
    const items = KINDS.map(([k, t]) => key(`var(--${k})`, t)), models = [];
    if (V.rows === "memory") items.push(key("var(--weights)", "memory: weights"), key("var(--kv)", "memory: KV cache"));
    if (V.rows === "queries") items.push(key("var(--kv)", "queries in service"));
    if (V.entry.edges) {
      models.push(...[...new Set(V.entry.model.filter((m) => V.entry.models[m]))].map((m) => key(modelColour(m), V.entry.models[m])));
      if (V.path) items.push(`<li><span class="box stroke"></span>critical path</li>`);
    }
    const list = (name, some) => (some.length ? `<ul class="keys" aria-label="${name}"><li><b>${name}</b></li>${some.join("")}</ul>` : "");
    at("legend").innerHTML = list("Bars", items) + list(V.rows === "models" ? "Models, in the graph and below the bars" : "Models, in the graph", models);
  }

  // ---------- why here ----------
  const byTime = () => { const c = chosen()[0], seen = new Set(); return c.start.map((_, i) => i).sort((i, j) => c.start[i] - c.start[j]).map((i) => c.stage[i]).filter((s) => !seen.has(s) && seen.add(s)); };
  function select(s) {
    V.stage = s;
    if (s >= 0 && V.entry.edges && V.entry.flow[s] !== V.flow) { V.flow = V.entry.flow[s]; at("flow").value = V.flow; drawGraph(); }
    const i = s < 0 ? -1 : lastShard(chosen()[0], s);
    if (i >= 0) V.show(chosen()[0].start[i], chosen()[0].end[i]);
    mark();
    why();
  }
  const step = (by) => { const order = byTime(), i = order.indexOf(V.stage); select(order[i < 0 ? (by > 0 ? 0 : order.length - 1) : (i + by + order.length) % order.length]); };
  function mark() {
    node.querySelectorAll("[data-stage]").forEach((n) => n.classList.toggle("chosen", Number(n.dataset.stage) === V.stage));
  }
  function why() {
    const box = at("why");
    if (V.stage < 0) { box.innerHTML = `<h3>Why here?</h3><p class="note">Choose a stage: the devices that it could have had are compared here.</p>`; return; }
    box.innerHTML = `<h3>Why here: ${esc(stageName(V.stage))}</h3><div class="whys">${chosen().map((c) => `<div>${because(c)}</div>`).join("")}</div>`;
    tools.watch(box);
  }
  function because(c) {
    const g = V.entry, rows = c.stage.map((s, i) => (s === V.stage ? i : -1)).filter((i) => i >= 0);
    if (!rows.length) return `<h4>${esc(c.policy)}</h4><p class="note">It ran on no device: a tool, or a branch that was not taken.</p>`;
    const place = rows.map((i) => g.devices[c.device[i]]).join(" + "), start = Math.min(...rows.map((i) => c.start[i])), end = Math.max(...rows.map((i) => c.end[i])), ready = c.ready ? c.ready[V.stage] : null;
    const on = c.path ? c.path.indexOf(V.stage) : -1;
    const head = `<h4>${esc(c.policy)}: ${esc(place)}</h4><p class="note">${isNum(ready) ? `Ready at ${sig(ready)} s, ran` : "Ran"} from ${sig(start)} to ${sig(end)} s.${on >= 0 ? ` On the critical path: it waited for ${c.held_up[on] ? "its device" : "its inputs"}.` : ""}</p>`;
    const W = c.decisions, d = W ? W.stage.lastIndexOf(V.stage) : -1;
    if (d < 0) return head + `<p class="note">What it was compared with was not kept.</p>`;
    const now = W.time[d], mine = W.devices[d], quantity = W.quantity[d] === null ? null : c.quantities[W.quantity[d]];
    const list = [], usual = (name, i) => { const row = W[name][d], v = row ? row[i] : -1; return v === -1 ? g.usual[name][V.stage][i] : v; };
    W.wait[d].forEach((wait, i) => {
      if (!isNum(wait)) return;
      const part = [wait, W.load[d][i], W.move[d][i], usual("fill", i), usual("decode", i)];
      list.push({ devices: [i], part, end: W.ends[d] ? W.ends[d][i] : wait + Math.max(part[1], part[2]) + part[3] + part[4] });
    });
    const compared = W.compared[d] === 1 ? list.map((one) => [one.devices, now + one.end]) : W.compared[d].map(([devices, value]) => [[devices].flat(), value]);
    const own = new Map(compared.map(([devices, value]) => [devices.join(), value]));
    if (mine.length > 1) list.push({ devices: mine, part: null, end: W.end[d] });
    for (const [devices] of compared) if (devices.length > 1 && devices.join() !== mine.join()) list.push({ devices, part: null, end: null });
    list.sort((p, q) => (isNum(p.end) ? p.end : Infinity) - (isNum(q.end) ? q.end : Infinity));
    const is = (one) => one.devices.join() === mine.join(), taken = list.find(is), base = taken && isNum(taken.end) ? taken.end : null;
    const cells = (one) => (one.part ? one.part.slice(0, 5) : [null, null, null, null, null]).map((v) => `<td class="num">${short(v)}</td>`).join("");
    const more = (one) => (is(one) ? "chosen" : isNum(one.end) && isNum(base) ? `${one.end - base >= 0 ? "+" : "−"}${short(Math.abs(one.end - base))}` : "–");
    const value = (one) => { const v = own.get(one.devices.join()); return own.has(one.devices.join()) ? (v === null ? "not better" : sig(v)) : "–"; };
    const body = list.map((one) => `<tr class="${is(one) ? "strong" : ""}"><th scope="row">${is(one) ? "✓ " : ""}${esc(one.devices.map((i) => g.devices[i]).join(" + "))}</th>${cells(one)}<td class="num">${short(one.end)}</td><td class="num">${more(one)}</td>${quantity === null ? "" : `<td class="num">${value(one)}</td>`}</tr>`).join("");
    const firstOf = list.find((one) => isNum(one.end)), gap = firstOf && isNum(base) ? base - firstOf.end : 0;
    const verdict = mine.length === 1 && gap > 1e-4 ? ` It ends ${sig(gap)} s later than it would on ${esc(firstOf.devices.map((i) => g.devices[i]).join(" + "))}; that is not what the policy compares.` : "";
    return head + `<p class="note">Decided at ${sig(now)} s.${verdict}</p><div class="scroll" tabindex="0" role="region" aria-label="Candidates of ${esc(c.policy)}"><table class="plain"><thead><tr><th scope="col">device</th>${["wait", "load", "transfer", "prefill", "decode", "total", "vs chosen"].map((t) => `<th scope="col" class="num">${t}</th>`).join("")}${quantity === null ? "" : `<th scope="col" class="num">policy's value</th>`}</tr></thead><tbody>${body}</tbody></table></div>` +
      `<p class="note">Seconds, as estimated when it was decided, for the whole stage on one device; the total is to its end. ${quantity === null ? `${esc(c.policy)} compared nothing itself in this decision, or does not say what.` : `Policy's value, smaller is better: ${esc(quantity)}.`}</p>`;
  }

  // ---------- controls ----------
  node.addEventListener("change", (e) => {
    const what = e.target.dataset.v;
    if (what === "problem") { V.entry = entries()[Number(e.target.value)]; enter(); update(V.width); tools.changed(); e.target.focus(); }
    else if (what === "flow") { V.flow = Number(e.target.value); drawGraph(); mark(); }
    else if (what === "path") { V.path = e.target.checked; draw(); }
    else if (["a", "b", "rows"].includes(what)) { V[what] = e.target.value; draw(); }
  });
  node.addEventListener("click", (e) => {
    const does = e.target.closest("[data-do]"), stage = e.target.closest("[data-stage]");
    if (does) act(does.dataset.do, V.zoom);
    else if (stage) select(Number(stage.dataset.stage) === V.stage ? -1 : Number(stage.dataset.stage));
  });
  const act = (what, zoom) => (what === "previous" ? step(-1) : what === "next" ? step(1) : zoom(what));
  const KEYS = { "+": "in", "=": "in", "-": "out", 0: "all", ArrowLeft: "left", ArrowRight: "right", n: "next", p: "previous" };
  node.addEventListener("keydown", (e) => {
    const picture = e.target.closest("[data-svg]");
    if (!picture || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "Escape") return select(-1);
    const what = KEYS[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (!what) return;
    e.preventDefault();
    act(what, picture.dataset.svg === "graph" ? V.zoomGraph : V.zoom);
  });
  return { update, current: () => V.entry };
};
