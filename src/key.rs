//! API keys: made, signed, and verified without asking anybody.
//!
//! A key is `{prefix}_` and the unpadded base64url (RFC 4648 §5) of
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 1 | length of the account id |
//! | 1 to 64 | account id |
//! | 4 | the key's number, big endian |
//! | 16 | random: the secret part |
//! | 16 | HMAC-SHA256 under KEY_SECRET of prefix, a zero byte and all of the above, cut to 16 bytes |
//!
//! The MAC tells the Worker whose key it is. Whether the key still stands, the account's object
//! knows, by the digest of the secret part: who has KEY_SECRET alone can make keys that verify
//! here and are refused there.

mod presented;

use std::{collections::BTreeSet, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    id::{AccountId, KeyId, KeyNumber, MAX_ACCOUNT_ID_BYTES},
    secrets::{HmacSha256, Rolling},
    wire::{Decode, Encode},
};

pub use self::presented::{Carriers, Presented, bearer};

const VERSION: u8 = 1;
const SECRET_BYTES: usize = 16;
const MAC_BYTES: usize = 16;
const MAX_PAYLOAD_BYTES: usize =
    1 + 1 + MAX_ACCOUNT_ID_BYTES + size_of::<u32>() + SECRET_BYTES + MAC_BYTES;
const MAX_PAYLOAD_CHARACTERS: usize = (MAX_PAYLOAD_BYTES * 4).div_ceil(3);

/// What issues and verifies keys: HMAC states keyed once, cloned for each key.
pub struct Keyring {
    current: HmacSha256,
    previous: Vec<HmacSha256>,
}

impl Keyring {
    /// A keyring that issues under the current KEY_SECRET and verifies under all that are listed.
    #[must_use]
    pub fn new(key_secret: &Rolling) -> Self {
        Self {
            current: key_secret.current.hmac(),
            previous: key_secret
                .previous
                .iter()
                .map(|secret| secret.hmac())
                .collect(),
        }
    }

    /// Which secret new keys are signed under.
    #[must_use]
    pub fn secret(&self) -> SecretId {
        SecretId::of(&self.current)
    }

    /// Those that keys still verify under and that no key is signed under any more. What is not
    /// known may be one of them.
    #[must_use]
    pub fn previous_secrets(&self) -> BTreeSet<SecretId> {
        let unknown = (!self.previous.is_empty()).then_some(SecretId::UNKNOWN);
        let previous = self.previous.iter().map(SecretId::of);
        previous.chain(unknown).collect()
    }

    /// Makes the key with this number of this account. `random` comes from a generator fit for
    /// secrets and is used for no other key.
    #[must_use]
    pub fn issue(
        &self,
        prefix: &str,
        account: &AccountId,
        key: KeyNumber,
        random: [u8; SECRET_BYTES],
    ) -> IssuedKey {
        let account = account.as_str().as_bytes();
        let mut payload = Vec::with_capacity(MAX_PAYLOAD_BYTES);
        payload.push(VERSION);
        // An account id is at most 64 bytes long.
        payload.push(u8::try_from(account.len()).unwrap_or(u8::MAX));
        payload.extend_from_slice(account);
        payload.extend_from_slice(&key.get().to_be_bytes());
        payload.extend_from_slice(&random);
        let mac = over(&self.current, prefix, &payload)
            .finalize()
            .into_bytes();
        payload.extend(mac.iter().take(MAC_BYTES));
        IssuedKey {
            text: format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(&payload)),
            digest: SecretDigest::of(&random),
        }
    }

    /// Reads a key that this deployment issued under one of `prefixes`.
    ///
    /// # Errors
    ///
    /// Anything else: another prefix, another spelling, a byte changed. Which of them is not told,
    /// and what it takes does not depend on how much of the MAC is right.
    pub fn verify(&self, prefixes: &[String], text: &str) -> Result<PresentedKey, ForgedKey> {
        // One prefix may start another (`tk` and `tk_live`), so all that fit are tried.
        prefixes
            .iter()
            .find_map(|prefix| self.verify_payload(prefix, after_prefix(prefix, text)?))
            .ok_or(ForgedKey)
    }

    fn verify_payload(&self, prefix: &str, encoded: &str) -> Option<PresentedKey> {
        if encoded.len() > MAX_PAYLOAD_CHARACTERS {
            return None;
        }
        let mut buffer = [0; MAX_PAYLOAD_BYTES];
        // Refuses padding and left-over bits that are not zero: one key has one spelling.
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut buffer).ok()?;
        let (signed, mac) = buffer.get(..length)?.split_last_chunk::<MAC_BYTES>()?;
        let payload = Payload::read(signed)?;

        let is_signed_under = |state| {
            over(state, prefix, signed)
                .verify_truncated_left(mac)
                .is_ok()
        };
        let current = is_signed_under(&self.current);
        // `|` and not `||`: every listed secret is tried, whichever one it is.
        let previous = self
            .previous
            .iter()
            .fold(false, |found, state| found | is_signed_under(state));
        if !(current | previous) {
            return None;
        }
        Some(PresentedKey {
            account: AccountId::parse(std::str::from_utf8(payload.account).ok()?)?,
            key: payload.key,
            digest: SecretDigest::of(payload.secret),
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring(…)")
    }
}

