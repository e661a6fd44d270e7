// An operator's program on the generated client. `npm test` checks its types (cli/tsconfig.json), and
// openapi.test.mjs runs it.
import { clientOf } from "../../cli/client.mjs";

const V1 = "/_tollgate/v1";
const NEW_GRANT = { pool: "credits", amount: 500, source: /** @type {const} */ ("extra") };

/**
 * Opens an account with credits and a key, and tells what the gateway made of it.
 * @param {string} url
 * @param {string} token
 */
export async function signUp(url, token) {
  const client = clientOf(url, token);
  const path = { id: "typed" };
  const header = (/** @type {string} */ key) => ({ "Idempotency-Key": key });
  const opened = await client.POST(`${V1}/accounts`, {
    params: { header: header("open") },
    body: { ...path, plan: "starter" },
  });
  const granted = await client.POST(`${V1}/accounts/{id}/grants`, {
    params: { path, header: header("grant") },
    body: NEW_GRANT,
  });
  const issued = await client.POST(`${V1}/accounts/{id}/keys`, {
    params: { path, header: header("key") },
    body: { name: "shop", limits: { requests_per_minute: 100, requests_per_day: "unlimited" } },
  });
  const { data: balance } = await client.GET(`${V1}/accounts/{id}/balance`, { params: { path } });
  const { data: usage } = await client.GET(`${V1}/accounts/{id}/usage`, {
    params: { path, query: { limit: 1 } },
  });
  /** @type {"active" | "suspended" | "closed" | undefined} */
  const status = opened.data?.status;
  /** @type {number | undefined} */
  const lot = granted.data?.available;
  /** @type {string | null | undefined} */
  const key = issued.data?.key;
  return { status, lot, key, available: balance?.pools.credits?.available, calls: usage?.total_count };
}

/**
 * What a program may not say, neither in its types nor to the gateway. Resolves with the codes and fields.
 * @param {string} url
 * @param {string} token
 */
export async function mistakes(url, token) {
  const client = clientOf(url, token);
  const [header, path] = [{ "Idempotency-Key": "typed-2" }, { id: "typed" }];
  const params = { path, header };
  const answers = [
    // @ts-expect-error a plan is needed
    await client.POST(`${V1}/accounts`, { params: { header }, body: { id: "other" } }),
    // @ts-expect-error there is no such source
    await client.POST(`${V1}/accounts/{id}/grants`, { params, body: { ...NEW_GRANT, source: "gift" } }),
    // @ts-expect-error credits are not made without a key that the request is known by
    await client.POST(`${V1}/accounts/{id}/grants`, { params: { path }, body: NEW_GRANT }),
    // @ts-expect-error there is no such status
    await client.PATCH(`${V1}/accounts/{id}`, { params: { path }, body: { status: "asleep" } }),
  ];
  return answers.map(({ error }) => [error?.code, error?.field]);
}
