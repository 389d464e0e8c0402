"use strict";
const POLL_MS = 2500;
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  ok: ["circle", "M12 20.5l5.5 5.5L28 15"],
  warning: ["M20 3.5L38 35H2z", "M20 15v9M20 29.5v.2"],
  critical: ["M13 2.5h14L37.5 13v14L27 37.5H13L2.5 27V13z", "M14 14l12 12M26 14L14 26"],
  unknown: ["circle", "M16 15.5c.5-5 8-5 8 0 0 3.5-4 3-4 7M20 28v.2"],
};
const WORDS = { ok: "All is well", warning: "Needs a look", critical: "Trouble", unknown: "Unknown" };
const COLOURS = { ok: "%230f8a5f", warning: "%23d98a00", critical: "%23c62f3e", unknown: "%238a94a6" };
const OF_TABLE = /^(table|many-parts|nothing)/; // troubles that are shown at the table, not at the topic
const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "circle", "line", "rect", "g"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(name, value);
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
// Replaces what differs and no more: open details, focus and a reader's place stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [was, now] = [[...old.childNodes], [...fresh.childNodes]];
  now.forEach((child, at) => (was[at] ? morph(was[at], child) : old.append(child)));
  was.slice(now.length).forEach((child) => child.remove());
}
function show(id, ...children) {
  const old = $(id);
  const fresh = old.cloneNode(false);
  fresh.append(...children.flat().filter((child) => child !== null));
  morph(old, fresh);
}
function shape(verdict) {
  const [body, mark] = SHAPES[verdict] || SHAPES.unknown;
  return [body === "circle" ? el("circle", { class: "body", cx: 20, cy: 20, r: 18 }) : el("path", { class: "body", d: body }), el("path", { class: "mark", d: mark })];
}
const glyph = (verdict) => el("svg", { class: `glyph ${verdict}`, viewBox: "0 0 40 40", role: "img", "aria-label": WORDS[verdict] }, shape(verdict));
const hidden = (text) => el("span", { class: "vh" }, text);

const foldable = (name) => name.split("_").flatMap((part, at) => (at ? ["_", el("wbr"), part] : [part]));
const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

// numbers for people
function count(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(2)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (size >= 1e5) return `${(value / 1e3).toFixed(0)} k`;
  return Math.round(value).toLocaleString("en");
}
const rate = (value) => (value === null ? "–" : value > 0 && value < 10 ? value.toFixed(1) : count(value));
const both = (large, unit, small, smaller) => (small ? `${large} ${unit} ${small} ${smaller}` : `${large} ${unit}`);
function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 1) return "<1 s";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return both(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
  return both(Math.floor(seconds / 86400), "d", Math.floor((seconds % 86400) / 3600), "h");
}
function bytes(value) {
  if (value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < 4) { value /= 1024; at += 1; }
  return `${value.toFixed(at && value < 100 ? 1 : 0)} ${units[at]}`;
}
const ago = (state, time) => (time === null ? null : Math.max(0, (Date.parse(state.at) - Date.parse(time)) / 1000));
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

const severity = (consumption) => ({ ok: "ok", warning: "warning", stalled: "critical", stopped: "critical" })[consumption] || "unknown";

function header(state) {
  document.body.dataset.verdict = state.verdict;
  document.title = state.verdict === "ok" ? "Chimera · all is well" : `Chimera · ${state.summary}`;
  $("shape").replaceChildren(...shape(state.verdict));
  $("word").textContent = WORDS[state.verdict];
  $("summary").textContent = state.summary === WORDS[state.verdict] ? calm(state) : state.summary;
  $("icon").href = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='${COLOURS[state.verdict]}'/%3E%3C/svg%3E`;
}
function calm(state) {
  const consumed = state.families.reduce((sum, family) => sum + (family.consumed_per_second || 0), 0);
  const lag = Math.max(0, ...state.families.map((family) => family.lag_seconds || 0));
  return consumed < 0.05 ? "Nothing comes in, and nothing waits" : `${rate(consumed)} records a second, at most ${span(lag)} behind`;
}

function troubles(state) {
  if (!state.troubles.length) return show("troubles");
  const rows = state.troubles.map((trouble) => el("li", { class: `trouble ${trouble.severity}` },
    glyph(trouble.severity),
    el("p", {}, trouble.text.startsWith(trouble.where) ? null : el("b", {}, `${trouble.where}: `), trouble.text),
    el("p", { class: "since" }, `for ${span(ago(state, trouble.since))}`),
    el("p", { class: "act" }, prose(trouble.action), " ", el("a", { href: `/runbook#${trouble.id}` }, `Runbook: ${trouble.id}`))));
  show("troubles", el("h2", {}, "What to do"), el("ul", {}, rows));
}

