//! The names under which a record is found: one index for look-ups, filters and search.

use std::collections::BTreeSet;

use base16ct::lower;

use super::{Record, Standing};
use crate::{
    account::{Fingerprint, Listed},
    caseless::fold,
    id::ExternalId,
};

/// Of each text, so many words are found by their beginning.
const WORDS_MAX: usize = 6;
/// The name of whatever is flagged.
pub(super) const FLAGGED: &str = "flagged";

/// What a name is. Stored by its number: never reuse or renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The account's id.
    Id = 0,
    /// The operator's own name for it.
    ExternalId = 1,
    /// The `Idempotency-Key` of the request that opened it.
    OpenedBy = 2,
    /// Its plan.
    Plan = 3,
    /// Its status.
    Status = 4,
    /// What one of its standing keys was signed under.
    Secret = 5,
    /// What it may be searched by.
    Word = 6,
    /// That it is flagged.
    Flagged = 23,
}

impl Kind {
    /// The number that it is stored as.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// One name of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// What it is.
    pub kind: Kind,
    /// The name.
    pub text: String,
}

impl Name {
    /// A name.
    pub(super) fn new(kind: Kind, text: impl ToString) -> Self {
        Self {
            kind,
            text: text.to_string(),
        }
    }

    /// Half of the key's digest is enough to tell keys apart.
    pub(super) fn opened_by(request: &Fingerprint) -> Self {
        Self {
            kind: Kind::OpenedBy,
            text: format!("{:.32}", lower::encode_string(&request.key)),
        }
    }
}

/// Every name that a record has.
pub(super) fn of(record: &Record) -> BTreeSet<Name> {
    let mut names = BTreeSet::from([Name::new(Kind::Id, &record.id)]);
    let opened_by = record.opened_by.as_ref().map(Name::opened_by);
    let (account, secrets) = match &record.standing {
        Standing::Refused(_) => return names,
        Standing::Erased => {
            names.extend(opened_by);
            return names;
        }
        Standing::Listed { account, secrets } => (account, secrets),
    };
    names.extend(opened_by);
    names.insert(Name::new(Kind::Plan, &account.plan));
    names.insert(Name::new(Kind::Status, account.status.name()));
    names.extend(secrets.iter().map(|id| Name::new(Kind::Secret, id)));
    if !account.flags.is_empty() {
        names.insert(Name::new(Kind::Flagged, FLAGGED));
    }
    // A closed account has given it up: another one may have it.
    let is_open = account.status.closed_at().is_none();
    let external_id = account.external_id.as_ref().filter(|_| is_open);
    names.extend(external_id.map(|id| Name::new(Kind::ExternalId, id)));
    for text in searched(account) {
        names.extend(words(&text).map(|word| Name::new(Kind::Word, word)));
    }
    names
}

/// Whether a word of the account begins so.
pub(super) fn any_word_begins(account: &Listed, query: &str) -> bool {
    searched(account).any(|text| words(&text).any(|word| word.starts_with(query)))
}

/// What an account may be searched by, without its case.
fn searched(account: &Listed) -> impl Iterator<Item = String> {
    let external_id = account.external_id.as_ref().map(ExternalId::as_str);
    [
        Some(account.id.as_str()),
        external_id,
        account.email.as_deref(),
        account.name.as_deref(),
    ]
    .into_iter()
    .flatten()
    .map(fold)
}

/// A text from the beginning of each of its words on, to the end: what begins with a part of it
/// is found, and so is what goes on over several words.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.char_indices()
        .filter(move |(_, character)| {
            let was_inside = is_inside;
            is_inside = character.is_alphanumeric();
            is_inside && !was_inside
        })
        .filter_map(|(start, _)| text.get(start..))
        .take(WORDS_MAX)
}

/// What is searched for, as words are kept; `None` where no word can begin with it.
#[must_use]
pub fn query_text(text: &str) -> Option<String> {
    let text = fold(text);
    let text = text.trim_end();
    let start = text.find(char::is_alphanumeric)?;
    text.get(start..).map(str::to_owned)
}

/// The first text behind this one: no name has a control character.
pub(super) fn behind(text: &str) -> String {
    format!("{text}\u{1}")
}

/// The first text behind all that begin with this one.
pub(super) fn behind_beginnings(text: &str) -> String {
    format!("{text}{}", char::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_from_the_beginning_of_each_word() {
        for (text, expected) in [
            ("acme", vec!["acme"]),
            ("acme ltd", vec!["acme ltd", "ltd"]),
            (
                "ops@acme.example",
                vec!["ops@acme.example", "acme.example", "example"],
            ),
            ("cus_1042", vec!["cus_1042", "1042"]),
            ("(bücher) & co", vec!["bücher) & co", "co"]),
            ("東京 音楽", vec!["東京 音楽", "音楽"]),
            (
                "a-b-c-d-e-f-g",
                vec![
                    "a-b-c-d-e-f-g",
                    "b-c-d-e-f-g",
                    "c-d-e-f-g",
                    "d-e-f-g",
                    "e-f-g",
                    "f-g",
                ],
            ),
            ("--", vec![]),
        ] {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_read_as_words_are_kept() {
        for (query, text) in [
            ("Acme", Some("acme")),
            (" @Acme.Example ", Some("acme.example")),
            ("ÄRZTE", Some("ärzte")),
            ("@", None),
            ("", None),
        ] {
            assert_eq!(query_text(query).as_deref(), text, "{query}");
        }
    }
}
