// An account with one key, opened over the operating API: what most tests of a call need first.
import assert from "node:assert/strict";

// Resolves with { id, key, keyId, balance(pool), standing() }. `account` goes into POST /accounts.
export async function openCustomer(gateway, { plan = "free", id = "acme", ...account } = {}) {
  const opened = await gateway.admin(
    "POST",
    "/accounts",
    { id, plan, ...account },
    { "idempotency-key": `open-${id}` },
  );
  assert.equal(opened.status, 201, opened.text());
  const created = await gateway.admin("POST", `/accounts/${id}/keys`, {}, { "idempotency-key": `key-${id}` });
  assert.equal(created.status, 201, created.text());
  const { key, id: keyId } = created.json();
  return {
    id,
    key,
    keyId,
    // How a pool stands: { available, held, spent, … }.
    async balance(pool = "credits") {
      return (await gateway.admin("GET", `/accounts/${id}/balance`)).json().pools[pool];
    },
  };
}
