//! Carrying out top-ups: what Stripe is asked for the account, and what it answers.

use super::{Failure, Object, Store};
use crate::{
    account::{Account, Changes, TopUpAsk, TopUpAsked},
    payments::stripe,
    time::Timestamp,
};

impl<S: Store> Object<S> {
    /// What Stripe has to be asked about a top-up at `clock`, as far as this is known without waking.
    #[must_use]
    pub fn top_up_ask(&self, clock: Timestamp) -> Option<TopUpAsk> {
        let (at, ask) = self.account.as_ref()?.top_up_ask()?;
        (at <= clock).then_some(ask)
    }

    /// When Stripe has to be asked; `None` while it has not.
    #[must_use]
    pub fn top_up_asks_at(&self) -> Option<Timestamp> {
        self.account.as_ref()?.top_up_asks_at()
    }

    /// Books what Stripe has answered. Late and repeated answers are harmless.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn top_up_answered(
        &mut self,
        asked: TopUpAsked,
        answer: Result<String, stripe::Failure>,
        clock: Timestamp,
    ) -> Result<(), String> {
        self.book_of_top_up(clock, |account| {
            account.top_up_answered(asked, answer, clock)
        })
    }

    /// Something has happened to an invoice, which may be that of a top-up.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn hurry_top_up(&mut self, invoice: &str, clock: Timestamp) -> Result<(), String> {
        self.book_of_top_up(clock, |account| account.hurry_top_up(invoice, clock))
    }

    /// The customer's payment method was changed, at this moment of Stripe's clock.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn payment_method_updated(
        &mut self,
        at: Timestamp,
        clock: Timestamp,
    ) -> Result<(), String> {
        self.book_of_top_up(clock, |account| account.payment_method_updated(at, clock))
    }

    fn book_of_top_up(
        &mut self,
        clock: Timestamp,
        book: impl FnOnce(&mut Account) -> Changes,
    ) -> Result<(), String> {
        let booked = self.wake(clock).and_then(|()| {
            let changes = book(self.awake()?);
            self.commit(changes, None)
        });
        match booked {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(Failure::Storage(detail)) => Err(detail),
        }
    }
}
