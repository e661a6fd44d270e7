// What a million charged calls cost their operator, at Cloudflare's published prices (Workers Paid plan,
// read in its documentation in November 2026), beyond what the plan includes.
import { digits, table } from "./table.mjs";

const PRICES = {
  rowWritten: 1.0 / 1e6,
  rowRead: 0.001 / 1e6,
  objectRequest: 0.15 / 1e6,
  workerRequest: 0.3 / 1e6,
  cpuMillisecond: 0.02 / 1e6,
  gigabyteSecond: 12.5 / 1e6,
};
// An object is billed as 128 MB while it carries out a message, its commit included, and not while it is idle
// and could hibernate, as Tollgate's always can: it never waits for anything else.
const GIGABYTES = 0.128;
// Read: a commit takes 5 to 13 ms in production. It is the greater part of a message's time.
const MESSAGE_SECONDS = 0.013;

// `busy` is what one of many calls took, `lone` the only call of an hour, until nothing was left to do.
export function bill({ busy, lone, cpuMicros }) {
  const micros = cpuMicros ?? 1_000;
  const columns = [busy, lone].map((counted) => {
    const requests = counted.messages + counted.alarms;
    return {
      "rows written": (counted.rowsWritten + counted.alarmsSet) * PRICES.rowWritten,
      "rows read": counted.rowsRead * PRICES.rowRead,
      "object requests": requests * PRICES.objectRequest,
      "Worker request": PRICES.workerRequest,
      CPU: (micros / 1000) * PRICES.cpuMillisecond,
      duration: requests * MESSAGE_SECONDS * GIGABYTES * PRICES.gigabyteSecond,
    };
  });
  const names = Object.keys(columns[0]);
  const dollars = (perCall) => `$${digits(perCall * 1e6, 3)}`;
  const sum = (column) => names.reduce((total, name) => total + column[name], 0);
  const rows = names.map((name) => [name, ...columns.map((column) => dollars(column[name]))]);
  rows.push(["together", ...columns.map((column) => dollars(sum(column)))]);
  console.log(`\nBill for a million charged calls\n\n${table(["", "busy account", "one call an hour"], rows)}`);
  const origin = cpuMicros === null ? "assumed" : "measured here, the objects' share and the runtime's own included";
  console.log(`\nCPU: ${digits(micros)} µs a call, ${origin}.`);
}
