//! Payments: what may be bought, what Stripe says became of it, and the history of both.

use super::{Done, Failure, Object, Store, document, shown, storage, to_json, told};
use crate::{
    account::{Changes, Rejected, StripeTask},
    headers::Standing,
    payments::{
        ask::{Ask, HistoryQuery, TopUpWish, What},
        history::{HistoryView, PaymentView},
        sighting::Sighting,
        stripe::{self, Call},
    },
    protocol::{Command, Document, Reply},
    time::Timestamp,
};

impl<S: Store> Object<S> {
    /// What the operator asks for an account.
    pub(super) fn asked(&mut self, ask: Ask, clock: Timestamp) -> Result<Done, Failure> {
        match ask.what {
            What::History(query) => return Ok(Ok(shown(self.history(query)?))),
            What::TopUp(TopUpWish::Show) => return self.carry_out(Command::ShowTopUp, clock),
            What::TopUp(TopUpWish::Set(set)) => {
                return self.carry_out(Command::SetTopUp(set), clock);
            }
            What::TopUp(TopUpWish::Retry) => return self.carry_out(Command::RetryTopUp, clock),
            What::Buy(_) | What::Subscribe(_) | What::Portal => {}
        }
        let order = self.awake()?.order(ask);
        Ok(order.map(|(order, changes)| (Reply::Order(Box::new(order)), changes)))
    }

    /// What a customer asks for the own account.
    pub(super) fn asked_by_customer(
        &mut self,
        ask: Ask,
        standing: Standing,
        clock: Timestamp,
    ) -> Result<Reply, Failure> {
        let (reply, changes) = match self.asked(ask, clock)? {
            Ok(done) => done,
            Err(rejected) => return Ok(Reply::Problem(rejected.complaint())),
        };
        self.commit(changes, None)?;
        Ok(match reply {
            Reply::Order(mut order) => {
                order.standing = Some(standing);
                Reply::Order(order)
            }
            Reply::Document(shown) => Reply::Document(Document {
                standing: Some(standing),
                ..document(shown.status, shown.json)
            }),
            other => other,
        })
    }

    /// What Stripe has to be told at `clock`, as far as this is known without waking.
    #[must_use]
    pub fn stripe_task(&self, clock: Timestamp) -> Option<(StripeTask, Call)> {
        let (at, task, call) = self.account.as_ref()?.stripe_task()?;
        (at <= clock).then_some((task, call))
    }

    /// When Stripe has to be told; `None` while it has not.
    #[must_use]
    pub fn stripe_task_at(&self) -> Option<Timestamp> {
        self.account.as_ref()?.stripe_task_at()
    }

    /// Books what Stripe has answered to what it was told. Late and repeated answers are harmless.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn stripe_answered(
        &mut self,
        task: &StripeTask,
        answer: Result<String, stripe::Failure>,
        clock: Timestamp,
    ) -> Result<(), String> {
        let booked = self.wake(clock).and_then(|()| {
            let changes = self.awake()?.stripe_answered(task, answer, clock);
            self.commit(changes, None)
        });
        match booked {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(failure) => Err(failure.detail()),
        }
    }

    /// Books how a payment stands at Stripe.
    pub(super) fn see_payment(
        &mut self,
        sighting: Sighting,
        clock: Timestamp,
    ) -> Result<Done, Failure> {
        let known = self.store.payment(&sighting.name).map_err(storage)?;
        let mut waiting = Vec::new();
        for name in self.awake()?.waiting_changes().to_vec() {
            waiting.extend(self.store.payment(&name).map_err(storage)?);
        }
        let (payment, changes) = self
            .awake()?
            .payment_sighted(known, waiting, sighting, clock);
        let view = PaymentView::from(&payment);
        Ok(Ok::<(Reply, Changes), Rejected>((
            told(200, to_json(&view)),
            changes,
        )))
    }

    fn history(&mut self, query: HistoryQuery) -> Result<String, Failure> {
        let newest = self.awake()?.payments().saturating_add(1);
        let before = query.before.unwrap_or(newest);
        // One more tells whether there is a next page.
        let limit = u64::from(query.limit);
        let mut payments = self
            .store
            .payments_before(before, limit.saturating_add(1))
            .map_err(storage)?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = payments.len() > shown;
        payments.truncate(shown);
        let next = payments.last().filter(|_| has_more);
        Ok(to_json(&HistoryView {
            next: next.map(|last| last.number.to_string()),
            data: payments.iter().map(PaymentView::from).collect(),
        }))
    }
}
