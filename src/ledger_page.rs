//! `/ledger`: entries and charges on one statement, newest first, as JSON or CSV.
//!
//! Each line has the balance after it, and the lines of a pool add up to its balance from nothing.
//! A charge stands where its call was admitted, an entry after the calls that were admitted before
//! it. Months that are no longer kept call by call have a line for each pool. The pages that belong together show the account as of the first one: a call that ends
//! later has no line on them.

use crate::wire::{Decode, Encode};
use serde::Serialize;

use crate::{
    cursor::{self, Cursors},
    headers::Standing,
    id::{AccountId, CallId, KeyId},
    ledger::{EntryKind, LotNumber},
    problem::Problem,
    secrets::Rolling,
    self_service::{NEXT, Parameters},
    time::Timestamp,
};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;
const PARAMETERS: [&str; 2] = ["limit", "next"];

/// Which lines to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LedgerQuery {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// Where an earlier page ended; `None`: the newest lines.
    #[n(1)]
    pub after: Option<LedgerCursor>,
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LedgerCursor {
    /// The ends of calls that the statement knows of.
    #[n(0)]
    pub ends: u64,
    /// Only calls with a lower number come.
    #[n(1)]
    pub calls_below: u64,
    /// Only entries with a lower number come.
    #[n(2)]
    pub entries_below: u64,
    /// Each pool's balance before the lines that were listed.
    #[n(3)]
    pub balances: Vec<(String, i64)>,
    /// Where it ended among the months that were rolled up.
    #[n(4)]
    pub months: Option<MonthsCursor>,
}

/// Where a page ended among the months that were rolled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MonthsCursor {
    /// Only rows of them before this one come.
    #[n(0)]
    pub below: u64,
    /// So many pools of the latest of these were listed.
    #[n(1)]
    pub pools: u32,
}

/// A page of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LedgerPage {
    /// Newest first.
    #[n(0)]
    pub lines: Vec<LedgerLine>,
    /// Where it ended, if there is more.
    #[n(1)]
    pub next: Option<LedgerCursor>,
    /// Limits and credits of the key that asked, in self-service.
    #[n(2)]
    pub standing: Option<Standing>,
}

/// One line: an entry, or what a call was charged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct LedgerLine {
    /// When the call was admitted, or the date of the entry.
    #[n(0)]
    pub timestamp: Timestamp,
    /// Why.
    #[n(1)]
    pub kind: LineKind,
    /// The pool.
    #[n(2)]
    pub pool: String,
    /// What it adds to the pool; negative where it takes away.
    #[n(3)]
    pub credits: i64,
    /// The pool's balance after it, holds included.
    #[n(4)]
    pub balance: i64,
    /// The call it is about.
    #[n(5)]
    pub request_id: Option<CallId>,
    /// The call's route.
    #[n(6)]
    pub endpoint: Option<String>,
    /// The key that made the call.
    #[n(7)]
    pub key: Option<KeyId>,
    /// The lot, where it is about one.
    #[n(8)]
    pub lot: Option<LotNumber>,
    /// What brought it about.
    #[n(9)]
    pub reference: Option<String>,
}

/// Why there is a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LineKind {
    /// What a call was charged when it ended.
    #[n(0)]
    Charged,
    /// What the calls of a month were charged that are no longer kept one by one.
    #[n(1)]
    ChargedInMonth,
    /// An entry.
    #[n(2)]
    Entry(#[n(0)] EntryKind),
}

/// Reads the parameters of `/ledger`.
///
/// # Errors
///
/// 400 with the name of the parameter that is unknown, repeated, out of range or, for `next`, not
/// as it was handed out.
pub fn ledger_query(query: Option<&str>, cursors: Cursors<'_>) -> Result<LedgerQuery, Problem> {
    let parameters = Parameters::read(query, &PARAMETERS)?;
    let limit = parameters.whole("limit", 1, LIMIT_MAX)?;
    let after = parameters.read_as("next", NEXT, |text| {
        let Cursors {
            key_secret,
            account,
        } = cursors;
        minicbor::decode(&cursor::open(key_secret, account.as_str(), text)?).ok()
    })?;
    Ok(LedgerQuery {
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        after,
    })
}

/// Whether an `Accept` header asks for CSV, and not rather for JSON (RFC 9110 §12.5.1).
#[must_use]
pub fn prefers_csv(accept: &str) -> bool {
    let quality_of = |wanted: &str| {
        accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|parameter| parameter.strip_prefix("q="));
                quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())
            })
            .fold(0.0, f32::max)
    };
    let csv = quality_of("text/csv");
    csv > 0.0 && csv >= quality_of("application/json")
}

