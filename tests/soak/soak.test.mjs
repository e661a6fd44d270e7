// Load for as long as one likes: `npm run soak -- --minutes N`. Memory of workerd and of the wasm stay as they are,
// nothing goes wrong, and answers take as long at the end as at the beginning.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { modulesOf } from "../../scripts/runtime.mjs";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes, wasmMegabytes, withWasmLook } from "../e2e/harness/memory.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { percentile, randomOf, seed, show } from "../e2e/harness/scale.mjs";

const MINUTES = Number(process.env.TOLLGATE_MINUTES ?? 30);
const SAMPLE_EVERY_MS = Math.min(5_000, (MINUTES * 60_000) / 40);
// Each caller pauses after each call: the machine is not to be tried, but time.
const [CALLERS, PAUSE_MS] = [8, 15];

const TABLES = `
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[plans.busy]
grants = [{ pool = "credits", amount = 100000000, renews = "never" }]
[plans.limited]
requests_per_minute = 30
grants = [{ pool = "credits", amount = 100000000, renews = "never" }]
[plans.poor]
[[routes]]
match = "POST /work"
cost = 1
[[routes]]
match = "POST /priced"
charge = { rate = 1, unit = 10, from = "body.minutes", maximum = 100 }
[[routes]]
match = "GET /whole"
cost = 1
whole_body = true
[[routes]]
match = "POST /once"
cost = 1
idempotency = "origin"
`;

test(`${MINUTES} minutes of load`, { timeout: (MINUTES + 4) * 60_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  const origin = await startOrigin(t);
  const body = Buffer.alloc(20_000, "x");
  for (const path of ["/work", "/priced", "/whole", "/once"])
    origin.on(path, ({ outgoing }) => {
      origin.requests.length = 0;
      if (random.below(20) === 0) outgoing.writeHead(500);
      outgoing.end(body);
    });
  const policy = policyFor(origin, TABLES);
  const gateway = await startGateway(t, { policy, more: { modules: withWasmLook(modulesOf(policy)) } });
  const [busy, limited, poor] = [await open("busy"), await open("limited"), await open("poor")];

  const ways = [
    ...Array(6).fill([() => busy.call("POST", "/work"), [200, 500]]),
    [() => busy.call("POST", "/priced", { body: { minutes: random.between(1, 900) } }), [200, 500]],
    [() => busy.call("GET", "/whole"), [200, 500]],
    [() => busy.call("POST", "/once", { headers: { "idempotency-key": `key-${random.below(10_000)}` } }), [200, 409, 500]],
    [() => busy.call("GET", random.one(["/me", "/usage?limit=20", "/get-credits"])), [200, 429]],
    [() => limited.call("POST", "/work"), [200, 429, 500]],
    [() => poor.call("POST", "/work"), [402]],
    [() => gateway.call(`tk_live_${random.below(2 ** 31).toString(36).padEnd(60, "A")}`, "POST", "/work"), [401]],
    [() => gateway.call(`sk_${random.below(2 ** 31).toString(16).padStart(32, "0")}`, "POST", "/work"), [401, 429]],
    [() => busy.call("POST", "/nothing"), [404]],
    [() => gateway.admin("GET", "/accounts/busy/balance"), [200]],
  ];
  const started = performance.now();
  const ends = started + MINUTES * 60_000;
  const took = [];
  let requests = 0;
  const callers = Array.from({ length: CALLERS }, async () => {
    while (performance.now() < ends) {
      const [ask, statuses] = random.one(ways);
      const asked = performance.now();
      const { status } = await ask();
      assert.ok(statuses.includes(status), `${status} of ${ask}`);
      took.push([asked, performance.now() - asked]);
      requests += 1;
      await sleep(PAUSE_MS);
    }
  });
  const samples = [];
  const sampling = (async () => {
    while (performance.now() < ends) {
      samples.push({ at: performance.now(), resident: residentMegabytes(), wasm: await wasmMegabytes(gateway) });
      await sleep(SAMPLE_EVERY_MS);
    }
  })();
  await Promise.all([...callers, sampling]);
  gateway.clock.advance(400_000);
  for (const { id } of [busy, limited]) await areSound(gateway, id);

  // The first half is for warming up.
  const half = samples.slice(samples.length >> 1);
  const hours = (half.at(-1).at - half[0].at) / 3_600_000;
  const slope = (of) => slopeOf(half.map((sample) => [sample.at / 3_600_000, of(sample)]));
  const third = (MINUTES * 60_000) / 3;
  const p99 = (from) => percentile(took.filter(([asked]) => asked - started >= from && asked - started < from + third).map(([, time]) => time), 0.99);
  const [early, late] = [p99(0), p99(2 * third)];
  const wrong = gateway.logs().filter(({ level, event }) => level === "error" || event);
  show(t, {
    minutes: MINUTES,
    requests,
    "workerd at half time": `${half[0].resident.toFixed(0)} MB, at the end ${half.at(-1).resident.toFixed(0)} MB`,
    slope: `${slope(({ resident }) => resident).toFixed(1)} MB an hour`,
    wasm: `${half[0].wasm.toFixed(1)} MB, at the end ${half.at(-1).wasm.toFixed(1)} MB`,
    "p99 in the first third": `${early.toFixed(1)} ms`,
    "in the last": `${late.toFixed(1)} ms`,
    "lines that tell of faults": wrong.length,
  });
  assert.deepEqual(wrong, []);
  // What is kept by right, a digest of an operation here and an hour's line there, is far below this.
  const grown = slope(({ resident }) => resident) * hours;
  assert.ok(grown < 60, `workerd grew by ${grown.toFixed(0)} MB in its second half`);
  assert.ok(half.at(-1).wasm - half[0].wasm < 8, "the wasm's memory grew");
  assert.ok(late < 3 * early + 50, `p99 went from ${early} to ${late} ms`);

  async function open(plan) {
    return openAccount(gateway, { id: plan, plan });
  }
});

// Least squares.
function slopeOf(points) {
  const mean = (of) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean(([at]) => at), mean(([, value]) => value)];
  const spread = points.reduce((sum, [at]) => sum + (at - x) ** 2, 0);
  return spread === 0 ? 0 : points.reduce((sum, [at, value]) => sum + (at - x) * (value - y), 0) / spread;
}
