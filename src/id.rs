//! Names: of accounts, of their keys and calls, and the operator's own for a customer.
//!
//! The name of a key or a call names its account, and with it the object that knows it.

use std::fmt;

use base16ct::lower;
use sha2::{Digest, Sha256};

use crate::wire::{Decode, Encode};

/// The longest account id.
pub const MAX_ACCOUNT_ID_BYTES: usize = 64;
const MAX_EXTERNAL_ID_BYTES: usize = 128;

/// Who pays: 1 to 64 of `A-Za-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct AccountId(#[n(0)] Box<str>);

impl AccountId {
    /// Reads an id; `None` unless it is 1 to 64 of `A-Za-z0-9_-`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_ACCOUNT_ID_BYTES).contains(&text.len());
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        (fits && plain).then(|| Self(text.into()))
    }

    /// The id of an account whose operator chose none: `acc_` and 20 hexadecimal digits, the same
    /// for the same `Idempotency-Key`, so that a repeated request reaches the same object.
    #[must_use]
    pub fn from_idempotency_key(idempotency_key: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"tollgate account id\0")
            .chain_update(idempotency_key)
            .finalize();
        Self(format!("acc_{:.20}", lower::encode_string(&digest)).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl serde::Serialize for AccountId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'b, C> Decode<'b, C> for AccountId {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Self::parse(decoder.str()?)
            .ok_or_else(|| minicbor::decode::Error::message("not an account id"))
    }
}

/// A key's number inside its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyNumber(#[n(0)] u32);

impl KeyNumber {
    /// Key number `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for KeyNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A call's number inside its account, 0 to 2^53 − 1: JavaScript, and with it the object's SQL
/// binding, carries no larger one exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct CallNumber(#[n(0)] u64);

impl CallNumber {
    /// The last number.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Call number `number`, or `None` above [`CallNumber::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<'b, C> Decode<'b, C> for CallNumber {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Self::new(decoder.u64()?)
            .ok_or_else(|| minicbor::decode::Error::message("call number above 2^53 - 1"))
    }
}

/// A key, named so that its account can be found: `key_{account}_{n}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct KeyId {
    /// Whose key it is.
    #[n(0)]
    pub account: AccountId,
    /// Its number there.
    #[n(1)]
    pub number: KeyNumber,
}

