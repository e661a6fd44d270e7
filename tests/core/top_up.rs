//! Automatic top-up: when it begins, what it does with each answer of Stripe's, and when it does not run.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use tollgate::{
    account::{Status, StatusChange, TopUpAsk, TopUpAsked, TopUpSettings},
    json,
    ledger::{Entry, EntryKind},
    object::Store,
    payments::{
        ask::{Ask, What},
        money::Money,
        sighting::{MethodSeen, Reversal},
        stripe::Failure,
        top_up::top_up_of,
    },
    policy::Source,
    protocol::{Command, Reply},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost},
    memory_stripe::{Card, Fault, Invoice, MemoryStripe, shown},
    properties::config,
    sold,
    statement::moment,
};

const SIX_HOURS: Span = Span::from_seconds(6 * 3_600);
const MINUTE: Span = Span::MINUTE;

/// An account, and Stripe.
struct Shop {
    branch: Branch,
    stripe: MemoryStripe,
    /// What becomes of the next requests to Stripe.
    faults: Vec<Fault>,
}

impl Shop {
    /// 1,500 credits, and a top-up to 2,000 below 500.
    fn new() -> Self {
        let mut shop = Self::with("top_up told", "prepaid");
        shop.branch.grant("credits", 1_500, Source::Extra, None);
        assert_eq!(shop.set(500, 2_000, None), 200);
        shop
    }

    /// An account that has bought something before: Stripe knows its customer.
    fn with(edits: &str, plan: &str) -> Self {
        let mut shop = Self {
            branch: Branch::with_account(edits, plan, moment("2026-11-02T10:00:00")),
            stripe: MemoryStripe::default(),
            faults: Vec::new(),
        };
        let portal = Ask {
            what: What::Portal,
            made: Some("cus_1".into()),
            gone: None,
        };
        shop.branch.manage(Command::Payments(portal), None);
        shop
    }

    fn set(&mut self, threshold: u64, target: u64, cap: Option<&str>) -> u16 {
        self.set_to(true, threshold, target, cap)
    }

    fn turn_off(&mut self) -> u16 {
        self.set_to(false, 500, 2_000, None)
    }

    fn set_to(&mut self, is_on: bool, threshold: u64, target: u64, cap: Option<&str>) -> u16 {
        self.send(Command::SetTopUp(TopUpSettings {
            is_on,
            threshold: sold::credits(threshold),
            target: sold::credits(target),
            monthly_cap: cap.map(|cap| Money::parse(cap).unwrap()),
        }))
    }

    fn send(&mut self, command: Command) -> u16 {
        self.send_for(command).0
    }

    /// The status of the answer, and after how many seconds it can be another.
    fn send_for(&mut self, command: Command) -> (u16, Option<u64>) {
        match self.branch.manage(command, None) {
            Reply::Document(document) => (document.status, None),
            Reply::Problem(complaint) => (complaint.code.status(), complaint.retry_after_seconds),
            other => panic!("{other:?}"),
        }
    }

    /// Stripe tells that something about the payment methods was changed at this moment, and is asked
    /// what would be paid with now.
    fn tell_of_method(&mut self, at: Timestamp, updated: Option<&str>) {
        let seen = MethodSeen {
            now: self.stripe.method(),
            updated: updated.map(str::to_owned),
        };
        self.send(Command::SeePaymentMethod(at, Some(seen)));
    }

    fn retry(&mut self) -> u16 {
        self.send(Command::RetryTopUp)
    }

    /// A call that is charged so much.
    fn charge(&mut self, credits: u64) {
        assert!(matches!(
            self.branch.call(cost(credits)),
            Reply::Admitted(_)
        ));
        let call = self.branch.object.account().unwrap().calls_admitted();
        self.branch.settle(call, 200);
    }

    fn pass(&mut self, span: Span) {
        self.branch.set_clock(self.branch.clock.plus(span));
    }

    /// What Stripe is asked now.
    fn ask(&self) -> Option<TopUpAsk> {
        self.branch.object.top_up_ask(self.branch.clock)
    }

    /// Asks Stripe once.
    fn step(&mut self) -> bool {
        let Some(ask) = self.ask() else {
            return false;
        };
        let fault = self.faults.pop().unwrap_or_default();
        let answer = self.stripe.ask(&ask.call, fault, self.branch.clock);
        let object = &mut self.branch.object;
        object
            .top_up_answered(ask.asked, answer, self.branch.clock)
            .unwrap();
        true
    }

    /// The alarm, and everything that Stripe has to be asked now.
    fn work(&mut self) {
        self.branch.rest().unwrap();
        while self.step() {}
    }

    /// The alarm whenever it goes off, until this much time has passed.
    fn wait(&mut self, span: Span) {
        let end = self.branch.clock.plus(span);
        loop {
            self.work();
            let account = self.branch.object.account().unwrap();
            let asks_at = account.top_up_asks_at();
            let wakeup = account.next_wakeup().into_iter().chain(asks_at).min();
            match wakeup.filter(|wakeup| *wakeup < end) {
                Some(wakeup) => self.branch.set_clock(wakeup.max(self.branch.clock)),
                None => break,
            }
        }
        self.branch.set_clock(end);
        self.work();
    }

    /// Stripe tells that an invoice was paid, if it was.
    fn tell_of_invoice(&mut self, nth: usize) {
        let paid = self.stripe.invoices.get(nth);
        if let Some(invoice) = paid.filter(|invoice| invoice.status == "paid") {
            let invoice = shown(invoice).to_string();
            let (_, sighting) = top_up_of(json::parse(&invoice).unwrap()).unwrap();
            assert_eq!(self.send(Command::SeePayment(Box::new(sighting))), 200);
        }
    }

    /// Stripe tells what went back of an invoice, and what may.
    fn see_dispute(&mut self, invoice: &str, disputed: u64, is_open: bool) {
        let (_, mut sighting) = top_up_of(json::parse(invoice).unwrap()).unwrap();
        sighting.reversal = Some(Reversal {
            as_of: self.branch.clock,
            refunded: 0,
            disputed,
            is_open,
        });
        assert_eq!(self.send(Command::SeePayment(Box::new(sighting))), 200);
    }

    fn view(&mut self) -> Value {
        let Reply::Document(document) = self.branch.manage(Command::ShowTopUp, None) else {
            panic!("no view");
        };
        serde_json::from_str(&document.json).unwrap()
    }

