// A client that hangs up changes nothing: the call is ended as the origin answered, and logged.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { hold, startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = `
[gateway]
key_prefix = "tk_live"
body_limit = 1000
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
requests_in_flight = 1
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "POST /upload"
cost = 1
[[routes]]
match = "GET /report"
cost = 1
[[routes]]
match = "POST /priced"
charge = { rate = 1, unit = 1, from = "body.minutes", maximum = 100 }
`;
const faults = objectFaults(policy);
const gateway = await startGateway(test, { policy, more: faults.more });
const customer = await openAccount(gateway);
const authorization = `Bearer ${customer.key}`;

// The calls' lines, one after the other.
const isOfCall = (line) => line.request_id?.startsWith("call_");
let seen = 0;
async function nextLine() {
  const at = seen++;
  let passed = 0;
  return gateway.log((line) => isOfCall(line) && passed++ === at);
}

// With one request in flight at most, the next call tells whether the last one has left.
async function nothingIsLeftBehind() {
  assert.equal((await customer.balance()).held, 0);
  const next = await gateway.call(customer.key, "GET", "/report");
  assert.equal(next.status, 200, next.text());
  assert.equal((await nextLine()).status, 200);
}

const spent = async () => (await customer.balance()).spent;

for (const [how, leave] of [
  ["a client that closes its connection", "hangUp"],
  ["a client whose connection breaks", "reset"],
]) {
  test(`${how} before it sent its body: the origin never answered, the call is free`, async () => {
    const [before, at] = [await spent(), origin.requests.length];
    const exchange = gateway.open("POST", "/upload", { headers: { authorization, "content-length": "10" } });
    exchange.flushHeaders();
    await origin.request(at);
    exchange[leave]();
    const line = await nextLine();
    assert.deepEqual([line.status, line.code], [502, "origin_unreachable"]);
    assert.equal(await spent(), before);
    await nothingIsLeftBehind();
  });

  test(`${how} in the middle of its body: the origin sees it break off, the call is free`, async () => {
    const before = await spent();
    const begun = new Promise((resolve) =>
      origin.on("POST /upload", (received) => received.incoming.once("readable", () => resolve(received))),
    );
    const exchange = gateway.open("POST", "/upload", { headers: { authorization, "content-length": "10" } });
    await exchange.write("12345");
    const received = await begun;
    exchange[leave]();
    await assert.rejects(received.body);
    const line = await nextLine();
    assert.deepEqual([line.status, line.code], [502, "origin_unreachable"]);
    assert.equal(await spent(), before);
    await nothingIsLeftBehind();
  });

  test(`${how} in the middle of a body that is read for its price: nothing is asked, nothing is left behind`, async () => {
    const [before, at] = [await spent(), origin.requests.length];
    const headers = { authorization, "content-length": "20", "content-type": "application/json" };
    const exchange = gateway.open("POST", "/priced", { headers });
    await exchange.write('{"minutes":');
    exchange[leave]();
    await assert.rejects(exchange.answer);
    assert.equal(await spent(), before);
    assert.equal(origin.requests.length, at);
    await nothingIsLeftBehind();
  });

  test(`${how} while the account's object is asked: the call is made, paid and logged`, async () => {
    const [before, at] = [await spent(), origin.requests.length];
    faults.plan("delay");
    const exchange = gateway.open("GET", "/report", { headers: { authorization } });
    exchange.end();
    await faults.held();
    exchange[leave]();
    // The gateway has heard of it when this is answered. The answer to the admission comes after the client has gone.
    assert.equal((await customer.balance()).held, 1);
    faults.release();
    await origin.request(at);
    assert.equal((await nextLine()).status, 200);
    assert.equal(await spent(), before + 1);
    await nothingIsLeftBehind();
  });

  test(`${how} before the origin's headers: it pays for what the origin answers`, async () => {
    const held = hold();
    origin.on("GET /report", held);
    for (const [status, charged] of [
      [200, 1],
      [500, 0],
    ]) {
      const before = await spent();
      const exchange = gateway.open("GET", "/report", { headers: { authorization } });
      exchange.end();
      const atOrigin = await held.next();
      exchange[leave]();
      await assert.rejects(exchange.answer);
      assert.equal((await customer.balance()).held, 1);
      atOrigin.begin(status);
      atOrigin.end("late");
      assert.equal((await nextLine()).status, status);
      assert.equal((await spent()) - before, charged);
    }
    origin.on("GET /report", ({ outgoing }) => outgoing.end());
    await nothingIsLeftBehind();
  });

  test(`${how} in mid-answer: the call stays paid, and the origin is told that nobody listens`, async () => {
    const held = hold();
    origin.on("GET /report", held);
    const before = await spent();
    const answer = gateway.open("GET", "/report", { headers: { authorization } }).end();
    const atOrigin = await held.next();
    atOrigin.begin(200);
    await atOrigin.write("first");
    const begun = await answer;
    assert.equal(String(await begun.next()), "first");
    begun[leave]();
    // A client that closes is noticed by what cannot be written to it any more.
    const left = atOrigin.left.then(() => true);
    const writing = async () => {
      while (!(await Promise.race([left, atOrigin.write("more").catch(() => left)])));
    };
    await Promise.all([left, writing()]);
    assert.equal((await nextLine()).status, 200);
    assert.equal((await spent()) - before, 1);
    origin.on("GET /report", ({ outgoing }) => outgoing.end());
    await nothingIsLeftBehind();
  });
}
