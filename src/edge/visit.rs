//! One incoming request, read as far as it is needed.

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::platform::{clock, random};
use crate::{
    headers::{Dropped, alike},
    problem::{Code, Problem},
    time::Timestamp,
    url::CalledUrl,
};

/// One incoming request.
pub struct Visit {
    /// The request itself: its body may still be unread.
    pub request: web_sys::Request,
    /// Its headers.
    pub headers: web_sys::Headers,
    /// Its method, as sent.
    pub method: String,
    /// When it came.
    pub started: Timestamp,
    /// 53 random bits: the id of whatever it asks an object to do.
    pub operation: u64,
    url: String,
}

impl Visit {
    /// Reads what every request is asked for.
    ///
    /// # Errors
    /// The platform has no random bytes.
    pub fn new(request: web_sys::Request) -> Result<Self, JsValue> {
        Ok(Self {
            headers: request.headers(),
            method: request.method(),
            started: clock(),
            operation: u64::from_be_bytes(random()?) >> 11,
            url: request.url(),
            request,
        })
    }

    /// The URL's parts. The runtime only hands over absolute URLs.
    pub fn url(&self) -> CalledUrl<'_> {
        CalledUrl::split(&self.url).unwrap_or(CalledUrl {
            scheme: "",
            authority: "",
            path: "",
            query: None,
        })
    }

    /// The id of a request that becomes no call.
    pub fn request_id(&self) -> String {
        format!("req_{:014x}", self.operation)
    }

    /// A header, joined by `, ` if it came more than once.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).ok().flatten()
    }

    /// All values that some origin may read as the header `name`, in lower case: also those of names spelled with
    /// `_` for `-`, which CGI, WSGI and PHP do not tell apart. Those count twice, as they are never
    /// the header alone.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        let mut values: Vec<String> = self.header(name).into_iter().collect();
        for other in self.headers.keys().into_iter().flatten() {
            let other = other.as_string().unwrap_or_default();
            if other != name && alike(&other, name) {
                values.extend([other.clone(), other]);
            }
        }
        values
    }

    /// The same where the header is forwarded. One that is not must neither set a price nor name a
    /// request: the origin never sees it.
    pub fn forwarded_values(&self, name: &str) -> Vec<String> {
        let connection = self.header("Connection");
        if Dropped::of(connection.as_deref()).contains(name) {
            return Vec::new();
        }
        self.header_values(name)
    }

    /// Whether a browser asks, from another origin.
    pub fn is_cross_origin(&self) -> bool {
        self.headers.has("Origin").unwrap_or(false)
    }

    /// The whole body, if it is no longer than `limit`. It can be read once; if it is `kept`, the
    /// request can still be forwarded with it, whatever comes out here.
    ///
    /// # Errors
    /// 413 for a longer one, 400 for one that breaks off.
    pub async fn body(&self, limit: usize, kept: bool) -> Result<Vec<u8>, Problem> {
        let too_large = || {
            Problem::new(
                Code::BodyTooLarge,
                format!(
                    "the body of this request is read, and {limit} bytes are the most that is read"
                ),
            )
        };
        let told = self
            .header("Content-Length")
            .and_then(|length| length.parse::<usize>().ok());
        if told.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let broken = |_| Problem::new(Code::BadRequest, "the body of this request broke off");
        let stream = if kept {
            self.request.clone().map_err(broken)?.body()
        } else {
            self.request.body()
        };
        let Some(stream) = stream else {
            return Ok(Vec::new());
        };
        let reader: web_sys::ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
        let mut body = Vec::new();
        loop {
            let chunk = JsFuture::from(reader.read()).await.map_err(broken)?;
            if Reflect::get(&chunk, &"done".into())
                .map_err(broken)?
                .is_truthy()
            {
                return Ok(body);
            }
            let bytes: Uint8Array = Reflect::get(&chunk, &"value".into())
                .map_err(broken)?
                .unchecked_into();
            let length = usize::try_from(bytes.length()).unwrap_or(usize::MAX);
            if body.len().saturating_add(length) > limit {
                // The rest is not wanted; nobody waits for its end.
                drop(reader.cancel());
                return Err(too_large());
            }
            body.extend_from_slice(&bytes.to_vec());
        }
    }
}