    /// `status: reason`.
    fn standing(&mut self) -> String {
        let view = self.view();
        let text = |name: &str| view[name].as_str().unwrap().to_owned();
        format!("{}: {}", text("status"), text("reason"))
    }

    fn available(&mut self) -> u64 {
        self.branch.balance("credits")["available"]
            .as_u64()
            .unwrap()
    }

    /// How each invoice stands.
    fn invoices(&self) -> Vec<&'static str> {
        let invoices = self.stripe.invoices.iter();
        invoices.map(|invoice| invoice.status).collect()
    }

    /// The credits of each top-up so far.
    fn topped_up(&self) -> Vec<i64> {
        let entries = self.branch.store().entries().iter();
        entries
            .filter(|entry| entry.kind == EntryKind::ToppedUp)
            .map(|entry| entry.credits)
            .collect()
    }

    fn charges(&self) -> u32 {
        self.stripe.charges
    }

    /// What the operator was told.
    fn told(&self) -> Vec<&'static str> {
        let events = self.branch.store().all_events();
        events
            .map(|event| event.kind.as_str())
            .filter(|kind| kind.starts_with("top_up."))
            .collect()
    }
}

#[test]
fn a_charge_that_goes_below_the_threshold_tops_up_to_the_target_once() {
    let mut shop = Shop::new();
    shop.charge(1_000);
    shop.work();
    assert_eq!(
        shop.standing(),
        "ready: the pool credits can spend 500 credits, which is not below the threshold"
    );
    assert!(shop.stripe.requests.is_empty());

    shop.charge(1);
    shop.charge(99);
    shop.work();
    assert_eq!((shop.topped_up(), shop.available()), (vec![1_600], 2_000));
    assert_eq!(shop.stripe.invoices[0].amount, 1_600);
    assert_eq!(
        shop.stripe.requests,
        [
            "GET /v1/customers/cus_1",
            "POST /v1/invoices",
            "POST /v1/invoiceitems",
            "POST /v1/invoices/in_1/finalize",
            "POST /v1/invoices/in_1/pay",
        ]
    );
    let entry = shop.branch.store().entries().last().unwrap();
    assert_eq!(entry.reference.as_deref(), Some("in_1"));
    assert_eq!(shop.told(), ["top_up.succeeded"]);
    shop.branch.check().unwrap();
}

#[test]
fn a_customer_that_was_deleted_at_stripe_pauses_and_is_not_asked_about_again() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::Deleted;
    shop.charge(1_100);
    shop.work();
    let asked = shop.stripe.requests.len();
    assert_eq!(shop.told(), ["top_up.failed", "top_up.paused"]);
    shop.wait(Span::from_days(3));
    assert_eq!(shop.stripe.requests.len(), asked);
    assert_eq!(shop.branch.object.account().unwrap().customer(), None);
}

#[test]
fn only_a_charge_counts_and_holds_are_taken_off() {
    let mut shop = Shop::new();
    // A hold alone charges nothing.
    shop.branch.call(cost(1_200));
    shop.work();
    shop.branch.settle(1, 500);
    shop.work();
    assert!(shop.stripe.requests.is_empty());
    // While it stands, a small charge is below the threshold.
    shop.branch.call(cost(1_200));
    shop.charge(1);
    shop.work();
    assert_eq!(shop.topped_up(), [1_701]);

    // What expires in an idle account buys nothing.
    let mut shop = Shop::with("top_up told", "prepaid");
    let until = shop.branch.clock.plus(Span::from_days(1));
    shop.branch
        .grant("credits", 5_000, Source::Extra, Some(until));
    shop.set(500, 2_000, None);
    shop.charge(10);
    shop.wait(Span::from_days(3));
    assert_eq!(
        shop.standing(),
        "ready: the pool credits can spend 0 credits, which is below the threshold, and the next \
         charge starts a top-up"
    );
    assert!(shop.stripe.requests.is_empty());
}

#[test]
fn there_is_one_top_up_in_six_hours() {
    let mut shop = Shop::new();
    shop.charge(1_100);
    shop.work();
    let begun = shop.branch.clock;
    shop.pass(MINUTE);
    shop.charge(1_600);
    shop.wait(Span::from_seconds(6 * 3_600 - 61));
    assert_eq!(shop.topped_up(), [1_600]);
    assert_eq!(
        shop.standing(),
        "cooling_down: a top-up was made or tried not long ago, and the next can begin at \
         2026-11-02T16:00:00Z"
    );
    // Also for the customer.
    assert_eq!(shop.retry(), 409);
    shop.wait(MINUTE);
    assert_eq!(shop.topped_up(), [1_600, 1_600]);
    let paid: Vec<_> = shop
        .stripe
        .invoices
        .iter()
        .map(|invoice| invoice.paid_at)
        .collect();
    assert_eq!(paid, [Some(begun), Some(begun.plus(SIX_HOURS))]);
}

#[test]
fn the_alarm_looks_again_only_while_a_top_up_is_due() {
    let mut shop = Shop::new();
    let wakeup = |shop: &Shop| shop.branch.object.next_wakeup();
    assert_eq!(wakeup(&shop), None);
    shop.charge(1_100);
    assert_eq!(wakeup(&shop), Some(shop.branch.clock));
    shop.work();
    // Enough again: it cools, and nobody has to look.
    assert_eq!(wakeup(&shop), None);
    shop.charge(1_600);
    shop.work();
    let in_half_an_hour = shop.branch.clock.plus(Span::from_seconds(1_800));
    assert_eq!(wakeup(&shop), Some(in_half_an_hour));
    shop.stripe.card = Card::Declined;
    shop.wait(SIX_HOURS);
    // Paused.
    assert_eq!(wakeup(&shop), None);
    assert_eq!(shop.branch.object.top_up_asks_at(), None);
}

