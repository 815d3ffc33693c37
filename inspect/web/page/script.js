// The page draws what the server tells it and parses no frame: each record comes explained. See mirror.go and lab.go.
"use strict";

const $ = (id) => document.getElementById(id);

// el makes an element: el("p.note", "text", child, ...).
function el(what, ...children) {
  const [name, ...classes] = what.split(".");
  const e = document.createElement(name);
  if (classes.length) e.className = classes.join(" ");
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return e;
}

const count = (n) => n.toLocaleString("en");
const bytes = (n) => count(n) + (n === 1 ? " byte" : " bytes");
const websocketURL = (path) => location.origin.replace(/^http/, "ws") + path;
const hexBytes = (hex) => (hex || "").match(/../g) || [];

// ---------------------------------------------------------------- records, drawn

// section is a link to the clause, as far as it is one of an RFC.
function section(text) {
  if (!text) return null;
  const m = /^RFC (\d+) §([\d.]+)/.exec(text);
  if (!m) return el("span", text);
  const a = el("a", text);
  a.href = `https://www.rfc-editor.org/rfc/rfc${m[1]}#section-${m[2]}`;
  a.rel = "noreferrer";
  a.target = "_blank";
  return a;
}

const columns = matchMedia("(min-width: 70rem)");
const bitColumns = () => (columns.matches ? 32 : 16);

// bitsOf are the bits of hexadecimal digits.
function bitsOf(hex) {
  return hexBytes(hex).map((b) => parseInt(b, 16).toString(2).padStart(8, "0")).join("");
}

const fieldClass = (f) => "f-" + f.name.replace(/ /g, "-");

// explainField puts what a field says under the grid.
function explainField(why, f) {
  why.replaceChildren(el("b", `${f.name} ${f.value}`), ": " + f.what + ". ", section(f.section) ?? "");
}

// bitGrid draws the header of a frame, and the first bytes of its payload, as the RFC does. Each field is a button.
function bitGrid(record) {
  const frame = record.frame;
  const width = bitColumns();
  const shown = 4; // bytes of payload
  const bits = bitsOf(frame.header) + bitsOf((frame.wire || "").slice(0, 2 * shown));
  const grid = el("div.bits");
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", `The bits of this ${frame.name} frame; arrow keys go from field to field`);
  grid.style.gridTemplateColumns = `repeat(${width}, minmax(0, 1fr))`;
  for (let i = 0; i < width; i++) {
    const r = el("span.ruler", String(i));
    r.setAttribute("aria-hidden", "true");
    grid.append(r);
  }
  const why = el("p.why");
  const parts = [];
  const choose = (f) => {
    for (const [button, of] of parts) button.classList.toggle("on", of === f);
    explainField(why, f);
  };
  for (const f of record.fields) {
    let at = f.at;
    const end = Math.min(f.at + f.bits, bits.length);
    let first = true;
    while (at < end) {
      const n = Math.min(end - at, width - (at % width));
      const digits = el("span.digits", ...[...bits.slice(at, at + n)].map((d) => el("span", d)));
      const label = n < 4 ? f.name : f.name === "opcode" ? "opcode " + f.value.slice(2) : `${f.name} ${f.value}`;
      const name = el("span.name", first || n > 5 ? label : "");
      const heard = el("span.heard", first ? `: ${f.name} ${f.value}, ${f.what}${f.section ? ", " + f.section : ""}` : `: ${f.name}, continued`);
      const button = el("button." + fieldClass(f) + (n === 1 ? ".one" : ""), name, digits, heard);
      button.type = "button";
      button.style.gridColumn = `span ${n}`;
      button.tabIndex = parts.length ? -1 : 0;
      button.addEventListener("pointerenter", () => choose(f));
      button.addEventListener("focus", () => choose(f));
      button.addEventListener("click", () => choose(f));
      parts.push([button, f]);
      grid.append(button);
      at += n;
      first = false;
    }
  }
  grid.addEventListener("keydown", (e) => {
    const i = parts.findIndex(([b]) => b === document.activeElement);
    const to = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: parts.length - 1 }[e.key];
    if (to === undefined || i < 0) return;
    e.preventDefault();
    const [button] = parts[Math.max(0, Math.min(parts.length - 1, to))];
    for (const [b] of parts) b.tabIndex = b === button ? 0 : -1;
    button.focus();
  });
  const opening = record.fields.find((f) => f.name === "opcode") ?? record.fields[0];
  choose(blamed(record) ?? opening);
  return [grid, why];
}

// blamed is the field that shows the first violation.
function blamed(record) {
  const kind = record.violations?.[0]?.kind ?? "";
  const rules = [[/^rsv(\d)/, (m) => "RSV" + m[1]], [/mask/, "MASK"], [/fragmented/, "FIN"], [/length|long|large/, "payload length"],
    [/opcode|continuation-without|inside/, "opcode"], [/code/, "code"], [/reason/, "reason"], [/utf8|deflate|one-byte/, "payload"]];
  for (const [pattern, name] of rules) {
    const m = pattern.exec(kind);
    if (m) return record.fields.find((f) => f.name === (typeof name === "string" ? name : name(m)));
  }
  return undefined;
}

