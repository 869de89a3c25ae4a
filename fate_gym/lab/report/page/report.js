(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const names = D.policies.map((p) => p.name);
  const K = D.keys, V = D.values;

  // ---------- small helpers ----------
  const esc = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const isNum = (v) => typeof v === "number" && !Number.isNaN(v);
  const fix = (v, n = 3) => (isNum(v) ? v.toFixed(n) : "–");
  const sig = (v) => (!isNum(v) ? "–" : v === 0 ? "0" : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : Number(v.toPrecision(3)).toString());
  const signed = (v, n = 1) => (isNum(v) ? (v > 0 ? "+" : v < 0 ? "−" : "") + Math.abs(v).toFixed(n) : "–");
  const mean = (a) => a.reduce((s, v) => s + v, 0) / a.length;
  const quantile = (sorted, q) => {
    const h = (sorted.length - 1) * q, l = Math.floor(h);
    return sorted[l] + (sorted[Math.min(l + 1, sorted.length - 1)] - sorted[l]) * (h - l);
  };
  const median = (a) => quantile([...a].sort((x, y) => x - y), 0.5);
  const random = (seed) => () => { // mulberry32: the same selection gives the same interval
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  // ---------- colours: one a policy, the same everywhere ----------
  const slots = (() => {
    const fate = ["f0", "f1", "f2"], base = ["b0", "b1", "b2", "b3", "b4"];
    return D.policies.map((p) => p.name === "round_robin" ? "rr" : ((p.family === "fate" ? fate : base).shift() || "other"));
  })();
  const colour = (p) => `var(--${slots[p]})`;
  const main = names.map((n, i) => i).filter((i) => slots[i] !== "other");

  // ---------- state ----------
  const S = { suite: "", family: -1, shown: new Set(main), sort: ["latency_ratio", 1], open: new Set(),
    flowSort: ["diff", 1], all: false, focus: null };
  const byKey = D.keys.suite.map(() => new Map());
  V.key.forEach((k, i) => byKey[k].set(V.policy[i], V.latency_ratio[i]));
  const selected = (k) => (!S.suite || D.suites[K.suite[k]] === S.suite) && (S.family < 0 || K.family[k] === S.family);
  const keys = () => byKey.map((_, k) => k).filter(selected);
  const shown = () => names.map((_, i) => i).filter((i) => S.shown.has(i));

  // ---------- summaries ----------
  function summary() {
    const whole = D.summaries[S.suite] || D.summaries[""];
    if (S.family < 0) return whole;
    const chosen = keys(), strongest = names.indexOf(D.strongest);
    return names.map((_, p) => {
      const values = [], clusters = new Map(), pairs = [];
      for (const k of chosen) {
        const v = byKey[k].get(p);
        if (v === undefined) continue;
        values.push(v);
        const id = `${K.suite[k]}/${K.instance[k]}`, c = clusters.get(id) || [0, 0, 0, 0];
        c[0] += v; c[1] += 1; clusters.set(id, c);
        const other = byKey[k].get(strongest);
        if (other !== undefined) { pairs.push([v, other]); c[2] += v; c[3] += other; }
      }
      if (!values.length) return null;
      const groups = [...clusters.values()], next = random(7), means = [], differences = [];
      for (let r = 0; r < 1000 && groups.length > 1; r++) {
        let s = 0, n = 0, u = 0, v = 0;
        for (let i = 0; i < groups.length; i++) { const g = groups[Math.floor(next() * groups.length)]; s += g[0]; n += g[1]; u += g[2]; v += g[3]; }
        means.push(s / n);
        if (v > 0) differences.push(100 * (u / v - 1));
      }
      means.sort((a, b) => a - b);
      differences.sort((a, b) => a - b);
      const sorted = [...values].sort((a, b) => a - b), versus = pairs.length && p !== strongest;
      return { policy: p, n: values.length, latency_ratio: mean(values),
        latency_ratio_lo: means.length ? quantile(means, 0.025) : null, latency_ratio_hi: means.length ? quantile(means, 0.975) : null,
        latency_ratio_p95: quantile(sorted, 0.95), gap_to_bound: null, decision_ms_p50: null, decision_ms_p99: null, p_value: null,
        win_rate: versus ? mean(pairs.map(([a, b]) => (Math.abs(a - b) <= 1e-4 * b ? 0.5 : a < b ? 1 : 0))) : null,
        vs_strongest_pct: pairs.length ? 100 * (mean(pairs.map((x) => x[0])) / mean(pairs.map((x) => x[1])) - 1) : null,
        vs_strongest_pct_lo: differences.length ? quantile(differences, 0.025) : null, vs_strongest_pct_hi: differences.length ? quantile(differences, 0.975) : null };
    }).filter(Boolean).sort((a, b) => a.latency_ratio - b.latency_ratio);
  }

  function cards(rows) {
    const best = rows.find((r) => names[r.policy] === D.best) || rows[0];
    const strong = rows.find((r) => names[r.policy] === D.strongest);
    const item = (value, text) => `<div class="card"><b>${value}</b><span>${text}</span></div>`;
    const out = [item(fix(best.latency_ratio), `${esc(names[best.policy])}: mean latency / RoundRobin`)];
    if (strong && strong !== best) {
      out.push(item(`${signed(best.vs_strongest_pct)} %`, `against ${esc(D.strongest)}, the strongest baseline`));
      out.push(item(isNum(best.win_rate) ? `${Math.round(100 * best.win_rate)} %` : "–", `of ${best.n} workflows won against it`));
    }
    out.push(item(fix(best.latency_ratio_p95), "95th percentile of the ratio"));
    $("cards").innerHTML = out.join("");
  }

  const stars = (p) => (!isNum(p) ? "" : p < 0.001 ? " ***" : p < 0.01 ? " **" : p < 0.05 ? " *" : "");
  const value = (row, key) => (key === "policy" ? names[row.policy] : row[key]);
  const compare = (x, y, sign) => {
    if (typeof x === "string" && typeof y === "string") return sign * x.localeCompare(y);
    if (!isNum(x) || !isNum(y)) return isNum(x) ? -1 : isNum(y) ? 1 : 0;
    return sign * (x - y);
  };

  function table(rows) {
    const [key, sign] = S.sort;
    const sorted = [...rows].sort((a, b) => compare(value(a, key), value(b, key), sign));
    const ends = rows.flatMap((r) => [r.latency_ratio, r.latency_ratio_lo, r.latency_ratio_hi]).filter(isNum);
    const low = Math.min(...ends, 1), high = Math.max(...ends, 1);
    const x = (v) => 4 + (102 * Math.log(v / low)) / (Math.log(high / low) || 1);
    const bar = (r) => `<svg viewBox="0 0 110 14" style="width:110px" aria-hidden="true"><line class="ref" x1="${x(1)}" x2="${x(1)}" y1="0" y2="14"/>` +
      (isNum(r.latency_ratio_lo) ? `<line x1="${x(r.latency_ratio_lo)}" x2="${x(r.latency_ratio_hi)}" y1="7" y2="7" stroke="${colour(r.policy)}" stroke-width="3" stroke-linecap="round"/>` : "") +
      `<circle cx="${x(r.latency_ratio)}" cy="7" r="4" fill="${colour(r.policy)}"/></svg>`;
    $("summary").tBodies[0].innerHTML = sorted.map((r) => {
      const p = r.policy, open = S.open.has(p);
      const runs = D.runs.filter((u) => u.policy === p && (!S.suite || u.suite === S.suite || S.suite.startsWith(u.suite)));
      const diff = r.vs_strongest_pct, same = names[p] === D.strongest;
      const clear = isNum(r.p_value) ? r.p_value < 0.05 : false;
      const list = runs.map((u) => `<li><a href="${esc(u.link)}/result.json">${esc(u.suite)} s${esc(u.seed)}</a> ${fix(u.latency_ratio)} · ${sig(u.seconds)} s · <a href="${esc(u.link)}/config.yaml">config</a> · <span title="W&amp;B run ${esc(u.id)}">${esc(u.where.split("-").pop())}</span></li>`).join("");
      return `<tr class="${same ? "strong" : ""} ${open ? "open" : ""}" id="row-${p}"><th scope="row"><button type="button" class="expand" data-policy="${p}" aria-expanded="${open}" aria-controls="runs-${p}"><span class="dot" style="background:${colour(p)}"></span>${esc(names[p])}</button></th>` +
        `<td class="num">${r.n}</td><td><span class="ci">${bar(r)}<span>${fix(r.latency_ratio)} ${isNum(r.latency_ratio_lo) ? `[${fix(r.latency_ratio_lo)}, ${fix(r.latency_ratio_hi)}]` : ""}</span></span></td>` +
        `<td class="num">${fix(r.latency_ratio_p95)}</td><td class="num">${fix(r.gap_to_bound, 2)}</td><td class="num">${isNum(r.win_rate) ? Math.round(100 * r.win_rate) + " %" : "–"}</td>` +
        `<td class="num ${clear ? (diff < 0 ? "good" : "bad") : ""}">${same ? "strongest" : `${signed(diff)} %${isNum(r.vs_strongest_pct_lo) ? ` [${signed(r.vs_strongest_pct_lo)}, ${signed(r.vs_strongest_pct_hi)}]` : ""}`}</td>` +
        `<td class="num">${isNum(r.p_value) ? sig(Number(r.p_value.toPrecision(2))) + stars(r.p_value) : "–"}</td><td class="num">${sig(r.decision_ms_p50)} / ${sig(r.decision_ms_p99)}</td></tr>` +
        `<tr class="runs" id="runs-${p}" ${open ? "" : "hidden"}><td colspan="9"><ul class="runlist" aria-label="Runs of ${esc(names[p])}">${list}</ul></td></tr>`;
    }).join("");
    mark($("summary"), S.sort);
  }
  function mark(node, [key, sign]) {
    node.querySelectorAll("thead th").forEach((th) => {
      const on = th.dataset.sort === key;
      th.setAttribute("aria-sort", on ? (sign > 0 ? "ascending" : "descending") : "none");
      const b = th.querySelector("button");
      if (b) b.textContent = b.dataset.text + (on ? (sign > 0 ? " ↑" : " ↓") : "");
    });
  }
  function sortable(node, which, redraw) {
    node.querySelectorAll("thead th").forEach((th) => {
      const text = th.textContent;
      th.innerHTML = `<button type="button" data-text="${esc(text)}">${esc(text)}</button>`;
      th.firstChild.addEventListener("click", () => {
        const [key, sign] = S[which];
        S[which] = [th.dataset.sort, key === th.dataset.sort ? -sign : 1];
        redraw();
      });
    });
  }

  // ---------- drawing ----------
  const nice = (low, high, n) => {
    const raw = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const out = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(Number(v.toPrecision(10)));
    return out;
  };
  const logTicks = (low, high) => {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) all.push(m * 10 ** e);
    const inside = all.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    return inside.length > 8 ? inside.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-9) : inside;
  };
  const scale = (low, high, from, to, log) => {
    const f = log ? Math.log : (v) => v, a = f(low), b = f(high);
    const s = (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
    s.ticks = (n) => (log ? logTicks(low, high) : nice(low, high, n));
    return s;
  };
  const svg = (w, h, label, body) => `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="${esc(label)}">${body}</svg>`;
  const frame = (w, h, L, R, T, B, x, y, xl, yl, o = {}) => {
    let s = "";
    for (const t of x.ticks(Math.max(3, Math.floor((w - L - R) / 75)))) s += `<line class="gridline" x1="${x(t)}" x2="${x(t)}" y1="${T}" y2="${h - B}"/><text class="soft" x="${x(t)}" y="${h - B + 15}" text-anchor="middle">${(o.fx || sig)(t)}</text>`;
    if (y) for (const t of y.ticks(5)) s += `<line class="gridline" x1="${L}" x2="${w - R}" y1="${y(t)}" y2="${y(t)}"/><text class="soft" x="${L - 6}" y="${y(t) + 4}" text-anchor="end">${(o.fy || sig)(t)}</text>`;
    s += `<line class="axis" x1="${L}" x2="${w - R}" y1="${h - B}" y2="${h - B}"/>`;
    s += `<text class="soft" x="${(L + w - R) / 2}" y="${h - 4}" text-anchor="middle">${esc(xl)}</text>`;
    if (yl) s += `<text class="soft" x="${L}" y="${T - 8}">${esc(yl)}</text>`;
    return s;
  };
  const tip = (text) => `data-tip="${esc(text)}"`;
  const cut = (text, n) => (text.length > n ? text.slice(0, n - 1) + "…" : text);
  const label = (w) => Math.min(170, Math.max(90, w * 0.28));
  const percent = (v) => `${Math.round(100 * v)} %`;

  function steps(points, x, y, p, first, words = names[p]) {
    let d = `M${x(first).toFixed(1)},${y(0).toFixed(1)}`;
    for (const [v, share] of points) d += `H${x(v).toFixed(1)}V${y(share).toFixed(1)}`;
    return `<path d="${d}" fill="none" stroke="${colour(p)}" stroke-width="2" data-p="${p}" ${tip(words)}/>`;
  }
  // At most 400 corners a line: more cannot be told apart.
  const cumulative = (values) => {
    const sorted = [...values].sort((a, b) => a - b), n = sorted.length, every = Math.max(1, Math.floor(n / 400));
    return sorted.map((v, i) => [v, (i + 1) / n]).filter((_, i) => i % every === 0 || i === n - 1);
  };
  const of = (p, chosen) => chosen.map((k) => byKey[k].get(p)).filter(isNum);

  // Numbers that were computed for each suite and family, for those that are chosen.
  const pick = (all) => (all[S.suite] || all[""])[S.family < 0 ? "" : D.families[S.family]];
  function bars(w, what, all) {
    const panels = pick(all) || [], some = shown();
    if (!panels.length || !some.length) return null;
    const columns = w > 900 ? 3 : w > 520 ? 2 : 1, gap = 26, width = (w - gap * (columns - 1)) / columns, L = Math.min(130, width * 0.42), rowH = 19, panelH = 34 + some.length * rowH;
    let s = "";
    panels.forEach((panel, i) => {
      const X = (i % columns) * (width + gap), Y = Math.floor(i / columns) * (panelH + 14), values = some.map((p) => panel.values[names[p]]), top = Math.max(...values.filter(isNum), 1e-12);
      s += `<text x="${X}" y="${Y + 16}" font-weight="600">${esc(panel.title)}</text>`;
      some.forEach((p, j) => {
        const v = values[j], y = Y + 28 + j * rowH, bar = isNum(v) ? (v / top) * (width - L - 48) : 0;
        s += `<g data-p="${p}" ${tip(`${names[p]}\n${panel.title}: ${sig(v)}`)}><text class="soft" x="${X + L - 8}" y="${y + 11}" text-anchor="end">${esc(cut(names[p], Math.floor(L / 6.6)))}</text><rect x="${X + L}" y="${y + 1}" width="${bar.toFixed(1)}" height="13" rx="2" fill="${colour(p)}"/><text class="soft" x="${X + L + bar + 5}" y="${y + 12}">${sig(v)}</text></g>`;
      });
    });
    return svg(w, Math.ceil(panels.length / columns) * (panelH + 14), `${what}: ${panels.map((m) => `${m.title}: ${some.slice(0, 4).map((p) => `${names[p]} ${sig(m.values[names[p]])}`).join(", ")}`).join("; ")}`, s);
  }
  // Of the suite and the family that are chosen; empty until the page has unpacked them.
  const schedules = () => D.schedules.filter((g) => (!S.suite || g.suite === S.suite) && (S.family < 0 || g.families.includes(D.families[S.family])));

  const figures = [
    ["forest", "Mean latency / RoundRobin", "Mean over workflows with its 95 % interval; left is better.", false, (w, box) => {
      const rows = box.rows.filter((r) => S.shown.has(r.policy)), L = label(w), R = 56, T = 14, B = 40, h = T + B + rows.length * 26;
      if (!rows.length) return null;
      const ends = rows.flatMap((r) => [r.latency_ratio, r.latency_ratio_lo, r.latency_ratio_hi]).filter(isNum);
      const low = Math.min(...ends, 1) * 0.96, high = Math.max(...ends, 1) * 1.03, x = scale(low, high, L, w - R, high / low > 4);
      let s = frame(w, h, L, R, T, B, x, null, "mean latency / RoundRobin") + `<line class="ref" x1="${x(1)}" x2="${x(1)}" y1="${T}" y2="${h - B}"/>`;
      rows.forEach((r, i) => {
        const y = T + 13 + i * 26, p = r.policy;
        s += `<g data-p="${p}" ${tip(`${names[p]}\n${fix(r.latency_ratio)} [${fix(r.latency_ratio_lo)}, ${fix(r.latency_ratio_hi)}], n ${r.n}`)}><rect x="0" y="${y - 13}" width="${w}" height="26" fill="transparent"/><text x="${L - 10}" y="${y + 4}" text-anchor="end">${esc(cut(names[p], Math.floor(L / 7)))}</text>`;
        if (isNum(r.latency_ratio_lo)) s += `<line x1="${x(r.latency_ratio_lo)}" x2="${x(r.latency_ratio_hi)}" y1="${y}" y2="${y}" stroke="${colour(p)}" stroke-width="3.5" stroke-linecap="round"/>`;
        s += `<circle cx="${x(r.latency_ratio)}" cy="${y}" r="5" fill="${colour(p)}" stroke="var(--card)" stroke-width="1.5"/><text x="${w - R + 10}" y="${y + 4}">${fix(r.latency_ratio)}</text></g>`;
      });
      return svg(w, h, `Mean latency / RoundRobin: ${rows.map((r) => `${names[r.policy]} ${fix(r.latency_ratio)}`).join(", ")}`, s);
    }],
    ["ecdf", "Share of workflows within a factor of round robin's latency", "Empirical distribution; up and to the left is better.", false, (w, box) => {
      const lines = shown().filter((p) => names[p] !== "round_robin").map((p) => [p, of(p, box.keys)]).filter((l) => l[1].length);
      if (!lines.length) return null;
      const h = 300, L = 44, R = 12, T = 26, B = 40, every = lines.flatMap((l) => l[1]).sort((a, b) => a - b);
      const low = Math.min(every[0], 1) * 0.97, high = Math.max(quantile(every, 0.99), 1) * 1.03;
      const x = scale(low, high, L, w - R, high / low > 4), y = scale(0, 1, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, "latency / RoundRobin", "share of workflows", { fy: percent }) + `<line class="ref" x1="${x(1)}" x2="${x(1)}" y1="${T}" y2="${h - B}"/>`;
      for (const [p, v] of [...lines].reverse()) s += steps(cumulative(v).filter((q) => q[0] <= high), x, y, p, low);
      return svg(w, h, `Distribution of latency / RoundRobin; medians: ${lines.map(([p, v]) => `${names[p]} ${fix(median(v))}`).join(", ")}`, s);
    }],
    ["differences", "Difference to the strongest baseline, workflow by workflow", "", false, (w, box) => {
      const other = names.indexOf(D.strongest);
      const lines = shown().filter((p) => p !== other && names[p] !== "round_robin").map((p) => [p, box.keys.map((k) => 100 * (byKey[k].get(p) / byKey[k].get(other) - 1)).filter(Number.isFinite)]).filter((l) => l[1].length);
      if (other < 0 || !lines.length) return null;
      box.note = `Share of workflows whose latency is at most so much above ${names[other]}'s on the same workflow; up and to the left is better.`;
      const h = 300, L = 44, R = 12, T = 26, B = 40, every = lines.flatMap((l) => l[1]).sort((a, b) => a - b);
      const low = Math.min(quantile(every, 0.005), -1) * 1.1, high = Math.max(quantile(every, 0.9), 1) * 1.1, x = scale(low, high, L, w - R), y = scale(0, 1, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, `latency against ${names[other]}, %`, "share of workflows", { fy: percent }) + `<line class="ref" x1="${x(0)}" x2="${x(0)}" y1="${T}" y2="${h - B}"/>`;
      const words = (p) => { const r = box.rows.find((one) => one.policy === p); return r ? `${signed(r.vs_strongest_pct)} %${isNum(r.vs_strongest_pct_lo) ? ` [${signed(r.vs_strongest_pct_lo)}, ${signed(r.vs_strongest_pct_hi)}]` : ""}` : "–"; };
      for (const [p, v] of [...lines].reverse()) {
        const points = cumulative(v).filter((q) => q[0] <= high);
        s += steps([...points.map((q) => [Math.max(low, q[0]), q[1]]), [high, points.length ? points[points.length - 1][1] : 0]], x, y, p, low, `${names[p]}\nmean ${words(p)}`);
      }
      return svg(w, h, `Differences to ${names[other]}; means with 95 % intervals: ${lines.map(([p]) => `${names[p]} ${words(p)}`).join(", ")}`, s);
    }],
    ["profile", "Share of workflows within a factor of the best policy's latency", "Performance profile over the policies shown; up and to the left is better.", false, (w, box) => {
      const some = shown(), ratio = new Map(some.map((p) => [p, []]));
      for (const k of box.keys) {
        const there = some.map((p) => [p, byKey[k].get(p)]).filter((e) => isNum(e[1]));
        const best = Math.min(...there.map((e) => e[1]));
        for (const [p, v] of there) ratio.get(p).push(v / best);
      }
      const lines = [...ratio].filter((l) => l[1].length);
      if (!lines.length) return null;
      const h = 300, L = 44, R = 12, T = 26, B = 40;
      const high = Math.min(3, Math.max(1.05, median(lines.map((l) => quantile([...l[1]].sort((a, b) => a - b), 0.9)))));
      const x = scale(1, high, L, w - R), y = scale(0, 1, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, "latency / the best policy's", "share of workflows", { fy: percent });
      for (const [p, v] of [...lines].reverse()) {
        const points = cumulative(v).filter((q) => q[0] <= high);
        s += steps([...points, [high, points.length ? points[points.length - 1][1] : 0]], x, y, p, 1);
      }
      return svg(w, h, `Performance profile; share of workflows on which each is best: ${lines.map(([p, v]) => `${names[p]} ${percent(mean(v.map((q) => (q < 1.0001 ? 1 : 0))))}`).join(", ")}`, s);
    }],
    ["intensity", "Gain against state intensity", "", false, (w, box) => {
      const a = Number($("a").value), b = Number($("b").value);
      const points = box.keys.map((k) => [K.intensity[k], byKey[k].get(a), byKey[k].get(b), k]).filter((q) => isNum(q[1]) && isNum(q[2]) && isNum(q[0])).map(([i, u, v, k]) => [i, 100 * (1 - u / v), k]);
      if (a === b || points.length < 3) return null;
      box.note = `Gain of ${names[a]} over ${names[b]} on each workflow (positive: ahead), and medians of eighths. The two are chosen below.`;
      const h = 300, L = 44, R = 14, T = 26, B = 40, xs = points.map((q) => q[0]).sort((u, v) => u - v), ys = points.map((q) => q[1]).sort((u, v) => u - v);
      const low = xs[0], high = xs[xs.length - 1], log = low > 0 && high / low > 4, x = scale(log ? low * 0.95 : low, (high || 1) * 1.03, L, w - R, log);
      const span = [Math.min(quantile(ys, 0.005), 0), Math.max(quantile(ys, 0.995), 0)], pad = 0.06 * (span[1] - span[0] || 1), y = scale(span[0] - pad, span[1] + pad, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, w > 480 ? "state intensity: (load + transfer + prefix prefill, cold) / execution" : "state intensity", "gain, %") + `<line class="ref" x1="${L}" x2="${w - R}" y1="${y(0)}" y2="${y(0)}"/>`;
      const every = Math.max(1, Math.ceil(points.length / 1500));
      points.forEach(([i, g, k], n) => { if (n % every === 0) s += `<circle cx="${x(i).toFixed(1)}" cy="${Math.min(h - B, Math.max(T, y(g))).toFixed(1)}" r="3.2" fill="${colour(a)}" fill-opacity=".45" ${tip(`${D.labels[K.label[k]]} s${K.seed[k]}\ngain ${signed(g)} %, intensity ${sig(i)}`)}/>`; });
      const sorted = [...points].sort((u, v) => u[0] - v[0]), size = Math.max(4, Math.ceil(sorted.length / 8)), line = [];
      for (let i = 0; i < sorted.length; i += size) { const part = sorted.slice(i, i + size); line.push([median(part.map((q) => q[0])), median(part.map((q) => q[1]))]); }
      s += `<polyline fill="none" stroke="var(--b0)" stroke-width="2" points="${line.map((q) => `${x(q[0])},${y(q[1])}`).join(" ")}"/>` + line.map((q) => `<circle cx="${x(q[0])}" cy="${y(q[1])}" r="4" fill="var(--b0)" stroke="var(--card)"/>`).join("");
      return svg(w, h, `Gain of ${names[a]} over ${names[b]} against state intensity; medians from low to high intensity: ${line.map((q) => `${signed(q[1])} %`).join(", ")}`, s);
    }],
    ["axis", "Results over an axis", "", true, (w) => {
      const lines = D.axis.lines[S.family < 0 ? "" : D.families[S.family]] || [];
      if (!lines.length) return null;
      const h = 320, L = 50, R = 130, T = 26, B = 40, xs = lines.flatMap((l) => l.points.map((q) => q[0])), ys = lines.flatMap((l) => l.points.flatMap((q) => q.slice(1))).filter(isNum);
      const low = Math.min(...xs), high = Math.max(...xs), log = low > 0 && high / low > 10, x = scale(low, high, L + 8, w - R, log), to = D.axis.reference, what = to ? `latency against ${to}, %` : "mean latency / RoundRobin", digits = to ? signed : fix;
      const least = Math.min(...ys, ...(to ? [0] : [])), most = Math.max(...ys, ...(to ? [0] : [])), pad = 0.06 * (most - least || 1), y = scale(least - pad, most + pad, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, D.axis.name, `${what}, 95 % CI`) + (to ? `<line class="ref" x1="${L}" x2="${w - R}" y1="${y(0)}" y2="${y(0)}"/>` : "");
      let taken = [];
      lines.forEach((l) => {
        const p = names.indexOf(l.policy), c = p < 0 ? "var(--f0)" : colour(p);
        if (p >= 0 && !S.shown.has(p)) return;
        s += `<g data-p="${p}"><polyline fill="none" stroke="${c}" stroke-width="2" points="${l.points.map((q) => `${x(q[0])},${y(q[1])}`).join(" ")}"/>` +
          l.points.map((q) => (isNum(q[2]) ? `<line x1="${x(q[0])}" x2="${x(q[0])}" y1="${y(q[2])}" y2="${y(q[3])}" stroke="${c}" stroke-width="1.5" stroke-opacity=".6"/>` : "") + `<circle cx="${x(q[0])}" cy="${y(q[1])}" r="4" fill="${c}" ${tip(`${l.policy}\n${D.axis.name} ${sig(q[0])}: ${digits(q[1])} [${digits(q[2])}, ${digits(q[3])}]`)}/>`).join("");
        const end = y(l.points[l.points.length - 1][1]);
        if (!taken.some((t) => Math.abs(t - end) < 12)) { taken.push(end); s += `<text x="${w - R + 10}" y="${end + 4}">${esc(cut(l.policy, 17))}</text>`; }
        s += "</g>";
      });
      return svg(w, h, `${what} over ${D.axis.name}: ${lines.map((l) => `${l.policy} from ${digits(l.points[0][1])} to ${digits(l.points[l.points.length - 1][1])}`).join(", ")}`, s);
    }],
    ["effects", "Against the reference", "", true, (w, box) => {
      const rows = D.effects.rows[S.family < 0 ? "" : D.families[S.family]] || [];
      if (!rows.length) return null;
      box.note = `Difference to ${D.effects.reference} on the same workflows with its 95 % interval; right of zero is slower.`;
      const L = Math.min(290, w * 0.42), R = 120, T = 14, B = 40, h = T + B + rows.length * 26, ends = rows.flatMap((r) => [r.difference, r.difference_lo, r.difference_hi]).filter(isNum);
      const x = scale(Math.min(...ends, 0) - 0.2, Math.max(...ends, 0) + 0.2, L, w - R);
      let s = frame(w, h, L, R, T, B, x, null, `latency against ${D.effects.reference}, %`) + `<line class="ref" x1="${x(0)}" x2="${x(0)}" y1="${T}" y2="${h - B}"/>`;
      rows.forEach((r, i) => {
        const y = T + 13 + i * 26, c = isNum(r.p_value) && r.p_value < 0.05 ? (r.difference > 0 ? "var(--bad)" : "var(--good)") : "var(--other)";
        s += `<g ${tip(`${r.policy}\n${signed(r.difference, 2)} % [${signed(r.difference_lo, 2)}, ${signed(r.difference_hi, 2)}], p ${sig(r.p_value)}`)}><text x="${L - 10}" y="${y + 4}" text-anchor="end">${esc(cut(r.policy, Math.floor(L / 7)))}</text>` + (isNum(r.difference_lo) ? `<line x1="${x(r.difference_lo)}" x2="${x(r.difference_hi)}" y1="${y}" y2="${y}" stroke="${c}" stroke-width="3.5" stroke-linecap="round"/>` : "") +
          `<circle cx="${x(r.difference)}" cy="${y}" r="5" fill="${c}"/><text x="${w - R + 10}" y="${y + 4}">${signed(r.difference)} %${stars(r.p_value)}</text></g>`;
      });
      return svg(w, h, `Differences to ${D.effects.reference}: ${rows.map((r) => `${r.policy} ${signed(r.difference)} %`).join(", ")}`, s);
    }],
    ["mechanism", "Mechanism", "Means over workflows: why policies differ. Bars in the order of the table.", true, (w) => bars(w, "Mechanism", D.mechanism)],
    ["serving", "Serving", "Means over runs. First token, call: from when a stage is ready. Objectives and goodput where workflows have objectives.", true, (w) => bars(w, "Serving", D.serving)],
    ["occupancy", "Queries in service over time", "On all devices together, means over short parts of a schedule; the problem is the one whose schedules stand below.", true, (w) => {
      const g = viewer.current(), some = g ? shown().map((p) => [p, g.schedules.find((s) => s.policy === names[p])]).filter((q) => q[1]) : [];
      if (!some.length) return null;
      const h = 320, L = 50, R = 14, T = 26, B = 40, x = scale(0, Math.max(...some.map(([, s]) => s.makespan)), L, w - R), y = scale(0, Math.max(...some.flatMap(([, s]) => s.served), 1) * 1.04, h - B, T);
      let s = frame(w, h, L, R, T, B, x, y, "seconds", "queries in service");
      for (const [p, one] of [...some].reverse()) {
        const step = one.makespan / one.served.length, d = one.served.map((v, i) => `${i ? "V" : `M${x(0).toFixed(1)},`}${y(v).toFixed(1)}H${x((i + 1) * step).toFixed(1)}`).join("");
        s += `<path d="${d}" fill="none" stroke="${colour(p)}" stroke-width="1.6" data-p="${p}" ${tip(`${names[p]}\nmean ${sig(mean(one.served))} in service, ends at ${sig(one.makespan)} s`)}/>`;
      }
      return svg(w, h, `Queries in service over time on ${g.problem}; means: ${some.map(([p, one]) => `${names[p]} ${sig(mean(one.served))}`).join(", ")}`, s);
    }],
    ["decision_time", "Wall-clock time of a decision", "", true, (w, box) => {
      box.note = `P1 to P99 (thin), quartiles (thick), median (dot); P50 / P99 in ms at the right.${S.family < 0 ? "" : " Of all families: times are kept by job."}`;
      const all = D.decision_time[S.suite] || D.decision_time[""], some = shown().filter((p) => all[names[p]]);
      if (!some.length) return null;
      const L = label(w), R = 110, T = 14, B = 40, h = T + B + some.length * 26, q = some.map((p) => all[names[p]].map((v) => Math.max(v, 1e-4)));
      const x = scale(Math.min(...q.map((v) => v[0])) * 0.9, Math.max(...q.map((v) => v[4])) * 1.1, L, w - R, true);
      let s = frame(w, h, L, R, T, B, x, null, "milliseconds");
      some.forEach((p, i) => {
        const y = T + 13 + i * 26, [a, b, m, c, d, most] = q[i];
        s += `<g data-p="${p}" ${tip(`${names[p]}\nP50 ${sig(m)}, P99 ${sig(d)}, most ${sig(most)} ms`)}><rect x="0" y="${y - 13}" width="${w}" height="26" fill="transparent"/><text x="${L - 10}" y="${y + 4}" text-anchor="end">${esc(cut(names[p], Math.floor(L / 7)))}</text><line x1="${x(a)}" x2="${x(d)}" y1="${y}" y2="${y}" stroke="${colour(p)}" stroke-width="1.6"/><line x1="${x(b)}" x2="${Math.max(x(c), x(b) + 1)}" y1="${y}" y2="${y}" stroke="${colour(p)}" stroke-width="7"/><circle cx="${x(m)}" cy="${y}" r="4.5" fill="var(--card)" stroke="${colour(p)}" stroke-width="2"/><text x="${w - R + 10}" y="${y + 4}">${sig(m)} / ${sig(d)}</text></g>`;
      });
      return svg(w, h, `Decision time in milliseconds, P50 and P99: ${some.map((p, i) => `${names[p]} ${sig(q[i][2])} and ${sig(q[i][4])}`).join(", ")}`, s);
    }],
  ];

  const host = $("figures"), frames = {};
  for (const [id, title, , wide] of figures) {
    const node = document.createElement("figure");
    node.id = `fig-${id}`;
    node.className = wide ? "wide" : "";
    node.innerHTML = `<figcaption>${esc(title)}</figcaption><p class="note"></p><div class="canvas"></div><div class="after"></div>`;
    host.append(node);
    frames[id] = node;
  }
  const stage = document.createElement("figure");
  stage.id = "fig-gantt";
  stage.className = "wide";
  stage.hidden = true;
  host.append(stage);
  const viewer = scheduleViewer(stage, { esc, sig, isNum, cut, tip, scale, best: D.best, strongest: D.strongest,
    entries: schedules, changed: () => draw("occupancy"), watch: (box) => watch(box) });
  function draw(only) {
    const box = { rows: summary(), keys: keys() };
    if (!only) viewer.update(host.clientWidth - 42);
    for (const [id, , note, , paint] of figures) {
      if (only && only !== id) continue;
      const node = frames[id];
      node.hidden = false;
      const own = { ...box, note };
      const picture = paint(Math.max(280, Math.min(1240, node.querySelector(".canvas").clientWidth)), own);
      node.hidden = picture === null;
      if (picture === null) continue;
      node.querySelector(".note").textContent = own.note;
      node.querySelector(".canvas").innerHTML = picture;
      node.querySelector(".after").innerHTML = legend(id);
    }
    if (!only) {
      cards(box.rows); table(box.rows); workflows(box.keys);
      document.querySelectorAll("[data-suite]").forEach((n) => { n.hidden = S.suite !== "" && n.dataset.suite !== S.suite; });
    }
  }
  const legend = (id) => (["ecdf", "differences", "profile", "occupancy"].includes(id) ? `<ul class="keys">${shown().filter((p) => !["ecdf", "differences"].includes(id) || names[p] !== "round_robin").filter((p) => id !== "differences" || names[p] !== D.strongest).map((p) => `<li data-p="${p}"><span class="dot" style="background:${colour(p)}"></span>${esc(names[p])}</li>`).join("")}</ul>` : "");

  // ---------- workflows ----------
  function workflows(chosen) {
    const a = Number($("a").value), b = Number($("b").value), text = $("find").value.trim().toLowerCase();
    let rows = chosen.map((k) => ({ k, name: D.labels[K.label[k]], family: D.families[K.family[k]], seed: K.seed[k], stages: K.stages[k], intensity: K.intensity[k], a: byKey[k].get(a), b: byKey[k].get(b) })).filter((r) => isNum(r.a) && isNum(r.b));
    for (const r of rows) r.diff = 100 * (r.a / r.b - 1);
    const lost = rows.filter((r) => r.diff > 0.01).length, won = rows.filter((r) => r.diff < -0.01).length;
    rows = rows.filter((r) => !text || `${r.name} ${r.family}`.toLowerCase().includes(text));
    const [key, sign] = S.flowSort;
    rows.sort((u, v) => compare(u[key], v[key], sign));
    const most = S.all ? rows.length : 50;
    $("flowsNote").textContent = `${names[a]} ends earlier than ${names[b]} on ${won} workflows, later on ${lost}; ${Math.min(most, rows.length)} of ${rows.length} shown.`;
    $("workflows").tBodies[0].innerHTML = rows.slice(0, most).map((r) => `<tr><th scope="row">${esc(r.name)}</th><td>${esc(r.family)}</td><td class="num">${esc(r.seed)}</td><td class="num">${esc(r.stages)}</td><td class="num">${fix(r.intensity, 2)}</td><td class="num">${fix(r.a)}</td><td class="num">${fix(r.b)}</td><td class="num ${r.diff < -0.01 ? "good" : r.diff > 0.01 ? "bad" : ""}">${signed(r.diff)} %</td></tr>`).join("");
    $("more").hidden = rows.length <= 50;
    $("more").textContent = S.all ? "Show fewer" : `Show all ${rows.length}`;
    mark($("workflows"), S.flowSort);
  }

  // ---------- controls ----------
  const option = (v, text) => `<option value="${esc(v)}">${esc(text)}</option>`;
  $("suite").innerHTML = (D.suites.length > 1 ? option("", "all suites") : "") + D.suites.map((s) => option(D.suites.length > 1 ? s : "", s)).join("");
  $("family").innerHTML = option(-1, "all families") + D.families.map((f, i) => option(i, f)).join("");
  for (const id of ["a", "b"]) $(id).innerHTML = names.map((n, i) => option(i, n)).join("");
  $("a").value = names.indexOf(D.best);
  $("b").value = Math.max(0, D.strongest && D.strongest !== D.best ? names.indexOf(D.strongest) : names.findIndex((n) => n !== D.best));
  function chips() {
    $("chips").innerHTML = names.map((n, p) => `<button type="button" class="chip" data-p="${p}" aria-pressed="${S.shown.has(p)}"><span class="dot" style="background:${colour(p)}"></span>${esc(n)}</button>`).join("");
    $("picked").textContent = `${S.shown.size} of ${names.length} in the figures`;
  }
  $("suite").addEventListener("change", (e) => { S.suite = e.target.value; draw(); });
  $("family").addEventListener("change", (e) => { S.family = Number(e.target.value); draw(); });
  for (const id of ["a", "b"]) $(id).addEventListener("change", () => { workflows(keys()); draw("intensity"); });
  $("find").addEventListener("input", () => workflows(keys()));
  $("more").addEventListener("click", () => { S.all = !S.all; workflows(keys()); });
  $("chips").addEventListener("click", (e) => {
    const chip = e.target.closest(".chip");
    if (!chip) return;
    const p = Number(chip.dataset.p);
    S.shown.has(p) ? S.shown.delete(p) : S.shown.add(p);
    chips(); draw();
    document.querySelector(`.chip[data-p="${p}"]`).focus();
  });
  document.querySelectorAll("[data-pick]").forEach((b) => b.addEventListener("click", () => {
    S.shown = new Set({ main, all: names.map((_, i) => i), none: [] }[b.dataset.pick]);
    chips(); draw();
  }));
  document.addEventListener("click", (e) => { if (!e.target.closest("#picker") && e.target.isConnected) $("picker").open = false; });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") { $("picker").open = false; hide(); } });
  $("summary").addEventListener("click", (e) => {
    const button = e.target.closest(".expand");
    if (!button) return;
    const p = Number(button.dataset.policy), open = !S.open.has(p);
    open ? S.open.add(p) : S.open.delete(p);
    button.setAttribute("aria-expanded", open);
    $(`row-${p}`).classList.toggle("open", open);
    $(`runs-${p}`).hidden = !open;
  });
  // ---------- tooltips and highlighting ----------
  const tipNode = $("tip"), hide = () => { tipNode.hidden = true; };
  host.addEventListener("pointermove", (e) => {
    const item = e.target.closest("[data-tip]"), hit = e.target.closest("[data-p]");
    const p = hit ? hit.dataset.p : null;
    if (p !== S.focus) {
      S.focus = p;
      host.querySelectorAll("[data-p]").forEach((n) => n.classList.toggle("dim", p !== null && n.dataset.p !== p));
    }
    if (!item) return hide();
    tipNode.textContent = item.dataset.tip;
    tipNode.hidden = false;
    const r = tipNode.getBoundingClientRect();
    tipNode.style.left = `${Math.min(e.clientX + 14, innerWidth - r.width - 8)}px`;
    tipNode.style.top = `${e.clientY + 18 + r.height > innerHeight ? e.clientY - r.height - 10 : e.clientY + 18}px`;
  });
  // A touch leaves no pointer that could move away, so anything else that happens closes a tooltip.
  for (const what of ["scroll", "wheel", "resize", "blur"]) addEventListener(what, hide, { capture: true, passive: true });
  document.addEventListener("pointerdown", (e) => { if (!e.target.closest("[data-tip]")) hide(); });
  document.addEventListener("focusin", hide);
  host.addEventListener("pointerleave", () => { hide(); S.focus = null; host.querySelectorAll(".dim").forEach((n) => n.classList.remove("dim")); });
  // ---------- theme ----------
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("fate-gym-theme"); } catch { return null; } };
  const theme = () => { root.dataset.theme = stored() || (dark.matches ? "dark" : "light"); };
  theme();
  dark.addEventListener("change", theme);
  $("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("fate-gym-theme", root.dataset.theme); } catch { /* a file without storage */ }
  });
  // ---------- tables that are cut ----------
  const cue = (box) => {
    const left = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more", left > 2);
    box.classList.toggle("less", box.scrollLeft > 2);
  };
  const sizes = new ResizeObserver((found) => { for (const one of found) cue(one.target.closest(".scroll")); });
  function watch(root) {
    root.querySelectorAll(".scroll").forEach((box) => {
      box.addEventListener("scroll", () => cue(box), { passive: true });
      sizes.observe(box);
      if (box.firstElementChild) sizes.observe(box.firstElementChild);
      cue(box);
    });
  }
  // ---------- schedules, which are packed ----------
  async function unpack(node) {
    const bytes = Uint8Array.from(atob(node.textContent.trim()), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }
  // ---------- go ----------
  $("filters").hidden = false;
  $("flows").hidden = false;
  sortable($("summary"), "sort", () => table(summary()));
  sortable($("workflows"), "flowSort", () => workflows(keys()));
  chips();
  D.schedules = [];
  draw();
  watch(document);
  unpack($("schedules")).then((found) => { D.schedules = found; draw(); }, () => {
    stage.hidden = false;
    stage.textContent = "This browser cannot unpack the schedules; one of 2023 or later can.";
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
})();
