// The clock of the machine steps while calls run: ahead, back, over a day's, a month's and a year's end.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const STEPS = scaled(15, 400);
const GRANT = 300;
const OPENED = Date.parse("2027-11-28T23:59:00Z");
const [SECOND, MINUTE, HOUR, DAY] = [1_000, 60_000, 3_600_000, 86_400_000];
const JUMPS = [HOUR, -HOUR, DAY, -DAY, 35 * DAY, -35 * DAY, MINUTE, -MINUTE, 100, -100, 59 * SECOND, -61 * SECOND];

test("however the clock steps, nobody waits longer than a minute for it, and credits are renewed once", { timeout: 600_000 }, async (t) => {
  const random = randomOf();
  t.diagnostic(`seed: ${seed}`);
  const origin = await startOrigin(t);
  origin.on("/work", answer({ body: "done" }));
  const gateway = await startGateway(t, {
    policy: policyFor(origin, `
[pools.credits]
[plans.monthly]
paid = true
requests_per_minute = 5
grants = [{ pool = "credits", amount = ${GRANT}, renews = "monthly" }]
[[routes]]
match = "POST /work"
cost = 1
`, "hold_seconds = 60\norigin_timeout_seconds = 30\nforgive_per_day = 1000000"),
  });
  const { clock } = gateway;
  clock.stop(new Date(OPENED).toISOString());
  const account = await openAccount(gateway, { id: "acme", plan: "monthly", subscription: { status: "active", billing_day: 31 } });
  let latest = clock.now().getTime();
  let longest = 0;
  const statuses = new Map();
  // What was done, for whoever has to find out why it failed.
  const trace = [];
  // When calls were made, as the clock was read then.
  const made = [];
  const note = ({ status, headers }) => {
    trace.push(`${clock.now().toISOString()} ${status} ${headers["retry-after"] ?? ""}`);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    if (status === 200) made.push(clock.now().getTime());
  };
  for (let step = 0; step < STEPS; step++) {
    // Some calls are under way while it steps.
    const under_way = Array.from({ length: 4 }, () => account.call("POST", "/work"));
    if (step % 3 === 2) clock.moveTo(latest + random.between(0, 40 * DAY));
    else clock.advance(random.one(JUMPS) + random.between(-500, 500));
    latest = Math.max(latest, clock.now().getTime());
    for (const answered of await Promise.all(under_way)) note(answered);
    // Whoever is told to wait by the minute waits for a minute at most, and then passes.
    for (let full = 0; full < 6; full++) {
      let refused = await account.call("POST", "/work");
      note(refused);
      // Only what lies less than a minute ahead is waited for: there the window stays exact by the log as well.
      const now = clock.now().getTime();
      const ahead = Math.max(0, ...made.map((moment) => moment - now).filter((ahead) => ahead <= MINUTE));
      const most = 61 + Math.ceil(ahead / SECOND);
      let waited = 0;
      // An isolate that the clock steps back for may repeat a refusal of the seconds before, and tell too short a wait.
      while (refused.status === 429) {
        const wait = Number(refused.headers["retry-after"]);
        assert.ok(wait >= 1, `${wait} s`);
        waited += wait;
        assert.ok(waited <= most, `${waited} s, with calls ${ahead} ms ahead:\n${trace.slice(-20).join("\n")}`);
        clock.advance(wait * SECOND);
        latest = Math.max(latest, clock.now().getTime());
        refused = await account.call("POST", "/work");
        note(refused);
      }
      longest = Math.max(longest, waited);
      assert.ok([200, 402].includes(refused.status), refused.text());
      if (waited > 0 || refused.status === 402) break;
    }
  }
  clock.moveTo(latest + 2 * MINUTE);
  const { entries, balance } = await areSound(gateway, "acme");
  // One grant when it was opened and one for each month that has begun by the latest time seen, each dated at its moment.
  const renewals = entries.filter(({ kind }) => kind === "renewed").map(({ timestamp }) => Date.parse(timestamp));
  assert.deepEqual(renewals, [OPENED, ...monthEnds(OPENED, latest + 2 * MINUTE)]);
  const { available, spent } = balance.pools.credits;
  assert.ok(available <= GRANT, `${available}`);
  show(t, {
    steps: STEPS,
    "latest time seen": new Date(latest).toISOString(),
    renewals: renewals.length,
    spent,
    "longest wait": `${longest} s`,
    answers: [...statuses].map(([status, count]) => `${status} × ${count}`).join(", "),
  });
});

// When the months end of an account that is billed on day 31, the last of each month, after `first` and by `last`.
function monthEnds(first, last) {
  const ends = [];
  const opened = new Date(first);
  for (let month = opened.getUTCMonth() + 1; ; month++) {
    const end = Date.UTC(opened.getUTCFullYear(), month, 0);
    if (end > last) return ends;
    ends.push(end);
  }
}
