// Bodies pass through, both ways, and are never gathered.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { residentMegabytes } from "./harness/memory.mjs";
import { hold, large, startOrigin } from "./harness/origin.mjs";

const MB = 1_000_000;
// More than twice the 128 MB that an isolate may have.
const LARGE = 300 * MB;

const origin = await startOrigin(test);
const pieces = await startServer(test);
const sink = await startServer(test, countBytes);
const gateway = await startGateway(test, {
  policy: `
[gateway]
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
"pieces.example.com" = "${pieces.url}"
"sink.example.com" = "${sink.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "POST /upload"
cost = 1
[[routes]]
match = "GET /download"
cost = 1
[[routes]]
match = "GET /whole"
cost = 1
whole_body = true
`,
});
const customer = await openAccount(gateway);
const authorization = `Bearer ${customer.key}`;

test("the caller has the first byte before the origin has sent the last", async () => {
  const held = hold();
  origin.on("/download", held);
  const answer = gateway.open("GET", "/download", { headers: { authorization } }).end();
  const exchange = await held.next();
  exchange.begin(200);
  const begun = await answer;
  for (const piece of ["first", "second", "third"]) {
    await exchange.write(piece);
    assert.equal(String(await begun.next()), piece);
  }
  exchange.end("last");
  assert.equal(String(await begun.rest()), "last");
});

test("the origin has the first byte before the caller has sent the last", async () => {
  const upload = { host: "pieces.example.com", authorization };
  for (const headers of [{ "content-length": "15" }, { "transfer-encoding": "chunked" }]) {
    const exchange = gateway.open("POST", "/upload", { headers: { ...upload, ...headers } });
    const [incoming, outgoing] = await Promise.all([once(pieces, "request"), exchange.write("first")]).then(
      ([request]) => request,
    );
    const arriving = incoming.iterator();
    assert.equal(String((await arriving.next()).value), "first");
    await exchange.write("again");
    assert.equal(String((await arriving.next()).value), "again");
    const answer = exchange.end("final");
    assert.equal(String((await arriving.next()).value), "final");
    outgoing.end();
    assert.equal((await answer).status, 200);
  }
});

test("an origin may answer while the body still comes", async () => {
  const held = hold();
  origin.on("/upload", held);
  const headers = { authorization, "transfer-encoding": "chunked" };
  const exchange = gateway.open("POST", "/upload", { headers });
  await exchange.write("first");
  const atOrigin = await held.next();
  atOrigin.begin(200);
  await atOrigin.write("early");
  const begun = await exchange.answer;
  assert.equal(String(await begun.next()), "early");
  await exchange.write("second");
  exchange.end("last");
  assert.equal(String(await atOrigin.body), "firstsecondlast");
  atOrigin.end("late");
  assert.equal(String(await begun.rest()), "late");
});

for (const path of ["/download", "/whole"])
  test(`a download larger than an isolate's memory passes through, and leaves it flat: ${path}`, async () => {
    origin.on(path, large(LARGE));
    const before = residentMegabytes();
    const answer = await gateway.open("GET", path, { headers: { authorization } }).end();
    assert.equal(answer.headers["content-length"], String(LARGE));
    let received = 0;
    for (let piece; (piece = await answer.next()) !== null;) received += piece.length;
    assert.equal(received, LARGE);
    staysFlat(before);
  });

test("an upload larger than an isolate's memory passes through, and leaves it flat", async () => {
  const before = residentMegabytes();
  for (const headers of [{ "content-length": String(LARGE) }, { "transfer-encoding": "chunked" }]) {
    const exchange = gateway.open("POST", "/upload", {
      headers: { authorization, host: "sink.example.com", ...headers },
    });
    const piece = Buffer.alloc(MB, "x");
    for (let sent = 0; sent < LARGE; sent += piece.length) await exchange.write(piece);
    const answer = await exchange.end();
    assert.equal(String(await answer.rest()), String(LARGE));
    assert.equal(answer.headers["x-length-told"], headers["content-length"] ?? "none");
  }
  staysFlat(before);
});

for (const path of ["/download", "/whole"])
  test(`a slow reader holds the origin back instead of filling the gateway: ${path}`, async () => {
    let sent = 0;
    origin.on(path, async (exchange) => {
      exchange.begin(200);
      const piece = Buffer.alloc(MB, "x");
      for (; sent < 100 && !exchange.outgoing.destroyed; sent++) await exchange.write(piece);
      exchange.end();
    });
    const before = residentMegabytes();
    const answer = await gateway.open("GET", path, { headers: { authorization } }).end();
    const first = await answer.next();
    // Until nothing moves any more: what is under way fits into the sockets' buffers.
    for (let last = -1; sent !== last; await new Promise((resolve) => setTimeout(resolve, 150))) last = sent;
    assert.ok(sent < 60, `${sent} MB were taken of a reader that reads nothing`);
    staysFlat(before);
    assert.equal(first.length + (await answer.rest()).length, 100 * MB);
  });

function staysFlat(before) {
  const most = residentMegabytes("VmHWM");
  assert.ok(most - before < 100, `workerd grew from ${before} MB to ${most} MB`);
}

// Counts the bytes of a body without keeping them, which the scripted origin would.
async function countBytes(incoming, outgoing) {
  let length = 0;
  for await (const piece of incoming) length += piece.length;
  outgoing.setHeader("x-length-told", incoming.headers["content-length"] ?? "none");
  outgoing.end(String(length));
}

async function startServer(t, listener) {
  const server = http.createServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(server, { url: `http://127.0.0.1:${server.address().port}` });
}