#[test]
fn a_declined_payment_pauses_at_once_and_is_not_tried_again() {
    for (card, reason) in [
        (Card::Declined, "the payment was declined (card_declined)"),
        (
            Card::Secured,
            "the bank wants the customer to confirm the payment",
        ),
    ] {
        let mut shop = Shop::new();
        shop.stripe.card = card;
        shop.charge(1_100);
        shop.work();
        assert_eq!(
            shop.standing(),
            format!(
                "paused: paused: {reason}; it goes on when the payment method is changed or a retry \
                 succeeds"
            )
        );
        assert_eq!(shop.view()["url"], "https://invoice.test/in_1");
        shop.charge(100);
        shop.wait(Span::from_days(3));
        assert_eq!(shop.charges(), 1);
        assert_eq!(shop.told(), ["top_up.failed", "top_up.paused"]);
        // Asking for it fails again, and nothing resumes. The customer is told where to pay now.
        assert_eq!(shop.retry(), 202);
        shop.work();
        assert_eq!(shop.charges(), 2);
        assert_eq!(
            shop.told(),
            [
                "top_up.failed",
                "top_up.paused",
                "top_up.failed",
                "top_up.paused"
            ]
        );
        assert_eq!(shop.view()["url"], "https://invoice.test/in_2");
        shop.wait(Span::from_days(1));
        assert_eq!(shop.charges(), 2);
        // With another card it succeeds. The invoices before cannot be paid any more.
        shop.stripe.card = Card::Good;
        assert_eq!(shop.retry(), 202);
        assert_eq!(shop.retry(), 409);
        shop.work();
        assert_eq!(shop.topped_up(), [1_700]);
        assert_eq!(shop.invoices(), ["void", "void", "paid"]);
        assert_eq!(shop.told()[4..], ["top_up.succeeded", "top_up.resumed"]);
        shop.branch.check().unwrap();
    }
}

#[test]
fn what_fails_can_be_asked_for_3_times_an_hour_and_10_times_a_day() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::Declined;
    shop.charge(1_100);
    shop.work();
    let began = shop.branch.clock;
    let mut asked_at = Vec::new();
    // Somebody asks every minute, for two days.
    for minute in 1..=2 * 24 * 60 {
        shop.pass(MINUTE);
        let before = shop.charges();
        match shop.send_for(Command::RetryTopUp) {
            (202, None) => asked_at.push(minute),
            (429, Some(seconds)) => {
                let clock = shop.branch.clock;
                let until = clock.plus(Span::from_seconds(seconds.try_into().unwrap()));
                let minutes = until.since(began).as_seconds_ceil() / 60;
                assert!(minutes > minute && asked_at.len() >= 3, "{minutes}");
            }
            other => panic!("{other:?}"),
        }
        shop.work();
        let is_tried = shop.charges() > before;
        assert_eq!(is_tried, asked_at.last() == Some(&minute));
    }
    let day = 24 * 60;
    let one_day = [1, 2, 3, 61, 62, 63, 121, 122, 123, 181];
    let two_days = one_day.into_iter().chain(one_day.map(|at| at + day));
    assert!(two_days.eq(asked_at));
}

#[test]
fn a_pause_ends_only_with_another_payment_method_or_with_details_of_the_same() {
    // What Stripe tells, whether the customer pays with something else, and whether it goes on.
    for (updated, is_another, after_the_pause, resumes) in [
        // A method that was added, or an old default taken off: the same is paid with.
        (None, false, true, false),
        (Some("pm_7"), false, true, false),
        // A new expiry of the one that was declined.
        (Some("pm_1"), false, true, true),
        // An event that is older than the pause.
        (Some("pm_1"), false, false, false),
        // Another default, also where that is told late.
        (None, true, true, true),
        (None, true, false, true),
    ] {
        let mut shop = Shop::new();
        shop.stripe.card = Card::Declined;
        shop.charge(1_100);
        shop.work();
        let paused_at = shop.branch.clock;
        shop.pass(MINUTE);
        if is_another {
            shop.stripe.change_card(Card::Good);
        }
        let at = if after_the_pause {
            paused_at.plus(MINUTE)
        } else {
            paused_at.minus(MINUTE)
        };
        shop.tell_of_method(at, updated);
        let case = format!("{updated:?} {is_another} {after_the_pause}");
        let status = if resumes { "cooling_down" } else { "paused" };
        assert_eq!(shop.view()["status"], status, "{case}");
        let told: &[_] = if resumes { &["top_up.resumed"] } else { &[] };
        assert_eq!(shop.told()[2..], *told, "{case}");
        shop.wait(Span::from_days(1));
        assert_eq!(shop.charges(), if resumes { 2 } else { 1 }, "{case}");
    }
}

#[test]
fn a_retry_that_was_called_off_leaves_the_pause_with_what_was_declined() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::Declined;
    shop.charge(1_100);
    shop.work();
    shop.pass(MINUTE);
    assert_eq!(shop.retry(), 202);
    // Before Stripe has said what would be paid with.
    shop.branch.grant("credits", 50, Source::Extra, None);
    shop.work();
    let now = shop.branch.clock;
    shop.tell_of_method(now, None);
    assert!(shop.standing().starts_with("paused"));
}

#[test]
fn a_first_payment_method_resumes_and_the_customer_need_not_wait() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::None;
    shop.charge(1_100);
    shop.work();
    assert!(
        shop.standing()
            .starts_with("paused: paused: there is no payment method;")
    );
    assert_eq!(shop.charges(), 0);
    shop.pass(MINUTE);
    let now = shop.branch.clock;
    shop.tell_of_method(now, None);
    assert!(shop.standing().starts_with("paused"));
    shop.stripe.change_card(Card::Good);
    shop.tell_of_method(now, None);
    assert!(shop.standing().starts_with("cooling_down"));
    assert_eq!(
        shop.told(),
        ["top_up.failed", "top_up.paused", "top_up.resumed"]
    );
    assert_eq!(shop.retry(), 202);
    shop.work();
    assert_eq!(shop.topped_up(), [1_600]);
}

#[test]
fn whatever_is_lost_on_the_way_the_money_moves_once() {
    for at in 0..5 {
        for fault in [Fault::Lost, Fault::Broken, Fault::Busy] {
            let mut shop = Shop::new();
            shop.charge(1_100);
            // The fault comes at this request, and again at the next one.
            shop.faults = vec![fault, fault];
            shop.faults.extend([Fault::None].repeat(at));
            shop.wait(Span::HOUR);
            assert_eq!(shop.topped_up(), [1_600], "{fault:?} at {at}");
            assert_eq!(shop.charges(), 1, "{fault:?} at {at}");
            shop.branch.check().unwrap();
        }
    }
}

#[test]
fn what_stripe_keeps_failing_at_is_voided_and_tried_anew() {
    let mut shop = Shop::new();
    shop.charge(1_100);
    shop.faults = vec![
        Fault::Failed,
        Fault::None,
        Fault::None,
        Fault::None,
        Fault::None,
    ];
    shop.work();
    assert_eq!(
        shop.standing(),
        "attempting: a payment of 16.00 USD for 1600 credits is under way"
    );
    shop.wait(Span::from_seconds(7 * 3_600));
    assert_eq!(shop.invoices(), ["void", "paid"]);
    assert_eq!(shop.topped_up(), [1_600]);
    assert_eq!(shop.told(), ["top_up.failed", "top_up.succeeded"]);
}

