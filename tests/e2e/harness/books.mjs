// What an account's books must say after anything: held against its call log and against what the origin saw.
import assert from "node:assert/strict";

// Everything about the account: its balance, entries, calls, and months whose calls were summed up.
export async function exportOf(gateway, id) {
  const answer = await gateway.admin("GET", `/accounts/${id}/export`);
  assert.equal(answer.status, 200, answer.text());
  const lines = answer.text().trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.equal(lines.at(-1).type, "end", "the export broke off");
  const of = (type) => lines.filter((line) => line.type === type);
  return { balance: of("balance")[0], entries: of("entry"), calls: of("call"), months: of("month") };
}

// The account's own audit, and every hold ended.
export async function areSound(gateway, id) {
  for (;;) {
    const answer = await gateway.admin("GET", `/accounts/${id}/audit`);
    assert.equal(answer.status, 200, answer.text());
    const audit = answer.json();
    if (audit.ok === null) continue;
    assert.equal(audit.ok, true, `${id}: ${answer.text()}`);
    break;
  }
  const { balance, calls, months, entries } = await exportOf(gateway, id);
  assert.deepEqual(calls.filter(({ held, deadline }) => held !== 0 || deadline !== null), [], `${id}: holds that nobody ended`);
  for (const [pool, { held, spent }] of Object.entries(balance.pools)) {
    assert.equal(held, 0, `${id}: ${pool}`);
    const charged = calls.filter((call) => call.pool === pool).reduce((sum, call) => sum + call.charged, 0);
    const before = months.flatMap((month) => Object.values(month.charged[pool] ?? {})).reduce((sum, lot) => sum + lot, 0);
    assert.equal(before + charged, spent, `${id}: what calls were charged and what is spent`);
  }
  return { balance, calls, entries };
}

// The most of these moments (milliseconds) that lie in any window of this length; its end is no part of it.
export function mostIn(window, moments) {
  const sorted = [...moments].sort((a, b) => a - b);
  let [most, first] = [0, 0];
  for (const [last, moment] of sorted.entries()) {
    while (moment - sorted[first] >= window) first += 1;
    most = Math.max(most, last - first + 1);
  }
  return most;
}
