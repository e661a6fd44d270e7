//! Carrying out top-ups: what Stripe is asked for the account, and what it answers.

use super::{Failure, Object, Store, storage};
use crate::{
    account::{TopUpAsk, TopUpAsked},
    payments::stripe,
    time::Timestamp,
};

impl<S: Store> Object<S> {
    /// What Stripe has to be asked about a top-up at `clock`, as far as this is known without waking.
    #[must_use]
    pub fn top_up_ask(&self, clock: Timestamp) -> Option<TopUpAsk> {
        let (at, ask) = self.account.as_ref()?.top_up_ask(clock)?;
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
        match self.try_answer_top_up(asked, answer, clock) {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(Failure::Storage(detail)) => Err(detail),
        }
    }

    fn try_answer_top_up(
        &mut self,
        asked: TopUpAsked,
        answer: Result<String, stripe::Failure>,
        clock: Timestamp,
    ) -> Result<(), Failure> {
        self.wake(clock)?;
        let invoice = self.awake()?.top_up_invoice().map(str::to_owned);
        let known = match invoice {
            Some(invoice) => self.store.payment(&invoice).map_err(storage)?,
            None => None,
        };
        let changes = self.awake()?.top_up_answered(asked, answer, known, clock);
        self.commit(changes, None)
    }
}