#[test]
fn a_debit_is_waited_for_and_pauses_when_it_fails_after_days() {
    for (succeeds, is_told) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut shop = Shop::new();
        shop.stripe.card = Card::Slow;
        shop.charge(1_100);
        shop.wait(Span::from_days(9));
        assert!(shop.topped_up().is_empty());
        assert_eq!((shop.charges(), shop.retry()), (1, 409));
        let now = shop.branch.clock;
        shop.stripe.conclude(succeeds, now);
        if is_told {
            shop.tell_of_invoice(0);
            shop.send(Command::SeeTopUp("in_1".into()));
            shop.work();
        } else {
            shop.wait(Span::HOUR);
        }
        let case = format!("{succeeds} {is_told}");
        if succeeds {
            assert_eq!(shop.topped_up(), [1_600], "{case}");
            assert_eq!(shop.told(), ["top_up.succeeded"], "{case}");
        } else {
            assert_eq!(
                shop.standing(),
                "paused: paused: the payment was declined (insufficient_funds); it goes on when \
                 the payment method is changed or a retry succeeds",
                "{case}"
            );
            assert_eq!(shop.view()["url"], "https://invoice.test/in_1");
            assert_eq!(shop.told(), ["top_up.failed", "top_up.paused"], "{case}");
        }
        shop.charge(100);
        shop.wait(Span::from_days(20));
        assert_eq!((shop.charges(), shop.invoices().len()), (1, 1), "{case}");
    }
}

#[test]
fn that_a_debit_failed_is_heard_also_while_an_older_answer_is_under_way() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::Slow;
    shop.charge(1_100);
    shop.wait(Span::from_days(2));
    shop.pass(Span::from_seconds(1_800));
    let ask = shop.ask().unwrap();
    let now = shop.branch.clock;
    let answer = shop.stripe.ask(&ask.call, Fault::None, now);
    shop.stripe.conclude(false, now);
    shop.send(Command::SeeTopUp("in_1".into()));
    let object = &mut shop.branch.object;
    object.top_up_answered(ask.asked, answer, now).unwrap();
    shop.wait(Span::from_seconds(11));
    assert_eq!(shop.told(), ["top_up.failed", "top_up.paused"]);
}

#[test]
fn a_debit_that_fails_pauses_also_where_it_was_called_off_meanwhile() {
    let mut shop = Shop::new();
    shop.stripe.card = Card::Slow;
    shop.charge(1_100);
    shop.work();
    shop.turn_off();
    shop.wait(Span::from_days(3));
    assert_eq!(shop.invoices(), ["open"]);
    let now = shop.branch.clock;
    shop.stripe.conclude(false, now);
    shop.wait(Span::HOUR);
    assert_eq!(shop.invoices(), ["void"]);
    shop.set(500, 2_000, None);
    shop.wait(Span::from_days(1));
    assert!(
        shop.standing()
            .starts_with("paused: paused: the payment was declined")
    );
    assert_eq!((&shop.view()["url"], shop.charges()), (&Value::Null, 1));
}

#[test]
fn what_the_customer_pays_by_hand_is_a_top_up_once() {
    for waits in [true, false] {
        let mut shop = Shop::new();
        shop.stripe.card = Card::Secured;
        shop.charge(1_100);
        shop.work();
        let now = shop.branch.clock;
        shop.stripe.pay_by_hand(now);
        shop.pass(MINUTE);
        if waits {
            // Stripe's event is late: a retry finds it paid.
            assert_eq!(shop.retry(), 202);
            shop.work();
        }
        for _ in 0..2 {
            shop.tell_of_invoice(0);
            shop.work();
        }
        assert_eq!(shop.topped_up(), [1_600]);
        assert_eq!(shop.stripe.invoices.len(), 1);
        assert!(shop.standing().starts_with("ready"));
    }
}

#[test]
fn the_monthly_cap_holds_until_the_month_is_over() {
    let mut shop = Shop::with("top_up told", "prepaid");
    shop.branch.grant("credits", 1_500, Source::Extra, None);
    assert_eq!(shop.set(500, 2_000, Some("19.99 USD")), 400);
    assert_eq!(shop.set(500, 2_000, Some("20.00 EUR")), 400);
    assert_eq!(shop.set(500, 2_000, Some("20.00 USD")), 200);
    shop.charge(1_100);
    shop.wait(SIX_HOURS);
    shop.charge(1_600);
    shop.wait(Span::from_days(2));
    assert_eq!(shop.topped_up(), [1_600]);
    assert_eq!(
        shop.standing(),
        "capped: a top-up for 16.00 USD would be above the monthly cap until 2026-12-01T00:00:00Z"
    );
    assert_eq!(shop.retry(), 409);
    assert_eq!(shop.view()["spent_this_month"], "16.00 USD");
    shop.wait(Span::from_days(30));
    assert_eq!(shop.topped_up(), [1_600, 1_600]);
    assert_eq!(shop.view()["spent_this_month"], "16.00 USD");
}

#[test]
fn the_monthly_cap_is_of_what_is_paid_with_tax() {
    let mut shop = Shop::with("top_up told", "prepaid");
    shop.branch.grant("credits", 1_500, Source::Extra, None);
    shop.stripe.tax = 25;
    assert_eq!(shop.set(500, 2_000, Some("38.00 USD")), 200);
    shop.charge(1_100);
    shop.work();
    assert_eq!(shop.topped_up(), [1_600]);
    assert_eq!(shop.view()["spent_this_month"], "20.00 USD");
    // Without tax the next one would be within it.
    shop.charge(1_600);
    shop.wait(Span::from_days(2));
    assert_eq!(
        shop.standing(),
        "capped: a top-up for 20.00 USD would be above the monthly cap until 2026-12-01T00:00:00Z"
    );
    assert_eq!((shop.retry(), shop.charges()), (409, 1));
    shop.wait(Span::from_days(30));
    assert_eq!(shop.topped_up(), [1_600, 1_600]);
}

