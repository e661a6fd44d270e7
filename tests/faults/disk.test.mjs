// The disk under the objects' databases is full, read-only or broken for a while.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { failingDisk } from "../e2e/harness/disk.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const SPELLS = scaled(2, 40);
const HOLD_SECONDS = 10;
const TABLES = `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[[routes]]
match = "POST /work"
cost = 2
`;
const GATEWAY = `origin_timeout_seconds = 5\nhold_seconds = ${HOLD_SECONDS}\nforgive_per_day = 1000000`;

async function start(t, more) {
  const origin = await startOrigin(t);
  origin.on("/work", (exchange) => {
    reached.push(exchange.headers["x-tollgate-call"]);
    origin.requests.length = 0;
    answer({ body: "done" })(exchange);
  });
  const reached = [];
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES, GATEWAY), more });
  return { gateway, reached, account: await openAccount(gateway) };
}

// Every call that reached the origin is in the log, once; what is charged reached it.
async function isWhole({ gateway, reached, account }) {
  gateway.clock.advance((HOLD_SECONDS + 20) * 1_000);
  const { calls } = await areSound(gateway, account.id);
  const ids = new Set(calls.map(({ id }) => id));
  assert.equal(new Set(reached).size, reached.length, "a call reached the origin twice");
  for (const call of reached) assert.ok(ids.has(call), `${call} reached the origin and is not in the log`);
  const forwarded = new Set(reached);
  for (const { id, charged } of calls) assert.ok(charged === 0 || forwarded.has(id), `${id} was charged and not forwarded`);
  return calls;
}

for (const [error, what] of [
  ["ENOSPC", "full"],
  ["EROFS", "read-only"],
  ["EIO", "broken"],
])
  test(`a disk that is ${what} for a while: 503, nothing forwarded, nothing half written, and then all is well`, async (t) => {
    const disk = await failingDisk(t);
    const tried = await start(t, disk.more);
    const { gateway, reached, account } = tried;
    assert.equal((await account.finished("POST", "/work")).status, 200);

    disk.fail(error);
    const refused = await account.call("POST", "/work");
    assert.deepEqual([refused.status, refused.headers["retry-after"]], [503, "1"], refused.text());
    assert.equal(reached.length, 1);
    const grant = await gateway.admin("POST", `/accounts/${account.id}/grants`, { pool: "credits", amount: 5, source: "extra" }, { "idempotency-key": "g" });
    assert.equal(grant.status, 503, grant.text());
    disk.mend();
    const next = await account.finished("POST", "/work");
    assert.equal(next.status, 200, next.text());
    assert.equal((await account.balance()).available, 1_000_000 - 4);

    // The same again and again, at moments of its own choosing, under load.
    t.diagnostic(`seed: ${seed}`);
    const random = randomOf();
    let isOver = false;
    const statuses = new Map();
    const callers = Array.from({ length: 4 }, async () => {
      while (!isOver) {
        const { status } = await account.call("POST", "/work");
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    });
    for (let spell = 0; spell < SPELLS; spell++) {
      await sleep(random.between(10, 200));
      disk.fail(error);
      await sleep(random.between(10, 200));
      disk.mend();
    }
    isOver = true;
    await Promise.all(callers);
    const calls = await isWhole(tried);
    assert.deepEqual([...statuses.keys()].filter((status) => status !== 200 && status !== 503), []);
    show(t, {
      [`times ${what}`]: SPELLS + 1,
      answered: statuses.get(200),
      "503": statuses.get(503) ?? 0,
      "calls in the log": calls.length,
      "reached the origin": reached.length,
    });
  });

test("a file system that is really full", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-full-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]);
  t.after(async () => {
    if (mounted.status === 0) spawnSync("umount", ["--lazy", folder]);
    await rm(folder, { recursive: true, force: true });
  });
  if (mounted.status !== 0) return t.skip("nothing can be mounted here; the disk that fails by itself was tried above");

  const tried = await start(t, { durableObjectsPersist: join(folder, "state") });
  const { reached, account } = tried;
  assert.equal((await account.finished("POST", "/work")).status, 200);
  const ballast = join(folder, "ballast");
  await writeFile(ballast, Buffer.alloc(4_000_000)).catch(({ code }) => assert.equal(code, "ENOSPC"));
  let [served, refused] = [0, 0];
  while (refused < 20 && served < 5_000) {
    const { status } = await account.call("POST", "/work");
    if (status === 200) served += 1;
    else refused += 1;
    assert.ok(status === 200 || status === 503, `${status}`);
  }
  assert.equal(refused, 20, "it never came to be full");
  const before = reached.length;
  await truncate(ballast, 0);
  const next = await account.finished("POST", "/work");
  assert.equal(next.status, 200, next.text());
  assert.equal(reached.length, before + 1);
  const calls = await isWhole(tried);
  show(t, { "served while there was room": served, "503": refused, "calls in the log": calls.length });
});
