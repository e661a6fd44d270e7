//! `/export`: everything about one account as JSON lines, in slices.
//!
//! The object writes one slice a message and keeps nothing of it: where the next one begins goes to
//! the Worker and back. Calls go on in between. Entries and calls end at those that there were when
//! the export began; each line is as things stand when it is written.

use crate::{
    cursor,
    id::{AccountId, KeyNumber},
    problem::Problem,
    secrets::Rolling,
    self_service::Parameters,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// Where the next slice begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ExportPlace {
    /// When the export began.
    #[n(0)]
    pub as_of: Timestamp,
    /// The last entry that there was then.
    #[n(1)]
    pub entries: u64,
    /// The last call that there was then.
    #[n(2)]
    pub calls: u64,
    /// The last key that is written.
    #[n(3)]
    pub keys_written: KeyNumber,
    /// The row of the months that were rolled up that comes next.
    #[n(4)]
    pub rolled_from: u64,
    /// The last entry that is written.
    #[n(5)]
    pub entries_written: u64,
    /// The last call that is written, by itself or in a month.
    #[n(6)]
    pub calls_written: u64,
    /// How many lines there are so far.
    #[n(7)]
    pub lines: u64,
    /// Payments with a number below this one are still to be written.
    #[cbor(n(8), default)]
    pub payments_before: u64,
    /// Events with a number below this one are still to be written.
    #[cbor(n(9), default)]
    pub events_before: u64,
}

/// A slice of an export.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ExportSlice {
    /// Lines, each with its line break.
    #[n(0)]
    pub lines: String,
    /// Where it goes on; `None`: the last line was the end.
    #[n(1)]
    pub next: Option<ExportPlace>,
}

/// Reads the parameters of `/export`: none, or where an export goes on that was not finished.
///
/// # Errors
/// 400 with the name of what is wrong.
pub fn export_query(
    query: Option<&str>,
    key_secret: &Rolling,
    account: &AccountId,
) -> Result<Option<ExportPlace>, Problem> {
    let parameters = Parameters::read(query, &["next"])?;
    let expected = "the `next` of an unfinished export, unchanged";
    parameters.read_as("next", expected, |text| {
        minicbor::decode(&cursor::open(key_secret, &whose(account), text)?).ok()
    })
}

/// The last line of an answer that is not the end: what to ask for with `next=` to go on.
#[must_use]
pub fn unfinished(place: &ExportPlace, key_secret: &Rolling, account: &AccountId) -> String {
    // Encoding into memory cannot fail.
    let bytes = minicbor::to_vec(place).unwrap_or_default();
    let next = cursor::seal(key_secret, &whose(account), &bytes);
    // A cursor has only characters that JSON writes as they are.
    format!("{{\"type\":\"unfinished\",\"next\":\"{next}\"}}\n")
}

/// Kept apart from the account's other cursors: no id has a space.
fn whose(account: &AccountId) -> String {
    format!("export {account}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;

    #[test]
    fn an_unfinished_export_goes_on_where_it_was_and_only_for_its_account() {
        let lookup = |name: &str| {
            let optional = name.ends_with("_PREVIOUS") || name == "ADMIN_READ_TOKEN";
            (!optional).then(|| format!("{name:-<40}"))
        };
        let secret = Secrets::read(lookup, false).unwrap().key_secret;
        let place = ExportPlace {
            as_of: Timestamp::from_seconds(1_000),
            entries: 7,
            calls: 9,
            keys_written: KeyNumber::new(2),
            rolled_from: 0,
            entries_written: 7,
            calls_written: 4,
            lines: 13,
            payments_before: 9,
            events_before: 3,
        };
        let (acme, other) = (AccountId::parse("acme"), AccountId::parse("globex"));
        let (acme, other) = (acme.unwrap(), other.unwrap());
        let line = unfinished(&place, &secret, &acme);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["type"], "unfinished");
        let query = format!("next={}", line["next"].as_str().unwrap());
        let read = |query: &str, account| export_query(Some(query), &secret, account);
        assert_eq!(read(&query, &acme), Ok(Some(place)));
        assert_eq!(export_query(None, &secret, &acme), Ok(None));
        let ledgers = cursor::seal(&secret, acme.as_str(), b"\x80");
        for (query, account) in [
            (query.as_str(), &other),
            (&format!("next={ledgers}"), &acme),
            ("next=5", &acme),
            ("limit=5", &acme),
        ] {
            assert!(read(query, account).is_err(), "{query}");
        }
    }
}