#[test]
fn an_invoice_that_comes_to_more_than_the_cap_is_not_paid() {
    let mut shop = Shop::with("top_up told", "prepaid");
    shop.branch.grant("credits", 1_500, Source::Extra, None);
    shop.stripe.tax = 25;
    shop.set(500, 2_000, Some("20.00 USD"));
    // Nobody knows of the tax before.
    shop.charge(1_101);
    shop.work();
    assert_eq!((shop.invoices(), shop.charges()), (vec!["void"], 0));
    assert_eq!(
        shop.view()["last_attempt"]["reason"],
        "20.01 USD with tax is more than the monthly cap has room for"
    );
    assert_eq!(shop.told(), ["top_up.failed"]);
    // It is not tried again until there is room.
    shop.wait(Span::from_days(3));
    assert_eq!(
        shop.standing(),
        "capped: a top-up for 20.01 USD would be above the monthly cap until 2026-12-01T00:00:00Z"
    );
    assert_eq!((shop.invoices().len(), shop.retry()), (1, 409));
    shop.set(500, 2_000, Some("20.01 USD"));
    shop.work();
    assert_eq!((shop.topped_up(), shop.charges()), (vec![1_601], 1));
}

/// What another top-up of the same account was paid with.
fn another_top_up() -> Invoice {
    let mut shop = Shop::new();
    shop.charge(1_100);
    shop.work();
    shop.stripe.invoices.remove(0)
}

/// An attempt that was prepared up to its request number `at`, the payment's included. Stripe hears nothing
/// of the last one.
fn attempt_stuck_at(at: usize) -> Shop {
    let mut shop = Shop::new();
    shop.charge(1_100);
    shop.branch.tick().unwrap();
    for _ in 0..at {
        assert!(shop.step());
    }
    shop
}

#[test]
fn what_is_not_needed_or_allowed_any_more_is_not_paid() {
    // The first two bring credits; with the second it is still below the threshold, but what was to be
    // bought is more than is missing.
    let in_between: [fn(&mut Shop); 6] = [
        |shop| drop(shop.branch.grant("credits", 2_000, Source::Extra, None)),
        |shop| drop(shop.branch.grant("credits", 50, Source::Extra, None)),
        |shop| {
            shop.set(100, 1_100, None);
        },
        |shop| {
            shop.set(100, 1_100, Some("12.00 USD"));
        },
        |shop| {
            let other = shown(&another_top_up()).to_string();
            shop.see_dispute(&other.replace("in_1", "in_other"), 1_600, true);
        },
        |shop| {
            drop(
                shop.branch
                    .change_status(Status::Suspended { reason: None }),
            );
        },
    ];
    for (nth, change) in in_between.into_iter().enumerate() {
        let reason = if nth < 2 {
            "enough credits came in before anything was paid"
        } else {
            "it was called off before anything was paid"
        };
        for at in 0..=4 {
            let mut shop = attempt_stuck_at(at);
            shop.pass(MINUTE);
            change(&mut shop);
            // The object had died in between: the request that it asks next is decided on anew.
            shop.branch.evict();
            let available = shop.available();
            shop.work();
            let case = format!("{nth} at {at}");
            assert_eq!(shop.charges(), 0, "{case}");
            assert!(!shop.invoices().contains(&"open"), "{case}");
            assert_eq!(shop.available(), available, "{case}");
            let last = shop.view()["last_attempt"]["reason"].clone();
            assert!(last == reason || last.is_null(), "{case}: {last}");
        }
    }
}

#[test]
fn what_came_in_meanwhile_is_made_up_to_the_target_soon() {
    let mut shop = attempt_stuck_at(4);
    shop.branch.grant("credits", 50, Source::Extra, None);
    shop.wait(Span::from_seconds(1_800));
    assert_eq!((shop.topped_up(), shop.available()), (vec![1_550], 2_000));
    assert_eq!(shop.invoices(), ["void", "paid"]);
    // What comes back of a hold calls nothing off: the charge had made it due.
    let mut shop = Shop::new();
    shop.branch.call(cost(1_200));
    shop.charge(1);
    shop.branch.tick().unwrap();
    shop.branch.settle(1, 500);
    shop.work();
    assert_eq!(shop.topped_up(), [1_701]);
}

#[test]
fn it_runs_only_where_it_can_be_of_use() {
    let mut shop = Shop::new();
    for (command, standing) in [
        (
            Some(Status::Suspended { reason: None }),
            "blocked: the account is suspended",
        ),
        (Some(Status::Active), "ready: the pool"),
    ] {
        shop.branch.change_status(command.unwrap());
        assert!(shop.standing().starts_with(standing), "{}", shop.standing());
    }
    // What has not come to the payment is dropped with it.
    shop.charge(1_100);
    shop.branch.tick().unwrap();
    shop.step();
    shop.turn_off();
    assert!(shop.ask().is_none());
    shop.stripe.requests.clear();
    shop.branch.grant("credits", 1_100, Source::Extra, None);
    shop.charge(1_100);
    shop.wait(Span::from_days(1));
    assert_eq!(shop.standing(), "off: automatic top-up is off");
    assert_eq!(shop.retry(), 409);
    assert!(shop.stripe.requests.is_empty());
    // Turned on below the threshold, it need not wait for a charge.
    shop.set(500, 2_000, None);
    shop.work();
    assert_eq!(shop.topped_up(), [1_600]);

    let mut shop = Shop::with("top_up extra_needs_subscription", "starter");
    shop.branch.change_subscription(StatusChange::Lapsed);
    shop.set(500, 2_000, None);
    shop.work();
    assert_eq!(
        shop.standing(),
        "blocked: what it would buy cannot be spent without an active subscription"
    );
    assert!(shop.stripe.requests.is_empty());

    let mut shop = Shop::with("standard", "prepaid");
    assert_eq!(shop.set(500, 2_000, None), 404);
    assert_eq!(shop.send(Command::ShowTopUp), 404);
}

#[test]
fn what_is_called_off_is_not_paid_any_more() {
    let calls_off: [fn(&mut Shop); 3] = [
        |shop| {
            shop.turn_off();
        },
        |shop| {
            drop(
                shop.branch
                    .change_status(Status::Suspended { reason: None }),
            )
        },
        |shop| drop(shop.branch.close()),
    ];
    for (nth, call_off) in calls_off.into_iter().enumerate() {
        // Before each request, and after a payment that did not arrive.
        for at in 0..=5 {
            let mut shop = Shop::new();
            shop.charge(1_100);
            shop.branch.tick().unwrap();
            shop.faults = vec![
                Fault::Broken,
                Fault::None,
                Fault::None,
                Fault::None,
                Fault::None,
            ];
            for _ in 0..at {
                assert!(shop.step());
            }
            call_off(&mut shop);
            shop.wait(Span::HOUR);
            assert_eq!(shop.topped_up(), [0; 0], "{nth} at {at}");
            assert_eq!(shop.charges(), 0, "{nth} at {at}");
            let open = shop.stripe.invoices.iter();
            assert!(
                open.clone().all(|invoice| invoice.status != "open"),
                "{nth} at {at}"
            );
        }
    }
}

