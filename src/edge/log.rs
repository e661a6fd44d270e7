//! One structured line per request: who, what and how it ended. Never a secret, a path or a query,
//! which may carry one.

use serde::Serialize;

use super::platform::{clock, console_error, console_log};
use crate::{
    account::Refusal,
    data_point::Answered,
    id::{AccountId, CallId},
    time::Timestamp,
};

/// What is known of a request by its end.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    /// The call's id, or the request's.
    pub request_id: String,
    /// Whose key it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Which key it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The method.
    pub method: String,
    /// The route's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The problem that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The problem that would have been answered, where the gateway only observes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_refuse: Option<&'static str>,
    /// What of the call deserves the operator's attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<&'static str>,
    /// The status that the client saw.
    pub status: u16,
    /// From the request to the answer's headers.
    pub ms: i64,
    /// Rows written for it.
    pub rows: u32,
    /// What went wrong, for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Line {
    /// Notes the answer's status, and that this is when it was given.
    pub fn answered(&mut self, status: u16, started: Timestamp) {
        self.status = status;
        self.ms = clock().since(started).as_millis();
    }

    /// Notes what enforcing would have refused.
    pub fn would_refuse(&mut self, refusal: Option<&Refusal>) {
        self.would_refuse = refusal.map(|refusal| refusal.code().as_str());
    }

    /// Writes it.
    pub fn write(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            console_log(&line);
        }
    }
}

impl<'a> From<&'a Line> for Answered<'a> {
    fn from(line: &'a Line) -> Self {
        Self {
            account: line.account.as_deref().unwrap_or_default(),
            code: line.code.unwrap_or_default(),
            would_refuse: line.would_refuse.unwrap_or_default(),
            route: line.route.as_deref().unwrap_or_default(),
            method: &line.method,
            key: line.key.as_deref().unwrap_or_default(),
            status: line.status,
            ms: line.ms,
            rows: line.rows,
            admitted: CallId::parse(&line.request_id).is_some(),
        }
    }
}

/// Something that the operator should hear of and that no request's line tells.
#[derive(Debug, Serialize)]
pub struct Fault<'a> {
    /// What happened, for programs.
    pub event: &'static str,
    /// Whose account it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<&'a AccountId>,
    /// Why, for people.
    pub detail: &'a str,
}

impl<'a> Fault<'a> {
    /// A fault of no one account.
    pub const fn new(event: &'static str, detail: &'a str) -> Self {
        Self {
            event,
            account: None,
            detail,
        }
    }

    /// Writes it.
    pub fn write(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            console_error(&line);
        }
    }
}
