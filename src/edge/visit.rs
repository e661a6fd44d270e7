//! One incoming request, read as far as it is needed.

use wasm_bindgen::prelude::*;

use super::{
    body::{Unread, read_body},
    crossing::lines_of,
    platform::{clock, operation_id},
};
use crate::{
    address::Address,
    headers::{Dropped, alike},
    problem::{Code, Problem},
    time::Timestamp,
    url::CalledUrl,
};

/// The client's address.
pub const CLIENT_ADDRESS: &str = "CF-Connecting-IP";

/// The lines of a request before those of its headers.
const METHOD: usize = 0;
const URL: usize = 1;
const FIRST_HEADER: usize = 2;

/// One incoming request.
pub struct Visit {
    /// The request itself: its body may still be unread.
    pub request: web_sys::Request,
    /// Its method, as sent.
    pub method: String,
    /// When it came.
    pub started: Timestamp,
    /// 53 random bits: the id of whatever it asks an object to do.
    pub operation: u64,
    /// Its method and URL, then the name, in lower case, and the value of each header.
    lines: String,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Visit {
    /// Reads what every request is asked for.
    ///
    /// # Errors
    /// The platform has no random bytes.
    pub fn new(request: web_sys::Request) -> Result<Self, JsValue> {
        let lines = lines_of(&request);
        let mut visit = Self {
            request,
            method: String::new(),
            started: clock(),
            operation: operation_id()?,
            ends: lines.match_indices('\n').map(|(end, _)| end).collect(),
            lines,
        };
        visit.method = visit.line(METHOD).to_owned();
        Ok(visit)
    }

    /// The URL's parts. The runtime only hands over absolute URLs.
    pub fn url(&self) -> CalledUrl<'_> {
        CalledUrl::split(self.line(URL)).unwrap_or(CalledUrl {
            scheme: "",
            authority: "",
            path: "",
            query: None,
        })
    }

    /// The id of a request that becomes no call.
    pub fn request_id(&self) -> String {
        let [_, random @ ..] = self.operation.to_be_bytes();
        format!("req_{}", base16ct::lower::encode_string(&random))
    }

    /// A header, joined by `, ` if it came more than once.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self
            .headers()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        let mut header = values.next()?.to_owned();
        for value in values {
            header.push_str(", ");
            header.push_str(value);
        }
        Some(header)
    }

    /// Where it comes from, as Cloudflare tells it.
    pub fn address(&self) -> Address {
        Address::parse(&self.header(CLIENT_ADDRESS).unwrap_or_default())
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        (FIRST_HEADER..self.ends.len())
            .step_by(2)
            .map(|name| (self.line(name), self.line(name.saturating_add(1))))
    }

    fn line(&self, line: usize) -> &str {
        let end_of = |line: usize| self.ends.get(line).copied().unwrap_or(self.lines.len());
        let start = line
            .checked_sub(1)
            .map_or(0, |before| end_of(before).saturating_add(1));
        self.lines.get(start..end_of(line)).unwrap_or_default()
    }

    /// All values that some origin may read as the header `name`, told in lower case: also those of
    /// names spelled with `_` for `-`, which CGI, WSGI and PHP do not tell apart. Those count twice, as
    /// they are never the header alone.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        let mut values: Vec<String> = self.header(name).into_iter().collect();
        for (other, _) in self.headers() {
            if other != name && alike(other, name) {
                values.extend([other.to_owned(), other.to_owned()]);
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
        self.headers().any(|(name, _)| name == "origin")
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
        let broken = || Problem::new(Code::BadRequest, "the body of this request broke off");
        let stream = if kept {
            self.request.clone().map_err(|_| broken())?.body()
        } else {
            self.request.body()
        };
        let Some(stream) = stream else {
            return Ok(Vec::new());
        };
        let read = read_body(&stream, limit, None).await;
        read.map_err(|unread| match unread {
            Unread::TooLong => too_large(),
            Unread::TooLate | Unread::Broken(_) => broken(),
        })
    }
}
