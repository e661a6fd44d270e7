//! The directory's object as the runtime sees it, and how it is asked.

mod tables;

use std::cell::RefCell;

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use self::tables::Tables;
use super::{deployment, object::ObjectState, platform::Env};
use crate::{
    directory::{Answer, Directory, Reply, Request},
    protocol,
};

/// The name of the one object that there is.
const NAME: &str = "directory";

/// Asks the directory.
///
/// # Errors
/// Why it cannot answer, for the log. Whether it has heard is not known: every request is safe
/// to repeat.
pub async fn ask(env: &Env, request: &Request) -> Result<Answer, String> {
    let policy = deployment::policy()?;
    let region = policy.gateway.region.as_deref();
    let message = protocol::encode(request);
    let answer = env.directory().ask(NAME, region, &message).await?;
    let answer: Answer = protocol::decode(&answer).map_err(|unreadable| unreadable.to_string())?;
    match answer.reply {
        Reply::Unavailable { detail } => Err(detail),
        _ => Ok(answer),
    }
}

/// What `entry.mjs` lends RPC.
#[wasm_bindgen]
pub struct DirectoryCore(Result<RefCell<Directory<Tables>>, String>);

#[wasm_bindgen]
impl DirectoryCore {
    /// Built once for each wake-up.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: &ObjectState) -> Self {
        Self(
            deployment::policy()
                .map(|policy| RefCell::new(Directory::new(Tables::new(state.storage()), policy))),
        )
    }

    /// Carries out one request (see `directory/protocol.rs`) and answers it. Never waits.
    #[must_use]
    pub fn tell(&self, message: &[u8]) -> Uint8Array {
        let answer = self.answer(message).unwrap_or_else(|detail| Answer {
            reply: Reply::Unavailable { detail },
            rows_written: 0,
        });
        Uint8Array::from(protocol::encode(&answer).as_slice())
    }
}

impl DirectoryCore {
    fn answer(&self, message: &[u8]) -> Result<Answer, String> {
        let request = protocol::decode(message).map_err(|unreadable| unreadable.to_string())?;
        // Requests are carried out as a whole: nothing can be borrowed between them.
        let mut directory = self
            .0
            .as_ref()
            .map_err(String::clone)?
            .try_borrow_mut()
            .map_err(|_| "the directory is busy with itself")?;
        Ok(Answer {
            reply: directory.handle(request),
            rows_written: directory.store_mut().take_rows_written(),
        })
    }
}
