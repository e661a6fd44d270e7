// A wall clock for workerd that a test can move while it runs. See moved_clock.c.
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { movedClock } from "../../../scripts/project.mjs";

export function openClock(folder) {
  const path = join(folder, "clock");
  const file = openSync(path, "w");
  let offset = 0n;

  function moveBy(milliseconds) {
    offset += BigInt(milliseconds);
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(offset);
    writeSync(file, bytes, 0, bytes.length, 0);
  }

  moveBy(0);
  return {
    // Takes hold at once, in a running gateway too. Negative: the clock steps back.
    advance: moveBy,
    // Moves to a moment given as a Date or an RFC 3339 text.
    moveTo: (moment) => moveBy(new Date(moment).getTime() - (Date.now() + Number(offset))),
    // What the gateway takes for the present.
    now: () => new Date(Date.now() + Number(offset)),
    environment: { LD_PRELOAD: movedClock.library, MOVED_CLOCK_FILE: path },
    close: () => closeSync(file),
  };
}
