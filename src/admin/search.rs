//! `GET /accounts`: from the query string to what the directory is asked for, and its page.

use std::collections::BTreeSet;

use super::json::{CONTROLS, is_control};
use crate::wire::{Decode, Encode};
use serde::Serialize;

use crate::{
    account::Listed,
    cursor,
    directory::{Filter, LIMIT_MAX, Page, Position, Search, query_text},
    id::ExternalId,
    problem::Problem,
    secrets::Rolling,
    self_service::Parameters,
};

const PARAMETERS: [&str; 8] = [
    "query",
    "external_id",
    "plan",
    "status",
    "keys",
    "flagged",
    "limit",
    "cursor",
];
const LIMIT_DEFAULT: u32 = 50;
const TEXT_MAX: usize = 200;
const STATUSES: [&str; 3] = ["active", "suspended", "closed"];

/// What its cursors are sealed for: no account has this id.
const LIST: &str = "GET /accounts";

/// What a cursor says: where a page ended, and of which list.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Ended {
    #[n(0)]
    position: Position,
    #[n(1)]
    filter: Filter,
}

#[derive(Serialize)]
struct PageView<'a> {
    data: &'a [Listed],
    next: Option<String>,
}

/// `{"data":[…],"next":…}`.
#[must_use]
pub fn accounts(page: Page, filter: Filter, key_secret: &Rolling) -> String {
    let next = page.next.map(|position| {
        // Encoding into memory cannot fail.
        let ended = minicbor::to_vec(Ended { position, filter }).unwrap_or_default();
        cursor::seal(key_secret, LIST, &ended)
    });
    let view = PageView {
        data: &page.accounts,
        next,
    };
    // Texts and numbers alone: writing them cannot fail.
    serde_json::to_string(&view).unwrap_or_default()
}

/// Reads which accounts are listed. With `keys=previous`, the Worker adds which secrets these are.
pub(super) fn search(query: Option<&str>, key_secret: &Rolling) -> Result<Search, Problem> {
    let parameters = Parameters::read(query, &PARAMETERS)?;
    let text = format!("1 to {TEXT_MAX} characters, no {CONTROLS} among them");
    let line = |text: &str| {
        let fits = (1..=TEXT_MAX).contains(&text.chars().count());
        (fits && !text.contains(is_control)).then(|| text.to_owned())
    };
    let filter = Filter {
        query: parameters.read_as(
            "query",
            &format!("{text}, and a letter or digit"),
            |query| query_text(&line(query)?),
        )?,
        external_id: parameters.read_as(
            "external_id",
            "1 to 128 printable ASCII characters without a space at an end",
            ExternalId::parse,
        )?,
        plan: parameters.read_as("plan", &text, line)?,
        status: parameters.read_as("status", "active, suspended or closed", |status| {
            STATUSES.contains(&status).then(|| status.to_owned())
        })?,
        previous_keys: parameters
            .read_as("keys", "previous", |keys| {
                (keys == "previous").then_some(())
            })?
            .is_some(),
        flagged: parameters
            .read_as("flagged", "true", |flagged| {
                (flagged == "true").then_some(())
            })?
            .is_some(),
    };
    let limit = parameters.whole("limit", 1, LIMIT_MAX)?;
    let after = parameters.read_as(
        "cursor",
        "the next of an earlier page of this list",
        |text| {
            let ended: Ended = minicbor::decode(&cursor::open(key_secret, LIST, text)?).ok()?;
            (ended.filter == filter).then_some(ended.position)
        },
    )?;
    Ok(Search {
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        after,
        filter,
        secrets: BTreeSet::new(),
    })
}
