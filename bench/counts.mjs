// What one call, job or refusal costs in rows and messages: counted, not timed.
import { setTimeout as pause } from "node:timers/promises";
import { openClock } from "../tests/e2e/harness/clock.mjs";
import { openAccount } from "./accounts.mjs";
import { digits, table } from "./table.mjs";
import { startWorker, tollgate, folder, secrets } from "./servers.mjs";
import { inProject } from "../scripts/project.mjs";

const around = ["counting", "spy"].map((name) => ({ name: `${name}.js`, path: inProject("bench", "workers", `${name}.mjs`) }));

// Tollgate with counters around its objects.
export async function startCounting({ origin, state = folder("tmpfs"), policy, environment }) {
  const server = await startWorker(tollgate({ policy, around }), { origin, state, environment });
  const base = `http://127.0.0.1:${server.port}`;
  const taken = async () => (await fetch(`${base}/_bench/counts`)).json();
  // An end may wait half a second for a message to go with.
  const takenWhenQuiet = async () => {
    const sum = {};
    for (let quiet = 0; quiet < 30;) {
      await pause(20);
      const more = await taken();
      quiet = more.messages + more.alarms === 0 ? quiet + 1 : 0;
      add(sum, more);
    }
    return sum;
  };
  return {
    ...server,
    base,
    taken,
    takenWhenQuiet,
    // How many messages, rows and alarms `work` takes, what it does in the background included.
    async counted(work) {
      await taken();
      await work();
      return takenWhenQuiet();
    },
    async ask(method, path, key, headers = {}) {
      const answer = await fetch(`${base}/api/external/v1${path}`, {
        method,
        headers: { ...(key && { authorization: `Bearer ${key}` }), "cf-connecting-ip": "192.0.2.1", ...headers },
        body: method === "POST" ? "{}" : undefined,
      });
      await answer.arrayBuffer();
      return answer;
    },
  };
}

function add(sum, more) {
  for (const [name, count] of Object.entries(more)) sum[name] = name === "wasmBytes" ? count : (sum[name] ?? 0) + count;
}

const BUSY_CALLS = 1_280;

export async function counts(origin) {
  const server = await startCounting({ origin });
  const { ask, counted, port, base } = server;
  const key = await openAccount(port, "busy");
  const flooded = await openAccount(port, "flooded", "flood");
  const poor = await openAccount(port, "poor", "flood");
  const jobs = await openAccount(port, "jobs", "waits");
  const times = async (count, work) => {
    for (let index = 0; index < count; index++) await work();
  };
  // A month's first call makes its table, and the first alarm is set: not part of the routine.
  await counted(() => ask("POST", "/search", key));
  await counted(() => ask("POST", "/search", jobs));
  const told = {};
  told.call = await counted(() => times(BUSY_CALLS, () => ask("POST", "/search", key)));
  let opened;
  told.job = await counted(async () => {
    opened = await ask("POST", "/train", jobs);
    await pause(50);
    const ended = await fetch(`${base}/_tollgate/v1/calls/${opened.headers.get("x-request-id")}/settle`, {
      method: "POST",
      headers: { authorization: `Bearer ${secrets.ORIGIN_TOKEN}`, "content-type": "application/json" },
      body: '{"credits":4}',
    });
    if (!ended.ok) throw new Error(await ended.text());
  });
  await counted(() => ask("GET", "/tracks/1", flooded));
  told.firstRefusal = await counted(() => ask("GET", "/tracks/1", flooded));
  told.repeatedRefusal = await counted(() => times(100, () => ask("GET", "/tracks/1", flooded)));
  // It may have fallen asleep meanwhile.
  await counted(() => ask("GET", "/me", poor));
  told.noCredits = await counted(() => ask("POST", "/search", poor));
  told.forged = await counted(() => times(100, () => ask("POST", "/search", `${key.slice(0, -3)}AAA`)));
  told.malformed = await counted(() => times(100, () => ask("POST", "/search", "tk_live_nonsense")));
  told.me = await counted(() => ask("GET", "/me", key));
  await server.stop();
  for (const [name, calls] of [["call", BUSY_CALLS], ["repeatedRefusal", 100], ["forged", 100], ["malformed", 100]]) {
    for (const what of ["messages", "rowsWritten", "rowsRead", "alarmsSet", "alarms", "statements"]) told[name][what] /= calls;
  }
  return told;
}

export function showCounts(told) {
  const names = {
    call: `charged call (of ${digits(BUSY_CALLS)}, snapshots included)`,
    job: "job: opened, and ended by the origin",
    firstRefusal: "refused for a limit, the first time",
    repeatedRefusal: "refused again, from memory",
    noCredits: "refused for credits",
    forged: "forged key",
    malformed: "malformed key",
    me: "self-service page /me",
  };
  const rows = Object.entries(names).map(([name, title]) => {
    const { messages, rowsWritten, rowsRead } = told[name];
    return [title, digits(messages, 2), digits(rowsWritten, 3), digits(rowsRead, 3)];
  });
  console.log(`\nCounted for each\n\n${table(["", "object calls", "rows written", "rows read"], rows)}`);
}

// What an account that calls once an hour takes for each call, until nothing is left to do: the call, the alarm after its
// hold, and the one that tells the directory of its hour. The clock is moved, and workerd started anew on it: an alarm
// that is overdue goes off at once.
export async function countLoneCall(origin) {
  const state = folder("tmpfs");
  const clock = openClock(state);
  const start = () => startCounting({ origin, state, environment: clock.environment });
  let server = await start();
  const key = await openAccount(server.port, "seldom");
  const sleep = async (minutes) => {
    await server.stop();
    clock.advance(minutes * 60_000);
    server = await start();
  };
  const alarmAfter = async (minutes) => {
    await sleep(minutes);
    const sum = {};
    for (let tries = 0; !(sum.alarms > 0); tries++) {
      if (tries === 20) throw new Error(`no alarm went off after ${minutes} minutes`);
      add(sum, await server.takenWhenQuiet());
    }
    return sum;
  };
  let told;
  // The first makes the month's table, and comes in the hour in which the account was opened.
  for (let calls = 0; calls < 2; calls++) {
    await sleep(0);
    told = await server.counted(() => server.ask("POST", "/search", key));
    // Its hold is over; its hour is, and the half hour in which accounts tell it.
    for (const minutes of [6, 90]) add(told, await alarmAfter(minutes));
  }
  await server.stop();
  clock.close();
  return told;
}
