//! A field of a JSON body.
//!
//! The body is walked level by level and nothing of it is kept but the members whose name is the
//! one looked for, in whatever case. What is skipped is skipped without recursion, so no depth of
//! nesting can exhaust the stack.

use super::{Stop, single_header};
use crate::{
    caseless,
    json::{self, Value},
};

/// A value without members.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A string.
    Text(String),
    /// A number as it is spelled.
    Number(String),
    /// `true` or `false`.
    Flag(bool),
}

/// Refuses a body that says it is no plain JSON.
pub(super) fn check_headers(header: &dyn Fn(&str) -> Vec<String>) -> Result<(), Stop> {
    let content_type = single_header(header, "content-type")?.unwrap_or_default();
    if !is_json(&content_type) {
        return Err(Stop::bad(
            "the body must be JSON, with the Content-Type application/json",
        ));
    }
    match single_header(header, "content-encoding")? {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(Stop::bad("the body must not be compressed"))
        }
        _ => Ok(()),
    }
}

/// `application/json` or a type made of JSON (RFC 6839 §3.1), in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    is_json
        && parts.all(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("charset")
                    && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

/// The scalar at `path`; `None` where it is absent or null.
///
/// # Errors
///
/// The body is no JSON in UTF-8, a name on the path is there twice or in another case, or what
/// stands at its end has members.
pub(super) fn look_up(body: &[u8], path: &[String]) -> Result<Option<Scalar>, Stop> {
    let text = std::str::from_utf8(body).map_err(|_| Stop::bad("the body must be UTF-8"))?;
    if text.starts_with('\u{feff}') {
        return Err(Stop::bad("the body must not start with a byte-order mark"));
    }
    let mut value = json::parse(text).map_err(|_| not_json())?;
    for (level, name) in path.iter().enumerate() {
        let shown = || {
            path.iter()
                .take(level.saturating_add(1))
                .cloned()
                .collect::<Vec<_>>()
                .join(".")
        };
        match member(value, name)? {
            Member::One(found) => value = found,
            Member::None => return Ok(None),
            Member::Twice => return Err(Stop::bad(format!("body.{} must be given once", shown()))),
            Member::OtherCase(spelled) => {
                return Err(Stop::bad(format!(
                    "body.{} must be spelled just so, not {spelled:?}",
                    shown()
                )));
            }
        }
    }
    scalar(value, path)
}

enum Member<'a> {
    One(Value<'a>),
    None,
    Twice,
    OtherCase(String),
}

/// The member `name` of an object; nothing else has members.
fn member<'a>(value: Value<'a>, name: &str) -> Result<Member<'a>, Stop> {
    let mut found = Member::None;
    for (spelled, value) in value.members().into_iter().flatten() {
        let spelled = spelled.ok_or_else(not_json)?;
        if !caseless::same(&spelled, name) {
            continue;
        }
        found = match found {
            Member::None if spelled == name => Member::One(value),
            Member::One(_) | Member::Twice if spelled == name => Member::Twice,
            Member::OtherCase(earlier) => Member::OtherCase(earlier),
            Member::None | Member::One(_) | Member::Twice => {
                Member::OtherCase(spelled.into_owned())
            }
        };
    }
    Ok(found)
}

fn not_json() -> Stop {
    Stop::bad("the body must be valid JSON")
}

fn scalar(value: Value<'_>, path: &[String]) -> Result<Option<Scalar>, Stop> {
    let text = value.text();
    match text.bytes().next() {
        Some(b'n') => Ok(None),
        Some(b't') => Ok(Some(Scalar::Flag(true))),
        Some(b'f') => Ok(Some(Scalar::Flag(false))),
        Some(b'"') => match value.string() {
            Some(text) => Ok(Some(Scalar::Text(text.into_owned()))),
            None => Err(Stop::bad(format!(
                "body.{} must be a valid string",
                path.join(".")
            ))),
        },
        Some(b'-' | b'0'..=b'9') => Ok(Some(Scalar::Number(text.to_owned()))),
        _ => Err(Stop::bad(format!(
            "body.{} must be a single value",
            path.join(".")
        ))),
    }
}
