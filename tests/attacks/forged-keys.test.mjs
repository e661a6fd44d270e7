// Keys that are not what they seem. Where the MAC fails, no object is asked, whatever is tried and however often.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import test from "node:test";
import { openAccount } from "../e2e/harness/account.mjs";
import { objectFaults } from "../e2e/harness/faults.mjs";
import { startFlood } from "../e2e/harness/flood.mjs";
import { secrets, startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes, wasmMegabytes, withWasmLook } from "../e2e/harness/memory.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { each } from "../e2e/harness/raw.mjs";
import { percentile, randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const UNKNOWN_KEYS = scaled(1_500, 100_000);
const TIMED = scaled(80, 3_000);

const origin = await startOrigin(test);
const policy = `
[gateway]
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[plans.small]
requests_per_minute = 5
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 1
`;
const faults = objectFaults(policy);
const gateway = await startGateway(test, { policy, more: { ...faults.more, modules: withWasmLook(faults.more.modules) } });
const customer = await openAccount(gateway);
// The directory has been told of the account and of its key: nothing goes on in the background.
await faults.directory.told(2);
const asks = () => [faults.messages, faults.directory.messages, faults.lookups.messages];
const search = (key, headers = {}) => gateway.send("POST", "/search", { headers: { authorization: `Bearer ${key}`, ...headers } });

const PREFIX = "tk_live_";
const bytesOf = (key) => Buffer.from(key.slice(PREFIX.length), "base64url");
const keyOf = (bytes) => PREFIX + bytes.toString("base64url");

// A key for anybody, under any secret: what a leaked or another deployment's KEY_SECRET makes.
function keyUnder(secret, account, number, prefix = "tk_live") {
  const id = Buffer.from(account);
  const signed = Buffer.concat([Buffer.from([1, id.length]), id, Buffer.from([0, 0, 0, number]), Buffer.alloc(16, 7)]);
  const mac = createHmac("sha256", secret).update(`${prefix}\0`).update(signed).digest().subarray(0, 16);
  return `${prefix}_${Buffer.concat([signed, mac]).toString("base64url")}`;
}

test("keys that are forged, cut, flipped or another deployment's are refused, and no object is asked", async (t) => {
  const bytes = bytesOf(customer.key);
  const forged = [];
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes);
    flipped[bit >> 3] ^= 1 << (bit & 7);
    forged.push(keyOf(flipped));
  }
  for (let length = 0; length < customer.key.length; length++) {
    // Shorter than the prefix, it is another credential than Tollgate's: the origin's.
    if (customer.key.slice(0, length).startsWith(PREFIX)) forged.push(customer.key.slice(0, length));
  }
  for (const end of ["A", "=", "==", ".", "%00", "\u00e9", "A".repeat(10), "A".repeat(8_000)]) forged.push(customer.key + end);
  forged.push(
    keyUnder("another-deployments-secret-0123456789abcdef", customer.id, 1),
    keyUnder(secrets.ORIGIN_SECRET, customer.id, 1),
    keyUnder("", customer.id, 1),
    keyOf(Buffer.concat([bytes.subarray(0, -16), Buffer.alloc(16)])),
    keyOf(Buffer.concat([bytes, bytes])),
    PREFIX + customer.key,
    PREFIX + bytes.toString("base64"),
    PREFIX + bytes.toString("hex"),
    `${PREFIX}null`,
  );
  const before = asks();
  const reached = origin.requests.length;
  for (const key of forged) {
    const answer = await search(key);
    assert.deepEqual([answer.status, answer.json().code], [401, "invalid_key"], key);
    assert.equal(answer.headers["www-authenticate"], "Bearer");
    assert.ok(!answer.text().includes(key) || key.length < 12, "the answer tells the key");
  }
  assert.deepEqual(asks(), before, "an object was asked");
  assert.equal(origin.requests.length, reached);
  show(t, { forged: forged.length, "objects asked": 0, "at the origin": 0 });
});

test("who has KEY_SECRET, or knows a key that is dead, is refused by the account's object", async (t) => {
  const [revoked, expired] = [await customer.anotherKey(), await customer.anotherKey({ expires_at: "2031-01-01T00:00:00Z" })];
  const others = await openAccount(gateway);
  assert.equal((await gateway.admin("DELETE", `/accounts/${customer.id}/keys/${revoked.keyId}`)).status, 204);
  const refused = async (key, code = "invalid_key") => {
    const reached = origin.requests.length;
    const answer = await search(key);
    assert.deepEqual([answer.status, answer.json().code], [401, code]);
    assert.equal(origin.requests.length, reached);
  };
  await refused(revoked.key);
  for (const account of [customer.id, others.id, "nobody"]) await refused(keyUnder(secrets.KEY_SECRET, account, 1));
  // Parts of two keys that are good.
  const [mine, theirs] = [bytesOf(customer.key), bytesOf(others.key)];
  await refused(keyOf(Buffer.concat([mine.subarray(0, -16), theirs.subarray(-16)])));
  await refused(keyOf(Buffer.concat([theirs.subarray(0, -32), mine.subarray(-32)])));
  assert.equal((await search(expired.key)).status, 200);
  gateway.clock.moveTo("2031-01-01T00:00:00Z");
  await refused(expired.key);
  assert.equal((await search(customer.key)).status, 200);
  show(t, { "made with the right secret, revoked, expired, put together": 7 });
});