const demanded = (d) => d.replace(/^close (\d+)/, "close with $1").replace(/^answer (\d+)/, "answer with status $1");

const printable = (b) => { const c = parseInt(b, 16); return c > 32 && c < 127 ? String.fromCharCode(c) : c === 32 ? "␣" : "·"; };

// payloadTable shows the payload on the wire, the key, and what they make.
function payloadTable(frame) {
  const most = 32;
  const wire = hexBytes(frame.wire).slice(0, most);
  if (!wire.length) return null;
  const plain = hexBytes(frame.payload).slice(0, most);
  const key = hexBytes(frame.key);
  const row = (cls, name, cells) => el("tr." + cls, el("th", name), ...cells.map((c) => el("td", c)));
  const table = el("table");
  const body = el("tbody");
  if (frame.masked) {
    body.append(row("wire", "on the wire", wire));
    body.append(row("key", "XOR key", wire.map((_, i) => key[i % 4] ?? "")));
  }
  body.append(row("plain", frame.masked ? "payload" : "payload, no mask", plain));
  body.append(row("text", "as ASCII", plain.map(printable)));
  for (const th of body.querySelectorAll("th")) th.scope = "row";
  table.append(body);
  const box = el("div.xor", table);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "The bytes of the payload");
  const left = frame.length - wire.length;
  return el("div", box, left > 0 ? el("p.small", `… and ${bytes(left)} more`) : null);
}

function violationBox(v, demand) {
  return el("div.violation",
    el("p", el("strong", v.what), " — ", section(v.section)),
    el("p", `The receiver has to ${demanded(demand)}.`),
    el("p", "Better: " + v.cure + "."));
}

function trailing(record) {
  const out = [];
  if (record.notes) out.push(el("div.notes", ...record.notes.map((n) => el("p", n))));
  (record.violations || []).forEach((v, i) => out.push(violationBox(v, record.demands[i])));
  return out;
}

const who = (dir) => el("span.who", dir === "client" ? "client →" : "← server");

// since is how long after the one before it a record came.
function since(when, before) {
  if (!when || !before) return "";
  const micro = (t) => Date.parse(t.slice(0, 19) + "Z") * 1000 + Number((/\.(\d+)/.exec(t)?.[1] ?? "").slice(0, 6).padEnd(6, "0"));
  const us = micro(when) - micro(before);
  if (us === 0) return "at once";
  return us < 1000 ? `+${us} µs` : us < 1e6 ? `+${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms` : `+${(us / 1e6).toFixed(1)} s`;
}

// frameCard is a frame that can be unfolded. It is drawn when it is opened first.
function frameCard(record, open, before) {
  const frame = record.frame;
  const text = frame.text !== undefined && frame.text !== "" ? JSON.stringify(frame.text.slice(0, 80)) : frame.close
    ? `${frame.close.code} ${frame.close.reason || ""}` : hexBytes(frame.payload).slice(0, 12).join(" ");
  const marks = [frame.fin ? "FIN" : "", frame.rsv & 4 ? "RSV1" : ""].filter(Boolean).join(" ");
  const card = el("details.card." + record.dir + (record.violations ? ".broken" : ""),
    el("summary", who(record.dir), el("span.what", `${frame.name}${marks ? ", " + marks : ""}`),
      el("span.when", bytes(record.end - record.start)), el("span.brief", text),
      el("span.when", since(record.when, before))));
  const draw = () => {
    const parts = record.fields.length ? bitGrid(record) : [];
    const inflated = frame.inflated !== undefined ? el("p", `Compressed: ${bytes(frame.length)} that inflate to ${bytes(frame.inflated)}.`) : null;
    const cut = frame.truncated ? el("p", "The stream ends inside this frame.") : null;
    card.append(el("div.body", ...parts, ...trailing(record), ...[payloadTable(frame), inflated, cut].filter(Boolean)));
  };
  drawWhenOpen(card, draw, open);
  card.redraw = () => { card.querySelector(".body")?.remove(); if (card.open) draw(); };
  return card;
}

function drawWhenOpen(card, draw, open) {
  card.addEventListener("toggle", () => { if (card.open && !card.querySelector(".body")) draw(); });
  if (open) {
    card.open = true;
    draw();
  }
}

columns.addEventListener("change", () => { for (const c of document.querySelectorAll(".card")) c.redraw?.(); });

// derivation is where an accept value comes from.
function derivation(a) {
  const pair = (name, value) => [el("dt", name), el("dd", value)];
  return el("dl.derive", ...pair("the key", a.key), ...pair("with the constant", a.joined), ...pair("SHA-1 of it", hexBytes(a.sha1).join(" ")),
    ...pair("in base64", a.accept));
}

function lineItem(record) {
  const l = record.line;
  const li = el("li.line", el("b", l.text || "(an empty line)"), el("small", l.what + " ", section(l.section)));
  if (l.accept && record.dir === "server") li.append(derivation(l.accept));
  li.append(...trailing(record));
  return li;
}