/// A new key, whose text is shown once.
pub struct IssuedKey {
    /// The key as its owner sends it.
    pub text: String,
    /// What the account's object keeps of it.
    pub digest: SecretDigest,
}

impl fmt::Debug for IssuedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IssuedKey(…)")
    }
}

/// Names one KEY_SECRET without telling anything of it: what a key was signed under can be kept, and
/// compared with the secrets that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct SecretId(#[n(0)] u32);

impl SecretId {
    /// Nobody kept what the key was signed under.
    pub const UNKNOWN: Self = Self(0);

    fn of(secret: &HmacSha256) -> Self {
        let digest = secret
            .clone()
            .chain_update("tollgate key secret id")
            .finalize()
            .into_bytes();
        let id = digest.iter().take(4);
        let id = id.fold(0_u32, |id, byte| (id << 8) | u32::from(*byte));
        Self(id.max(1))
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

/// A key that this deployment signed. Whether it still stands, the account's object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedKey {
    /// Whose key it is.
    pub account: AccountId,
    /// Its number there.
    pub key: KeyNumber,
    /// What the object compares.
    pub digest: SecretDigest,
}

impl PresentedKey {
    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId {
            account: self.account.clone(),
            number: self.key,
        }
    }
}

/// Not a key of this deployment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgedKey;

impl fmt::Display for ForgedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a key of this deployment")
    }
}

impl std::error::Error for ForgedKey {}

/// SHA-256 of a key's secret part: what is stored and compared instead of it. Two of them are
/// compared in constant time.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(transparent)]
pub struct SecretDigest(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 32],
);

impl SecretDigest {
    /// The digest of a secret part.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// A digest that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest as it is stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretDigest {}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretDigest(…)")
    }
}

/// Whether `text` claims to be a key of Tollgate's: it starts with one of the prefixes and `_`.
#[must_use]
pub fn looks_like_ours(prefixes: &[String], text: &str) -> bool {
    prefixes
        .iter()
        .any(|prefix| after_prefix(prefix, text).is_some())
}

/// What the MAC covers, taken apart.
struct Payload<'a> {
    account: &'a [u8],
    key: KeyNumber,
    secret: &'a [u8; SECRET_BYTES],
}

impl<'a> Payload<'a> {
    fn read(signed: &'a [u8]) -> Option<Self> {
        let (&[version, account_length], rest) = signed.split_first_chunk()?;
        let (account, rest) = rest.split_at_checked(usize::from(account_length))?;
        let (number, secret) = rest.split_first_chunk()?;
        (version == VERSION).then_some(Self {
            account,
            key: KeyNumber::new(u32::from_be_bytes(*number)),
            secret: secret.try_into().ok()?,
        })
    }
}

/// The keyed state fed with what a key's MAC covers. Prefixes have no zero byte, so two different
/// keys never feed the same bytes.
fn over(state: &HmacSha256, prefix: &str, signed: &[u8]) -> HmacSha256 {
    state
        .clone()
        .chain_update(prefix)
        .chain_update([0])
        .chain_update(signed)
}

