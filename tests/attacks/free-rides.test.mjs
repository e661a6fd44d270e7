// Whoever tries to have calls for nothing pays for them, or gets no more than the policy allows: told by how much.
import assert from "node:assert/strict";
import test from "node:test";
import { gzipSync } from "node:zlib";
import { openAccount } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { hold, startOrigin } from "../e2e/harness/origin.mjs";
import { show } from "../e2e/harness/scale.mjs";

const FORGIVEN = 3;
const HOLD_SECONDS = 30;
const origin = await startOrigin(test);
const gateway = await startGateway(test, {
  policy: `
[gateway]
key_prefix = "tk_live"
origin_timeout_seconds = 20
hold_seconds = ${HOLD_SECONDS}
forgive_per_day = ${FORGIVEN}
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000, renews = "never" }]
[plans.rich]
paid = true
grants = [{ pool = "credits", amount = 5000, renews = "monthly" }]
[[routes]]
match = "POST /work"
cost = 10
[[routes]]
match = "GET /work"
cost = 10
[[routes]]
match = "GET /whole"
cost = 10
whole_body = true
[[routes]]
match = "POST /priced"
charge = { rate = 10, unit = 1, from = "body.minutes", maximum = 600 }
[[routes]]
match = "POST /create"
when = { "body.kind" = "dear" }
cost = 100
[[routes]]
match = "POST /create"
cost = 10
[[routes]]
match = "POST /once"
cost = 10
idempotency = "origin"
[[routes]]
match = "POST /job"
cost = 100
job = { settle_within = "1h", on_unknown = "charge" }
`,
});

// What the origin did for it, and what was paid: `ride` gets an account of its own.
let riders = 0;
async function rides(ride) {
  const account = await openAccount(gateway, { id: `rider-${++riders}` });
  const at = origin.requests.length;
  const paid = async () => (await account.balance()).spent;
  const before = await paid();
  await ride(account);
  // Whatever goes on in the background has ended when its deadline has passed.
  gateway.clock.advance((HOLD_SECONDS + 20) * 1_000);
  const { calls } = await areSound(gateway, account.id);
  return { served: origin.requests.length - at, paid: (await paid()) - before, calls };
}

const ok = ({ outgoing }) => outgoing.end("x".repeat(100_000));

test("hanging up, reading slowly, stalling near the end: what the origin did is paid", async (t) => {
  const held = hold();
  const stages = {
    "before the origin answers": async (account) => {
      origin.on("GET /work", held);
      const exchange = gateway.open("GET", "/work", { headers: { authorization: `Bearer ${account.key}` } });
      exchange.end();
      const atOrigin = await held.next();
      exchange.reset();
      atOrigin.begin(200);
      atOrigin.end("done");
      await gateway.log((line) => line.account === account.id && line.request_id?.startsWith("call_"));
    },
    "with the first byte": async (account) => {
      origin.on("GET /work", ok);
      const answer = await gateway.open("GET", "/work", { headers: { authorization: `Bearer ${account.key}` } }).end();
      await answer.next();
      answer.reset();
    },
    "near the end": async (account) => {
      origin.on("GET /work", ok);
      const answer = await gateway.open("GET", "/work", { headers: { authorization: `Bearer ${account.key}` } }).end();
      for (let read = 0; read < 99_000;) read += (await answer.next())?.length ?? Infinity;
      answer.hangUp();
    },
    "of a whole body, near the end": async (account) => {
      origin.on("GET /whole", async (exchange) => {
        exchange.begin(200, { "content-length": "8000000" });
        await exchange.write(Buffer.alloc(7_999_999, "x")).catch(() => {});
        await exchange.left;
      });
      const answer = await gateway.open("GET", "/whole", { headers: { authorization: `Bearer ${account.key}` } }).end();
      await answer.next();
      answer.reset();
      await gateway.log((line) => line.account === account.id && line.request_id?.startsWith("call_"));
    },
  };
  for (const [stage, ride] of Object.entries(stages)) {
    const { served, paid } = await rides(ride);
    assert.deepEqual([served, paid], [1, 10], stage);
  }
  show(t, { stages: Object.keys(stages).length, served: "1 each", paid: "10 of 10 each" });
});

