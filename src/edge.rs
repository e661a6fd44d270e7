//! A skeleton of the Worker that proves the pipeline: wasm exports, RPC to the object, SQLite,
//! the clock, a log line, the policy's text.

use wasm_bindgen::prelude::*;
use worker::{Env, State};

#[wasm_bindgen]
extern "C" {
    /// The stub of an account's object, as RPC sees it.
    #[wasm_bindgen(extends = js_sys::Object)]
    type AccountStub;

    #[wasm_bindgen(method, catch)]
    async fn tell(this: &AccountStub, message: &[u8]) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(thread_local_v2, js_namespace = globalThis, js_name = tollgatePolicy)]
    static POLICY_TEXT: String;
}

/// Answers one request.
#[wasm_bindgen]
pub async fn fetch(
    request: web_sys::Request,
    env: Env,
    _context: JsValue,
) -> Result<web_sys::Response, JsValue> {
    let url = request.url();
    if url.ends_with("/panic") {
        panic_now();
    }
    let accounts = env.durable_object("ACCOUNTS")?;
    let stub: AccountStub = accounts.id_from_name("skeleton")?.get_stub()?.into_rpc();
    let answer = stub.tell(url.as_bytes()).await?;
    let bytes = js_sys::Uint8Array::new(&answer).to_vec();
    let text = String::from_utf8_lossy(&bytes);
    let policy_bytes = POLICY_TEXT.with(String::len);
    worker::console_log!("{{\"url\":\"{url}\",\"policy_bytes\":{policy_bytes}}}");
    let init = web_sys::ResponseInit::new();
    init.set_status(if request.method() == "POST" { 201 } else { 200 });
    web_sys::Response::new_with_opt_str_and_init(Some(&text), &init)
}

#[allow(clippy::panic)]
fn panic_now() {
    panic!("asked to");
}

/// The account object's Rust half; the entry's `Account` forwards to it.
#[wasm_bindgen]
pub struct AccountCore {
    state: State,
}

#[wasm_bindgen]
impl AccountCore {
    /// Built once per wake-up of the object.
    #[wasm_bindgen(constructor)]
    pub fn new(state: worker::worker_sys::DurableObjectState, _env: Env) -> Self {
        Self {
            state: State::from(state),
        }
    }

    /// Takes one message and answers it.
    pub async fn tell(&self, message: &[u8]) -> Result<Vec<u8>, JsValue> {
        let sql = self.state.storage().sql();
        let url = String::from_utf8_lossy(message);
        if url.contains("/panic-object") {
            panic_now();
        }
        sql.exec(
            "CREATE TABLE IF NOT EXISTS told (n INTEGER PRIMARY KEY, url TEXT)",
            None,
        )?;
        sql.exec(
            "INSERT INTO told (url) VALUES (?)",
            vec![url.as_ref().into()],
        )?;
        let rows: Vec<serde_json::Value> = sql
            .exec("SELECT count(*) AS told FROM told", None)?
            .to_array()?;
        let told = rows.first().and_then(|row| row.get("told")).cloned();
        let answer =
            serde_json::json!({ "told": told, "key": "skeleton", "now": js_sys::Date::now() });
        Ok(answer.to_string().into_bytes())
    }

    /// Does what has fallen due.
    pub async fn alarm(&self) {}
}
