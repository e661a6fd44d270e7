//! An answer's body, carried through the Worker piece by piece, so that it is known how it ended:
//! a failed read is the origin's, a failed write the client's. Its bytes never enter the wasm.

use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};

use super::platform::{
    FixedLengthStream, IdentityTransformStream, Piece, Reader, Timer, Writer, message_of, to_number,
};
use crate::call::BodyEnd;

/// The first piece is no longer than what is taken at once if anybody listens, however slowly.
const FIRST_PIECE_BYTES: u32 = 1_024;
/// The longest of the others: each costs two turns between JavaScript and wasm.
const PIECE_BYTES: u32 = 65_536;
/// A client that hung up before the answer began is not told of: nobody ever takes its first piece.
const PATIENCE_MILLIS: i64 = 5_000;

/// A body on its way.
pub struct Carriage {
    from_origin: Reader,
    to_client: Writer,
    /// The bytes that the origin's `Content-Length` still promises.
    promised: Option<u64>,
}

/// How a body ended.
pub struct Carried {
    /// For the account.
    pub end: BodyEnd,
    /// For the operator, where it was broken off.
    pub detail: Option<String>,
}

impl Carriage {
    /// Gets ready to carry `body`, and gives what the client is to read instead. `length` is its
    /// `Content-Length`.
    ///
    /// # Errors
    /// What the platform throws where its own objects are built.
    pub fn of(
        body: &web_sys::ReadableStream,
        length: Option<u64>,
    ) -> Result<(Self, web_sys::ReadableStream), JsValue> {
        let stream = match length {
            Some(length) => FixedLengthStream::new(to_number(length))?.into(),
            None => IdentityTransformStream::new()?,
        };
        let carriage = Self {
            from_origin: Reader::new(body)?,
            to_client: Writer::new(&stream.writable())?,
            promised: length,
        };
        Ok((carriage, stream.readable()))
    }

    /// Carries the body to its end.
    pub async fn carry(mut self) -> Carried {
        let mut begun = false;
        let mut lent = Uint8Array::new_with_length(FIRST_PIECE_BYTES);
        loop {
            let bytes = match self.read(&lent).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    disregard(self.to_client.close());
                    return Carried {
                        end: BodyEnd::Whole,
                        detail: None,
                    };
                }
                Err(thrown) => {
                    disregard(self.to_client.abort(&thrown));
                    return Carried {
                        end: BodyEnd::BrokenOff { begun },
                        detail: Some(["the origin broke off: ", &message_of(&thrown)].concat()),
                    };
                }
            };
            let patience = (!begun).then(|| self.patience());
            if let Err(thrown) = JsFuture::from(self.to_client.write(&bytes)).await {
                disregard(self.from_origin.cancel());
                return Carried {
                    end: BodyEnd::Left,
                    detail: Some(["the client left: ", &message_of(&thrown)].concat()),
                };
            }
            drop(patience);
            lent = if begun {
                Uint8Array::new(&bytes.buffer())
            } else {
                Uint8Array::new_with_length(PIECE_BYTES)
            };
            begun = true;
        }
    }

    /// The next piece; none after the last. It fails where the origin does, also where a Worker
    /// that is the origin sends another length than it promised, which nobody else finds.
    async fn read(&mut self, lent: &Uint8Array) -> Result<Option<Uint8Array>, JsValue> {
        let piece: Piece = JsFuture::from(self.from_origin.read(lent))
            .await?
            .unchecked_into();
        let bytes = (!piece.done()).then(|| piece.value());
        if let Some(promised) = &mut self.promised {
            let length = bytes.as_ref().map_or(0, Uint8Array::length);
            *promised = promised
                .checked_sub(length.into())
                .filter(|left| bytes.is_some() || *left == 0)
                .ok_or("not as long as its Content-Length")?;
        }
        Ok(bytes)
    }

    /// Has the write that waits fail when its time is up.
    fn patience(&self) -> Timer {
        let to_client = self.to_client.clone();
        Timer::after(PATIENCE_MILLIS, move || {
            disregard(to_client.abort(&"nobody took the answer".into()));
        })
    }
}

/// Nobody waits for this; how it ends tells nothing new.
pub(super) fn disregard(promise: Promise) {
    spawn_local(async move { drop(JsFuture::from(promise).await) });
}
