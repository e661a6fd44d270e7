// What Tollgate does for a charged call, written by hand in JavaScript as well as we can, and without
// what this comparison does not need: one policy in the code, no other pages, no jobs, no retries, no
// deadline for the origin, no log line.
//
// The same: the key's MAC, one admit over an exact minute window, the day's count and the credits, two
// durable rows for each call, a snapshot with every 128th, the same headers and signature to the origin,
// the same headers to the caller, and a settle in the background that a client who leaves cannot stop.
import { DurableObject } from "cloudflare:workers";
import { keyOf, newKey, secrets as known, secretsOf, utf8 } from "./keys.mjs";

const BASE = "/api/external/v1";
const ROUTES = new Map([[`POST ${BASE}/search`, { endpoint: "/search", cost: 1 }]]);
const PER_MINUTE = 100_000;
const PER_DAY = 100_000_000;
const MINUTE = 60_000;
const DAY = 86_400_000;
const HOLD_MILLIS = 300_000;
const CALLS_PER_SNAPSHOT = 128;
const DROPPED = new Set([
  "authorization", "connection", "expect", "forwarded", "keep-alive", "proxy-authenticate", "proxy-authorization",
  "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-http-method", "x-http-method-override",
  "x-method-override", "x-original-url", "x-rewrite-url",
]);

export default {
  async fetch(request, env, context) {
    const secrets = known ?? (await secretsOf(env));
    const url = new URL(request.url);
    if (url.pathname === "/open") return open(url, env, secrets);
    const route = ROUTES.get(`${request.method} ${url.pathname}`);
    if (route === undefined) return problem(404, "no_route");
    const key = await keyOf(request.headers.get("authorization"), secrets);
    if (key === null) return problem(401, "invalid_key", { "www-authenticate": "Bearer" });
    const answered = Promise.withResolvers();
    context.waitUntil(journey(request, url, route, key, env, secrets, answered));
    return answered.promise;
  },
};

async function journey(request, url, route, key, env, secrets, answered) {
  const started = Date.now();
  const object = env.ACCOUNTS.getByName(key.account);
  let admission;
  try {
    admission = await object.admit(key.number, key.secret, request.method, route.endpoint, route.cost);
  } catch {
    return answered.resolve(problem(503, "unavailable", { "retry-after": "1" }));
  }
  if (admission.status !== 200) return answered.resolve(refusal(admission));
  const call = `call_${key.account}_${admission.call}`;
  let status = 502;
  try {
    const forwarded = await forward(request, url, key, call, admission, env, secrets);
    const fromOrigin = await fetch(forwarded, { redirect: "manual", cache: "no-store" });
    status = fromOrigin.status;
    const answer = new Response(fromOrigin.body, fromOrigin);
    const charged = status < 400 ? route.cost : 0;
    tell(answer.headers, call, admission, admission.available + route.cost - charged, charged);
    answered.resolve(answer);
  } catch {
    answered.resolve(problem(502, "origin_unreachable"));
  }
  await object.settle(admission.call, status, Date.now() - started);
}

async function forward(request, url, key, call, admission, env, secrets) {
  const forwarded = new Request(env.ORIGIN + url.pathname + url.search, request);
  const { headers } = forwarded;
  for (const name of [...headers.keys()]) {
    if (DROPPED.has(name) || name.startsWith("x-tollgate-") || name.startsWith("x-forwarded-")) headers.delete(name);
  }
  headers.set("X-Forwarded-Host", url.host);
  headers.set("X-Forwarded-Proto", url.protocol.slice(0, -1));
  const address = request.headers.get("CF-Connecting-IP");
  if (address !== null) headers.set("X-Forwarded-For", address);
  headers.set("X-Tollgate-Call", call);
  headers.set("X-Tollgate-Account", key.account);
  headers.set("X-Tollgate-Key", `key_${key.number}`);
  headers.set("X-Tollgate-Plan", "pro");
  headers.set("X-Tollgate-Held", `${admission.held}`);
  const at = Math.floor(Date.now() / 1000);
  const lines = [at, request.method, url.pathname, url.search.slice(1), call, key.account, `key_${key.number}`, "pro", ""];
  const signature = await crypto.subtle.sign("HMAC", secrets.origin, utf8.encode(lines.join("\n")));
  headers.set("X-Tollgate-Signature", `t=${at},v1=${new Uint8Array(signature).toHex()}`);
  return forwarded;
}