fn after_prefix<'a>(prefix: &str, text: &'a str) -> Option<&'a str> {
    text.strip_prefix(prefix)?.strip_prefix('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::secrets::Secrets;

    const OLD: &str = "the-old-secret-0123456789-0123456789";
    const NEW: &str = "the-new-secret-0123456789-0123456789";

    fn keyring(current: &str, previous: &str) -> Keyring {
        let lookup = |name: &str| match name {
            "KEY_SECRET_PREVIOUS" => Some(previous.to_owned()),
            "ADMIN_READ_TOKEN" => None,
            name if name.ends_with("_PREVIOUS") => None,
            "KEY_SECRET" => Some(current.to_owned()),
            other => Some(format!("{other:-<40}")),
        };
        Keyring::new(&Secrets::read(lookup, false).unwrap().key_secret)
    }

    fn prefixes(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn issued(keyring: &Keyring, prefix: &str) -> String {
        keyring
            .issue(prefix, &account("acme"), KeyNumber::new(7), [9; 16])
            .text
    }

    #[test]
    fn keys_issued_today_verify_in_every_later_release() {
        let text = issued(&keyring(NEW, ""), "tk_live");
        assert_eq!(
            text,
            "tk_live_AQRhY21lAAAABwkJCQkJCQkJCQkJCQkJCQk6U_3Hu3kDcXPlto4wat3-"
        );
    }

    #[test]
    fn a_key_tells_whose_it_is() {
        let keyring = keyring(NEW, "");
        let issued = keyring.issue("tk_live", &account("acme"), KeyNumber::new(7), [9; 16]);
        assert_eq!(
            keyring.verify(&prefixes(&["tk_live"]), &issued.text),
            Ok(PresentedKey {
                account: account("acme"),
                key: KeyNumber::new(7),
                digest: SecretDigest::of(&[9; 16]),
            })
        );
        assert_eq!(issued.digest, SecretDigest::of(&[9; 16]));
    }

    #[test]
    fn a_key_outlives_its_secret_only_while_that_is_listed() {
        let prefixes = prefixes(&["tk_live"]);
        let text = issued(&keyring(OLD, ""), "tk_live");
        let rolling = keyring(NEW, OLD);
        assert!(rolling.verify(&prefixes, &text).is_ok());
        let renewed = issued(&rolling, "tk_live");
        assert!(rolling.verify(&prefixes, &renewed).is_ok());
        assert_eq!(keyring(NEW, "").verify(&prefixes, &text), Err(ForgedKey));
    }

    #[test]
    fn a_secret_has_the_same_id_whether_it_is_the_current_one_or_was() {
        let (old, rolling) = (keyring(OLD, ""), keyring(NEW, OLD));
        assert_eq!(
            rolling.previous_secrets(),
            BTreeSet::from([old.secret(), SecretId::UNKNOWN])
        );
        assert!(old.previous_secrets().is_empty());
        assert_ne!(rolling.secret(), old.secret());
        assert_ne!(old.secret(), SecretId::UNKNOWN);
        // Stored for good: what a key was signed under must be known by every later release.
        assert_eq!(old.secret().to_string(), "3593f588");
    }

    #[test]
    fn a_key_holds_under_its_own_prefix_only() {
        let keyring = keyring(NEW, "");
        let text = issued(&keyring, "tk_live");
        let moved = text.replace("tk_live", "tk_test");
        for (listed, text, expected) in [
            (vec!["tk_live"], &text, true),
            (vec!["tk", "tk_live"], &text, true),
            (vec!["tk_live_2", "tk_live"], &text, true),
            (vec!["tk"], &text, false),
            (vec!["tk_test"], &text, false),
            (vec!["tk_live", "tk_test"], &moved, false),
            (vec![], &text, false),
        ] {
            let verified = keyring.verify(&prefixes(&listed), text);
            assert_eq!(verified.is_ok(), expected, "{listed:?} {text}");
        }
    }

    #[test]
    fn one_key_has_one_spelling() {
        let keyring = keyring(NEW, "");
        let prefixes = prefixes(&["tk_live"]);
        // Account ids of each length modulo 3, so that the last character has left-over bits.
        for id in ["a", "ab", "abc"] {
            let text = keyring
                .issue("tk_live", &account(id), KeyNumber::new(1), [3; 16])
                .text;
            assert!(keyring.verify(&prefixes, &text).is_ok());
            let (start, last) = text.split_at(text.len() - 1);
            for other in (b' '..=b'~').map(char::from) {
                let respelled = format!("{start}{other}");
                if other.to_string() != last {
                    assert_eq!(keyring.verify(&prefixes, &respelled), Err(ForgedKey));
                }
            }
            for respelled in [
                format!("{text}="),
                format!("{text}=="),
                format!("{text} "),
                format!(" {text}"),
                format!("{text}A"),
                text.to_uppercase(),
                text.replace("tk_live_", "tk_live__"),
                text.replace("tk_live_", "TK_LIVE_"),
            ] {
                assert_eq!(
                    keyring.verify(&prefixes, &respelled),
                    Err(ForgedKey),
                    "{respelled}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let keyring = keyring(NEW, OLD);
        let long = format!("tk_live_{}", "A".repeat(10_000));
        for text in [
            "",
            "tk_live",
            "tk_live_",
            "tk_live_A",
            "tk_live_é",
            "tk_live_AQ",
            &long,
        ] {
            assert_eq!(
                keyring.verify(&prefixes(&["tk_live"]), text),
                Err(ForgedKey),
                "{text}"
            );
        }
    }

    #[test]
    fn a_signed_payload_of_another_shape_is_refused() {
        let keyring = keyring(NEW, "");
        let mut signed = vec![VERSION, 4];
        signed.extend(b"acme\0\0\0\x07");
        signed.extend([9; 16]);
        let text_of = |signed: &[u8]| {
            let mac = over(&keyring.current, "tk_live", signed)
                .finalize()
                .into_bytes();
            let payload = [signed, &mac[..16]].concat();
            format!("tk_live_{}", URL_SAFE_NO_PAD.encode(payload))
        };
        let verify = |signed: &[u8]| keyring.verify(&prefixes(&["tk_live"]), &text_of(signed));
        assert!(verify(&signed).is_ok());
        let change = |place: usize, byte: u8| {
            let mut signed = signed.clone();
            signed[place] = byte;
            signed
        };
        for other in [
            change(0, 2),
            change(1, 3),
            change(1, 5),
            change(1, 255),
            change(2, b'.'),
            change(2, 0xff),
            [&signed[..], b"x"].concat(),
            signed[..signed.len() - 1].to_vec(),
            vec![VERSION],
            vec![],
        ] {
            assert_eq!(verify(&other), Err(ForgedKey), "{other:?}");
        }
    }

    #[test]
    fn a_digest_is_read_as_it_was_stored() {
        let digest = SecretDigest::of(&[1; 16]);
        let bytes = minicbor::to_vec(digest).unwrap();
        assert_eq!(bytes.len(), 34);
        assert_eq!(minicbor::decode::<SecretDigest>(&bytes).unwrap(), digest);
        assert_eq!(SecretDigest::from_bytes(*digest.as_bytes()), digest);
        assert_ne!(SecretDigest::of(&[2; 16]), digest);
    }

    proptest! {
        #[test]
        fn every_key_issued_verifies_for_its_owner(
            id in "[A-Za-z0-9_-]{1,64}", number: u32, random: [u8; 16],
        ) {
            let keyring = keyring(NEW, OLD);
            let key = KeyNumber::new(number);
            let issued = keyring.issue("tk_live", &account(&id), key, random);
            let presented = keyring.verify(&prefixes(&["tk_live"]), &issued.text).unwrap();
            prop_assert_eq!(presented.account.as_str(), id);
            prop_assert_eq!(presented.key, key);
            prop_assert_eq!(presented.digest, issued.digest);
        }

        #[test]
        fn a_key_with_any_bit_flipped_is_refused(
            id in "[A-Za-z0-9_-]{1,64}", random: [u8; 16], place: prop::sample::Index, bit in 0..8,
        ) {
            let keyring = keyring(NEW, OLD);
            let text = keyring.issue("tk_live", &account(&id), KeyNumber::new(1), random).text;
            let mut payload = URL_SAFE_NO_PAD.decode(&text["tk_live_".len()..]).unwrap();
            let place = place.index(payload.len());
            payload[place] ^= 1_u8 << bit;
            let forged = format!("tk_live_{}", URL_SAFE_NO_PAD.encode(payload));
            prop_assert_eq!(keyring.verify(&prefixes(&["tk_live"]), &forged), Err(ForgedKey));
        }

        #[test]
        fn a_key_cut_or_lengthened_anywhere_is_refused(
            id in "[A-Za-z0-9_-]{1,64}", random: [u8; 16], place: prop::sample::Index,
            extra in "[A-Za-z0-9_-]{1,8}",
        ) {
            let keyring = keyring(NEW, OLD);
            let text = keyring.issue("tk_live", &account(&id), KeyNumber::new(1), random).text;
            let (start, end) = text.split_at(place.index(text.len()));
            prop_assert_eq!(keyring.verify(&prefixes(&["tk_live"]), start), Err(ForgedKey));
            let longer = format!("{start}{extra}{end}");
            prop_assert_eq!(keyring.verify(&prefixes(&["tk_live"]), &longer), Err(ForgedKey));
        }
    }
}