#[test]
fn nothing_is_bought_while_a_payment_is_disputed() {
    for is_won in [true, false] {
        let mut shop = Shop::new();
        shop.charge(1_100);
        shop.work();
        let invoice = shown(&shop.stripe.invoices[0]).to_string();
        let disputed = |shop: &mut Shop, disputed, is_open| {
            shop.pass(MINUTE);
            shop.see_dispute(&invoice, disputed, is_open);
        };
        disputed(&mut shop, 1_600, true);
        // What it had bought is gone.
        assert_eq!(shop.available(), 400);
        shop.charge(100);
        shop.wait(Span::from_days(1));
        assert_eq!(
            shop.standing(),
            "blocked: a payment is disputed, and nothing is bought until that is decided"
        );
        assert_eq!(shop.retry(), 409);
        let now = shop.branch.clock;
        shop.stripe.change_card(Card::Good);
        shop.tell_of_method(now, None);
        assert_eq!(shop.told(), ["top_up.succeeded", "top_up.paused"]);
        assert_eq!(shop.charges(), 1);
        if is_won {
            disputed(&mut shop, 0, false);
            assert_eq!(shop.told()[2..], ["top_up.resumed"]);
            assert!(shop.standing().starts_with("ready"));
        } else {
            disputed(&mut shop, 1_600, false);
            shop.wait(Span::from_days(1));
            assert!(
                shop.standing()
                    .starts_with("paused: paused: a payment was disputed;")
            );
            assert_eq!(shop.charges(), 1);
            assert_eq!(shop.retry(), 202);
            shop.work();
            assert_eq!(shop.topped_up(), [1_600, 1_700]);
        }
        shop.branch.check().unwrap();
    }
}

#[test]
fn a_card_that_was_changed_during_a_dispute_counts_once_the_dispute_is_won() {
    let mut shop = Shop::new();
    shop.charge(1_100);
    shop.work();
    let invoice = shown(&shop.stripe.invoices[0]).to_string();
    shop.wait(Span::from_days(1));
    shop.stripe.change_card(Card::Declined);
    shop.charge(1_600);
    shop.work();
    assert!(shop.standing().starts_with("paused"), "{}", shop.standing());
    shop.see_dispute(&invoice, 100, true);
    shop.pass(MINUTE);
    let now = shop.branch.clock;
    shop.stripe.change_card(Card::Good);
    shop.tell_of_method(now, None);
    assert!(
        shop.standing().starts_with("blocked"),
        "{}",
        shop.standing()
    );
    shop.pass(MINUTE);
    shop.see_dispute(&invoice, 0, false);
    assert_eq!(shop.told().last(), Some(&"top_up.resumed"));
    shop.branch.check().unwrap();
}

#[test]
fn a_charge_that_starts_a_top_up_writes_one_row_more() {
    let mut shop = Shop::new();
    shop.charge(900);
    let mut rows = shop.branch.store().rows_written;
    let mut written = |shop: &mut Shop, credits| {
        shop.charge(credits);
        let before = std::mem::replace(&mut rows, shop.branch.store().rows_written);
        rows - before
    };
    assert_eq!(written(&mut shop, 50), 2);
    assert_eq!(written(&mut shop, 51), 3);
    assert_eq!(written(&mut shop, 1), 2);
}

#[test]
fn a_stray_clock_holds_no_top_up_back_for_longer_than_six_hours() {
    let mut shop = Shop::new();
    let now = shop.branch.clock;
    shop.branch.set_clock(now.plus(Span::from_days(400)));
    shop.charge(1_100);
    shop.work();
    shop.branch.set_clock(now);
    shop.charge(1_600);
    shop.wait(SIX_HOURS);
    assert_eq!(shop.topped_up(), [1_600, 1_600]);
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Move {
    Charge(u64),
    Pass(i64),
    Alarm,
    /// Stripe is asked what is to be asked, and the answer arrives so often.
    Ask(Fault, Arrives),
    /// An answer that is under way arrives.
    Deliver(usize),
    /// The object's memory is gone.
    Crash,
    /// The next commit fails.
    DiskFull,
    Card(Card),
    /// A slow payment comes, or does not.
    Conclude(bool),
    PayByHand,
    /// Stripe's event about an invoice arrives, once more or for the first time.
    InvoiceEvent(usize),
    /// The same about a change of the payment method.
    MethodEvent(usize),
    /// The same about a debit that has failed.
    DebitEvent(usize),
    Retry,
    Set(u64, u64, Option<&'static str>),
    Off,
    /// Credits come from elsewhere.
    Buy(u64),
    /// So many percent of an invoice are given back.
    Refund(usize, u64),
    Dispute(usize, Dispute),
    Suspend(bool),
    Close,
    /// In percent, of the invoices to come.
    Tax(u64),
}

/// What a bank says of a payment that its customer does not want to have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dispute {
    Open,
    Won,
    Lost,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrives {
    Now,
    Twice,
    Later,
    /// The object's memory is gone before.
    AfterACrash,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let fault = prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Lost),
        1 => Just(Fault::Broken),
        1 => Just(Fault::Failed),
        1 => Just(Fault::Busy),
    ];
    let arrives = prop_oneof![
        6 => Just(Arrives::Now),
        1 => Just(Arrives::Twice),
        1 => Just(Arrives::Later),
        1 => Just(Arrives::AfterACrash),
    ];
    let card = prop_oneof![
        3 => Just(Card::Good),
        2 => Just(Card::Declined),
        1 => Just(Card::Secured),
        1 => Just(Card::Slow),
        1 => Just(Card::None),
    ];
    let cap = prop::option::of(prop_oneof![Just("65.00 USD"), Just("31.00 USD")]);
    let dispute = prop_oneof![Just(Dispute::Open), Just(Dispute::Won), Just(Dispute::Lost)];
    let pass = prop_oneof![3 => 1_i64..90, 2 => 600_i64..7_200, 2 => 7_200_i64..40_000];
    let each = prop_oneof![
        6 => (1_u64..900).prop_map(Move::Charge),
        8 => pass.prop_map(Move::Pass),
        4 => Just(Move::Alarm),
        30 => (fault, arrives).prop_map(|(fault, arrives)| Move::Ask(fault, arrives)),
        3 => (0_usize..8).prop_map(Move::Deliver),
        1 => Just(Move::Crash),
        1 => Just(Move::DiskFull),
        2 => card.prop_map(Move::Card),
        1 => any::<bool>().prop_map(Move::Conclude),
        1 => Just(Move::PayByHand),
        2 => (0_usize..8).prop_map(Move::InvoiceEvent),
        2 => (0_usize..8).prop_map(Move::MethodEvent),
        3 => Just(Move::Retry),
        2 => (100_u64..900, 1_900_u64..3_000, cap)
            .prop_map(|(threshold, target, cap)| Move::Set(threshold, target, cap)),
        1 => Just(Move::Off),
        1 => (0_usize..8).prop_map(Move::DebitEvent),
        2 => (1_u64..1_500).prop_map(Move::Buy),
        1 => (0_usize..8, 1_u64..=100).prop_map(|(nth, share)| Move::Refund(nth, share)),
        2 => (0_usize..8, dispute).prop_map(|(nth, dispute)| Move::Dispute(nth, dispute)),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => Just(Move::Tax(0)),
        3 => (1_u64..30).prop_map(Move::Tax),
    ];
    // Closing is for good: late, if at all.
    let each = prop_oneof![400 => each, 1 => Just(Move::Close)];
    prop::collection::vec(each, 1..120)
}

