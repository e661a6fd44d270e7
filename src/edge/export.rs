//! An export on its way: the object is asked for slice after slice, each when the one before was
//! taken. So the Worker has two slices at most, however long the history is.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};

use super::{
    answer::{self, About},
    carriage::disregard,
    gateway::Gateway,
    operate::SLICES_MAX,
    platform::{IdentityTransformStream, Writer, console_error},
    promise,
    visit::Visit,
};
use crate::{
    export::{ExportPlace, ExportSlice, unfinished},
    id::AccountId,
    protocol::{Command, Manage, Reply, Request},
};

impl Gateway {
    /// Answers with an export whose first slice is here.
    pub(super) fn export(
        &self,
        visit: &Visit,
        account: AccountId,
        first: ExportSlice,
    ) -> Result<web_sys::Response, JsValue> {
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: None,
            charged: None,
        };
        if visit.method == "HEAD" {
            return answer::json_lines(visit, None, &about);
        }
        let stream = IdentityTransformStream::new()?;
        let answer = answer::json_lines(visit, Some(&stream.readable()), &about)?;
        let export = Export {
            gateway: self.clone(),
            account,
            to_client: Writer::new(&stream.writable())?,
        };
        spawn_local(async move {
            if let Err(thrown) = export.send(first).await {
                disregard(export.to_client.abort(&thrown));
            }
        });
        Ok(answer)
    }
}

struct Export {
    gateway: Gateway,
    account: AccountId,
    to_client: Writer,
}

impl Export {
    /// Sends all of it, or as much as one request may ask for and where to go on. If it fails, the
    /// answer is broken off; as the runtime may end it as if it were whole, it is its last line
    /// that tells.
    async fn send(&self, mut slice: ExportSlice) -> Result<(), JsValue> {
        for asked in 1.. {
            self.write(&slice.lines).await?;
            let Some(place) = slice.next else {
                break;
            };
            if asked >= SLICES_MAX {
                let key_secret = &self.gateway.deployment.secrets.key_secret;
                let last = unfinished(&place, key_secret, &self.account);
                self.write(&last).await?;
                break;
            }
            promise::others().await?;
            slice = self.next(place).await?;
        }
        disregard(self.to_client.close());
        Ok(())
    }

    async fn next(&self, place: ExportPlace) -> Result<ExportSlice, JsValue> {
        let request = Request::Manage(Manage {
            command: Command::Export(Some(place)),
            idempotency: None,
            signs_under: None,
        });
        let asked = self.gateway.objects.ask_again(&self.account, &request);
        let detail = match asked.await.map(|answer| answer.reply) {
            Ok(Reply::Export(slice)) => return Ok(slice),
            Ok(Reply::Problem(complaint)) => complaint.detail,
            Ok(_) => "unexpected reply".to_owned(),
            Err(failed) => failed.detail,
        };
        let event = serde_json::json!({ "event": "export_failed", "account": self.account, "detail": detail });
        console_error(&event.to_string());
        Err(detail.into())
    }

    /// Done when the bytes were taken.
    async fn write(&self, lines: &str) -> Result<(), JsValue> {
        let bytes = Uint8Array::from(lines.as_bytes());
        JsFuture::from(self.to_client.write(&bytes)).await?;
        Ok(())
    }
}