test("answers that never end are forgiven as often as the policy says, by key and day", async (t) => {
  origin.on("GET /whole", async (exchange) => {
    exchange.begin(200, { "content-length": "1000000" });
    await exchange.write("begun");
    exchange.reset();
  });
  const rode = await rides(async (account) => {
    for (let call = 0; call < 8; call++) {
      const answer = await gateway.open("GET", "/whole", { headers: { authorization: `Bearer ${account.key}` } }).end();
      await answer.rest().catch(() => {});
      await gateway.log((line) => line.request_id === answer.headers["x-request-id"]);
    }
  });
  assert.deepEqual([rode.served, rode.paid], [8, (8 - FORGIVEN) * 10]);
  show(t, { served: 8, paid: `${rode.paid} of 80`, bound: `forgive_per_day = ${FORGIVEN}` });
});

test("a body that two readers could read differently buys nothing for less", async (t) => {
  origin.on("POST /priced", ok);
  origin.on("POST /create", ok);
  const json = { "content-type": "application/json" };
  const tries = [
    ["/priced", '{"minutes":1,"minutes":60}', json],
    ["/priced", '{"minutes":60,"minutes":1}', json],
    ["/priced", '{"minutes":1,"Minutes":60}', json],
    ["/priced", '{"minutes":1,"m\\u0069nutes":60}', json],
    ["/priced", '{"minutes":1,"MINUTES":60}', json],
    ["/priced", '\ufeff{"minutes":1}', json],
    ["/priced", '{"minutes":"1"}', json],
    ["/priced", '{"minutes":1e0}', json],
    ["/priced", '{"minutes":0x1}', json],
    ["/priced", '{"minutes":-1}', json],
    ["/priced", '{"minutes":1.0000000000000000001}', json],
    ["/priced", '{"minutes":NaN}', json],
    ["/priced", '{"minutes":[1,60]}', json],
    ["/priced", '{"minutes":1}{"minutes":60}', json],
    ["/priced", '{"minutes":1} //', json],
    ["/priced", "{'minutes':1}", json],
    ["/priced", "minutes=1", { "content-type": "application/x-www-form-urlencoded" }],
    ["/priced", gzipSync('{"minutes":1}'), { ...json, "content-encoding": "gzip" }],
    ["/priced", '{"minutes":1}', { ...json, "content-encoding": "x" }],
    ["/priced", Buffer.from('{"minutes":1}', "utf16le"), { "content-type": "application/json; charset=utf-16" }],
    ["/create", '{"kind":"cheap","kind":"dear"}', json],
    ["/create", '{"kind":"dear","kind":"cheap"}', json],
    ["/create", '{"Kind":"dear"}', json],
    ["/create", '{"kind":"cheap","KIND":"dear"}', json],
    ["/create", gzipSync('{"kind":"dear"}'), { ...json, "content-encoding": "gzip" }],
    ["/create", '{"kind":"dear"}', { "content-type": "text/plain" }],
  ];
  const rode = await rides(async (account) => {
    for (const [path, body, headers] of tries) {
      const answer = await account.call("POST", path, { body, headers });
      assert.equal(answer.status, 400, `${path} ${body}: ${answer.status}`);
    }
  });
  assert.deepEqual([rode.served, rode.paid], [0, 0]);
  // What all readers read in one way is served, at its price.
  const fair = await rides(async (account) => {
    await account.finished("POST", "/priced", { body: '{"minutes":2,"other":{"minutes":60}}', headers: json });
    await account.finished("POST", "/create", { body: '{"k\\u0069nd":"d\\u0065ar"}', headers: json });
  });
  assert.deepEqual([fair.served, fair.paid], [2, 120]);
  show(t, { tries: tries.length, served: 0, "read in one way": "2 served, 120 paid" });
});