test("the time of a refusal does not tell how much of the MAC is right (printed, not asserted)", async (t) => {
  const bytes = bytesOf(customer.key);
  const withWrong = (...places) => {
    const wrong = Buffer.from(bytes);
    for (const place of places) wrong[wrong.length + place] ^= 0xff;
    return keyOf(wrong);
  };
  const kinds = {
    "first byte wrong": withWrong(-16),
    "last byte wrong": withWrong(-1),
    "all wrong": withWrong(...Array.from({ length: 16 }, (_, n) => n - 16)),
  };
  const took = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]));
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  for (let round = 0; round < TIMED; round++)
    for (const kind of random.shuffled(Object.keys(kinds))) {
      const started = performance.now();
      await search(kinds[kind]);
      took[kind].push(performance.now() - started);
    }
  show(t, {
    rounds: TIMED,
    ...Object.fromEntries(
      Object.entries(took).map(([kind, times]) => [kind, `median ${percentile(times, 0.5).toFixed(3)} ms, p90 ${percentile(times, 0.9).toFixed(3)} ms`]),
    ),
  });
});

test("a flood of unknown keys wakes nobody, keeps nothing, and slows nobody else down much", { timeout: 900_000 }, async (t) => {
  const quiet = await latencies(scaled(60, 1_000));
  await customer.finished("POST", "/search");
  const [before, reached, wasm] = [asks(), origin.requests.length, await wasmMegabytes(gateway)];
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  let isOver = false;
  // Meanwhile, another account calls.
  const beside = latencies(Infinity, () => isOver);
  const keys = Array.from({ length: UNKNOWN_KEYS }, () => Buffer.from(Array.from({ length: bytesOf(customer.key).length }, () => random.below(256))));
  const id = Buffer.from(customer.id);
  const tries = async (bytes) => {
    // Half of them have the shape of a key of a real account.
    if (bytes[0] & 1) Buffer.concat([Buffer.from([1, id.length]), id]).copy(bytes);
    const { status } = await search(keyOf(bytes));
    assert.equal(status, 401);
  };
  const memory = residentMegabytes();
  await each(keys, 8, tries);
  isOver = true;
  const busy = await beside;
  await customer.finished("POST", "/search");
  const calls = origin.requests.length - reached;
  const [accounts, directory, lookups] = asks().map((count, kind) => count - before[kind]);
  // Only the calls of the other account asked anybody: each is admitted and settled, and may be settled with the next.
  assert.ok(accounts >= calls && accounts <= 2 * calls, `${accounts} messages for ${calls} calls`);
  // Its figures are told where an hour ends meanwhile.
  assert.ok(directory <= 2 && lookups === 0, `${directory} messages to the directory, ${lookups} to the lookup objects`);

  // What looks like a key from before Tollgate is looked up, a few times a minute and address.
  const looked = asks()[2];
  const tried = scaled(200, 5_000);
  await each(Array.from({ length: tried }, (_, n) => `sk_${n.toString(16).padStart(32, "0")}`), 8, (key) => search(key, { "cf-connecting-ip": "203.0.113.9" }));
  assert.ok(asks()[0] <= before[0] + 2 * calls && asks()[1] <= before[1] + 2, `${asks()}`);
  const lookedUp = asks()[2] - looked;
  assert.ok(lookedUp <= 30 + 8 + 1, `${lookedUp} looked up`);
  const grown = residentMegabytes() - memory;
  // Under load the runtime's heap grows until it is worth collecting: a bare Worker's to 500 MB, and then no more.
  assert.ok(grown < 400, `workerd grew by ${grown} MB`);
  // Ten bytes for each unknown key would be a megabyte; what the calls beside them leave is less.
  const kept = (await wasmMegabytes(gateway)) - wasm;
  assert.ok(kept < 1, `the wasm grew by ${kept} MB`);
  show(t, {
    "unknown keys": UNKNOWN_KEYS,
    "objects asked": 0,
    "imported-looking keys": `${tried}, looked up ${lookedUp}`,
    "workerd grew by": `${grown.toFixed(0)} MB`,
    "the wasm by": `${kept.toFixed(1)} MB`,
    "another account, alone": toldLatency(quiet),
    meanwhile: toldLatency(busy),
  });
});

