// The databases of account objects, as workerd lays them out.
import { createHash, createHmac } from "node:crypto";
import { join } from "node:path";

const NAMESPACE = createHash("sha256").update("Account").digest();
const hmac = (bytes) => createHmac("sha256", NAMESPACE).update(bytes).digest().subarray(0, 16);

export const databasesOf = (state) => join(state, "objects", "Account");

// The file is named by the object's id, which follows from its name (as miniflare works it out).
export function databaseOf(state, name) {
  const half = hmac(name);
  return join(databasesOf(state), `${Buffer.concat([half, hmac(half)]).toString("hex")}.sqlite`);
}
