//! Bodies that are read as a whole: never more of them than is asked for, and never for longer.

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

use super::{
    platform::clock,
    promise::{settled, settled_within},
};
use crate::time::Timestamp;

/// Why a body was not read.
pub enum Unread {
    /// It is longer than was wanted.
    TooLong,
    /// It did not come in time.
    TooLate,
    /// It broke off.
    Broken(JsValue),
}

impl From<JsValue> for Unread {
    fn from(thrown: JsValue) -> Self {
        Self::Broken(thrown)
    }
}

/// Reads a body of at most `limit` bytes, until `deadline` where there is one. Nobody waits for the end of one
/// that is not read.
///
/// # Errors
/// Why it was not read.
pub async fn read_body(
    stream: &web_sys::ReadableStream,
    limit: usize,
    deadline: Option<Timestamp>,
) -> Result<Vec<u8>, Unread> {
    let reader: web_sys::ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut body = Vec::new();
    loop {
        let piece = reader.read();
        let chunk = match deadline {
            None => Some(settled(&piece).await?),
            Some(deadline) => settled_within(&piece, deadline.since(clock()).as_millis()).await?,
        };
        let Some(chunk) = chunk else {
            drop(reader.cancel());
            return Err(Unread::TooLate);
        };
        if Reflect::get(&chunk, &"done".into())?.is_truthy() {
            return Ok(body);
        }
        let bytes: Uint8Array = Reflect::get(&chunk, &"value".into())?.unchecked_into();
        let length = usize::try_from(bytes.length()).unwrap_or(usize::MAX);
        if body.len().saturating_add(length) > limit {
            drop(reader.cancel());
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&bytes.to_vec());
    }
}
