// A disk that fails workerd's writes while a test says so. See failing_disk.c.
//
//   const disk = await failingDisk(t);
//   const gateway = await startGateway(t, { policy, more: disk.more });
//   disk.fail("ENOSPC");        // full; "EROFS": read-only; "EIO": broken
//   disk.mend();
import { closeSync, openSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { failingDisk as preloaded } from "../../../scripts/project.mjs";

export async function failingDisk(t) {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-disk-"));
  const path = join(folder, "disk");
  const file = openSync(path, "w");
  const set = (errno) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(errno));
    writeSync(file, bytes, 0, bytes.length, 0);
  };
  set(0);
  t.after(async () => {
    closeSync(file);
    await rm(folder, { recursive: true, force: true });
  });
  return {
    more: { environment: { LD_PRELOAD: preloaded.library, FAILING_DISK_FILE: path } },
    fail: (name) => set(constants.errno[name]),
    mend: () => set(0),
  };
}
