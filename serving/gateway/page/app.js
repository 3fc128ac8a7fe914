// The operator page: follows the stream, asks for the tables when something happened, and says when it is stale.

import { follow, get, remember } from "./api.js";
import * as draw from "./draw.js";
import { $ } from "./draw.js";
import * as people from "./people.js";

const TABLES_MS = 400;
const GRAVE = new Set(["kill", "standing", "alert", "unsent"]);
let now = Date.now() * 1e6;
let due = true;
let busy = false;

async function tables() {
  if (busy) return;
  busy = due = true;
  try {
    due = false;
    const [orders, positions, limits, denials] = await Promise.all(
      ["/v1/orders?most=1000", "/v1/positions", "/v1/limits", "/v1/denials?most=1"].map(get));
    draw.orders(orders.orders, now);
    draw.positions(positions);
    draw.limits(limits);
    draw.controls(denials.by_control);
    const accounts = limits.document?.accounts ?? {};
    people.know({
      venue: limits.document?.venues ?? [], account: Object.keys(accounts), strategy: Object.values(accounts).flat(),
      symbol: [...new Set([...orders.orders, ...positions.legs].map((item) => item.symbol))],
    });
  } catch {
    due = true; // asked again at the next turn; the stale banner speaks when the stream is gone too
  } finally {
    busy = false;
  }
}

function event(kind, item) {
  if (kind === "state") {
    now = item.utc_ns;
    draw.state(item);
    people.waiting(item);
  } else if (kind === "denial") {
    draw.add("denials", item, item.control,
      `${item.message} · ${item.account}/${item.strategy} ${item.symbol} ${item.key} · ${item.algorithm}, ${item.trader}`);
  } else {
    const { n, utc_ns, kind: _, what, ...rest } = item;
    const facts = Object.entries(rest).map(([name, value]) => `${name} ${value}`).join(", ");
    draw.add("events", item, what ?? kind, facts, GRAVE.has(kind));
  }
  due = true;
}

function stale(silent) {
  document.body.classList.toggle("stale", silent !== null);
  $("stale").hidden = silent === null;
  if (silent !== null) {
    $("stale").textContent = `STALE: nothing heard from the gateway for ${(silent / 1000).toFixed(0)} s. What you see is old. ` +
      "The kill button still tries; so does the local command.";
  }
}

async function refused() {
  $("token-said").textContent = sessionStorage.length ? "That is not known here." : "";
  $("token-dialog").showModal();
  await new Promise((done) => $("token-dialog").addEventListener("close", done, { once: true }));
  remember($("token").value.trim());
  $("token").value = "";
  await who();
}

async function who() {
  try {
    const state = await get("/v1/state");
    $("you").textContent = `${state.you.subject} (${state.you.scopes.join(", ")})`;
    event("state", state);
  } catch { /* the stream says why */ }
}

people.listen();
who();
setInterval(() => { if (due) tables(); }, TABLES_MS);
follow({ event, stale, refused, line: (text) => { $("line").textContent = text; } });
