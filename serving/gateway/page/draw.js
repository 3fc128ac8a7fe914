// How things look. Everything from the gateway enters as text, never as markup.

export const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");

export function make(tag, text = "", kind = "") {
  const node = document.createElement(tag);
  if (text !== "") node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const clock = (ns) => new Date(Number(ns) / 1e6).toISOString().slice(11, 23);
export const place = (item) => `${item.scope} ${item.name}`.trim();
const signed = (value) => (value < 0 ? "number loss" : value > 0 ? "number gain" : "number");

function fill(id, rows) {
  $(id).tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = make("tr");
    row.append(...cells.map(([text, kind]) => make("td", text, kind)));
    return row;
  }));
}

export function orders(list, now) {
  $("n-orders").textContent = `(${list.length})`;
  fill("orders", list.slice(0, 200).map((o) => [
    [String(o.order_id)], [o.stage], [o.venue], [o.account], [o.strategy], [o.symbol],
    [o.side + (o.reduce_only ? ", reduce only" : ""), o.side],
    [o.price_ticks === null ? "market" : number(o.price_ticks), "number"], [number(o.lots), "number"],
    [number(o.filled_lots), "number"], [Math.max(0, (now - o.sent_ns) / 1e9).toFixed(0), "number"],
  ]));
}

export function positions({ legs, sums }) {
  fill("positions", legs.map((leg) => [
    [leg.account], [leg.strategy], [leg.symbol], [number(leg.position_lots), "number"],
    [number(leg.buying_lots), "number"], [number(leg.selling_lots), "number"], [number(leg.mark_ticks), "number"],
    [number(leg.realised), signed(leg.realised)], [number(leg.unrealised), signed(leg.unrealised)],
    [number(leg.profit), signed(leg.profit)],
  ]));
  fill("sums", sums.map((sum) => [
    [place(sum)], [number(sum.profit), signed(sum.profit)], [number(sum.peak), "number"],
    [number(sum.open_orders), "number"], [number(sum.traded_lots), "number"], [number(sum.traded_value), "number"],
  ]));
}

export function limits({ document: found, use, means }) {
  $("limits-none").hidden = found !== null;
  const nearest = [...use].sort((a, b) => (b.used_bps ?? 10001) - (a.used_bps ?? 10001)).slice(0, 16);
  $("limits").replaceChildren(...nearest.map((item) => {
    const share = Math.min(1, Math.max(0, item.used_bps === null ? 1 : item.used_bps / 10000));
    const row = make("li", "", share >= 1 ? "full" : share >= 0.8 ? "near" : "");
    const name = make("span", `${place(item)}: ${item.limit}`);
    name.title = means[item.limit] ?? "";
    const bar = make("progress");
    bar.max = 1;
    bar.value = share;
    bar.setAttribute("aria-label", `${place(item)} ${item.limit}: ${(share * 100).toFixed(1)} % used`);
    row.append(name, make("span", `${number(item.used)} of ${number(item.most)}`, "used"), bar);
    return row;
  }));
}

export function state(s) {
  const stopped = s.broken || s.halted || s.killed.length > 0;
  document.body.classList.toggle("armed", s.armed && !stopped);
  document.body.classList.toggle("stopped", Boolean(stopped));
  document.body.classList.remove("unknown");
  const all = s.killed.some((item) => item.scope === "all");
  $("standing").textContent = s.broken ? "BROKEN" : all ? "KILLED" : s.halted ? "HALTED"
    : s.killed.length ? `ARMED, ${s.killed.length} KILLED` : "ARMED";
  $("paper").hidden = !s.paper;
  $("day").textContent = s.day.open ? s.day.date : `${s.day.date || "none"}, not open`;
  $("profit").textContent = number(s.profit.realised + s.profit.unrealised);
  $("profit").className = signed(s.profit.realised + s.profit.unrealised);
  $("open").textContent = number(s.open_orders);
  const why = s.broken || (s.halted && `halted: ${s.halted}`) || (s.breaks.length && `breaks: ${s.breaks.join("; ")}`);
  $("why").hidden = !why;
  if (why) $("why").textContent = why;
  lines(s);
}

function lines(s) {
  const cards = [];
  const card = (good, title, ...facts) => {
    const item = make("li", "", good ? "good" : "bad");
    item.append(make("b", title), ...facts.map((fact) => make("span", fact)));
    cards.push(item);
  };
  for (const [name, v] of Object.entries(s.venues)) {
    card(v.session === "up", `FIX ${name}: ${v.session === "up" ? "up" : "DOWN"}`,
      v.session === "up" ? `${v.unanswered} unanswered` : v.session, `drop copy ${v.drop_copy}`);
    const fresh = v.feed.up && v.feed.age_s !== null && v.feed.age_s < 3;
    card(fresh && !v.feed.late, `Feed ${name}: ${!fresh ? "OLD" : v.feed.late ? "LATE" : "fresh"}`,
      v.feed.age_s === null ? "never heard" : `${v.feed.age_s.toFixed(1)} s old`,
      v.feed.lag_s === null ? "does not say when it sent" : `${(v.feed.lag_s * 1000).toFixed(0)} ms on its way`,
      `${v.feed.known} of ${v.feed.symbols} symbols, ${v.feed.gaps} gaps`);
  }
  const j = s.journal;
  const bad = j.failed || j.disk_full;
  card(!bad, `Journal: ${bad ? "FAILED" : "writing"}`, bad || `record ${number(j.sequence)}, epoch ${j.epoch}`,
    j.free_bytes === null ? "free space unknown" : `${number(Math.floor(j.free_bytes / 2 ** 20))} MiB free`);
  const offset = Math.abs(s.clock.offset_ns) / 1e6;
  const measured = s.clock.age_s !== null && s.clock.age_s < 10;
  card(measured, `Clock: ${measured ? `${offset.toFixed(1)} ms off` : "NOT MEASURED"}`,
    s.clock.age_s === null ? "never measured" : `measured ${s.clock.age_s.toFixed(1)} s ago`);
  for (const [name, strategy] of Object.entries(s.strategies)) {
    card(strategy.connected, `Strategy ${name}: ${strategy.connected ? "connected" : "GONE"}`,
      strategy.silent_s === null ? "never heard" : `heard ${strategy.silent_s.toFixed(1)} s ago`);
  }
  $("lines").replaceChildren(...cards);
}

export function add(id, item, title, text, grave, most = 200) {
  const list = $(id);
  const row = make("li", "", grave ? "grave" : "");
  row.append(make("time", clock(item.utc_ns)), make("b", title), document.createTextNode(text));
  list.prepend(row);
  while (list.children.length > most) list.lastChild.remove();
}

export function controls(counts) {
  const found = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  $("n-denials").textContent = `(${number(found.reduce((sum, [, count]) => sum + count, 0))})`;
  $("controls").replaceChildren(...found.map(([name, count]) => make("li", `${name} ${number(count)}`)));
}
