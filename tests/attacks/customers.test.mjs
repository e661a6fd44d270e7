// One customer against another, and against the account's own calls.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "../e2e/harness/account.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { percentile, scaled, show } from "../e2e/harness/scale.mjs";

const origin = await startOrigin(test);
const gateway = await startGateway(test, {
  policy: `
[gateway]
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[[routes]]
match = "POST /work"
cost = 5
[[routes]]
match = "POST /job"
cost = 5
job = { settle_within = "1h", on_unknown = "charge" }
`,
});
origin.on("/work", answer({ body: "done" }));
const mallory = await openAccount(gateway, { id: "mallory" });
const alice = await openAccount(gateway, { id: "alice" });
const everything = async ({ id }) => {
  const parts = await Promise.all(["", "/keys", "/balance", "/usage", "/ledger"].map((page) => gateway.admin("GET", `/accounts/${id}${page}`)));
  return parts.map((part) => part.text());
};

test("nothing of another customer's can be read or changed with one's own key", async (t) => {
  for (let call = 0; call < 5; call++) for (const who of [alice, mallory]) await who.finished("POST", "/work");
  const job = (await alice.finished("POST", "/job")).headers["x-request-id"];
  await alice.grant(70, "extra");
  const before = await everything(alice);
  const theirs = await alice.page("/ledger?limit=2");
  const used = await alice.page("/usage?limit=2");
  let tried = 0;
  const attempt = async (method, path, options = {}) => {
    tried += 1;
    const answer = await gateway.call(mallory.key, method, path, options);
    // A refusal may tell her what she sent, and nothing tells her more of it.
    const told = answer.text().replace(/"detail":"[^"]*"/, "");
    assert.ok(!/alice/.test(told), `${method} ${path}: ${answer.text()}`);
    return answer;
  };

  // The admin API, with the key of a customer.
  for (const [method, path] of [
    ["GET", "/accounts"], ["GET", "/accounts/alice"], ["PATCH", "/accounts/alice"], ["DELETE", "/accounts/alice"], ["GET", "/accounts/alice/keys"], ["POST", "/accounts/alice/keys"],
    ["DELETE", `/accounts/alice/keys/${alice.keyId}`], ["POST", `/accounts/alice/keys/${alice.keyId}/rotate`], ["POST", "/accounts/mallory/grants"], ["POST", "/accounts/alice/adjustments"], ["GET", "/accounts/alice/export"],
    ["GET", `/calls/${job}`], ["POST", `/calls/${job}/settle`], ["POST", `/calls/${job}/release`],
  ]) {
    const body = method === "GET" || method === "DELETE" ? undefined : { credits: 0, reason: "x", pool: "credits", amount: 1000, source: "extra" };
    const answer = await gateway.call(mallory.key, method, `/_tollgate/v1${path}`, { body, headers: { "idempotency-key": "m", "cf-connecting-ip": `198.51.100.${tried}` } });
    assert.equal(answer.status, 401, `${method} ${path}`);
    tried += 1;
  }

  // Cursors that were handed out to another account, and filters that name it.
  for (const cursor of [theirs.next, used.next].filter(Boolean)) {
    const page = await attempt("GET", `/ledger?next=${encodeURIComponent(cursor)}`);
    assert.equal(page.status, 400, page.text());
  }
  for (const query of ["?account=alice", "?id=alice", "?key=key_alice_1", "?account_id=alice&limit=5", "?endpoint=alice", "?endpoint='%20OR%201=1%20--", "?endpoint=%25", "?from=1970-01-01T00:00:00Z&to=2999-01-01T00:00:00Z"]) {
    const pages = [await attempt("GET", `/usage${query}`), await attempt("GET", `/ledger${query}`), await attempt("GET", `/usage/summary${query}`)];
    for (const page of pages) assert.ok([200, 400, 429].includes(page.status), `${query}: ${page.status} ${page.text()}`);
  }
  // What she claims to be.
  const at = origin.requests.length;
  for (const headers of [{ "x-tollgate-account": "alice" }, { "x-tollgate-key": alice.keyId }, { "x-tollgate-external-id": "alice" }, { "x-account": "alice", cookie: "account=alice" }]) {
    const answer = await attempt("POST", "/work", { headers });
    assert.equal(answer.status, 200);
  }
  for (const { headers } of origin.requests.slice(at)) assert.equal(headers["x-tollgate-account"], "mallory");
  // Alice's key in one header and Mallory's in the other: neither pays.
  const two = await gateway.call(mallory.key, "POST", "/work", { headers: { "x-api-key": alice.key } });
  assert.equal(two.status, 400);

  assert.deepEqual(await everything(alice), before);
  show(t, { tried });
});

test("one customer's expensive reads do not stop the account's calls (latencies printed)", { timeout: 900_000 }, async (t) => {
  const calls = scaled(200, 6_000);
  for (let call = 0; call < calls; call += 20) await Promise.all(Array.from({ length: 20 }, () => mallory.call("POST", "/work")));
  const alone = await latencies();
  let isOver = false;
  const reads = new Map();
  const reading = [
    "/usage?limit=500&endpoint=/nothing",
    "/usage?limit=500&status=599",
    "/usage?limit=500&offset=3500",
    "/usage/summary?by=endpoint&from=2000-01-01T00:00:00Z",
    "/ledger?limit=500",
  ].map(async (path) => {
    const key = await mallory.anotherKey();
    while (!isOver) {
      const { status } = await key.call("GET", path, { headers: { accept: path.startsWith("/ledger") ? "text/csv" : "application/json" } });
      reads.set(status, (reads.get(status) ?? 0) + 1);
      assert.ok([200, 429].includes(status), `${path}: ${status}`);
    }
  });
  const auditing = (async () => {
    let audits = 0;
    for (; !isOver; audits++) assert.equal((await gateway.admin("GET", "/accounts/mallory/audit")).json().ok, true);
    return audits;
  })();
  const beside = await latencies();
  isOver = true;
  await Promise.all(reading);
  const told = (times) => `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`;
  show(t, {
    "calls in the log": calls,
    reads: [...reads].map(([status, count]) => `${status} × ${count}`).join(", "),
    audits: await auditing,
    "calls alone": told(alone),
    "calls beside": told(beside),
  });
});

async function latencies() {
  const times = [];
  for (let call = 0; call < scaled(40, 1_000); call++) {
    const started = performance.now();
    const { status } = await mallory.call("POST", "/work");
    assert.equal(status, 200);
    times.push(performance.now() - started);
  }
  return times;
}
