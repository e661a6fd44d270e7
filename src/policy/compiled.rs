//! A policy as an isolate loads it.
//!
//! The text is read and checked once, where the bundle is made. What every isolate would do anew, and
//! all that only explains mistakes, stays there.

use std::{collections::BTreeMap, sync::Arc};

use minicbor::{Decoder, Encoder, decode::Error, encode::Write};

use super::{Plan, Policy};

/// Raised with every change of what is written here: what another release has compiled is refused.
const FORMAT: u32 = 6;

impl Policy {
    /// What [`Policy::from_compiled`] reads: the format, then the policy, in CBOR.
    #[must_use]
    pub fn compile(&self) -> Vec<u8> {
        // Writing to memory cannot fail; nothing at all would be refused.
        minicbor::to_vec((FORMAT, self)).unwrap_or_default()
    }

    /// Reads a compiled policy.
    ///
    /// # Errors
    ///
    /// It is none, or another release's: a sentence for the operator.
    pub fn from_compiled(bytes: &[u8]) -> Result<Self, String> {
        let mut decoder = Decoder::new(bytes);
        let format = decoder.array().and_then(|_| decoder.u32());
        if !format.is_ok_and(|format| format == FORMAT) {
            return Err("the policy was compiled by another release: build again".to_owned());
        }
        decoder
            .decode()
            .map_err(|error| format!("the compiled policy is damaged, build again: {error}"))
    }
}

/// `plans`, each of which knows its name.
pub(super) mod plans {
    use super::*;

    type Plans = BTreeMap<String, Arc<Plan>>;

    pub fn encode<Ctx, W: Write>(
        plans: &Plans,
        encoder: &mut Encoder<W>,
        _: &mut Ctx,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let plans: Vec<&Plan> = plans.values().map(|plan| &**plan).collect();
        encoder.encode(plans)?.ok()
    }

    pub fn decode<Ctx>(decoder: &mut Decoder<'_>, _: &mut Ctx) -> Result<Plans, Error> {
        let mut plans = Plans::new();
        for plan in decoder.decode::<Vec<Plan>>()? {
            plans.insert(plan.name.clone(), Arc::new(plan));
        }
        Ok(plans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Policy {
        Policy::parse(include_str!("../../tests/policies/full.toml")).unwrap()
    }

    #[test]
    fn a_compiled_policy_is_the_policy() {
        let policy = full();
        let read = Policy::from_compiled(&policy.compile()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{policy:?}"));
    }

    #[test]
    fn what_another_release_compiled_is_refused() {
        let mut bytes = full().compile();
        assert_eq!(bytes[..2], [0x82, 6]);
        bytes[1] = 5;
        for (bytes, fault) in [
            (&bytes[..], "another release"),
            (b"", "another release"),
            (b"[gateway]", "another release"),
            (&full().compile()[..100], "damaged"),
        ] {
            let told = Policy::from_compiled(bytes).unwrap_err();
            assert!(told.contains(fault), "{told}");
        }
    }

    /// Where this fails, raise `FORMAT`, then write down what is found.
    #[test]
    fn what_is_compiled_changes_with_the_format_alone() {
        let text = r#"
            [gateway]
            key_prefix = "tk"
            [origins]
            default = "zone"
            [pools.credits]
            [plans.free]
            [[routes]]
            match = "POST /dub"
            when = { "query.hd" = "1" }
            charge = { rate = 1, unit = 1, maximum = 9, from = "body.minutes" }
            job = { settle_within = "1h" }
        "#;
        let bytes = Policy::parse(text).unwrap().compile();
        let sum = bytes.iter().fold(0_u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add((*byte).into())
        });
        assert_eq!((FORMAT, bytes.len(), sum), (6, 333, 3_704_508_536));
    }
}