test("conditional headers and ranges: what the origin answers below 400 is paid", async (t) => {
  origin.on("GET /work", ({ headers, outgoing }) => {
    if (headers["if-none-match"]) return outgoing.writeHead(304).end();
    if (headers.range) return outgoing.writeHead(206, { "content-range": "bytes 0-0/1000" }).end("x");
    return outgoing.end("all of it");
  });
  const tries = [{ "if-none-match": '"x"' }, { "if-none-match": "*" }, { range: "bytes=0-0" }, { "if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT" }];
  const rode = await rides(async (account) => {
    for (const headers of tries) await account.finished("GET", "/work", { headers });
    await account.finished("HEAD", "/work");
  });
  assert.deepEqual([rode.served, rode.paid], [5, 50]);
  show(t, { served: rode.served, paid: `${rode.paid} of 50` });
});

test("a replayed Idempotency-Key is free as often as the origin has promised to do nothing, and counted", async (t) => {
  origin.on("POST /once", ok);
  const rode = await rides(async (account) => {
    for (const key of ["a", "a", "a", "b"]) {
      const answer = await account.finished("POST", "/once", { body: "x", headers: { "idempotency-key": key } });
      assert.equal(answer.status, 200);
    }
    const other = await account.call("POST", "/once", { body: "y", headers: { "idempotency-key": "a" } });
    assert.equal(other.status, 422);
    // Where the origin has promised nothing, the header buys nothing.
    origin.on("POST /work", ok);
    for (let repeat = 0; repeat < 3; repeat++) await account.finished("POST", "/work", { headers: { "idempotency-key": "a" } });
  });
  assert.deepEqual([rode.served, rode.paid], [7, 50]);
  show(t, { "forwarded with a key": 4, paid: "20 (two keys)", bound: "only routes with idempotency = \"origin\"; repeats count against the limits", "elsewhere": "30 of 30" });
});

test("a plan change with open holds, and a refund with a retry, give nothing away", async (t) => {
  origin.on("POST /job", ok);
  const rode = await rides(async (account) => {
    const opened = [];
    for (let job = 0; job < 3; job++) opened.push((await account.finished("POST", "/job")).headers["x-request-id"]);
    assert.equal((await account.balance()).held, 300);
    // Up, down and up again: the allowance of a month is granted once.
    const day = { subscription: { status: "active", billing_day: 1 } };
    await account.patch({ plan: "rich", ...day });
    const { available } = await account.balance();
    for (const plan of ["free", "rich", "free", "rich"]) await account.patch({ plan });
    const after = await account.balance();
    assert.ok(after.available <= available, `${after.available} of ${available}`);
    assert.equal(after.held, 300);
    const end = (call, how, body) => gateway.admin("POST", `/calls/${call}/${how}`, body, { "idempotency-key": `${call}-${how}-${JSON.stringify(body)}` });
    const [refunded, partly, kept] = opened;
    // Settled, refunded, and then whatever is told again changes nothing.
    assert.equal((await end(refunded, "settle", { credits: 100 })).status, 200);
    assert.equal((await end(refunded, "release", { reason: "failed" })).status, 200);
    for (const again of [["release", { reason: "again" }], ["settle", { credits: 1 }]]) assert.equal((await end(refunded, ...again)).status, 409);
    assert.equal((await end(partly, "settle", { credits: 40 })).status, 200);
    assert.equal((await end(partly, "settle", { credits: 0 })).status, 409);
    assert.equal((await end(kept, "settle", { credits: 100 })).status, 200);
    assert.equal((await end(kept, "settle", { credits: 101 })).status, 409);
    const { held, spent } = await account.balance();
    assert.deepEqual([held, spent], [0, 140]);
  });
  assert.deepEqual([rode.served, rode.paid], [3, 140]);
  show(t, { jobs: 3, paid: "140: one refunded whole, one settled at 40, one at 100", "of five plan changes": "no allowance twice" });
});

test("near-misses of a path are served nowhere", async (t) => {
  const paths = ["/work/", "/Work", "/WORK", "/work//", "/work/.", "/work;x", "/work%2f", "//work", "/work%20", "/work.json", "/whole/1", "/wor", "/workk", "/job/..", "/once%00"];
  const rode = await rides(async (account) => {
    for (const path of paths) {
      const { status } = await account.call("POST", path);
      assert.ok([400, 404, 405].includes(status), `${path}: ${status}`);
    }
  });
  assert.deepEqual([rode.served, rode.paid], [0, 0]);
  show(t, { tried: paths.length, served: 0 });
});