function spark(state, name) {
  const draw = (values, cls, area) => {
    const top = Math.max(1e-9, ...values.map((value) => value || 0));
    const points = [];
    const pieces = [];
    values.forEach((value, at) => {
      if (value === null) { if (points.length) pieces.push(points.splice(0)); return; }
      points.push([((120 - values.length + at) / 119) * 100, 30 - (value / top) * 28]);
    });
    if (points.length) pieces.push(points);
    return pieces.flatMap((piece) => {
      const line = piece.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      const fill = `M${piece[0][0].toFixed(1)} 31L${line}L${piece.at(-1)[0].toFixed(1)} 31z`;
      return [area ? el("path", { class: "spark-area", d: fill }) : null, el("path", { class: cls, d: `M${line}` })];
    });
  };
  const rates = state.history.consumed_per_second[name] || [];
  const lags = state.history.lag_records[name] || [];
  const peak = Math.max(0, ...rates.map((value) => value || 0));
  const lag = Math.max(0, ...lags.map((value) => value || 0));
  return el("div", { class: "trend" },
    el("svg", { viewBox: "0 0 100 32", preserveAspectRatio: "none", role: "img", "aria-label": `${name}, last hour: at most ${rate(peak)} records a second, lag at most ${count(lag)}` },
      draw(rates, "spark", true), lag ? draw(lags, "spark-lag", false) : []),
    el("small", {}, `peak ${rate(peak)}/s · lag ≤ ${count(lag)}`));
}
function pipe(cls, speed, column, row, text) {
  const pace = speed === null ? "cut" : speed <= 0 ? "still" : speed < 20 ? "slow" : speed < 5000 ? "" : "fast";
  return el("div", { class: `pipe ${cls} ${pace}`, "data-column": column, "data-row": row, "aria-hidden": "true" },
    el("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" }, el("line", { x1: 4, y1: 50, x2: 96, y2: 50 }), el("line", { class: "drops", x1: 4, y1: 50, x2: 96, y2: 50 })),
    text ? el("small", {}, text) : null);
}
const at = (node, column, row) => { node.dataset.column = column; node.dataset.row = row; return node; };