// Phases take turns, and what is compared are those of the same round: what else the machine does meets all of them.
// Some of what an abusive key costs others is that there is one machine for all; as many requests that ask for nothing
// (`/healthz`) show how much of it.
test("one abusive key does not slow another account down much (printed, not asserted)", { timeout: 600_000 }, async (t) => {
  const [rounds, calls] = scaled([2, 30], [15, 300]);
  const abusive = await openAccount(gateway, { plan: "small" });
  const from = { atOnce: 8, pause: 20, url: gateway.url, headers: { "cf-connecting-ip": "203.0.113.77" } };
  const floods = {
    alone: null,
    "beside an abusive key": { ...from, method: "POST", path: "/search", headers: { ...from.headers, authorization: `Bearer ${abusive.key}` } },
    "beside as many that ask for nothing": { ...from, method: "GET", path: "/_tollgate/v1/healthz" },
  };
  const random = randomOf();
  const took = Object.fromEntries(Object.keys(floods).map((phase) => [phase, []]));
  const statuses = {};
  const [before] = asks();
  for (let round = 0; round < rounds; round++)
    for (const phase of random.shuffled(Object.keys(floods))) {
      const flood = floods[phase] && startFlood(floods[phase]);
      // So that it is under way.
      await latencies(5);
      took[phase].push(await latencies(calls));
      for (const [status, count] of Object.entries((await flood?.stop()) ?? {})) statuses[`${phase}: ${status}`] = (statuses[`${phase}: ${status}`] ?? 0) + count;
    }
  const median = (values) => percentile(values, 0.5);
  const slower = (phase, part, than = "alone") => {
    const by = took[phase].map((times, round) => percentile(times, part) / percentile(took[than][round], part) - 1);
    return `${(100 * median(by)).toFixed(0)} %`;
  };
  const told = (times) => `p50 ${median(times.map((each) => median(each))).toFixed(1)} ms, p99 ${median(times.map((each) => percentile(each, 0.99))).toFixed(1)} ms`;
  const others = Object.keys(floods).slice(1);
  show(t, {
    rounds,
    "calls in each phase": calls,
    ...statuses,
    "object messages for all of it": asks()[0] - before,
    ...Object.fromEntries(Object.entries(took).map(([phase, times]) => [`the other account ${phase}`, told(times)])),
    ...Object.fromEntries(others.map((phase) => [`slower ${phase}`, `p50 by ${slower(phase, 0.5)}, p99 by ${slower(phase, 0.99)}`])),
    "slower beside it than beside as many that ask for nothing": `p50 by ${slower(others[0], 0.5, others[1])}, p99 by ${slower(others[0], 0.99, others[1])}`,
  });
});

test("no key, token or secret is in a log line, an answer, what the origin gets or what is stored", async () => {
  const imported = `sk_${"5".repeat(32)}`;
  assert.equal((await gateway.admin("POST", `/accounts/${customer.id}/keys`, { secret: imported })).status, 201);
  assert.equal((await search(imported)).status, 200);
  const hidden = [...Object.values(secrets), customer.key, imported, customer.key.slice(PREFIX.length), bytesOf(customer.key).subarray(-32, -16)];
  const places = [
    ["a log line", Buffer.from(JSON.stringify(gateway.logs()))],
    ["what the origin got", Buffer.from(JSON.stringify(origin.requests.map(({ path, rawHeaders }) => [path, rawHeaders])))],
    ...["/me", "/usage", "/ledger"].map((page) => [page, customer.page(page)]),
    ...["", "/keys", "/balance", "/usage", "/export"].map((page) => [`/accounts/{id}${page}`, gateway.admin("GET", `/accounts/${customer.id}${page}`).then((answer) => answer.text())]),
    ...readdirSync(gateway.state, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => [entry.name, readFileSync(`${entry.parentPath}/${entry.name}`)]),
  ];
  for (const [place, waiting] of places) {
    const found = await waiting;
    const bytes = Buffer.isBuffer(found) ? found : Buffer.from(typeof found === "string" ? found : JSON.stringify(found));
    for (const [n, secret] of hidden.entries()) assert.ok(!bytes.includes(secret), `secret ${n} is in ${place}`);
  }
});

// How long calls of one account take that come one after the other.
async function latencies(count, isOver = () => false) {
  const times = [];
  while (times.length < count && !isOver()) {
    const started = performance.now();
    const { status } = await customer.call("POST", "/search");
    assert.equal(status, 200);
    times.push(performance.now() - started);
  }
  return times;
}

const toldLatency = (times) => `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`;