function tell(headers, call, { minuteLeft, minuteResets, dayLeft, dayResets }, available, charged) {
  headers.set("X-Request-Id", call);
  headers.set("X-RateLimit-Limit", `${PER_MINUTE}`);
  headers.set("X-RateLimit-Remaining", `${minuteLeft}`);
  headers.set("X-RateLimit-Limit-Daily", `${PER_DAY}`);
  headers.set("X-RateLimit-Remaining-Daily", `${dayLeft}`);
  headers.set("X-Credits-Remaining", `${available}`);
  headers.set("X-Credits-Charged", `${charged}`);
  headers.set("RateLimit-Policy", `"minute";q=${PER_MINUTE};w=60, "daily";q=${PER_DAY};w=86400`);
  headers.set("RateLimit", `"minute";r=${minuteLeft};t=${minuteResets}, "daily";r=${dayLeft};t=${dayResets}`);
}

function refusal({ status, code, retryAfter }) {
  return problem(status, code, retryAfter && { "retry-after": `${retryAfter}` });
}

function problem(status, code, headers) {
  return Response.json(
    { title: code, status, code },
    { status, headers: { "content-type": "application/problem+json", "cache-control": "no-store", ...headers } },
  );
}

// For the bench: opens an account with credits and a key, and shows the key.
async function open(url, env, secrets) {
  const account = url.searchParams.get("account");
  const { secret, shown } = await newKey(account, secrets);
  await env.ACCOUNTS.getByName(account).open(secret, Number(url.searchParams.get("credits")));
  return new Response(shown);
}

export class Account extends DurableObject {
  #sql;
  #keys = new Map();
  #open = new Map();
  // The times of the latest calls, oldest at #oldest; what lies before it is forgotten now and then.
  #minute = [];
  #oldest = 0;
  #state = { last: 0, available: 0, day: 0, count: 0 };
  #sinceSnapshot = 0;
  #alarm = null;

