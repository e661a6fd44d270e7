//! stub
use crate::{account::Refusal, id::*, key::SecretDigest, price::Terms, time::Timestamp};
/// m
#[derive(Debug, Default)]
pub struct RefusalMemory;
impl RefusalMemory {
    /// r
    pub fn recall(
        &mut self,
        _: &AccountId,
        _: KeyNumber,
        _: SecretDigest,
        _: &Terms,
        _: Timestamp,
    ) -> Option<Refusal> {
        None
    }
    /// t
    pub fn take_repeated(&mut self, _: &AccountId, _: KeyNumber, _: SecretDigest) -> u32 {
        0
    }
    /// r
    pub fn remember(
        &mut self,
        _: &AccountId,
        _: KeyNumber,
        _: SecretDigest,
        _: &Terms,
        _: &Refusal,
        _: Timestamp,
    ) {
    }
}
