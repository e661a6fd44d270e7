//! An account is closed, which is for good: its keys are dead and nothing is granted any more. Calls
//! that are under way end as usual, and their ends can be corrected and refunded in their time.
//! What is stored is kept for `retain_days`, then erased.

use super::{Account, Changes, Key, Status};
use crate::{
    id::KeyNumber,
    key::SecretDigest,
    time::{Span, Timestamp},
};

impl Account {
    /// Closes the account. Closing it again changes nothing.
    pub fn close(&mut self, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        if !self.is_closed() {
            // By order time: a clock that is behind must not have it erased too soon.
            self.profile.status = Status::Closed {
                at: self.state.latest,
            };
            self.withdraw_all(clock, &mut changes);
            self.drop_prepared_top_up();
            self.close_pages(clock, &mut changes);
            self.end_subscription(clock, &mut changes);
            changes.profile = true;
            changes.snapshot = true;
        }
        changes
    }

    /// Whether it was closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.profile.status.closed_at().is_some()
    }

    /// When the account is to be erased, not before a call whose end came late can no longer be refunded;
    /// `None` while it is open, while a call is, while a lookup object has not heard that its secrets
    /// are free, and while a top-up may be paid. By the clock as read: one that strayed ahead of it
    /// erases nothing.
    #[must_use]
    pub fn erased_at(&self) -> Option<Timestamp> {
        let closed_at = self.profile.status.closed_at()?;
        let retain = Span::from_days(self.policy.gateway.retain_days.into());
        let kept_until = closed_at.plus(retain);
        let is_settled = self.open.is_empty()
            && self.errands_since().is_none()
            && self.top_up_asks_at().is_none();
        let months = self.state.log.iter();
        let refundable_until = months.filter_map(|month| month.refundable_until).max();
        is_settled.then(|| kept_until.max(refundable_until.unwrap_or(kept_until)))
    }

    /// The key that whoever presents a secret of this digest may use now.
    #[must_use]
    pub fn key_held(
        &self,
        number: KeyNumber,
        digest: &SecretDigest,
        clock: Timestamp,
    ) -> Option<&Key> {
        let key = self.keys.get(&number)?;
        (!self.is_closed() && key.admits(digest, clock)).then_some(key)
    }
}