// Timeline draws records in the order in which they come.
class Timeline {
  constructor(list, most) {
    this.list = list;
    this.most = most;
    this.gone = 0;
    this.clear();
  }
  clear() {
    this.list.replaceChildren();
    this.conn = 0; // whose records came last
    this.head = null;
    this.heads = []; // of handshakes, until the first frame
    this.opened = null;
    this.before = null;
    this.gone = 0;
    this.goneMark = null;
  }
  put(node) {
    const li = node.tagName === "LI" ? node : el("li", node);
    li.classList.add("new");
    this.list.append(li);
    while (this.list.children.length > this.most) {
      (this.list.firstChild === this.goneMark ? this.list.children[1] : this.list.firstChild).remove();
      this.gone++;
      if (!this.goneMark) {
        this.goneMark = el("li.mark");
        this.list.prepend(this.goneMark);
      }
      this.goneMark.textContent = `${count(this.gone)} earlier are not kept`;
    }
    return li;
  }
  mark(text, cls) {
    this.head = null;
    return this.put(el("li.mark" + (cls ? "." + cls : ""), text));
  }
  add(record, reads) {
    switch (record.kind) {
      case "read": {
        const [a, b] = record.read.wire;
        if (record.read.gap) return;
        const verb = record.dir === "client" ? "came in one read" : "left in one write";
        const what = a === b ? `part or all of item ${a}` : `items ${a} to ${b}`;
        const li = el("li.mark.read", `TCP: ${bytes(record.end - record.start)} of the ${record.dir} ${verb}, ${what}`);
        li.hidden = !reads;
        this.list.append(li);
        return;
      }
      case "line": return this.line(record);
      case "frame": {
        this.head = null;
        for (const h of this.heads) if (!h.dataset.kept) h.open = false;
        this.heads = [];
        if (this.opened && !this.opened.dataset.kept) this.opened.open = false;
        const card = frameCard(record, true, this.before);
        this.before = record.when;
        this.opened = card;
        card.querySelector("summary").addEventListener("click", () => { card.dataset.kept = "1"; });
        this.put(card);
        return;
      }
      case "message": {
        const m = record.message;
        if (m.count === 1 && !m.compressed) return;
        const size = m.inflated !== undefined ? `${bytes(m.size)}, inflated ${bytes(m.inflated)}` : bytes(m.size);
        this.mark(`= one ${m.name} message in ${m.count === 1 ? "1 frame" : m.count + " frames"}, ${size}${m.text ? ": " + JSON.stringify(m.text.slice(0, 60)) : ""}`, "message");
        return;
      }
      default: {
        this.head = null;
        const card = el("details.card." + record.dir, el("summary", who(record.dir), el("span.what", bytes(record.end - record.start)), el("span.brief", record.bytes.what)));
        drawWhenOpen(card, () => card.append(el("div.body", el("p.mono", hexBytes(record.bytes.excerpt).join(" ")), ...trailing(record))), false);
        this.put(card);
      }
    }
  }
  line(record) {
    if (!this.head || this.head.dir !== record.dir) {
      const what = record.dir === "client" ? "request" : "answer";
      const lines = el("ul.lines");
      const card = el("details.card." + record.dir, el("summary", who(record.dir), el("span.what", "HTTP " + what), el("span.brief", record.line.text)), el("div.body", lines));
      card.open = true;
      card.querySelector("summary").addEventListener("click", () => { card.dataset.kept = "1"; });
      this.heads.push(card);
      this.head = { dir: record.dir, lines, card };
      this.put(card);
    }
    this.head.lines.append(lineItem(record));
    if (record.violations) this.head.card.classList.add("broken");
    if (record.line.text === "") this.head = null;
  }
}

// ---------------------------------------------------------------- the connection and its mirror

const timeline = new Timeline($("events"), 400);
const records = []; // what the server told of all connections, newest last
let mirror = null; // the socket
let token = "";
let mirrored = null; // a promise of the token
let socket = null; // the connection to look at
let number = 0;
let opening = null; // a promise, while one is being opened
let beating = false;
let lastTotals = { client: 0, server: 0 };

function state(text, kind) {
  $("state").textContent = text;
  document.querySelector(".status").dataset.state = kind;
  $("connect").textContent = kind === "open" ? "Open another one" : "Open a connection";
}

const byteLength = (() => { const e = new TextEncoder(); return (s) => e.encode(s).length; })();

// openMirror resolves to the token, when the server has given one.
function openMirror() {
  if (mirrored) return mirrored;
  mirrored = new Promise((resolve, reject) => {
    const s = new WebSocket(websocketURL("/lab/mirror"));
    mirror = s;
    s.onmessage = (e) => {
      const told = JSON.parse(e.data);
      s.send(JSON.stringify({ do: "read", n: byteLength(e.data) }));
      if (told.token) {
        token = told.token;
        resolve(token);
        return;
      }
      hear(told);
    };
    s.onclose = (e) => {
      mirrored = null;
      token = "";
      reject(new Error(e.reason || "the server does not answer"));
      if (socket) socket.close();
      state("the mirror was lost" + (e.reason ? ": " + e.reason : ""), "lost");
    };
  });
  return mirrored;
}

