// The operating API as an import uses it. What opens an account or makes credits has an Idempotency-Key that
// follows from what it is about, so that whatever is sent again, now or in a week, is done once. A key is
// imported once by its secret: under an Idempotency-Key a refusal would stay for a day, whatever was mended, and
// so would the word that a key is there which was revoked since.
import { createHash } from "node:crypto";
import { setTimeout } from "node:timers/promises";

const ATTEMPTS = 7;
const TIMEOUT = 30_000;
const WAIT_LONGEST = 30_000;

// The gateway cannot be asked any further: what is left has to wait for another run.
export class Unavailable extends Error {}

// The gateway said no, for this reason.
export class Refused extends Error {}

export function gatewayAt(url, token) {
  async function ask(method, path, about, body) {
    for (let attempt = 1; ; attempt++) {
      const answer = await once(method, path, about, body).catch((error) => ({ failed: error }));
      if (answer.status === 401 || answer.status === 403) {
        throw new Unavailable(`the gateway does not take the token (${answer.status})`);
      }
      const mayHelp = answer.failed || answer.status === 429 || answer.status >= 500;
      if (!mayHelp) return answer;
      if (attempt === ATTEMPTS) {
        const what = answer.failed ? (answer.failed.cause?.code ?? answer.failed.name) : answer.status;
        throw new Unavailable(`the gateway did not answer, ${ATTEMPTS} times (${what})`);
      }
      const told = Number(answer.retryAfter ?? 0) * 1_000;
      await setTimeout(Math.min(WAIT_LONGEST, Math.max(told, 200 * 2 ** attempt * (0.5 + Math.random()))));
    }
  }

  async function once(method, path, about, body) {
    const response = await fetch(`${url}/_tollgate/v1${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body && { "content-type": "application/json" }),
        ...(about && { "idempotency-key": idempotencyKey(about) }),
      },
      body: body && JSON.stringify(body),
      // The token and the keys go to this address and to no other.
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT),
    });
    const text = await response.text();
    return { status: response.status, retryAfter: response.headers.get("retry-after"), told: parsed(text) };
  }

  return {
    // The id of the account with this external id, which is opened if there is none.
    async openAccount({ external_id, plan }) {
      const opened = await ask("POST", "/accounts", ["account", external_id], { external_id, plan });
      if (opened.status === 201) return opened.told.id;
      if (opened.status === 422) throw new Refused("plan: the account was imported on another one before");
      if (opened.status === 409 && opened.told.field === "external_id") {
        const found = await ask("GET", `/accounts?external_id=${encodeURIComponent(external_id)}`);
        const [account] = found.told.data ?? [];
        if (account?.plan === plan) return account.id;
        throw new Refused("external_id: there is an account with it, on another plan");
      }
      throw refusal(opened, {
        external_id: "expected 1 to 128 printable ASCII characters",
        plan: "the policy has no such plan",
      });
    },

    // The credits that the account brings along: an `extra` lot in the pool `credits`.
    async grantCredits(id, external_id, amount) {
      const body = { pool: "credits", amount, source: "extra", reference: "import" };
      const granted = await ask("POST", `/accounts/${id}/grants`, ["credits", external_id], body);
      if (granted.status === 422) throw new Refused("credits: another amount was imported before");
      if (granted.status !== 201) throw refusal(granted, { pool: "the policy has no pool named credits" });
    },

    async importKey(id, secret) {
      const imported = await ask("POST", `/accounts/${id}/keys`, null, { secret });
      if (imported.status === 201) return;
      const { code, field, detail } = imported.told;
      // What the gateway says of a secret is said without it; and where nothing is named, of the account.
      if (code === "conflict" && !field) throw new Refused(`key: ${detail}`);
      throw refusal(imported, { secret: detail?.replace(/^secret: /, "") });
    },
  };
}

// In the words of `reasons`, by field: what the gateway says may repeat what it was sent.
function refusal({ status, told }, reasons) {
  const { field, code = "" } = told;
  const name = field === "secret" ? "key" : field;
  const why = reasons[field] ?? `the gateway answers ${status} ${code}`.trim();
  return new Refused(name ? `${name}: ${why}` : why);
}

const idempotencyKey = (about) => `import-${createHash("sha256").update(JSON.stringify(about)).digest("hex")}`;

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
