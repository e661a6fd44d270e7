// Timed cases: every contender in turn, round after round, so that what else the machine does meets them
// all alike. Medians over the rounds; a ratio is the median of the ratios within each round. But the slowest hundredth of
// the calls is that of all rounds together: in one round a garbage collection comes twice, and in another not at all.
import { setTimeout as pause } from "node:timers/promises";
import { load } from "./load.mjs";
import { cpuSeconds } from "./servers.mjs";

export const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// `contenders` are { name, port, pid, requests }; each must answer 200, or what `statusOf` says. What is asked in the first
// `uncounted` seconds of a round counts for the processor time alone. Gives for each the rounds it went through:
// { rate, p50, micros, cpuMicros }.
export async function rounds(contenders, { callers, seconds, uncounted = 0, count, statusOf = {} }) {
  const told = new Map(contenders.map(({ name }) => [name, []]));
  for (let round = -1; round < count; round++) {
    // Whoever comes first or last is another one each time.
    const order = contenders.map((_, place) => contenders[(place + Math.max(round, 0)) % contenders.length]);
    for (const { name, port, pid, requests, restMillis = 60 } of order) {
      const cpu = cpuSeconds(pid);
      // The first round warms up and is not counted.
      const one = await load({ port, callers, seconds: round < 0 ? seconds / 3 : seconds, uncounted, requests });
      // What is done in the background is finished before the next one's turn.
      await pause(restMillis);
      const status = statusOf[name] ?? 200;
      const answered = one.statuses[status] ?? 0;
      if (answered < one.requests * 0.999 || one.broken > 0) {
        throw new Error(`${name} answered ${JSON.stringify(one.statuses)}, ${one.broken} broke; expected ${status}`);
      }
      if (round < 0) continue;
      const rate = one.requests / one.seconds;
      const cpuMicros = ((cpuSeconds(pid) - cpu) / (one.requests + one.uncounted)) * 1e6;
      told.get(name).push({ rate, p50: median(one.micros), micros: one.micros, cpuMicros });
    }
  }
  return told;
}

export const medianOf = (rounds, what) => median(rounds.map((round) => round[what]));

// What 99 of 100 calls of all rounds waited for at most, in microseconds.
export function p99(rounds) {
  const micros = rounds.flatMap((round) => round.micros).sort((one, other) => one - other);
  return micros[Math.floor((micros.length - 1) * 0.99)];
}

export const ratio = (rounds, against, what) => median(rounds.map((round, at) => round[what] / against[at][what]));
