// What an origin that fails costs, and what its caller sees.
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, neverAnswer, resetBeforeHeaders, resetInBody, startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const closedPort = await unusedPort();
const gateway = await startGateway(test, {
  policy: `
[gateway]
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
"down.example.com" = "http://127.0.0.1:${closedPort}"
[pools.credits]
[plans.free]
requests_per_minute = 1000
requests_per_day = 5000
requests_in_flight = 1
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "GET /work"
cost = 7
[[routes]]
match = "GET /slow"
cost = 7
timeout_seconds = 1
[[routes]]
match = "GET /strict"
cost = 7
charge_on = "2xx"
[[routes]]
match = "GET /hooks"
public = true
timeout_seconds = 1
`,
});
const customer = await openAccount(gateway);

// The answer's headers say what the account says afterwards, the log line too, and with one request in
// flight at most, the next call shows that this one has left.
async function endsAs(answered, { status, code, charged }) {
  assert.equal(answered.status, status);
  assert.equal(answered.headers["x-credits-charged"], String(charged));
  assert.match(answered.headers["x-request-id"], new RegExp(`^call_${customer.id}_\\d+$`));
  assert.equal(answered.headers["x-ratelimit-limit"], "1000");
  const line = await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
  assert.deepEqual([line.status, line.code], [status, code]);
  const { available, held } = await customer.balance();
  assert.deepEqual([answered.headers["x-credits-remaining"], held], [String(available), 0]);
}

async function chargedFor(call) {
  const before = (await customer.balance()).available;
  const answered = await call();
  await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
  return { answered, cost: before - (await customer.balance()).available };
}

const work = (path, headers) => gateway.call(customer.key, "GET", path, { headers });

function isProblem(answered, code) {
  assert.equal(answered.headers["content-type"], "application/problem+json");
  assert.equal(answered.headers["cache-control"], "no-store");
  const problem = answered.json();
  assert.deepEqual([problem.code, problem.status], [code, answered.status]);
  assert.equal(problem.request_id, answered.headers["x-request-id"]);
}

test("an origin that is not there: 502, released", async () => {
  const { answered, cost } = await chargedFor(() => work("/work", { host: "down.example.com" }));
  isProblem(answered, "origin_unreachable");
  await endsAs(answered, { status: 502, code: "origin_unreachable", charged: 0 });
  assert.equal(cost, 0);
});

test("a connection that breaks before the headers: 502, released", async () => {
  origin.on("/work", resetBeforeHeaders());
  const { answered, cost } = await chargedFor(() => work("/work"));
  isProblem(answered, "origin_unreachable");
  await endsAs(answered, { status: 502, code: "origin_unreachable", charged: 0 });
  assert.equal(cost, 0);
});

test("an origin that stays silent: 504 after the route's timeout, released, and it hears that nobody waits", async () => {
  origin.on("/slow", neverAnswer());
  const at = origin.requests.length;
  const started = performance.now();
  const { answered, cost } = await chargedFor(() => work("/slow"));
  const waited = performance.now() - started;
  isProblem(answered, "origin_timeout");
  await endsAs(answered, { status: 504, code: "origin_timeout", charged: 0 });
  assert.equal(cost, 0);
  assert.ok(waited >= 990 && waited < 5_000, `${waited} ms`);
  await (await origin.request(at)).left;
});

test("the timeout ends with the headers: a body may take longer", async () => {
  origin.on("/slow", async (exchange) => {
    exchange.begin(200);
    await exchange.write("begun, ");
    setTimeout(() => exchange.end("done"), 1_200);
  });
  const { answered, cost } = await chargedFor(() => work("/slow"));
  assert.equal(answered.text(), "begun, done");
  assert.equal(cost, 7);
});

test("an answer that breaks off stays broken for the caller, and is charged as its status said", async () => {
  const unannounced = async (exchange) => {
    exchange.begin(200);
    await exchange.write("begun");
    exchange.reset();
  };
  for (const [behaviour, isSeen] of [
    [resetInBody("begun"), true],
    // Local workerd ends a chunked answer in good order however its source ended, in any Worker.
    [unannounced, false],
  ]) {
    origin.on("/work", behaviour);
    const before = (await customer.balance()).available;
    const broken = await gateway
      .open("GET", "/work", { headers: { authorization: `Bearer ${customer.key}` } })
      .end();
    assert.equal(broken.status, 200);
    assert.equal(String(await broken.next()), "begun");
    if (isSeen) await assert.rejects(broken.rest());
    else assert.equal(String(await broken.rest()), "");
    await endsAs(broken, { status: 200, code: undefined, charged: 7 });
    assert.equal(before - (await customer.balance()).available, 7);
  }
});

test("the origin's own errors are handed on and released", async () => {
  for (const status of [400, 401, 402, 404, 429, 500, 502, 503, 504]) {
    const headers = { "retry-after": "33", "content-type": "application/json" };
    origin.on("/work", answer({ status, headers, body: '{"error":"mine"}' }));
    const { answered, cost } = await chargedFor(() => work("/work"));
    await endsAs(answered, { status, code: undefined, charged: 0 });
    assert.equal(cost, 0);
    assert.deepEqual(answered.json(), { error: "mine" });
    assert.equal(answered.headers["retry-after"], "33");
  }
});

test("what is charged goes by the status, as the route says", async () => {
  for (const [path, status, charged] of [
    ["/work", 200, 7],
    ["/work", 302, 7],
    ["/work", 399, 7],
    ["/strict", 204, 7],
    ["/strict", 302, 0],
    ["/strict", 404, 0],
  ]) {
    origin.on(path, answer({ status }));
    const { answered, cost } = await chargedFor(() => work(path));
    await endsAs(answered, { status, code: undefined, charged });
    assert.equal(cost, charged, `${path} ${status}`);
  }
});

test("on a public route, the caller sees the same problems", async () => {
  origin.on("/hooks", resetBeforeHeaders());
  isProblem(await gateway.send("GET", "/hooks"), "origin_unreachable");
  origin.on("/hooks", neverAnswer());
  isProblem(await gateway.send("GET", "/hooks"), "origin_timeout");
});

async function unusedPort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
