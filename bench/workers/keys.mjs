// Keys of the Workers written by hand: prefix, then base64url of secret, key number, account, and a MAC over them.
export const PREFIX = "Bearer tw_live_";
const MAC_BYTES = 32;
const SECRET_BYTES = 16;

export const utf8 = new TextEncoder();
const text = new TextDecoder();

// What `secretsOf` has come to, so that only the first request waits for it.
export let secrets = null;

export async function secretsOf(env) {
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const imported = (secret, uses) => crypto.subtle.importKey("raw", utf8.encode(secret), hmac, false, uses);
  return (secrets ??= {
    callers: await imported(env.KEY_SECRET, ["sign", "verify"]),
    origin: await imported(env.ORIGIN_SECRET, ["sign"]),
  });
}

// Whose key a request carries; null where it is none, or forged.
export async function keyOf(authorization, secrets) {
  if (!authorization?.startsWith(PREFIX)) return null;
  let bytes;
  try {
    bytes = Uint8Array.fromBase64(authorization.slice(PREFIX.length), { alphabet: "base64url" });
  } catch {
    return null;
  }
  const end = bytes.length - MAC_BYTES;
  if (end <= SECRET_BYTES + 1) return null;
  const body = bytes.subarray(0, end);
  if (!(await crypto.subtle.verify("HMAC", secrets.callers, bytes.subarray(end), body))) return null;
  return {
    secret: body.subarray(0, SECRET_BYTES).toHex(),
    number: body[SECRET_BYTES],
    account: text.decode(body.subarray(SECRET_BYTES + 1)),
  };
}

// Key number 1 of an account, and its secret.
export async function newKey(account, secrets) {
  const secret = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  const body = new Uint8Array([...secret, 1, ...utf8.encode(account)]);
  const mac = new Uint8Array(await crypto.subtle.sign("HMAC", secrets.callers, body));
  const shown = new Uint8Array([...body, ...mac]).toBase64({ alphabet: "base64url", omitPadding: true });
  return { secret: secret.toHex(), shown: PREFIX.slice("Bearer ".length) + shown };
}