// hear takes what the server tells.
function hear(told) {
  if (told.error) {
    $("trouble").textContent = told.error;
    return;
  }
  $("empty").hidden = true;
  if (told.dropped) timeline.mark(`${count(told.dropped)} records not shown: they came faster than this page could read them`, "lost");
  if (told.lost) timeline.mark(`${bytes(told.lost)} of the ${told.dir} not shown: they came faster than they could be explained`, "lost");
  for (const r of told.records || []) {
    r.conn = told.conn;
    if (timeline.conn !== told.conn) {
      timeline.mark(r.start === 0 ? `Connection ${told.conn}` : `Connection ${told.conn} again`, "start");
      timeline.conn = told.conn;
    }
    timeline.add(r, $("show-reads").checked);
    records.push(r);
    if (r.kind === "read") lastTotals[r.dir] += r.end - r.start;
    raceRecord(r);
    compressionRecord(r);
  }
  follow();
  if (records.length > 5000) forget(records.length - 4000);
  if (told.end) timeline.mark(`Connection ${told.conn} has ended`, "end");
  $("totals").textContent = `client ${bytes(lastTotals.client)}, server ${bytes(lastTotals.server)}`;
  check();
}

const roomy = matchMedia("(min-width: 52.01rem)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const calm = () => (still.matches ? "instant" : "smooth");

// follow keeps the newest in sight where there are two columns, unless the reader has gone elsewhere; where there is one
// column, a button leads to it.
function follow() {
  const newest = $("events").lastElementChild;
  if (!newest || $("timeline").hidden) return;
  const below = newest.getBoundingClientRect().bottom - innerHeight;
  if (roomy.matches) {
    if (below > 0 && (below < 900 || scrollY < 10)) newest.scrollIntoView({ block: "nearest", behavior: calm() });
    return;
  }
  const cards = document.querySelectorAll("#events .card");
  const card = cards[cards.length - 1];
  if (below <= 40 || !card) return;
  $("jump").textContent = `${card.classList.contains("client") ? "→" : "←"} ${card.querySelector(".what").textContent}, ${count(cards.length)} in all ↓`;
  $("jump").hidden = false;
}
$("jump").addEventListener("click", () => {
  $("jump").hidden = true;
  const cards = document.querySelectorAll("#events .card");
  cards[cards.length - 1]?.scrollIntoView({ block: "center", behavior: calm() });
  cards[cards.length - 1]?.querySelector("summary").focus({ preventScroll: true });
});

// open opens a new connection to look at, and closes the one before. Two clicks open one after the other: else the first
// would be closed by nobody.
function open(compress) {
  const mine = (opening ?? Promise.resolve()).then(() => openOne(compress)).finally(() => { if (opening === mine) opening = null; });
  opening = mine;
  return mine;
}

async function openOne(compress) {
  $("trouble").textContent = "";
  state("opening", "opening");
  let t;
  try {
    t = await openMirror();
  } catch (e) {
    state(e.message, "lost");
    return;
  }
  if (socket) {
    const old = socket;
    old.close(1000, "another one is opened");
    await new Promise((resolve) => { old.addEventListener("close", resolve); setTimeout(resolve, 1000); });
  }
  const n = ++number;
  const s = new WebSocket(websocketURL(`/lab?mirror=${t}&n=${n}${compress ? "&compress=1" : ""}`));
  socket = s;
  s.binaryType = "arraybuffer";
  setBeat(false);
  s.onopen = () => { if (socket === s) state("open", "open"); };
  s.onclose = (e) => {
    if (socket !== s) return;
    socket = null;
    setBeat(false);
    state(`closed with ${e.code}${e.reason ? ": " + e.reason : ""}`, "closed");
  };
  await new Promise((resolve) => { s.addEventListener("open", resolve); s.addEventListener("close", resolve); });
}

// ready opens a connection if there is none, and reports whether there is one.
async function ready() {
  if (opening) await opening;
  if (!socket || socket.readyState > WebSocket.OPEN) await open();
  else if (socket.readyState === WebSocket.CONNECTING) await new Promise((resolve) => { socket.addEventListener("open", resolve); socket.addEventListener("close", resolve); });
  return socket?.readyState === WebSocket.OPEN;
}

async function send(data) {
  if (await ready()) socket.send(data);
}

async function tell(command) {
  if (await ready()) mirror.send(JSON.stringify({ conn: number, ...command }));
}

function setBeat(on) {
  beating = on;
  $("beat").setAttribute("aria-pressed", String(on));
}

const words = "All work and no play makes Jack a dull boy. ";
const filler = (n) => words.repeat(n / words.length + 1).slice(0, n);

const acts = {
  connect: () => open(),
  text: (b) => send(b.dataset.text),
  size: (b) => send(filler(Number(b.dataset.size))),
  ping: () => tell({ do: "ping" }),
  pong: () => tell({ do: "pong" }),
  fragments: () => tell({ do: "fragments" }),
  interleave: () => tell({ do: "interleave" }),
  beat: async () => { const on = !beating; if (await ready()) { setBeat(on); tell({ do: "beat", on }); } },
  // Other connections are opened without, so that the bytes of a text are those of the text.
  compress: async () => { await open(true); compressing = true; send(filler(1000)); },
  close: async (b) => { if (await ready()) socket.close(Number(b.dataset.code), "my own code"); },
};
for (const b of document.querySelectorAll("[data-act]")) b.addEventListener("click", () => { $("trouble").textContent = ""; acts[b.dataset.act](b); });
$("connect").addEventListener("click", () => open());

function onSubmit(id, f) {
  $(id).addEventListener("submit", (e) => {
    e.preventDefault();
    $("trouble").textContent = "";
    f();
  });
}
onSubmit("say", () => send($("text").value));
onSubmit("bulk", () => {
  const n = Number($("size").value);
  if ($("kind").value === "text") return send(filler(n));
  return send(Uint8Array.from({ length: n }, (_, i) => (i * 31) & 255));
});
onSubmit("ask", () => tell({ do: "send", size: Number($("ask-size").value), binary: $("ask-kind").value === "binary" }));
onSubmit("close", async () => {
  const code = Number($("code").value);
  const reason = $("reason").value;
  if (!(await ready())) return;
  if ($("close-by").value === "server") {
    tell({ do: "close", code, reason });
    return;
  }
  try {
    socket.close(code, reason);
  } catch {
    $("trouble").textContent = `A script may close with 1000 and with 3000 to 4999, not with ${code}. The server may: let it.`;
  }
});
$("clear").addEventListener("click", () => { timeline.clear(); $("empty").hidden = false; });
$("show-reads").addEventListener("change", () => { for (const li of document.querySelectorAll("#events .read")) li.hidden = !$("show-reads").checked; });

// ---------------------------------------------------------------- compression

let compressing = false;
let extensions = { offered: false, taken: "" };

function compressionRecord(r) {
  if (r.kind === "line") {
    const name = (r.line.name || "").toLowerCase();
    if (r.dir === "client" && r.n === 0) extensions = { offered: false, taken: "" };
    if (name === "sec-websocket-extensions") {
      if (r.dir === "client") extensions.offered = r.line.value.includes("permessage-deflate");
      else extensions.taken = r.line.value;
    }
  }
  if (r.kind !== "frame" || r.dir !== "client" || !compressing || (r.frame.opcode !== 1)) return;
  compressing = false;
  let text;
  if (r.frame.inflated !== undefined) text = `RSV1 is set: ${count(r.frame.inflated)} characters left in ${bytes(r.frame.length)}. The server had agreed: ${extensions.taken}.`;
  else if (extensions.taken) text = `The server had agreed (${extensions.taken}), but the browser sent this message as it is: ${bytes(r.frame.length)}.`;
  else if (extensions.offered) text = `The browser offered permessage-deflate, and the server did not take it: its answer has no Sec-WebSocket-Extensions. So ${bytes(r.frame.length)} leave as they are.`;
  else text = "The browser did not offer permessage-deflate.";
  $("compressed").textContent = text;
  $("compressed-too").textContent = text;
}

// ---------------------------------------------------------------- asking against being told

const race = { on: false, timer: 0, offset: 0, conns: new Map(), poll: { n: 0, bytes: 0, late: 0, value: 0 }, push: { n: 0, bytes: 0, late: 0 } };

function showRace() {
  for (const side of ["poll", "push"]) {
    const s = race[side];
    $(side + "-n").textContent = count(s.n);
    $(side + "-bytes").textContent = s.n ? count(Math.round(s.bytes / s.n)) : "–";
    $(side + "-late").textContent = s.n ? count(Math.max(0, Math.round(s.late / s.n))) + " ms" : "–";
  }
}

async function poll() {
  const began = Date.now();
  let v;
  try {
    v = await (await fetch("lab/value", { cache: "no-store" })).json();
  } catch {
    stopRace();
    return;
  }
  if (!race.on) return;
  const now = Date.now();
  race.offset = v.now - (began + now) / 2; // of the server's clock to ours
  const before = race.conns.get(v.conn);
  race.conns.set(v.conn, v.bytes);
  race.poll.bytes += before === undefined ? race.lastExchange ?? 0 : v.bytes - before;
  if (before !== undefined) race.lastExchange = v.bytes - before;
  if (race.poll.value !== v.value && before !== undefined) {
    race.poll.value = v.value;
    race.poll.n++;
    race.poll.late += now + race.offset - v.value * 1000;
  }
  showRace();
  check();
  // At another moment of the second each time, as the clocks of those who ask are.
  race.timer = setTimeout(poll, 1000 + ((race.poll.n * 137) % 97) - 48);
}

function raceRecord(r) {
  if (!race.on || r.kind !== "frame" || r.dir !== "server") return;
  const m = /^heart beat (\d+)$/.exec(r.frame.text || "");
  if (!m) return;
  race.push.n++;
  race.push.bytes += r.end - r.start;
  race.push.late += Date.now() + race.offset - Number(m[1]) * 1000;
  showRace();
}

function stopRace() {
  race.on = false;
  clearTimeout(race.timer);
  $("race").textContent = "Start both";
  $("race").setAttribute("aria-pressed", "false");
  if (beating) {
    setBeat(false);
    tell({ do: "beat", on: false });
  }
}

$("race").addEventListener("click", async () => {
  if (race.on) {
    stopRace();
    return;
  }
  if (!(await ready())) return;
  Object.assign(race, { on: true, conns: new Map(), lastExchange: undefined, poll: { n: 0, bytes: 0, late: 0, value: 0 }, push: { n: 0, bytes: 0, late: 0 } });
  $("race").textContent = "Stop";
  $("race").setAttribute("aria-pressed", "true");
  setBeat(true);
  await tell({ do: "beat", on: true });
  race.timer = setTimeout(poll, 337);
});

// ---------------------------------------------------------------- lessons

const frames = (rs, dir) => rs.filter((r) => r.kind === "frame" && (!dir || r.dir === dir));
const acceptOf = (r) => (r.kind === "line" && r.dir === "server" && (r.line.name || "").toLowerCase() === "sec-websocket-accept" ? r.line.value : null);

// Each check gets the records since its lesson was begun, and all there are.
const checks = {
  upgrade: (rs) => rs.some((r) => r.kind === "line" && r.dir === "server" && /^HTTP\/1\.1 101 /.test(r.line.text)) && "101: the connection speaks WebSocket now.",
  accept: (rs, all) => rs.some(acceptOf) && new Set(all.map(acceptOf).filter(Boolean)).size > 1 && "Another key, another accept value.",
  frame: (rs) => frames(rs, "client").some((r) => r.frame.opcode === 1 && r.frame.text === "Hello") && "Hello has left. The four bytes are the masking key: a server does not mask.",
  mask: (rs) => {
    const sent = frames(rs, "client").filter((r) => r.frame.opcode === 1 && r.frame.text);
    return sent.some((a) => sent.some((b) => a.frame.text === b.frame.text && a.frame.key !== b.frame.key)) && "The same text under two keys.";
  },
  length: (rs) => {
    // Of both directions: a proxy between may have cut the long one in two.
    const forms = new Set(frames(rs).filter((r) => r.frame.opcode < 3).map((r) => r.frame.length_bits));
    const left = [7, 16, 64].filter((n) => !forms.has(n));
    if (left.length && forms.size) return { more: `Still to be seen: a length in ${left.join(" and in ")} bits.` };
    return !left.length && "7, 16 and 64 bits: all three.";
  },
  fragments: (rs) => rs.some((r) => {
    if (r.kind !== "message" || r.dir !== "server" || r.message.count < 3) return false;
    const [a, b] = r.message.frames;
    const between = frames(rs, "server").filter((f) => f.conn === r.conn && f.n > a && f.n < b && f.frame.opcode === 9);
    return between.some((ping) => frames(rs, "client").some((f) => f.conn === r.conn && f.frame.opcode === 10 && f.frame.payload === ping.frame.payload));
  }) && "One message, with control frames inside, and the browser’s pong.",
  ping: (rs) => frames(rs, "server").some((p) => p.frame.opcode === 9 && frames(rs, "client").some((q) => q.conn === p.conn && q.frame.opcode === 10 && q.frame.payload === p.frame.payload)) && "The pong has the payload of the ping.",
  utf8: (rs) => {
    const r = frames(rs, "client").find((f) => f.frame.opcode === 1 && f.frame.text && [...f.frame.text].length < (f.frame.inflated ?? f.frame.length))
      ?? rs.find((m) => m.kind === "message" && m.dir === "client" && m.message.text && [...m.message.text].length < (m.message.inflated ?? m.message.size));
    if (!r) return false;
    const text = r.frame?.text ?? r.message.text;
    const n = r.frame ? r.frame.inflated ?? r.frame.length : r.message.inflated ?? r.message.size;
    return `${[...text].length} characters in ${n} bytes.`;
  },
  compression: (rs) => {
    const r = frames(rs, "client").find((f) => f.frame.opcode === 1 && (f.frame.inflated ?? f.frame.length) >= 1000);
    if (!r) return false;
    return r.frame.inflated === undefined ? `Not compressed: ${bytes(r.frame.length)}.` : `Compressed: ${bytes(r.frame.inflated)} in ${count(r.frame.length)}.`;
  },
  polling: (rs) => {
    const pushed = frames(rs, "server").filter((f) => /^heart beat \d+$/.test(f.frame.text || "")).length;
    if (race.on && (pushed || race.poll.n)) if (pushed < 5 || race.poll.n < 5) return { more: `${race.poll.n} asked for, ${pushed} pushed, of 5 each.` };
    return pushed >= 5 && race.poll.n >= 5 && `A value costs ${count(Math.round(race.poll.bytes / race.poll.n))} bytes asked for, and ${count(Math.round(race.push.bytes / race.push.n))} pushed.`;
  },
  closing: (rs) => {
    const own = (r) => r.frame.close && r.frame.close.code >= 3000;
    return frames(rs, "client").some((a) => own(a) && frames(rs, "server").some((b) => b.conn === a.conn && own(b) && a.frame.close.code === b.frame.close.code)) && "Both have said it: the end is clean.";
  },
};

const articles = [...document.querySelectorAll("[data-lesson]")];
const done = new Map(); // lesson: what was found
let current = 0;
let begun = 0; // in records

function forget(n) {
  records.splice(0, n);
  begun = Math.max(0, begun - n);
}

const chapters = articles.map((a, i) => {
  const b = el("button", String(i + 1));
  b.type = "button";
  b.addEventListener("click", () => lesson(i));
  $("chapters").append(el("li", b));
  return b;
});

function lesson(i, focus) {
  if (articles[i].dataset.lesson !== "polling" && race.on) stopRace();
  current = i;
  begun = records.length;
  articles.forEach((a, k) => { a.hidden = k !== i; });
  showLesson();
  if (focus) {
    articles[i].tabIndex = -1;
    articles[i].focus();
  }
}

function showLesson(more) {
  const name = articles[current].dataset.lesson;
  chapters.forEach((b, k) => {
    const finished = done.has(articles[k].dataset.lesson);
    b.classList.toggle("done", finished);
    if (k === current) b.setAttribute("aria-current", "step");
    else b.removeAttribute("aria-current");
    b.setAttribute("aria-label", `Lesson ${k + 1}: ${articles[k].querySelector("h2").textContent}${finished ? ", done" : ""}`);
    b.textContent = finished ? "✓" : String(k + 1);
  });
  const verdict = $("verdict");
  verdict.classList.toggle("done", done.has(name));
  const text = done.has(name) ? "✓ " + done.get(name) + (done.size === articles.length ? " That was the last one: you have read a whole protocol." : "") : more || "";
  if (verdict.textContent !== text) verdict.textContent = text;
  $("previous").disabled = current === 0;
  $("next").disabled = current === articles.length - 1;
  $("next").classList.toggle("primary", done.has(name));
}

// check looks whether the task of the lesson has been done.
function check() {
  const name = articles[current].dataset.lesson;
  const found = checks[name](records.slice(begun), records);
  if (typeof found === "string") {
    if (!done.has(name)) done.set(name, found);
    showLesson();
  } else if (found && !done.has(name)) {
    showLesson(found.more);
  }
}

$("previous").addEventListener("click", () => lesson(current - 1, true));
$("next").addEventListener("click", () => lesson(current + 1, true));

// ---------------------------------------------------------------- tabs

const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(tab, focus) {
  for (const t of tabs) {
    const on = t === tab;
    t.setAttribute("aria-selected", String(on));
    t.tabIndex = on ? 0 : -1;
    $(t.getAttribute("aria-controls")).hidden = !on;
  }
  const inLab = tab.id === "tab-lab";
  document.querySelector("main").classList.toggle("wide", inLab);
  $("timeline").hidden = inLab;
  $("outcome").hidden = !inLab;
  if (focus) tab.focus();
  if (tab.id === "tab-lab") loadPresets();
}
tabs.forEach((t, i) => {
  t.addEventListener("click", () => choose(t));
  t.addEventListener("keydown", (e) => {
    const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    choose(tabs[(to + tabs.length) % tabs.length], true);
  });
});

// ---------------------------------------------------------------- the lab

let presets = null;
let goodHead = "";
let asked = 0; // the newest request for an explanation
let explainTimer = 0;
let drawn = []; // the bytes that the bits are of, in digits

async function lab(path, body) {
  const r = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const answer = await r.json().catch(() => ({ error: `The answer, ${r.status} ${r.statusText}, did not come whole, or not from the lab.` }));
  if (!r.ok || answer.error) throw new Error(answer.error);
  return answer;
}

async function loadPresets() {
  if (presets) return;
  let answer;
  try {
    answer = await (await fetch("lab/presets")).json();
  } catch {
    said("the server does not answer", true);
    return;
  }
  presets = answer.presets;
  goodHead = answer.head;
  const groups = new Map();
  presets.forEach((p, i) => {
    if (!groups.has(p.group)) {
      const g = el("optgroup");
      g.label = p.group;
      groups.set(p.group, g);
      $("preset").append(g);
    }
    const o = el("option", p.name);
    o.value = String(i);
    groups.get(p.group).append(o);
  });
  $("preset").value = String(presets.findIndex((p) => p.id === "mask-missing"));
  usePreset();
}

// headOf is the good request with one line in another's place, or one more.
function headOf(p) {
  const lines = goodHead.trimEnd().split("\r\n");
  if (p.head) {
    const [name, line] = p.head;
    const i = name ? lines.findIndex((l) => l.startsWith(name)) : lines.length;
    lines.splice(i, name ? 1 : 0, ...(line ? [line] : []));
  }
  return lines.join("\n") + "\n\n";
}

function usePreset() {
  const p = presets[Number($("preset").value)];
  $("head").value = headOf(p);
  $("head-box").open = Boolean(p.head);
  $("hex").value = (hexBytes(p.frames).join(" "));
  $("result").replaceChildren(el("p.waiting", "Nothing has been sent yet."));
  $("both").replaceChildren();
  explain();
}

function said(text, broken) {
  $("said").textContent = text;
  $("said").classList.toggle("broken", Boolean(broken));
}

// explain asks the server what the bytes in the editor mean.
async function explain() {
  const mine = ++asked;
  const hex = $("hex").value;
  if (!hex.trim()) {
    $("bits").replaceChildren();
    said("No frames: only the request is sent.");
    return;
  }
  let answer;
  try {
    answer = await lab("lab/explain", { head: $("head").value, frames: hex });
  } catch (e) {
    if (mine === asked) said(e.message, true);
    return;
  }
  if (mine !== asked) return;
  drawn = hexBytes(answer.digits);
  const wire = (answer.records || []).filter((r) => r.kind === "frame" || r.kind === "bytes");
  drawBits(wire);
  const wrong = wire.flatMap((r) => (r.violations || []).map((v, i) => `${v.what} (${v.section}): the receiver has to ${demanded(r.demands[i])}.`));
  const names = wire.map((r) => r.brief.replace(/^-> /, ""));
  const more = names.length > 3 ? `, and ${count(names.length - 3)} more` : "";
  said(wrong[0] ?? names.slice(0, 3).join(", then ") + more + (answer.omitted ? ": legal; what follows is not looked at." : ": legal."), wrong.length > 0);
}

// drawBits draws the first bytes as bits that can be turned over.
function drawBits(wire) {
  const box = $("bits");
  const keep = document.activeElement?.dataset?.bit;
  box.replaceChildren();
  const most = 24;
  let n = 0;
  for (const r of wire) {
    const all = r.frame ? hexBytes(r.frame.header + (r.frame.wire || "")) : hexBytes(r.bytes.excerpt);
    all.forEach((b, i) => {
      if (n++ >= most) return;
      const cell = el("div.byte", el("span", `byte ${r.start + i}: ${b}`));
      const bits = bitsOf(b);
      for (let k = 0; k < 8; k++) {
        const f = (r.fields || []).find((x) => i * 8 + k >= x.at && i * 8 + k < x.at + x.bits);
        const button = el("button." + (f ? fieldClass(f) : "f-none"), bits[k]);
        button.type = "button";
        button.dataset.bit = String((r.start + i) * 8 + k);
        button.title = f ? f.name : "";
        button.setAttribute("aria-label", `byte ${r.start + i}, bit ${k}${f ? ", " + f.name : ""}: ${bits[k]}`);
        button.addEventListener("click", () => turn((r.start + i) * 8 + k));
        cell.append(button);
      }
      box.append(cell);
    });
  }
  if (keep) box.querySelector(`[data-bit="${keep}"]`)?.focus();
}

// turn turns a bit over, and writes the digits anew: they may have been written in any way that the server reads.
function turn(bit) {
  const all = [...drawn];
  const i = bit >> 3;
  if (i >= all.length) return;
  all[i] = (parseInt(all[i], 16) ^ (128 >> (bit & 7))).toString(16).padStart(2, "0");
  $("hex").value = all.join(" ");
  explain();
}

const endings = {
  closed: "then it ended the TCP connection", reset: "then it reset the TCP connection", quiet: "and the connection is still open",
  timeout: "and it went on until the lab had no more time", long: "and it sent more than the lab reads",
};

function showOutcome(o) {
  const box = $("result");
  const parts = [];
  const refused = !o.status.startsWith("101");
  if (refused) parts.push(el("p.code", o.status ? `The server answers ${o.status}` : "The server says nothing"));
  else if (o.code) parts.push(el("p.code", o.code === 1005 ? "The server answers with a Close without a code" : `The server closes with ${o.code}`), o.reason ? el("p", `“${o.reason}”`) : "", o.code === 1005 ? "" : el("p.small", o.meaning));
  else parts.push(el("p.code", "The server finds nothing wrong"));
  parts.push(el("p", `${bytes(o.sent)} were sent, ${bytes(o.received)} came back, ${endings[o.ended] ?? o.ended}.`));
  let kind = "";
  if (o.violation) {
    kind = o.agrees ? ".agree" : ".odd";
    parts.push(el("p", el("strong", o.violation.what), " — ", section(o.violation.section), `. The receiver has to ${demanded(o.demand)}${o.agrees ? ", and this one did." : ", and this one did not."}`),
      el("p", "Better: " + o.violation.cure + "."));
  }
  const verdict = el("div.verdict" + kind, ...parts);
  verdict.dataset.code = String(o.code ?? "");
  verdict.dataset.status = o.status ?? "";
  verdict.dataset.violation = o.violation?.kind ?? "";
  verdict.dataset.agrees = String(o.agrees);
  const list = el("ol.events");
  const t = new Timeline(list, 200);
  for (const r of o.records || []) t.add(r, false);
  if (o.omitted) t.mark(`${count(o.omitted)} records more, not shown`, "lost");
  const cards = [...list.querySelectorAll("details")];
  const broken = cards.filter((d) => d.classList.contains("broken"));
  for (const d of cards) d.open = broken.length ? d === broken[0] : d === cards.at(-1);
  box.replaceChildren(verdict);
  $("both").replaceChildren(el("h3", "Both directions, as the lab saw them"), list);
  if (!roomy.matches) verdict.scrollIntoView({ block: "start", behavior: calm() });
}

$("preset").addEventListener("change", usePreset);
for (const id of ["hex", "head"]) $(id).addEventListener("input", () => { clearTimeout(explainTimer); explainTimer = setTimeout(explain, 250); });
onSubmit("experiment", async () => {
  const run = $("run");
  run.disabled = true;
  $("result").replaceChildren(el("p.waiting", "Sending …"));
  $("both").replaceChildren();
  try {
    showOutcome(await lab("lab/send", { head: $("head").value, frames: $("hex").value, chop: $("chop").checked }));
  } catch (e) {
    $("result").replaceChildren(el("div.violation", el("p", e.message)));
  }
  run.disabled = false;
});

// ----------------------------------------------------------------

lesson(0);
state("not connected", "none");
openMirror().then(() => { if (!socket) state("not connected yet", "none"); }, () => {});
