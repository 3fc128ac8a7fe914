// What the page asks of the admin plane: JSON by fetch, events by a stream that says when it has gone quiet.

const TOKEN = "shortfall-token";
export const STALE_MS = 3500; // the state comes each second: after three are missing nothing here is believed
const RETRY_MS = 1000;
const HISTORY = 200; // entries from before the page was opened
const ANSWER_MS = 45000;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const remember = (token) => sessionStorage.setItem(TOKEN, token);

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.error ?? `HTTP ${response.status}`);
  return body;
}

export async function get(path) {
  return answer(await fetch(path, { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(5000) }));
}

export async function post(path, body = {}) {
  const asked = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) };
  return answer(await fetch(path, { ...asked, signal: AbortSignal.timeout(ANSWER_MS) }));
}

// Follows /v1/events for ever. `on.event(kind, data)`, `on.line(text)`, `on.stale(ms or null)`, `on.refused(error)`.
// EventSource cannot carry a token, so the stream is read by hand.
export function follow(on) {
  let last = null;
  let heard = performance.now();
  let reading = null;
  const hear = () => { heard = performance.now(); };

  setInterval(() => {
    const silent = performance.now() - heard;
    on.stale(silent > STALE_MS ? silent : null);
    if (silent > 2 * STALE_MS && reading !== null) reading.abort();
  }, 250);

  async function once() {
    reading = new AbortController();
    const { last: newest } = await get("/v1/state");
    if (last === null) last = Math.max(0, newest - HISTORY);
    else if (newest < last) last = 0; // it began again, and so did its numbers
    const response = await fetch(`/v1/events?since=${last}`, { headers: headers(), cache: "no-store", signal: reading.signal });
    if (!response.ok) throw new ApiError(response.status, `HTTP ${response.status}`);
    on.line("live");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      hear();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) take(part);
    }
  }

  function take(part) {
    let kind = "message";
    const data = [];
    for (const line of part.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
      else if (line.startsWith("id: ")) last = Number(line.slice(4));
    }
    if (data.length) on.event(kind, JSON.parse(data.join("\n")));
  }

  async function forever() {
    for (;;) {
      try {
        await once();
        on.line("the line ended, connecting again");
      } catch (error) {
        on.line(error instanceof ApiError ? `refused: ${error.message}` : "no line, connecting again");
        if (error instanceof ApiError && error.status === 401) await on.refused(error);
      }
      reading = null;
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }
  forever();
}
