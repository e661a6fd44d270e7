//! Cursors: where a page ended, handed to whoever asked and taken back unchanged.
//!
//! What is handed out is sealed with a MAC under KEY_SECRET for one account, or for one of the
//! operator's lists, so that nobody can make one up, change one, or use another one's.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac;

use crate::secrets::{HmacSha256, Rolling, Secret};

/// Keeps these MACs apart from those of keys: no key prefix has a colon.
const DOMAIN: &[u8] = b"cursor:";
const MAC_BYTES: usize = 16;
/// The longest cursor that is looked at, in characters.
const TEXT_MAX: usize = 4_096;

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
    fn a_cursor_opens_as_long_as_its_secret_is_listed() {
        let sealed = seal(&key_secret(OLD, ""), "acme", b"5");
        assert!(open(&key_secret(NEW, OLD), "acme", &sealed).is_some());
        assert_eq!(open(&key_secret(NEW, ""), "acme", &sealed), None);
    }
}
