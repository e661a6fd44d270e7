// workerd's memory, as the kernel counts it: Tollgate's isolate and all else of the runtime.
import { readFileSync, readdirSync } from "node:fs";

// In megabytes, of the only workerd that this process has started: "VmRSS" what it has now, "VmHWM" the most it had.
export function residentMegabytes(field = "VmRSS") {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const value = (name) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)[1];
      if (value("PPid") === String(process.pid) && value("Name") === "workerd") return value(field) / 1_000;
    } catch {
      // It ended meanwhile.
    }
  }
  throw new Error("workerd is no child of this process");
}
