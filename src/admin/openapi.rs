//! `GET /openapi.json`: `src/openapi.json` as it is true of one deployment.
//!
//! The file has the self-service pages where they are by default. A policy moves, renames and
//! switches them off. Everything else is the same everywhere, and handed on as it is written.

use std::fmt::Write;

use crate::{json, policy::Policy};

/// What every path of the admin API begins with.
const ADMIN: &str = "/_tollgate/";

/// `document` with the self-service pages where `policy` has them.
#[must_use]
pub fn openapi(document: &str, policy: &Policy) -> String {
    // The file is checked by the tests below; one that could not be read would be shown as it is.
    rewritten(document, |name, value| {
        let value = match name {
            "paths" => rewritten(value, |path, item| {
                Some((place(path, policy)?, item.to_owned()))
            })?,
            _ => value.to_owned(),
        };
        Some((name.to_owned(), value))
    })
    .unwrap_or_else(|| document.to_owned())
}

/// Where the deployment has what is described at `path`, if it has it.
fn place(path: &str, policy: &Policy) -> Option<String> {
    if path.starts_with(ADMIN) {
        return Some(path.to_owned());
    }
    let pages = &policy.self_service;
    let page = match path {
        "/me" => &pages.me,
        "/usage" => &pages.usage,
        "/usage/summary" => &pages.usage_summary,
        "/ledger" => &pages.ledger,
        "/get-credits" => &pages.get_credits,
        "/quote" => &pages.quote,
        "/credits/purchase" => &pages.purchase,
        "/subscription" => &pages.subscription,
        "/billing/history" => &pages.billing_history,
        "/billing/portal" => &pages.billing_portal,
        "/credits/top-up" => &pages.top_up,
        "/credits/top-up/retry" => &pages.top_up_retry,
        _ => return None,
    };
    Some(format!("{}{}", policy.gateway.base_path, page.as_ref()?))
}

/// An object with other members; `None` where it is none.
fn rewritten(
    object: &str,
    rewrite: impl Fn(&str, &str) -> Option<(String, String)>,
) -> Option<String> {
    let mut text = String::with_capacity(object.len());
    let mut separator = '{';
    for (name, value) in json::parse(object).ok()?.members()? {
        if let Some((name, value)) = rewrite(&name?, value.text()) {
            // A text can always be written, and into a String.
            let name = serde_json::to_string(&name).unwrap_or_default();
            let _ = write!(text, "{separator}{name}:{value}");
            separator = ',';
        }
    }
    text.push('}');
    Some(text)
}

#[cfg(test)]
mod tests;