  constructor(context, env) {
    super(context, env);
    this.#sql = context.storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS keys (number INTEGER PRIMARY KEY, secret TEXT NOT NULL);
      CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
      CREATE TABLE IF NOT EXISTS calls (
        number INTEGER PRIMARY KEY, at INTEGER NOT NULL, key INTEGER NOT NULL, method TEXT NOT NULL, endpoint TEXT NOT NULL,
        held INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, status INTEGER, charged INTEGER, response_time_ms INTEGER,
        ended_at INTEGER)`);
    this.#wake();
  }

  #wake() {
    for (const { number, secret } of this.#sql.exec("SELECT number, secret FROM keys")) this.#keys.set(number, secret);
    const [snapshot] = this.#sql.exec("SELECT body FROM state WHERE id = 1").toArray();
    if (snapshot === undefined) return;
    const { open, ...state } = JSON.parse(snapshot.body);
    this.#state = state;
    for (const [number, held] of open) this.#open.set(number, held);
    const after = "SELECT number, at, held, state, charged FROM calls WHERE number > ? ORDER BY number";
    for (const row of this.#sql.exec(after, state.last)) {
      this.#count(row.number, row.held, row.at);
      this.#open.set(row.number, row.held);
    }
    for (const [number, held] of this.#open) {
      const [row] = this.#sql.exec("SELECT state, charged FROM calls WHERE number = ?", number).toArray();
      if (row.state === 0) continue;
      this.#open.delete(number);
      this.#state.available += held - row.charged;
    }
    const latest = "SELECT at FROM calls WHERE number > ? AND at > ? ORDER BY number";
    this.#minute = this.#sql.exec(latest, this.#state.last - PER_MINUTE, Date.now() - MINUTE).toArray().map(({ at }) => at);
  }

  open(secret, credits) {
    this.#keys.set(1, secret);
    this.#sql.exec("INSERT INTO keys (number, secret) VALUES (1, ?)", secret);
    this.#state.available = credits;
    this.#snapshot();
  }

  admit(key, secret, method, endpoint, cost) {
    if (this.#keys.get(key) !== secret) return { status: 401, code: "invalid_key" };
    const now = Date.now();
    const minute = this.#minute;
    while (this.#oldest < minute.length && minute[this.#oldest] <= now - MINUTE) this.#oldest += 1;
    if (this.#oldest > 4_096 && this.#oldest * 2 > minute.length) {
      minute.splice(0, this.#oldest);
      this.#oldest = 0;
    }
    const used = minute.length - this.#oldest;
    const day = Math.floor(now / DAY);
    const count = day === this.#state.day ? this.#state.count : 0;
    const dayResets = Math.ceil(((day + 1) * DAY - now) / 1000);
    if (used >= PER_MINUTE) {
      const retryAfter = Math.ceil((minute[this.#oldest] + MINUTE - now) / 1000);
      return { status: 429, code: "rate_limited", retryAfter };
    }
    if (count >= PER_DAY) return { status: 429, code: "rate_limited", retryAfter: dayResets };
    if (this.#state.available < cost) return { status: 402, code: "insufficient_credits" };

    const number = this.#state.last + 1;
    const insert = "INSERT INTO calls (number, at, key, method, endpoint, held) VALUES (?, ?, ?, ?, ?, ?)";
    this.#sql.exec(insert, number, now, key, method, endpoint, cost);
    this.#count(number, cost, now);
    this.#open.set(number, cost);
    if (++this.#sinceSnapshot >= CALLS_PER_SNAPSHOT) this.#snapshot();
    this.#setAlarm(now + HOLD_MILLIS);
    return {
      status: 200,
      call: number,
      held: cost,
      available: this.#state.available,
      minuteLeft: PER_MINUTE - used - 1,
      minuteResets: Math.ceil((minute[this.#oldest] + MINUTE - now) / 1000),
      dayLeft: PER_DAY - count - 1,
      dayResets,
    };
  }

  settle(number, status, millis) {
    const held = this.#open.get(number);
    if (held === undefined) return;
    const charged = status < 400 ? held : 0;
    const end = "UPDATE calls SET state = ?, status = ?, charged = ?, response_time_ms = ?, ended_at = ? WHERE number = ?";
    this.#sql.exec(end, charged === 0 ? 2 : 1, status, charged, millis, Date.now(), number);
    this.#open.delete(number);
    this.#state.available += held - charged;
  }

  // Holds that nobody ended are given back.
  alarm() {
    this.#alarm = null;
    const over = Date.now() - HOLD_MILLIS;
    for (const [number, held] of this.#open) {
      const [{ at }] = this.#sql.exec("SELECT at FROM calls WHERE number = ?", number).toArray();
      if (at > over) return this.#setAlarm(at + HOLD_MILLIS);
      this.#sql.exec("UPDATE calls SET state = 3, charged = 0, ended_at = ? WHERE number = ?", Date.now(), number);
      this.#open.delete(number);
      this.#state.available += held;
    }
  }

  #setAlarm(at) {
    if (this.#alarm !== null) return;
    this.#alarm = at;
    this.ctx.storage.setAlarm(at);
  }

  #count(number, held, at) {
    const state = this.#state;
    const day = Math.floor(at / DAY);
    state.count = day === state.day ? state.count + 1 : 1;
    state.day = day;
    state.last = number;
    state.available -= held;
    this.#minute.push(at);
  }

  #snapshot() {
    this.#sinceSnapshot = 0;
    const body = JSON.stringify({ ...this.#state, open: [...this.#open] });
    this.#sql.exec("INSERT OR REPLACE INTO state (id, body) VALUES (1, ?)", body);
  }
}