/// A history, and what of it is under way.
struct History {
    shop: Shop,
    answers: Vec<(TopUpAsked, Result<String, Failure>)>,
    methods_changed_at: Vec<Timestamp>,
    /// What went back of each invoice, as it was told last.
    gone: BTreeMap<String, Reversal>,
    is_suspended: bool,
    is_closed: bool,
}

impl History {
    fn play(moves: Vec<Move>) -> Result<(), String> {
        let mut shop = Shop::with("top_up told", "prepaid");
        shop.branch.grant("credits", 1_500, Source::Extra, None);
        shop.set(500, 2_000, None);
        let mut history = Self {
            shop,
            answers: Vec::new(),
            methods_changed_at: Vec::new(),
            gone: BTreeMap::new(),
            is_suspended: false,
            is_closed: false,
        };
        for each in moves {
            let was_paused = history.is_paused();
            let before = history.shop.stripe.charges;
            let stood = history.view();
            let resumed_before = history.resumed();
            let is_retry = matches!(each, Move::Retry);
            history.make(each);
            if was_paused && (history.shop.stripe.charges > before) {
                return Err("the bank was asked while top-up was paused".into());
            }
            if history.shop.stripe.charges > before {
                history.check_leave(&stood)?;
            }
            let view = history.view();
            let goes_on = is_retry || history.resumed() > resumed_before;
            if was_paused && !goes_on && view["status"] == "attempting" {
                return Err("an attempt began while top-up was paused".into());
            }
            history.check()?;
        }
        history.come_to_rest()
    }

    /// The account as it stands, also while the disk is full.
    fn view(&mut self) -> Value {
        self.shop.branch.object.store_mut().commits_to_fail = 0;
        self.shop.view()
    }

    /// How often a pause has ended.
    fn resumed(&self) -> usize {
        let told = self.shop.told().into_iter();
        told.filter(|kind| *kind == "top_up.resumed").count()
    }

    fn is_paused(&mut self) -> bool {
        self.view()["status"] == "paused"
    }

    fn make(&mut self, each: Move) {
        let shop = &mut self.shop;
        let clock = shop.branch.clock;
        match each {
            Move::Charge(credits) => {
                if matches!(shop.branch.call(cost(credits)), Reply::Admitted(_)) {
                    let call = shop.branch.object.account().unwrap().calls_admitted();
                    shop.branch.settle(call, 200);
                }
            }
            Move::Pass(seconds) => shop.pass(Span::from_seconds(seconds)),
            Move::Alarm => shop.branch.tick().unwrap(),
            Move::Ask(fault, arrives) => {
                let Some(ask) = shop.ask() else {
                    return;
                };
                let answer = shop.stripe.ask(&ask.call, fault, clock);
                match arrives {
                    Arrives::Now => self.answer(ask.asked, answer),
                    Arrives::Twice => {
                        self.answer(ask.asked, answer.clone());
                        self.answer(ask.asked, answer);
                    }
                    Arrives::Later => self.answers.push((ask.asked, answer)),
                    Arrives::AfterACrash => {
                        shop.branch.evict();
                        shop.branch.tick().unwrap();
                    }
                }
            }
            Move::Deliver(nth) => {
                if nth < self.answers.len() {
                    let (asked, answer) = self.answers.swap_remove(nth);
                    self.answer(asked, answer);
                }
            }
            Move::Crash => {
                shop.branch.evict();
                shop.branch.tick().unwrap();
            }
            Move::DiskFull => {
                shop.branch.object.store_mut().commits_to_fail = 1;
                // What would have been written is lost, with the memory of it.
                let _ = shop.branch.tick();
                if let Some(ask) = shop.ask() {
                    let answer = shop.stripe.ask(&ask.call, Fault::None, clock);
                    let object = &mut shop.branch.object;
                    let _ = object.top_up_answered(ask.asked, answer, clock);
                }
                shop.branch.object.store_mut().commits_to_fail = 0;
                shop.branch.tick().unwrap();
            }
            Move::Card(card) => {
                shop.stripe.change_card(card);
                self.methods_changed_at.push(clock);
            }
            Move::Conclude(succeeds) => shop.stripe.conclude(succeeds, clock),
            Move::PayByHand => shop.stripe.pay_by_hand(clock),
            Move::InvoiceEvent(nth) => shop.tell_of_invoice(nth),
            Move::MethodEvent(nth) => {
                if let Some(at) = self.methods_changed_at.get(nth) {
                    shop.tell_of_method(*at, None);
                }
            }
            Move::Retry => {
                shop.retry();
            }
            Move::Set(threshold, target, cap) => {
                shop.set(threshold, target, cap);
            }
            Move::Off => {
                shop.turn_off();
            }
            Move::DebitEvent(nth) => {
                if let Some(invoice) = shop.stripe.invoices.get(nth) {
                    let invoice = invoice.id.clone();
                    shop.send(Command::SeeTopUp(invoice));
                }
            }
            Move::Buy(credits) => {
                shop.branch.grant("credits", credits, Source::Extra, None);
            }
            Move::Refund(nth, percent) => self.take_back(nth, |total, reversal| {
                reversal.refunded = (reversal.refunded + total * percent / 100).min(total);
            }),
            Move::Dispute(nth, dispute) => self.take_back(nth, |total, reversal| {
                reversal.is_open = dispute == Dispute::Open;
                reversal.disputed = if dispute == Dispute::Won { 0 } else { total };
            }),
            Move::Suspend(is_suspended) => {
                let status = if is_suspended {
                    Status::Suspended { reason: None }
                } else {
                    Status::Active
                };
                if !self.is_closed {
                    shop.branch.change_status(status);
                    self.is_suspended = is_suspended;
                }
            }
            Move::Close => {
                shop.branch.close();
                self.is_closed = true;
            }
            Move::Tax(percent) => shop.stripe.tax = percent,
        }
    }

