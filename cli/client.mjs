// The operator's API as a typed client: paths, bodies and answers are those of src/openapi.json.
import createClient from "openapi-fetch";

/** @typedef {import("./api.js").paths} paths */
/** @typedef {import("./api.js").components["schemas"]} Schemas */
/** @typedef {import("openapi-fetch").Client<paths>} Client */

/**
 * A client of the gateway at `url`, with a token that is sent nowhere else: no redirect is followed.
 * @param {string} url
 * @param {string} token
 * @returns {Client}
 */
export function clientOf(url, token) {
  return createClient({
    baseUrl: url,
    headers: { Authorization: `Bearer ${token}` },
    redirect: "error",
  });
}
