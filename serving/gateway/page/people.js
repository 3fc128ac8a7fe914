// What people decide: the kill switch, re-arming, approvals. Each is asked for twice and answered in words.

import { get, post } from "./api.js";
import { $, make, place } from "./draw.js";

let names = { venue: [], account: [], strategy: [], symbol: [] };

export function know(found) { names = found; }

async function ask(title, text) {
  const dialog = $("ask-dialog");
  $("h-ask").textContent = title;
  $("ask-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes";
}

async function command(title, text, path, body, said) {
  if (!(await ask(title, text))) return;
  $("told").textContent = `${title}: asked`;
  try {
    $("told").textContent = `${title}: ${said(await post(path, body))}`;
  } catch (error) {
    $("told").textContent = `${title}: refused, ${error.message}`;
  }
}

function button(text, act) {
  const node = make("button", text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}

const KINDS = {
  limits: { title: "Looser limits", path: "/v1/limits/approve" },
  day: { title: "The day's book", path: "/v1/day/approve" },
  access: { title: "More clients or people", path: "/v1/reload/approve" },
};
const SHOWN = 50; // lines of a change; all of it stands in /v1/proposals
let meanings = {};

// What each change would let through is asked for when another one waits: it is too much to come each second.
async function says(proposals) {
  if (proposals.every((item) => item.change in meanings)) return;
  const asked = Object.fromEntries(proposals.map((item) => [item.change, meanings[item.change] ?? []]));
  meanings = asked;
  try {
    const found = await get("/v1/proposals");
    meanings = { ...asked, ...Object.fromEntries(found.proposals.map((item) => [item.change, item.says])) };
  } catch {
    meanings = {}; // asked again with the next state
  }
}

function what(lines) {
  const node = make("ul", "", "says");
  node.append(...lines.slice(0, SHOWN).map((line) => make("li", line)));
  if (lines.length > SHOWN) node.append(make("li", `and ${lines.length - SHOWN} more`));
  return node;
}

const drawn = {};

function list(id, items, row) {
  const key = JSON.stringify(items);
  if (drawn[id] === key) return; // a button that is redrawn under the pointer cannot be pressed
  drawn[id] = key;
  $(id).replaceChildren(...items.map((item) => {
    const node = make("li");
    const [text, ...buttons] = row(item);
    node.append(make("span", text), ...buttons);
    return node;
  }));
}

export function waiting(s) {
  list("killed", s.killed, (item) => [
    `${place(item)} is killed, ${item.open_orders} orders open${item.liquidating ? ", being liquidated" : ""}`,
    button("Re-arm", () => command(`Re-arm ${place(item)}`, "Orders of this scope may leave again. The book must have been reconciled since the kill.",
      "/v1/rearm", { scope: item.scope, name: item.name }, () => "orders may leave again")),
    button("Liquidate", () => command(`Liquidate ${place(item)}`, "Reduce-only orders may leave once two different people have asked for it.",
      "/v1/liquidate", { scope: item.scope, name: item.name }, (said) => (said.liquidating ? "reduce-only orders may leave" : "another person must ask too"))),
  ]);
  list("tripped", s.tripped, (item) => [
    `${place(item)} is stopped: ${item.why}`,
    button("Reset", () => command(`Reset ${place(item)}`, item.why, "/v1/reset", { scope: item.scope, name: item.name }, () => "reset")),
  ]);
  says(s.proposals);
  list("proposals", s.proposals.map((item) => ({ ...item, left: Math.max(0, Math.round((item.expires_ns - s.utc_ns) / 6e10)), says: meanings[item.change] ?? [] })), (item) => {
    const { title, path } = KINDS[item.kind];
    return [
      `${title} by ${item.by}, change ${item.change.slice(0, 12)}, ${item.approvals.length} of 2 approved` +
        `${item.approvals.length ? ` (${item.approvals.join(", ")})` : ""}, ${item.left} min left`,
      button("Approve", () => command(`Approve ${item.change.slice(0, 12)}`, `The exact change ${item.change}, proposed by ${item.by}: ${item.says.slice(0, SHOWN).join("; ")}`,
        path, { change: item.change }, (answered) => (answered.holds ? "it holds" : "another person must approve too"))),
      what(item.says),
    ];
  });
  list("postures", s.postures, (item) => [`${place(item)} is at ${item.factor_bps / 100} % of its limits until ${new Date(item.expires_ns / 1e6).toISOString()}`]);
  $("nothing").hidden = s.killed.length + s.tripped.length + s.proposals.length + s.postures.length > 0;
}

function chosen() {
  const scope = $("kill-scope").value;
  const name = scope === "all" ? "" : $("kill-name").value.trim();
  return { scope, name, phrase: scope === "all" ? "KILL ALL" : `KILL ${name}` };
}

function redraw() {
  const { scope, name, phrase } = chosen();
  $("kill-name-label").hidden = scope === "all";
  $("kill-names").replaceChildren(...(names[scope] ?? []).map((item) => {
    const option = make("option");
    option.value = item;
    return option;
  }));
  $("kill-phrase").textContent = phrase;
  $("kill-go").disabled = $("kill-typed").value !== phrase || (scope !== "all" && !name);
}

async function kill(event) {
  event.preventDefault();
  const { scope, name } = chosen();
  if ($("kill-go").disabled) return;
  $("kill-go").disabled = true;
  $("kill-said").className = "said";
  $("kill-said").textContent = "asked";
  try {
    const said = await post("/v1/kill", { scope, name, reason: $("kill-reason").value });
    $("kill-said").textContent = `${said.message}${said.open_orders ? `, ${said.open_orders} orders still open` : ""}`;
    $("kill-said").classList.toggle("done", said.persisted && said.flushed);
  } catch (error) {
    $("kill-said").textContent = `NOT KNOWN TO BE KILLED: ${error.message}. Use the local command: python -m serving.gateway kill`;
  }
  $("kill-typed").value = "";
  redraw();
}

export function listen() {
  $("kill").addEventListener("click", () => {
    $("kill-said").textContent = "";
    $("kill-typed").value = "";
    redraw();
    $("kill-dialog").showModal();
  });
  for (const id of ["kill-scope", "kill-name", "kill-typed"]) {
    for (const what of ["input", "change"]) $(id).addEventListener(what, redraw);
  }
  $("kill-close").addEventListener("click", () => $("kill-dialog").close());
  $("kill-form").addEventListener("submit", kill);
  $("reconcile").addEventListener("click", () => command("Reconcile", "Venues and drop copies are asked how every order stands.",
    "/v1/reconcile", {}, (said) => (said.reconciled ? "the book agrees" : `breaks: ${said.breaks.join("; ")}`)));
  $("arm").addEventListener("click", () => command("Arm", "New orders may leave.", "/v1/arm", {}, () => "new orders may leave"));
}
