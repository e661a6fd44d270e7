//! Keys that were issued before Tollgate: the lookup objects as the runtime sees them, how they are
//! asked, and whose key a request carries.

mod rows;

use std::cell::RefCell;

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use self::rows::Rows;
use super::{
    deployment,
    gateway::{Gateway, unavailable, unexpected},
    log::Line,
    object::ObjectState,
    passage::not_ours,
    platform::{Env, console_error, has_flag, message_of},
    promise::settled,
    visit::Visit,
};
use crate::{
    account::Refusal,
    address::Address,
    id::KeyId,
    imported::{Answer, Lookup, MISSES_PER_MINUTE, Recalled, Reply, Request, lookup_of},
    key::{PresentedKey, SecretDigest},
    problem::{Problem, ViolatedPolicy, Violation},
    protocol,
    time::Timestamp,
};

/// Asks the lookup object that knows the secret in question.
///
/// # Errors
/// Why it cannot answer, for the log. Whether it has heard is not known: every request is safe to
/// repeat.
pub async fn ask(env: &Env, request: &Request) -> Result<Answer, String> {
    let policy = deployment::policy()?;
    let (name, region) = (
        lookup_of(request.digest()),
        policy.gateway.region.as_deref(),
    );
    let message = protocol::encode(request);
    let answer = env.imported_keys().ask(&name, region, &message).await?;
    let answer: Answer = protocol::decode(&answer).map_err(|unreadable| unreadable.to_string())?;
    match answer.reply {
        Reply::Unavailable { detail } => Err(detail),
        _ => Ok(answer),
    }
}

/// What `entry.mjs` lends RPC.
#[wasm_bindgen]
pub struct LookupCore(RefCell<Lookup<Rows>>);

#[wasm_bindgen]
impl LookupCore {
    /// Built once for each wake-up.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: &ObjectState) -> Self {
        Self(RefCell::new(Lookup::new(Rows::new(state.storage()))))
    }

    /// Carries out one request (see `imported/protocol.rs`) and answers it. Never waits.
    #[must_use]
    pub fn tell(&self, message: &[u8]) -> Uint8Array {
        let answer = self.answer(message).unwrap_or_else(|detail| Answer {
            reply: Reply::Unavailable { detail },
            rows_written: 0,
        });
        Uint8Array::from(protocol::encode(&answer).as_slice())
    }
}

impl LookupCore {
    fn answer(&self, message: &[u8]) -> Result<Answer, String> {
        let request = protocol::decode(message).map_err(|unreadable| unreadable.to_string())?;
        // Requests are carried out as a whole: nothing can be borrowed between them.
        let mut lookup = self
            .0
            .try_borrow_mut()
            .map_err(|_| "the lookup is busy with itself")?;
        Ok(Answer {
            reply: lookup.handle(request),
            rows_written: lookup.store_mut().take_rows_written(),
        })
    }
}

impl Gateway {
    /// Whose a key is that was issued before Tollgate, as far as is known outside its account.
    pub(super) async fn imported_key(
        &self,
        visit: &Visit,
        text: &str,
        line: &mut Line,
    ) -> Result<PresentedKey, Problem> {
        let digest = SecretDigest::of(text.as_bytes());
        let address = visit.address();
        let memory = &self.deployment.imported_keys;
        let recalled = memory.borrow().recall(&digest, address, visit.started);
        let key = match recalled {
            Recalled::Key(key) => key,
            Recalled::Unknown => return Err(not_ours()),
            Recalled::Refused { until } => return Err(too_many_unknown(until, visit.started)),
            Recalled::Nothing => match self.look_up_key(digest, line).await? {
                Some(key) => {
                    let mut memory = memory.borrow_mut();
                    memory.found(&digest, key.clone(), visit.started);
                    key
                }
                None => {
                    self.count_miss(&digest, address, visit.started).await;
                    return Err(not_ours());
                }
            },
        };
        Ok(PresentedKey {
            account: key.account,
            key: key.number,
            digest,
        })
    }

    /// What the account refuses to know may be another account's by now.
    pub(super) fn forget_key(&self, key: &PresentedKey, refusal: &Refusal) {
        if matches!(refusal, Refusal::UnknownKey) {
            let mut memory = self.deployment.imported_keys.borrow_mut();
            memory.forget(&key.digest);
        }
    }

    async fn look_up_key(
        &self,
        digest: SecretDigest,
        line: &mut Line,
    ) -> Result<Option<KeyId>, Problem> {
        let find = Request::Find(digest);
        let asked = match ask(&self.env, &find).await {
            Err(_) => ask(&self.env, &find).await,
            answered => answered,
        };
        match asked {
            Ok(Answer {
                reply: Reply::Found(key),
                ..
            }) => Ok(key),
            Ok(other) => Err(unexpected(&other)),
            Err(detail) => {
                line.detail = Some(detail);
                Err(unavailable())
            }
        }
    }

    /// Counts an unknown key for its address, here and over all isolates of this place.
    async fn count_miss(&self, digest: &SecretDigest, address: Address, clock: Timestamp) {
        let memory = &self.deployment.imported_keys;
        let mut is_over = memory.borrow_mut().missed(digest, address, clock);
        if let Some(limit) = self.env.imported_key_misses() {
            let counted = async { settled(&limit.count(&address.to_string())?).await };
            match counted.await {
                Ok(outcome) => is_over |= !has_flag(&outcome, "success"),
                Err(thrown) => console_error(&message_of(&thrown)),
            }
        }
        if is_over {
            memory.borrow_mut().refuse(address, clock);
        }
    }
}

/// Not 401: whose keys are good would take it for the end of them.
fn too_many_unknown(until: Timestamp, clock: Timestamp) -> Problem {
    let violation = Violation {
        policy: ViolatedPolicy::UnknownKeys,
        limit: MISSES_PER_MINUTE,
    };
    Problem::rate_limited(&[violation], until.since(clock))
}