/// The value of `Link` (RFC 8288) on a page that was asked for with `query`, where its text has no
/// place for `next`.
#[must_use]
pub fn link_to_next(query: Option<&str>, next: &str) -> String {
    let mut parameters: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty() && !parameter.starts_with("next="))
        .collect();
    let next = format!("next={next}");
    parameters.push(&next);
    format!("<?{}>; rel=\"next\"", parameters.join("&"))
}

impl LedgerPage {
    /// What to ask for with `next=` to see what comes after.
    #[must_use]
    pub fn next(&self, key_secret: &Rolling, account: &AccountId) -> Option<String> {
        let bytes = minicbor::to_vec(self.next.as_ref()?).ok()?;
        Some(cursor::seal(key_secret, account.as_str(), &bytes))
    }

    /// `{"data":[…],"next":…}`.
    #[must_use]
    pub fn to_json(&self, next: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Listed<'a> {
            data: &'a [LedgerLine],
            next: Option<&'a str>,
        }
        // Plain structs with string keys: serialising them cannot fail.
        serde_json::to_string(&Listed {
            data: &self.lines,
            next,
        })
        .unwrap_or_default()
    }

    /// A header line and one line for each line (RFC 4180).
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = String::from(
            "timestamp,kind,pool,credits,balance,request_id,endpoint,key,lot,reference\r\n",
        );
        for line in &self.lines {
            let fields = [
                line.timestamp.to_rfc3339(),
                line.kind.as_str().to_owned(),
                quoted(&line.pool),
                line.credits.to_string(),
                line.balance.to_string(),
                line.request_id
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                line.endpoint.as_deref().map_or_else(String::new, quoted),
                line.key
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                line.lot
                    .map_or_else(String::new, |lot| lot.get().to_string()),
                line.reference.as_deref().map_or_else(String::new, quoted),
            ];
            csv.push_str(&fields.join(","));
            csv.push_str("\r\n");
        }
        csv
    }
}

impl LineKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::ChargedInMonth => "charged_in_month",
            Self::Entry(kind) => kind.as_str(),
        }
    }
}

impl Serialize for LineKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A field of CSV. In quotes where it has to be, and where a spreadsheet would take it for a
/// formula: then behind an apostrophe, too.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula || text.contains([',', '"', '\r', '\n']) {
        let apostrophe = if is_formula { "'" } else { "" };
        format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CallNumber;

    fn page() -> LedgerPage {
        let account = AccountId::parse("acme").unwrap();
        let line = LedgerLine {
            timestamp: Timestamp::from_millis(1_771_597_335_000),
            kind: LineKind::Entry(EntryKind::Refunded),
            pool: "credits".to_owned(),
            credits: 15,
            balance: 140,
            request_id: Some(CallId {
                account: account.clone(),
                number: CallNumber::new(1).unwrap(),
            }),
            endpoint: None,
            key: None,
            lot: Some(LotNumber::new(2)),
            reference: Some("=A1, said \"me\"".to_owned()),
        };
        LedgerPage {
            lines: vec![line],
            next: None,
            standing: None,
        }
    }

    #[test]
    fn a_page_is_told_as_json() {
        assert_eq!(
            page().to_json(Some("more")),
            r#"{"data":[{"timestamp":"2026-02-20T14:22:15Z","kind":"refunded","pool":"credits","credits":15,"balance":140,"request_id":"call_acme_1","endpoint":null,"key":null,"lot":2,"reference":"=A1, said \"me\""}],"next":"more"}"#
        );
    }

    #[test]
    fn a_page_is_told_as_csv_and_no_field_is_a_formula() {
        assert_eq!(
            page().to_csv(),
            "timestamp,kind,pool,credits,balance,request_id,endpoint,key,lot,reference\r\n\
             2026-02-20T14:22:15Z,refunded,credits,15,140,call_acme_1,,,2,\"'=A1, said \"\"me\"\"\"\r\n"
        );
    }

    #[test]
    fn a_link_to_the_next_page_keeps_what_was_asked_for() {
        for (query, link) in [
            (None, "<?next=abc>; rel=\"next\""),
            (Some("limit=7"), "<?limit=7&next=abc>; rel=\"next\""),
            (
                Some("next=old&limit=7"),
                "<?limit=7&next=abc>; rel=\"next\"",
            ),
        ] {
            assert_eq!(link_to_next(query, "abc"), link);
        }
    }

    #[test]
    fn csv_is_what_is_asked_for_and_json_is_not_liked_better() {
        for (accept, is_csv) in [
            ("text/csv", true),
            ("TEXT/CSV; charset=utf-8", true),
            ("text/csv, application/json", true),
            ("application/json;q=0.5, text/csv;q=0.9", true),
            ("application/json, text/csv;q=0.9", false),
            ("text/csv;q=0", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(prefers_csv(accept), is_csv, "{accept}");
        }
    }
}