impl KeyId {
    /// Reads `key_{account}_{n}`; `None` for every other spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (account, number) = account_and_number(text.strip_prefix("key_")?)?;
        let number = KeyNumber(u32::try_from(number).ok()?);
        Some(Self { account, number })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key_{}_{}", self.account, self.number)
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A call, named so that its account can be found: `call_{account}_{n}`. Also its `X-Request-Id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct CallId {
    /// Whose call it is.
    #[n(0)]
    pub account: AccountId,
    /// Its number there.
    #[n(1)]
    pub number: CallNumber,
}

impl CallId {
    /// Reads `call_{account}_{n}`; `None` for every other spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (account, number) = account_and_number(text.strip_prefix("call_")?)?;
        let number = CallNumber::new(number)?;
        Some(Self { account, number })
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "call_{}_{}", self.account, self.number)
    }
}

impl serde::Serialize for CallId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An event's number inside its account: 1, 2, 3 …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct EventNumber(#[n(0)] u64);

impl EventNumber {
    /// Event number `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An event, named so that its account can be found: `event_{account}_{n}`. Also its `webhook-id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Whose event it is.
    pub account: AccountId,
    /// Its number there.
    pub number: EventNumber,
}

impl EventId {
    /// Reads `event_{account}_{n}`; `None` for every other spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (account, number) = account_and_number(text.strip_prefix("event_")?)?;
        let number = EventNumber(number);
        Some(Self { account, number })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "event_{}_{}", self.account, self.number.0)
    }
}

impl serde::Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the operator's own systems call an account: 1 to 128 printable ASCII characters.
///
/// It travels in `X-Tollgate-External-Id` and is signed with it, so it neither starts nor ends
/// with a space: HTTP takes those off a field's value (RFC 9110 §5.5), and the origin would see
/// another id than was signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct ExternalId(#[n(0)] Box<str>);

impl ExternalId {
    /// Reads an external id; `None` where it is too long, empty, not printable ASCII, or has a
    /// space at an end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_EXTERNAL_ID_BYTES).contains(&text.len());
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let unpadded = !text.starts_with(' ') && !text.ends_with(' ');
        (fits && printable && unpadded).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl serde::Serialize for ExternalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'b, C> Decode<'b, C> for ExternalId {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Self::parse(decoder.str()?)
            .ok_or_else(|| minicbor::decode::Error::message("not an external id"))
    }
}

/// Takes `{account}_{n}` apart. Account ids may contain `_`, numbers may not: the last one parts
/// them. Each number has one spelling, without sign or leading zeros.
fn account_and_number(text: &str) -> Option<(AccountId, u64)> {
    let (account, number) = text.rsplit_once('_')?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let padded = number.len() > 1 && number.starts_with('0');
    if !digits || padded {
        return None;
    }
    Some((AccountId::parse(account)?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn an_account_id_is_short_and_plain() {
        let longest = "a".repeat(64);
        for good in ["a", "acme", "A-1_b", "_", "-", longest.as_str()] {
            assert_eq!(AccountId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(65);
        for bad in [
            "",
            "a b",
            "a.b",
            "a/b",
            "ä",
            "a\n",
            "a\0",
            too_long.as_str(),
        ] {
            assert_eq!(AccountId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_same_idempotency_key_opens_the_same_account() {
        let id = AccountId::from_idempotency_key("order-1");
        assert_eq!(id, AccountId::from_idempotency_key("order-1"));
        assert_ne!(id, AccountId::from_idempotency_key("order-2"));
        // Stored for good: an account must be found again by every later release.
        assert_eq!(id.as_str(), "acc_814a3859c8058d991308");
        assert_eq!(AccountId::parse(id.as_str()), Some(id));
    }

    #[test]
    fn a_key_or_call_id_has_one_spelling() {
        for (text, account, number) in [
            ("call_acme_0", "acme", 0),
            ("call_acme_17", "acme", 17),
            ("call_a_1_2", "a_1", 2),
            ("call___3", "_", 3),
            ("call_a_9007199254740991", "a", (1 << 53) - 1),
        ] {
            let id = CallId::parse(text).unwrap();
            assert_eq!(
                (id.account.as_str(), id.number.get()),
                (account, number),
                "{text}"
            );
            assert_eq!(id.to_string(), text);
        }
        for bad in [
            "",
            "call",
            "call_",
            "call_1",
            "call__1",
            "call_acme",
            "call_acme_",
            "call_acme_01",
            "call_acme_+1",
            "call_acme_-1",
            "call_acme_1 ",
            "call_acme_1_",
            "call_acme_x",
            "call_acme_٣",
            "call_ac me_1",
            "call_a_9007199254740992",
            "call_a_18446744073709551616",
            "key_acme_1",
            "Call_acme_1",
        ] {
            assert_eq!(CallId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(
            KeyId::parse("key_acme_4294967295").unwrap().number.get(),
            u32::MAX
        );
        for bad in ["key_acme_4294967296", "key_acme_00", "call_acme_1"] {
            assert_eq!(KeyId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_external_id_arrives_at_the_origin_as_it_was_given() {
        let longest = "x".repeat(128);
        for good in ["1", "a b", "cus_9, ~!\"", longest.as_str()] {
            assert_eq!(ExternalId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(129);
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\tb",
            "a\nb",
            "é",
            "\u{7f}",
            too_long.as_str(),
        ] {
            assert_eq!(ExternalId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_stored_id_that_is_none_is_not_read() {
        let text = minicbor::to_vec("a b").unwrap();
        assert!(minicbor::decode::<AccountId>(&text).is_err());
        let text = minicbor::to_vec(" a").unwrap();
        assert!(minicbor::decode::<ExternalId>(&text).is_err());
        let number = minicbor::to_vec(1_u64 << 53).unwrap();
        assert!(minicbor::decode::<CallNumber>(&number).is_err());
    }

    proptest! {
        #[test]
        fn every_id_is_read_as_it_is_written(
            account in "[A-Za-z0-9_-]{1,64}", key: u32, call in 0..1_u64 << 53,
        ) {
            let account = AccountId::parse(&account).unwrap();
            let key = KeyId { account: account.clone(), number: KeyNumber::new(key) };
            let call = CallId { account, number: CallNumber::new(call).unwrap() };
            prop_assert_eq!(KeyId::parse(&key.to_string()), Some(key.clone()));
            prop_assert_eq!(CallId::parse(&call.to_string()), Some(call.clone()));
            prop_assert_eq!(minicbor::decode::<KeyId>(&minicbor::to_vec(&key).unwrap()).unwrap(), key);
            prop_assert_eq!(minicbor::decode::<CallId>(&minicbor::to_vec(&call).unwrap()).unwrap(), call);
        }
    }
}