function letters(family) {
  const dead = family.dead_letters;
  if (dead.unsettled === null) return dead.unread ? el("span", { class: "chip" }, `counting dead letters, ${count(dead.unread)} left`) : null;
  if (!dead.unsettled) return null;
  const cls = dead.unsettled >= 1000 || dead.oldest_seconds > 86400 ? "warning" : "";
  return el("span", { class: `chip ${cls}` }, `✉ ${plural(dead.unsettled, "dead letter")}`);
}
function topic(state, family) {
  const away = state.kafka.verdict !== "ok";
  const critical = state.troubles.some((each) => each.where === family.name && each.severity === "critical" && !OF_TABLE.test(each.id));
  const verdict = away ? "unknown" : critical ? "critical" : severity(family.consumption);
  const cls = away ? "away" : verdict === "ok" || verdict === "unknown" ? "" : verdict;
  const lag = family.missing ? "topic is missing" : family.lag_records
    ? [el("strong", {}, count(family.lag_records)), ` ${family.lag_records === 1 ? "record waits" : "records wait"}, `, el("strong", {}, span(family.lag_seconds))]
    : "nothing waits";
  return el("div", { class: `node topic ${cls}` },
    el("div", { class: "name" }, glyph(verdict), el("span", { title: family.topic }, foldable(family.name))),
    el("div", { class: "fact" }, away ? "last seen: " : null, lag),
    letters(family));
}
function table(state, name, extra) {
  const found = state.tables.find((each) => each.name === name);
  const away = state.clickhouse.verdict !== "ok";
  const trouble = state.troubles.filter((each) => each.where === name && OF_TABLE.test(each.id)).map((each) => each.severity);
  const verdict = away ? "unknown" : trouble.includes("critical") ? "critical" : trouble.length ? "warning" : "ok";
  const stored = found && ago(state, found.newest_stored);
  return el("div", { class: `node table ${away ? "away" : verdict === "ok" ? "" : verdict}` },
    el("div", { class: "name" }, glyph(verdict), el("span", { title: name }, foldable(name))),
    el("div", { class: "fact" }, !found || found.missing ? "table is missing" : found.rows === null ? "not seen yet" : [el("strong", {}, count(found.rows)), " rows"], found && found.rows ? ` · stored ${span(stored)} ago` : null),
    extra || null);
}
function path(state) {
  const families = state.families;
  const last = families.length + 1;
  const kafka = state.kafka.verdict === "ok";
  const clickhouse = state.clickhouse.verdict === "ok";
  const members = state.group.members;
  const waiting = families.some((family) => family.lag_records);
  const verdict = !kafka ? "away" : members.length ? "" : waiting ? "critical" : "warning";
  const nodes = ["producers", "", "Kafka topics", "", "workers", "", "ClickHouse tables", "last hour"].map((text, column) => at(el("div", { class: "col" }, text), column + 1, 1));
  families.forEach((family, index) => {
    const row = index + 2;
    nodes.push(
      at(el("div", { class: "node producer" }, el("span", { class: "rate" }, kafka ? rate(family.produced_per_second) : "–"), el("span", { class: "fact" }, "records/s", hidden(` produced to ${family.topic}`))), 1, row),
      pipe("in", kafka ? family.produced_per_second || 0 : null, 2, row),
      at(topic(state, family), 3, row),
      pipe("toworker", kafka && (members.length || !family.lag_records) ? family.consumed_per_second || 0 : null, 4, row),
      pipe("totable", clickhouse ? (kafka ? family.consumed_per_second || 0 : 0) : null, 6, row, kafka && clickhouse && family.consumed_per_second ? `${rate(family.consumed_per_second)}/s` : null),
      at(table(state, family.table), 7, row),
      at(spark(state, family.name), 8, row));
  });
  const first = [...members].sort((one, other) => (one.ready === false ? 0 : 1) - (other.ready === false ? 0 : 1)).slice(0, 6);
  const shown = first.map((member) => el("span", {}, member.ready === false ? glyph("warning") : null, `${member.ready === false ? " " : ""}${member.id} · ${member.partitions} p.`));
  const says = kafka && first.length && first[0].ready === false ? el("div", { class: "says" }, `not ready: ${first[0].says}`) : null;
  const workers = el("div", { class: `node workers ${verdict}` },
    el("div", { class: "count" }, kafka ? String(members.length) : "?"),
    el("div", { class: "name" }, el("span", {}, kafka && members.length === 1 ? "worker" : "workers")),
    el("div", { class: "fact" }, `group ${state.group.id}`), el("div", { class: "fact" }, state.group.state.replaceAll("_", " ")),
    el("div", { class: "hosts" }, shown, members.length > 6 ? el("span", {}, `and ${members.length - 6} more`) : null), says);
  workers.dataset.span = last - 1;
  nodes.push(at(workers, 5, 2));
  if (state.rollup) {
    const rollup = state.rollup;
    const source = families.find((family) => family.name === "ui_events");
    const behind = state.troubles.some((trouble) => trouble.id === "rollup-behind");
    const facts = el("div", { class: "fact" }, rollup.open_windows === null ? "windows not seen yet" : plural(rollup.open_windows, "open window"), rollup.newest_hour ? ` · newest hour ${rollup.newest_hour.slice(11, 16)}` : null);
    const box = table(state, "session_stats", facts);
    if (behind) box.classList.add("warning");
    nodes.push(at(el("div", { class: "node producer hint" }, el("span", { class: "fact" }, "derived by the workers from ui_events, hour by hour")), 3, last + 1), pipe("totable", clickhouse ? (rollup.open_windows && kafka && source && source.consumed_per_second ? 1 : 0) : null, 6, last + 1), at(box, 7, last + 1));
    workers.dataset.span = last;
  }
  nodes.push(el("div", { class: "legend" }, el("span", {}, el("i"), "records a second"), el("span", {}, el("i", { class: "lag" }), "records that wait"), el("span", {}, "Moving dots: records flow. Dotted red: the way is cut.")));
  show("path", nodes);
  for (const node of $("path").children) if (node.dataset.column) {
    node.style.gridColumn = node.dataset.column;
    node.style.gridRow = node.dataset.span ? `${node.dataset.row} / span ${node.dataset.span}` : node.dataset.row;
  }
}

