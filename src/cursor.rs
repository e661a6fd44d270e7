//! Cursors: where a page ended, handed to whoever asked and taken back unchanged.
//!
//! What is handed out is sealed with a MAC under KEY_SECRET for one account, or for one of the
//! operator's lists, so that nobody can make one up, change one, or use another one's.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac;

use crate::{
    id::AccountId,
    secrets::{HmacSha256, Rolling, Secret},
};

/// Keeps these MACs apart from those of keys: no key prefix has a colon.
const DOMAIN: &[u8] = b"cursor:";
const MAC_BYTES: usize = 16;
/// The longest cursor that is looked at, in characters.
const TEXT_MAX: usize = 4_096;

/// A list of which the account's object writes a page as JSON, with its own word for where the page
/// ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// `/usage`, the customer's and the operator's.
    Usage,
    /// `/usage/summary`, of both.
    UsageSummary,
    /// `GET /accounts/{id}/keys`.
    Keys,
    /// `GET /accounts/{id}/events`.
    Events,
    /// `/billing/history`, the customer's and the operator's.
    BillingHistory,
}

impl Listing {
    const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::UsageSummary => "usage/summary",
            Self::Keys => "keys",
            Self::Events => "events",
            Self::BillingHistory => "billing/history",
        }
    }
}

/// Seals and opens the cursors of one account's [`Listing`]s.
#[derive(Clone, Copy)]
pub struct Cursors<'a> {
    /// What they are sealed under.
    pub key_secret: &'a Rolling,
    /// Whose they are.
    pub account: &'a AccountId,
}

impl Cursors<'_> {
    /// A page as the object wrote it, with its `next` sealed: the last member, text or null.
    #[must_use]
    pub fn seal_next(self, listing: Listing, page: String) -> String {
        // In a text the quotes would be escaped: this is where a member begins.
        let next = page.rsplit_once(r#","next":""#);
        let Some((before, Some(ended))) =
            next.map(|(before, next)| (before, next.strip_suffix(r#""}"#)))
        else {
            return page;
        };
        let sealed = self.seal(listing, ended);
        format!(r#"{before},"next":"{sealed}"}}"#)
    }

    /// The cursor of where a page ended.
    #[must_use]
    pub fn seal(self, listing: Listing, ended: &str) -> String {
        seal(self.key_secret, &self.whose(listing), ended.as_bytes())
    }

    /// Where a page ended, as the object wrote it.
    #[must_use]
    pub fn open(self, listing: Listing, text: &str) -> Option<String> {
        let ended = open(self.key_secret, &self.whose(listing), text)?;
        String::from_utf8(ended).ok()
    }

    /// No id has a space: each list of each account has a name of its own.
    fn whose(self, listing: Listing) -> String {
        format!("{} {}", listing.name(), self.account)
    }
}

/// The text of a cursor of `whose`: an account's id, or what a list is called that is no id.
#[must_use]
pub fn seal(key_secret: &Rolling, whose: &str, cursor: &[u8]) -> String {
    let mac = over(&key_secret.current, whose, cursor)
        .finalize()
        .into_bytes();
    let mut sealed = cursor.to_vec();
    sealed.extend(mac.iter().take(MAC_BYTES));
    URL_SAFE_NO_PAD.encode(sealed)
}

/// The cursor of `whose` that `text` is; `None` for everything that was not sealed as it is.
#[must_use]
pub fn open(key_secret: &Rolling, whose: &str, text: &str) -> Option<Vec<u8>> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (cursor, mac) = sealed.split_last_chunk::<MAC_BYTES>()?;
    std::iter::once(&key_secret.current)
        .chain(&key_secret.previous)
        .any(|secret| {
            over(secret, whose, cursor)
                .verify_truncated_left(mac)
                .is_ok()
        })
        .then(|| cursor.to_vec())
}

/// The first has no line break, so they cannot flow into each other.
fn over(secret: &Secret, whose: &str, cursor: &[u8]) -> HmacSha256 {
    let mut mac = secret.hmac();
    mac.update(DOMAIN);
    mac.update(whose.as_bytes());
    mac.update(b"\n");
    mac.update(cursor);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;

    const OLD: &str = "the-old-secret-0123456789-0123456789";
    const NEW: &str = "the-new-secret-0123456789-0123456789";

    fn key_secret(current: &str, previous: &str) -> Rolling {
        let lookup = |name: &str| match name {
            "KEY_SECRET_PREVIOUS" => Some(previous.to_owned()),
            "ADMIN_READ_TOKEN" => None,
            name if name.ends_with("_PREVIOUS") => None,
            "KEY_SECRET" => Some(current.to_owned()),
            other => Some(format!("{other:-<40}")),
        };
        Secrets::read(lookup, false).unwrap().key_secret
    }

    #[test]
    fn a_cursor_opens_as_it_was_sealed_and_with_any_bit_changed_not_at_all() {
        let secret = key_secret(NEW, "");
        let sealed = seal(&secret, "acme", b"where it ended");
        assert_eq!(
            open(&secret, "acme", &sealed).as_deref(),
            Some(&b"where it ended"[..])
        );
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(open(&secret, "acme", &text), None, "bit {bit}");
        }
        for made_up in ["", "1", "YWJj", &"A".repeat(5_000), &sealed[1..]] {
            assert_eq!(open(&secret, "acme", made_up), None, "{made_up}");
        }
    }

    #[test]
    fn another_accounts_cursor_does_not_open() {
        let secret = key_secret(NEW, "");
        let sealed = seal(&secret, "acme", b"5");
        assert_eq!(open(&secret, "globex", &sealed), None);
    }

    #[test]
    fn the_next_of_a_page_opens_for_its_list_and_account_alone() {
        const LISTINGS: [Listing; 5] = [
            Listing::Usage,
            Listing::UsageSummary,
            Listing::Keys,
            Listing::Events,
            Listing::BillingHistory,
        ];
        let secret = key_secret(NEW, "");
        let (acme, globex) = (AccountId::parse("acme"), AccountId::parse("globex"));
        let (acme, globex) = (acme.unwrap(), globex.unwrap());
        let of = |account| Cursors {
            key_secret: &secret,
            account,
        };
        let tricky = r#"{"data":[{"name":"a\",\"next\":\"7\"}","next":"5"}],"next":"#;
        for listing in LISTINGS {
            let page = of(&acme).seal_next(listing, format!(r#"{tricky}"h12-7"}}"#));
            let page: serde_json::Value = serde_json::from_str(&page).unwrap();
            assert_eq!(page["data"][0]["next"], "5");
            let next = page["next"].as_str().unwrap();
            assert_eq!(of(&acme).open(listing, next).as_deref(), Some("h12-7"));
            assert_eq!(of(&globex).open(listing, next), None);
            for other in LISTINGS.into_iter().filter(|other| *other != listing) {
                assert_eq!(of(&acme).open(other, next), None, "{other:?}");
            }
            let last = format!("{tricky}null}}");
            assert_eq!(of(&acme).seal_next(listing, last.clone()), last);
        }
    }

    #[test]
    fn a_cursor_opens_as_long_as_its_secret_is_listed() {
        let sealed = seal(&key_secret(OLD, ""), "acme", b"5");
        assert!(open(&key_secret(NEW, OLD), "acme", &sealed).is_some());
        assert_eq!(open(&key_secret(NEW, ""), "acme", &sealed), None);
    }
}
