// On a route with whole_body a call ends with its answer's body: whoever broke it off pays for it.
import assert from "node:assert/strict";
import test from "node:test";
import { brotliCompressSync, gunzipSync, gzipSync } from "node:zlib";
import { inProject } from "../../scripts/project.mjs";
import { modulesOf } from "../../scripts/runtime.mjs";
import { lineOf, openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, hold, resetBeforeHeaders, startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = `
[gateway]
key_prefix = "tk_live"
forgive_per_day = 2
hold_seconds = 200
[origins]
default = "${origin.url}"
"service.example.com" = "service:MUSIC"
[pools.credits]
[plans.free]
requests_in_flight = 1
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[plans.wide]
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "GET /work"
cost = 7
whole_body = true
[[routes]]
match = "GET /free"
cost = 0
whole_body = true
[[routes]]
match = "GET /timed"
charge = { rate = 1, unit = 1, from = "response.header.x-seconds", maximum = 50 }
whole_body = true
`;
// A Worker that is an origin, and sets what headers it is asked for.
const entry = `
import { WorkerEntrypoint } from "cloudflare:workers";
export * from "./entry.js";
export { default } from "./entry.js";

export class Music extends WorkerEntrypoint {
  fetch(request) {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("by a Worker"));
    writer.close();
    return new Response(readable, { headers: new URL(request.url).searchParams });
  }
}
`;
const gateway = await startGateway(test, {
  policy,
  more: {
    modules: [
      { type: "ESModule", path: inProject("dist", "music-entry.js"), contents: entry },
      ...modulesOf(policy),
    ],
    serviceBindings: { MUSIC: { name: "tollgate", entrypoint: "Music" } },
  },
});

// Nobody ever takes this answer. Its client is gone before the origin has begun, by a connection that broke,
// and the gateway waits a while before it takes it so: the last test has the end.
const gone = await openAccount(gateway, { plan: "wide" });
{
  const held = hold();
  origin.on("/work", held);
  const exchange = gateway.open("GET", "/work", { headers: { authorization: `Bearer ${gone.key}` } });
  exchange.end();
  const atOrigin = await held.next();
  exchange.reset();
  await assert.rejects(exchange.answer);
  // The gateway has heard of it when this is answered.
  assert.equal((await gone.balance()).held, 7);
  atOrigin.begin(200);
  await atOrigin.write("for nobody");
}

const begin = (account, path, headers) =>
  gateway.open("GET", path, { headers: { authorization: `Bearer ${account.key}`, ...headers } }).end();

// An answer whose headers have arrived, and the origin's end of it.
async function begun(account, path, status = 200, headers = {}) {
  const held = hold();
  origin.on(path, held);
  const answering = begin(account, path);
  const atOrigin = await held.next();
  atOrigin.begin(status, headers);
  return { answered: await answering, atOrigin };
}

// An answer that the origin breaks off, when its headers, or its first bytes, have arrived.
async function brokenOff(account, { inBody }) {
  const { answered, atOrigin } = await begun(account, "/work", 200, { "content-length": 100 });
  if (inBody) {
    await atOrigin.write("begun");
    assert.equal(String(await answered.next()), "begun");
  }
  atOrigin.reset();
  await assert.rejects(answered.rest());
  assert.match((await lineOf(gateway, answered)).detail, /^the origin broke off: /);
  return answered;
}

// How the call of this answer ended.
async function endOf(account, answered) {
  const line = await lineOf(gateway, answered);
  assert.equal(line.status, answered.status);
  const shown = await gateway.admin("GET", `/calls/${line.request_id}`);
  const { state, charged, mark } = shown.json();
  assert.equal((await account.balance()).held, 0);
  return [state, charged, ...(mark ? [mark] : [])];
}

test("a call is in flight until its answer's last byte, and charged then", async () => {
  const account = await openAccount(gateway);
  for (const { path, headers, end, charged } of [
    { path: "/work", end: "last", charged: 7 },
    { path: "/work", charged: 7 },
    { path: "/timed", headers: { "x-seconds": "12" }, end: "last", charged: 12 },
  ]) {
    const { answered, atOrigin } = await begun(account, path, 200, headers);
    assert.equal(answered.headers["x-credits-charged"], undefined);
    const { available, held: holds } = await account.balance();
    assert.equal(holds, charged === 12 ? 50 : 7);
    const remaining = String(available + holds - charged);
    assert.equal(answered.headers["x-credits-remaining"], remaining);
    assert.equal((await account.call("GET", "/free")).status, 429);
    atOrigin.end(end);
    assert.equal(String(await answered.rest()), end ?? "");
    assert.deepEqual(await endOf(account, answered), ["settled", charged]);
    assert.equal(String((await account.balance()).available), remaining);
  }
});

test("an answer that the origin breaks off is free as often as a day forgives, then charged and marked", async () => {
  const account = await openAccount(gateway);
  for (const end of [
    ["released", 0],
    ["released", 0],
    ["settled", 7, "unforgiven"],
  ])
    assert.deepEqual(await endOf(account, await brokenOff(account, { inBody: true })), end);
});

test("an origin that fails before its answer's first byte is free, and takes nothing of the forgiveness", async () => {
  const account = await openAccount(gateway);
  for (const inBody of [false, false, true, false, true]) {
    assert.deepEqual(await endOf(account, await brokenOff(account, { inBody })), ["released", 0]);
    origin.on("/work", resetBeforeHeaders());
    const unreachable = await account.finished("GET", "/work");
    assert.deepEqual([unreachable.status, unreachable.headers["x-credits-charged"]], [502, "0"]);
  }
});

for (const [how, leave] of [
  ["closes its connection", "hangUp"],
  ["breaks its connection", "reset"],
]) {
  test(`a client that ${how} in mid-answer pays, and the origin is told that nobody listens`, async () => {
    const account = await openAccount(gateway);
    const { answered, atOrigin } = await begun(account, "/work");
    await atOrigin.write("first");
    assert.equal(String(await answered.next()), "first");
    answered[leave]();
    const left = atOrigin.left.then(() => true);
    const writing = async () => {
      while (!(await Promise.race([left, atOrigin.write("more").catch(() => left)])));
    };
    await Promise.all([left, writing()]);
    assert.deepEqual(await endOf(account, answered), ["settled", 7]);
    assert.match((await lineOf(gateway, answered)).detail, /^the client left: /);
  });
}

test("a compressed answer keeps its bytes, its Content-Encoding and its Content-Length", async () => {
  const account = await openAccount(gateway);
  const text = "The same line again. ".repeat(20_000);
  for (const [encoding, body] of [
    ["gzip", gzipSync(text)],
    ["br", brotliCompressSync(text)],
    ["x-own", Buffer.from(text)],
    [undefined, Buffer.from(text)],
  ])
    for (const status of [200, 404])
      for (const length of [String(body.length), undefined]) {
        const headers = {
          ...(encoding && { "content-encoding": encoding }),
          ...(length && { "content-length": length }),
        };
        origin.on("/free", ({ outgoing }) => {
          outgoing.writeHead(status, headers).flushHeaders();
          outgoing.end(body);
        });
        const answered = await account.finished("GET", "/free");
        assert.equal(answered.headers["content-encoding"], encoding);
        assert.equal(answered.headers["content-length"], length);
        assert.deepEqual(answered.body, body);
      }
});

test("a Worker can be the origin; a length that it does not keep to is its own fault", async () => {
  const account = await openAccount(gateway);
  const served = (headers) =>
    begin(account, `/work?${new URLSearchParams(headers)}`, { host: "service.example.com" });
  const packed = await served({ "content-encoding": "gzip" });
  assert.equal(packed.headers["content-encoding"], "gzip");
  assert.equal(String(gunzipSync(await packed.rest())), "by a Worker");
  assert.deepEqual(await endOf(account, packed), ["settled", 7]);

  const whole = await served({ "content-length": "11" });
  assert.equal(String(await whole.rest()), "by a Worker");
  assert.deepEqual(await endOf(account, whole), ["settled", 7]);
  for (const wrong of ["10", "12"]) {
    // Locally the headers are held back where nothing follows them.
    const answered = await served({ "content-length": wrong }).catch(() => null);
    if (answered) await assert.rejects(answered.rest());
    const [{ request_id }] = (await account.usage()).usage;
    const line = await gateway.log((line) => line.request_id === request_id);
    assert.equal(line.detail, "the origin broke off: not as long as its Content-Length");
    const shown = (await gateway.admin("GET", `/calls/${request_id}`)).json();
    assert.deepEqual([shown.state, shown.charged], ["released", 0]);
  }
});

test("an answer without a body, or free by its status, is not waited for", async () => {
  const account = await openAccount(gateway);
  for (const [method, status, charged] of [
    ["HEAD", 200, "7"],
    ["GET", 204, "7"],
    ["GET", 205, "7"],
    ["GET", 304, "7"],
    ["GET", 404, "0"],
  ]) {
    origin.on("/work", answer({ status }));
    const answered = await account.finished(method, "/work");
    assert.deepEqual([answered.status, answered.headers["x-credits-charged"]], [status, charged]);
    assert.equal(answered.body.length, 0);
    assert.equal(answered.headers["x-credits-remaining"], String((await account.balance()).available));
  }
  // What costs nothing is known to cost nothing.
  origin.on("/free", answer({ body: "for free" }));
  assert.equal((await account.finished("GET", "/free")).headers["x-credits-charged"], "0");

  const { answered: failed, atOrigin } = await begun(account, "/work", 500);
  assert.deepEqual(await endOf(account, failed), ["released", 0]);
  atOrigin.end("and so on");
  assert.equal(String(await failed.rest()), "and so on");
});

test("an answer that takes longer than a hold ends as it really ended", async () => {
  const account = await openAccount(gateway);
  const { answered, atOrigin } = await begun(account, "/work");
  gateway.clock.advance(201_000);
  assert.deepEqual([(await account.balance()).available, (await account.usage()).usage[0].status_code], [100, null]);
  atOrigin.end("at last");
  assert.equal(String(await answered.rest()), "at last");
  assert.deepEqual(await endOf(account, answered), ["settled", 7]);
});

test("a client that was gone before the answer began pays for it", async () => {
  const line = await gateway.log((line) => line.request_id === `call_${gone.id}_1`);
  assert.equal(line.status, 200);
  assert.deepEqual(await endOf(gone, { status: 200, headers: { "x-request-id": line.request_id } }), ["settled", 7]);
});