function parts(state) {
  const rows = state.families.flatMap((family) => {
    const squares = family.partitions.map((part) => {
      const leaderless = family.leaderless.includes(part.partition);
      const verdict = state.kafka.verdict !== "ok" ? "none" : leaderless ? "critical" : part.end === 0 || part.consumption === "unknown" ? "none" : severity(part.consumption);
      const said = `${family.name} ${part.partition}: ${leaderless ? "no leader" : `${part.consumption}, ${count(part.lag_records)} waiting, ${part.owner || "no worker"}`}`;
      return el("span", { class: `sq ${verdict}`, title: said });
    });
    const notes = [family.leaderless.length ? `${family.leaderless.length} without a leader` : null, family.unowned ? `${family.unowned} without a worker` : null, family.uncommitted ? `${family.uncommitted} without a commit` : null].filter(Boolean);
    return [el("span", {}, family.name), el("span", { class: "squares", "aria-hidden": "true" }, squares), el("span", { class: "note" }, state.kafka.verdict !== "ok" ? "not seen now" : notes.join(", ") || (family.partitions.length ? "all owned" : "not seen yet"))];
  });
  const lines = state.families.flatMap((family) => family.partitions.slice(0, 200).map((part) => el("tr", {},
    el("th", { scope: "row" }, `${family.name} ${part.partition}`), el("td", {}, family.leaderless.includes(part.partition) ? "no leader" : part.consumption), el("td", { class: "n" }, count(part.lag_records)), el("td", { class: "n" }, part.lag_records ? span(part.lag_seconds) : "0 s"),
    el("td", { class: "n" }, part.committed === null ? "none" : part.committed.toLocaleString("en")), el("td", { class: "n" }, part.end === null ? "–" : part.end.toLocaleString("en")), el("td", {}, part.owner || "no worker"))));
  const head = [["partition", ""], ["consumption", ""], ["waiting", "n"], ["oldest", "n"], ["committed", "n"], ["end", "n"], ["owner", ""]].map(([text, cls]) => el("th", { scope: "col", class: cls }, text));
  show("parts", el("div", { class: "cells" }, rows), el("details", {}, el("summary", {}, "All partitions as a table"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Partitions" }, el("table", {}, el("caption", {}, "Partitions: consumption, lag, offsets and owner"), el("thead", {}, el("tr", {}, head)), el("tbody", {}, lines)))));
}
function bar(left, right, share, cls) {
  return el("li", { class: "bar" }, el("span", {}, left), el("span", { class: "dim" }, right), el("svg", { class: "track", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" }, el("rect", { width: 100, height: 7 }), el("rect", { class: `fill ${cls}`, width: Math.max(1.5, share * 100), height: 7 })));
}
function dead(state) {
  const found = state.families.flatMap((family) => Object.entries(family.dead_letters.reasons).map(([reason, number]) => ({ family: family.name, reason, number })));
  found.sort((one, other) => other.number - one.number);
  const total = found.reduce((sum, each) => sum + each.number, 0);
  if (!total) return show("dead", el("p", { class: "calm" }, glyph(state.families.every((family) => family.dead_letters.unsettled !== null) ? "ok" : "unknown"), state.families.every((family) => family.dead_letters.unsettled !== null) ? "None waits for a person." : "Not counted yet."));
  const oldest = Math.max(...state.families.map((family) => family.dead_letters.oldest_seconds || 0));
  const rows = found.slice(0, 7).map((each) => bar(`${each.family}: ${each.reason}`, count(each.number), each.number / found[0].number, total >= 1000 ? "critical" : ""));
  show("dead", el("dl", { class: "facts" }, el("dt", {}, "waiting for a person"), el("dd", {}, count(total)), el("dt", {}, "oldest"), el("dd", {}, span(oldest))), el("ul", { class: "bars" }, rows), found.length > 7 ? el("p", { class: "dim" }, `and ${found.length - 7} more reasons`) : null, el("p", { class: "command" }, el("code", {}, "chimera dlq ls")));
}
function backup(state) {
  const { backup } = state;
  const said = backup.looked_at === null ? "not seen yet" : backup.reason !== null ? "not known" : backup.age_seconds === null ? "no backup yet" : `${span(backup.age_seconds)} ago`;
  const text = backup.last_failed ? `${said}; the last attempt has failed` : said;
  return backup.verdict === "warning" ? el("span", {}, glyph("warning"), " ", text) : text;
}
function store(state) {
  const { storage } = state;
  if (storage.version === null) return show("store", el("p", { class: "calm" }, glyph("unknown"), "Not seen yet."));
  const most = Math.max(0, ...state.tables.map((each) => each.most_parts || 0));
  const size = state.tables.reduce((sum, each) => sum + (each.bytes_on_disk || 0), 0);
  const hour = state.tables.reduce((sum, each) => sum + (each.rows_last_hour || 0), 0);
  const errors = Object.values(storage.errors).reduce((sum, each) => sum + each, 0);
  const facts = [["version", storage.version], ["up for", span(storage.uptime_seconds)], ["rows in the last hour", count(hour)], ["tables on disk", bytes(size)], ["most parts of a day", count(most)], ["merges running", count(storage.merges)], ["errors since start of watch", count(errors)], ["last backup", backup(state)]];
  const disks = storage.disks.map((disk) => bar(`disk ${disk.name}`, `${bytes(disk.free_bytes)} free`, 1 - disk.free_bytes / disk.total_bytes, disk.free_bytes / disk.total_bytes < 0.15 ? "critical" : "disk"));
  show("store", state.clickhouse.verdict === "ok" ? null : el("p", { class: "calm" }, glyph("critical"), `As of ${span(ago(state, state.clickhouse.looked_at))} ago.`), el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), el("ul", { class: "bars" }, disks));
}
function events(state) {
  if (!state.events.length) return show("events", el("p", { class: "calm" }, glyph("ok"), `Nothing has happened for ${span(ago(state, state.started_at))}.`));
  show("events", el("ol", { class: "log", tabindex: "0" }, state.events.slice(0, 30).map((event) => el("li", {}, el("time", { datetime: event.at }, `${span(ago(state, event.at))} ago`), el("span", {}, event.text)))));
}

let newest = null;
function render(state) {
  newest = state;
  header(state); troubles(state); path(state); parts(state); dead(state); store(state); events(state);
  $("pulse").className = "live";
  $("asof").textContent = `as of ${state.at.slice(11, 19)} UTC`;
  $("meta").textContent = `Kafka ${state.kafka.address} · ClickHouse ${state.clickhouse.address} · watching for ${span(ago(state, state.started_at))}`;
}
function lost() {
  document.body.dataset.verdict = "unknown";
  $("shape").replaceChildren(...shape("unknown"));
  $("word").textContent = "The monitor doesn't answer";
  $("summary").textContent = newest ? `Last state: ${newest.at.slice(11, 19)} UTC, ${newest.summary}` : "";
  $("pulse").className = "";
}
async function look() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    render(await answer.json());
  } catch (failure) { lost(); }
  setTimeout(look, document.hidden ? 4 * POLL_MS : POLL_MS);
}
look();
