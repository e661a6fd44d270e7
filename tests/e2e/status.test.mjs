// What an operator watches: GET /status, and points for Analytics Engine.
import assert from "node:assert/strict";
import test from "node:test";
import { inProject } from "../../scripts/project.mjs";
import { modulesOf } from "../../scripts/runtime.mjs";
import { openAccount, policyFor } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { hold, startOrigin } from "./harness/origin.mjs";

const TABLES = `
[pools.credits]
[plans.free]
requests_per_minute = 2
[[routes]]
match = "GET /work"
cost  = 0
`;
const HOUR = 3_600_000;

const origin = await startOrigin(test);
const policy = policyFor(origin, TABLES);

const status = async (gateway, query = "") => {
  const answer = await gateway.admin("GET", `/status${query}`);
  assert.equal(answer.status, 200, answer.text());
  return answer.json();
};

// Accounts tell in the background: asks until the hours are as `matches` wants them.
async function told(gateway, matches) {
  for (const until = Date.now() + 10_000; ; ) {
    const { data } = await status(gateway);
    if (matches(data)) return data;
    assert.ok(Date.now() < until, JSON.stringify(data));
  }
}

test("what requests came to is told once an hour, by busy accounts and by idle ones", async (t) => {
  const faults = objectFaults(policy);
  const gateway = await startGateway(t, { policy, more: faults.more });
  const { clock } = gateway;
  clock.stop("2031-03-10T12:10:00Z");
  assert.deepEqual(await status(gateway), {
    as_of: "2031-03-10T11:00:00Z",
    from: "2031-03-09T12:00:00Z",
    to: "2031-03-10T12:10:00Z",
    data: [],
    next: null,
  });
  const [busy, idle] = [await openAccount(gateway, { id: "busy" }), await openAccount(gateway, { id: "idle" })];
  for (const account of [busy, idle]) {
    await account.finished("GET", "/work");
    await account.finished("GET", "/work");
  }
  // Refused by the object, then again and again by the isolate, which tells of it with the next call.
  for (let n = 0; n < 4; n++) assert.equal((await busy.call("GET", "/work")).status, 429);
  clock.advance(61_000);
  const { line } = await busy.finished("GET", "/work");
  assert.equal(line.rows, 2);
  assert.deepEqual((await status(gateway)).data, []);

  // The hour is over. The busy account tells of it beside its next call, whatever is lost on the way.
  const before = faults.directory.messages;
  faults.directory.plan("lose", "break");
  for (const n of [1, 2, 3]) {
    clock.advance(2 * HOUR);
    assert.equal((await busy.finished("GET", "/work")).line.rows, 2);
    await faults.directory.told(before + n);
  }
  const counted = { unavailable: 0, ended_unknown: 0, late_settles: 0, failed_audits: 0 };
  const first = { hour: "2031-03-10T12:00:00Z", admitted: 3, refused: { rate_limited: 4 }, ...counted };
  const later = ["2031-03-10T16:00:00Z", "2031-03-10T14:00:00Z"].map((hour) => ({
    hour,
    admitted: 1,
    refused: {},
    ...counted,
  }));
  assert.deepEqual(await told(gateway, (data) => data.length === 3), [...later, first]);

  // Nobody calls the other one; its alarm comes with a restart, as the runtime's timers stand still here.
  await gateway.kill();
  await gateway.restart();
  first.admitted += 2;
  await told(gateway, (data) => data.at(-1).admitted === first.admitted);
  const day = await status(gateway, "?from=2031-03-10T12:00:00Z&to=2031-03-10T13:00:00Z");
  assert.deepEqual(day.data, [first]);
  const wrong = await gateway.admin("GET", "/status?from=2031-03-10T12:00:00Z&to=2031-03-10T12:00:00Z");
  assert.deepEqual([wrong.status, wrong.json().field], [400, "from"]);
});

// A dataset that tells the test what is written to it, in the log.
const ENTRY = `
import * as deployed from "./entry.js";
export * from "./entry.js";
const ANALYTICS = { writeDataPoint: (point) => console.log(JSON.stringify({ point })) };
export default { fetch: (request, env, context) => deployed.default.fetch(request, { ...env, ANALYTICS }, context) };
export class Account extends deployed.Account {
  constructor(state, env) {
    super(state, { ...env, ANALYTICS });
  }
}
`;

test("with a dataset bound, each request is a point in it, and holds that nobody ended are", async (t) => {
  const entry = { type: "ESModule", path: inProject("dist", "analytics-entry.js"), contents: ENTRY };
  const gateway = await startGateway(t, { policy, more: { modules: [entry, ...modulesOf(policy)] } });
  gateway.clock.stop("2031-03-10T12:10:00Z");
  const pointOf = async (matches) => (await gateway.log(({ point }) => point && matches(point))).point;
  const account = await openAccount(gateway, { id: "watched" });
  const { line } = await account.finished("GET", "/work");
  const called = await pointOf(({ indexes, doubles }) => indexes[0] === "watched" && doubles[3] === 1);
  assert.deepEqual(called, {
    indexes: ["watched"],
    blobs: ["request", "", "", "/work", "GET", "key_watched_1"],
    doubles: [200, line.ms, line.rows, 1, 0, 0, 0],
  });
  // What no account's object ever hears of.
  assert.equal((await gateway.call("tk_live_forged", "GET", "/work")).status, 401);
  const forged = await pointOf(({ blobs }) => blobs[1] === "invalid_key");
  assert.deepEqual([forged.indexes, forged.doubles[0], forged.doubles[3]], [[""], 401, 0]);
  assert.equal((await gateway.call(account.key, "GET", "/nothing")).status, 404);
  assert.equal((await pointOf(({ blobs }) => blobs[1] === "no_route")).blobs[4], "GET");

  // The origin is silent, and everything falls: nobody ends the call.
  const silent = hold();
  origin.on("/work", silent);
  gateway.open("GET", "/work", { headers: { authorization: `Bearer ${account.key}` } }).end().catch(() => {});
  await silent.next();
  await gateway.kill();
  gateway.clock.advance(2 * HOUR);
  await gateway.restart();
  const hour = await pointOf(({ blobs }) => blobs[0] === "hour");
  assert.deepEqual([hour.indexes, hour.doubles], [["watched"], [0, 0, 0, 0, 1, 0, 0]]);

  const points = gateway.logs().filter(({ point }) => point);
  const requests = gateway.logs().filter(({ request_id }) => request_id);
  assert.equal(points.filter(({ point }) => point.blobs[0] === "request").length, requests.length);
  assert.ok(!JSON.stringify(points).includes(account.key));
});
