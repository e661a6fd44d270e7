// A wall clock for workerd that a test can move, and stop, while it runs. See moved_clock.c.
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { movedClock } from "../../../scripts/project.mjs";

export function openClock(folder) {
  const path = join(folder, "clock");
  const file = openSync(path, "w");
  let offset = 0;
  let stoppedAt = null;

  const now = () => (stoppedAt ?? Date.now()) + offset;

  function set(changed) {
    ({ offset, stoppedAt } = { offset, stoppedAt, ...changed });
    const bytes = Buffer.alloc(16);
    bytes.writeBigInt64LE(BigInt(offset), 0);
    bytes.writeBigInt64LE(BigInt(stoppedAt ?? 0), 8);
    writeSync(file, bytes, 0, bytes.length, 0);
  }

  set({});
  return {
    // Takes hold at once, in a running gateway too. Negative: the clock steps back.
    advance: (milliseconds) => set({ offset: offset + milliseconds }),
    // Moves to a moment given as a Date, its milliseconds or an RFC 3339 text.
    moveTo: (moment) => set({ offset: offset + new Date(moment).getTime() - now() }),
    // Stops it, here or at a moment: from now on it moves by `advance` and `moveTo` alone.
    stop(moment) {
      set({ stoppedAt: Date.now() });
      if (moment !== undefined) this.moveTo(moment);
    },
    // What the gateway takes for the present.
    now: () => new Date(now()),
    environment: { LD_PRELOAD: movedClock.library, MOVED_CLOCK_FILE: path },
    close: () => closeSync(file),
  };
}