    /// What went back of an invoice that was paid is other than before, and Stripe tells so.
    fn take_back(&mut self, nth: usize, change: impl Fn(u64, &mut Reversal)) {
        let invoices = &self.shop.stripe.invoices;
        let Some(invoice) = invoices.get(nth).filter(|it| it.status == "paid") else {
            return;
        };
        let (id, told, total) = (
            invoice.id.clone(),
            shown(invoice).to_string(),
            invoice.total,
        );
        let reversal = self.gone.entry(id).or_default();
        change(total, reversal);
        reversal.as_of = self.shop.branch.clock;
        let (_, mut sighting) = top_up_of(json::parse(&told).unwrap()).unwrap();
        sighting.reversal = Some(*reversal);
        assert_eq!(self.shop.send(Command::SeePayment(Box::new(sighting))), 200);
    }

    /// The bank was asked: that had leave, as things `stood` for the customer then.
    fn check_leave(&self, stood: &Value) -> Result<(), String> {
        let is_disputed = self.gone.values().any(|gone| gone.is_open);
        if self.is_closed || self.is_suspended || is_disputed || stood["enabled"] != true {
            return Err(format!("the bank was asked without leave: {stood}"));
        }
        let money = |name: &str| stood[name].as_str().map(|text| Money::parse(text).unwrap());
        let spent = money("spent_this_month").map_or(0, |spent| spent.amount);
        let asked = self.shop.stripe.asked_for;
        let cap = money("monthly_cap").map(|cap| cap.amount);
        if cap.is_some_and(|cap| spent + asked > cap) {
            return Err(format!("{spent} and {asked} are more than {cap:?}"));
        }
        Ok(())
    }

    fn answer(&mut self, asked: TopUpAsked, answer: Result<String, Failure>) {
        let clock = self.shop.branch.clock;
        let object = &mut self.shop.branch.object;
        object.top_up_answered(asked, answer, clock).unwrap();
    }

    /// What holds at any time.
    fn check(&self) -> Result<(), String> {
        let invoices = &self.shop.stripe.invoices;
        let mut seen = BTreeSet::new();
        for entry in self.shop.branch.store().entries() {
            if entry.kind != EntryKind::ToppedUp {
                continue;
            }
            let payment = entry.reference.as_deref().unwrap_or_default();
            if !seen.insert(payment) {
                return Err(format!("{payment} was granted twice"));
            }
            let paid = invoices.iter().find(|invoice| invoice.id == payment);
            let paid = paid.filter(|invoice| invoice.status == "paid");
            // A credit costs a cent.
            if paid.is_none_or(|invoice| invoice.amount != entry.credits as u64) {
                return Err(format!("{payment} was granted {}: {paid:?}", entry.credits));
            }
        }
        let open = invoices.iter().filter(|invoice| invoice.status == "open");
        if open.count() > 1 {
            return Err("two invoices can be paid".into());
        }
        let ours = invoices.iter().filter(|invoice| !invoice.by_hand);
        let mut paid: Vec<_> = ours.filter_map(|invoice| invoice.paid_at).collect();
        paid.sort();
        if paid
            .windows(2)
            .any(|pair| pair[0].plus(SIX_HOURS) > pair[1])
        {
            return Err(format!("two top-ups in six hours: {paid:?}"));
        }
        Ok(())
    }

    /// When everything has been said, what was paid is there.
    fn come_to_rest(mut self) -> Result<(), String> {
        self.shop.turn_off();
        let clock = self.shop.branch.clock;
        if self.shop.stripe.card == Card::Slow {
            self.shop.stripe.card = Card::Good;
        }
        self.shop.stripe.conclude(true, clock);
        for nth in 0..self.shop.stripe.invoices.len() {
            self.shop.tell_of_invoice(nth);
        }
        self.shop.wait(Span::from_days(2));
        for nth in 0..self.shop.stripe.invoices.len() {
            self.shop.tell_of_invoice(nth);
        }
        self.check()?;
        if self.shop.branch.object.top_up_asks_at().is_some() {
            return Err(format!("it is never settled: {}", self.shop.standing()));
        }
        let paid = self.shop.stripe.invoices.iter();
        for invoice in paid.filter(|invoice| invoice.status == "paid") {
            let store = self.shop.branch.store();
            let known = store.payment(&invoice.id).unwrap();
            let known = known.ok_or_else(|| format!("nobody heard of {}", invoice.id))?;
            let gone = self.gone.get(&invoice.id).copied().unwrap_or_default();
            let left = invoice.total.saturating_sub(gone.refunded + gone.disputed);
            // A credit costs a cent; what is left of one goes back with the money.
            let due = match known.in_vain {
                Some(_) => 0,
                None => invoice.amount * left / invoice.total,
            };
            let of_it = |entry: &&Entry| entry.reference.as_ref() == Some(&invoice.id);
            let entries = store.entries().iter().filter(of_it);
            let granted: i64 = entries.map(|entry| entry.credits).sum();
            if i64::try_from(due) != Ok(granted) {
                return Err(format!("{granted} credits for {due} cents of {invoice:?}"));
            }
            if known.in_vain.is_some() && !self.is_closed {
                return Err(format!("{known:?}"));
            }
        }
        self.shop.branch.check()
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn the_money_that_is_paid_is_the_credits_that_are_granted(moves in moves()) {
        if let Err(mistake) = History::play(moves) {
            prop_assert!(false, "{mistake}");
        }
    }
}
