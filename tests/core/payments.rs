//! Payments: what Stripe tells in any order and any number of times comes to what the money comes to.

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::{
    account::{Edit, PatchAccount, Status},
    ledger::{EntryKind, LotNumber},
    payments::{
        ask::{Ask, HistoryQuery, Ordered, What},
        money::Currency,
        sighting::{
            Papers, Period, Progress, Purpose, Reversal, Sighting, Stage, SubscriptionSighting,
        },
        stripe::{Failure, Kind},
    },
    policy::Source,
    problem::Code,
    protocol::{Command, Page, Reply},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost},
    properties::config,
    sold::{self, credits},
    statement::moment,
};

const PAID: u64 = 6_000;

/// An account that may buy.
fn shop(plan: &str) -> Branch {
    Branch::with_account("sold", plan, moment("2026-01-10T15:00:00"))
}

/// A payment of the package, 10.00 of tax on top.
fn purchase(name: &str, progress: Progress) -> Sighting {
    let policy = sold::edited("sold");
    Sighting {
        name: name.into(),
        purpose: Purpose::Package(policy.package("small").unwrap().clone()),
        progress,
        total: PAID,
        subtotal: Some(5_000),
        currency: Currency::parse("usd").unwrap(),
        papers: Papers {
            payment_intent: Some(name.into()),
            ..Papers::default()
        },
        reversal: None,
        change: None,
    }
}

fn invoice(name: &str, price: &str, from: &str, until: &str) -> Sighting {
    Sighting {
        purpose: Purpose::Period(Period {
            subscription: "sub_1".into(),
            price: price.into(),
            starts_at: moment(from),
            ends_at: moment(until),
        }),
        papers: Papers::default(),
        subtotal: None,
        ..purchase(name, Progress::Paid)
    }
}

fn reversed(sighting: Sighting, as_of: Timestamp, refunded: u64, disputed: u64) -> Sighting {
    Sighting {
        reversal: Some(Reversal {
            as_of,
            refunded,
            disputed,
            is_open: disputed > 0,
        }),
        ..sighting
    }
}

fn subscription(stage: Stage, price: &str, as_of: Timestamp) -> SubscriptionSighting {
    SubscriptionSighting {
        id: "sub_1".into(),
        as_of,
        created_at: moment("2026-01-10T15:00:00"),
        stage,
        price: price.into(),
        anchor: moment("2026-01-10T15:00:00"),
    }
}

impl Branch {
    fn pays(&mut self, sighting: Sighting) -> Value {
        match self.manage(Command::SeePayment(Box::new(sighting)), None) {
            Reply::Document(document) => serde_json::from_str(&document.json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn subscribes(&mut self, sighting: SubscriptionSighting) -> Value {
        match self.manage(Command::SeeSubscription(sighting), None) {
            Reply::Document(document) => serde_json::from_str(&document.json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn wants(&mut self, what: What) -> Reply {
        self.manage(
            Command::Payments(Ask {
                what,
                made: None,
                gone: None,
            }),
            None,
        )
    }

    fn available(&mut self) -> u64 {
        self.balance("credits")["available"].as_u64().unwrap_or(0)
    }

    fn spends(&mut self, amount: u64) -> u64 {
        let call = self.store().calls().count() as u64 + 1;
        assert!(matches!(self.call(cost(amount)), Reply::Admitted(_)));
        call
    }

    /// The entries that tell of payments: kind and credits.
    fn entries(&self) -> Vec<(&'static str, i64)> {
        let entries = self.store().entries().iter();
        entries
            .map(|entry| (entry.kind.as_str(), entry.credits))
            .collect()
    }
}

#[test]
fn a_payment_is_granted_once_when_it_is_paid() {
    let mut branch = shop("prepaid");
    branch.pays(purchase("pi_1", Progress::Processing));
    assert_eq!(branch.available(), 0);
    for progress in [
        Progress::Paid,
        Progress::Processing,
        Progress::Failed,
        Progress::Paid,
    ] {
        let shown = branch.pays(purchase("pi_1", progress));
        assert_eq!(
            (shown["status"].as_str(), branch.available()),
            (Some("paid"), 5_000)
        );
        branch.evict();
    }
    let rows = branch.store().rows_written;
    branch.pays(purchase("pi_1", Progress::Paid));
    assert_eq!(branch.store().rows_written, rows, "a repeat writes nothing");
    branch.pays(purchase("pi_2", Progress::Failed));
    branch.pays(purchase("pi_3", Progress::Paid));
    assert_eq!(branch.available(), 10_000);
    assert_eq!(branch.entries(), [("bought", 5_000), ("bought", 5_000)]);
    branch.check().unwrap();
}

#[test]
fn what_is_not_the_packages_price_brings_nothing() {
    let exact = purchase("pi_1", Progress::Paid);
    for (paid, is_exact) in [
        (exact.clone(), true),
        (
            Sighting {
                subtotal: None,
                ..exact.clone()
            },
            true,
        ),
        (
            Sighting {
                subtotal: Some(4_999),
                ..exact.clone()
            },
            false,
        ),
        (
            Sighting {
                subtotal: Some(5_001),
                ..exact.clone()
            },
            false,
        ),
        // A discount.
        (
            Sighting {
                total: 4_999,
                ..exact.clone()
            },
            false,
        ),
        (
            Sighting {
                currency: Currency::parse("jpy").unwrap(),
                ..exact.clone()
            },
            false,
        ),
    ] {
        let mut branch = shop("prepaid");
        let shown = branch.pays(paid.clone());
        assert_eq!(
            branch.available(),
            if is_exact { 5_000 } else { 0 },
            "{paid:?}"
        );
        assert_eq!(shown.get("problem").is_none(), is_exact, "{paid:?}");
        assert_eq!(shown["status"], "paid");
        branch.check().unwrap();
    }
    let mut closed = shop("prepaid");
    closed.close();
    assert_eq!(closed.pays(exact)["problem"], "the account is closed");
    assert_eq!(closed.entries(), []);
}

#[test]
fn money_that_goes_back_takes_back_what_is_left_and_tells_the_shortfall() {
    let mut branch = shop("prepaid");
    branch.pays(purchase("pi_1", Progress::Paid));
    let first = branch.spends(3_000);
    branch.settle(first, 200);
    let held = branch.spends(500);
    let at = |branch: &Branch| branch.clock;

    // A third of the money.
    let now = at(&branch);
    let paid = || purchase("pi_1", Progress::Paid);
    branch.pays(reversed(paid(), now, 2_000, 0));
    assert_eq!(branch.available(), 0);
    // 5000 − ⌊5000 × 4000 / 6000⌋ = 1667, of which 1500 can be taken.
    assert_eq!(
        branch.entries()[1..],
        [("taken_back", -1_500), ("shortfall", -167)]
    );
    // What the call did not cost is not the customer's any more, up to the shortfall.
    branch.settle(held, 500);
    assert_eq!(branch.available(), 333);
    branch.check().unwrap();

    // The rest: nothing but the 333 is left.
    branch.pays(reversed(paid(), now, 6_000, 0));
    assert_eq!(branch.available(), 0);
    assert_eq!(
        branch.entries()[3..],
        [("taken_back", -333), ("shortfall", -3_000)]
    );
    // A refund that did not arrive.
    branch.pays(reversed(paid(), now, 2_000, 0));
    assert_eq!(branch.available(), 333);
    assert_eq!(branch.entries()[5..], [("given_back", 3_333)]);
    // What was seen earlier is old.
    branch.pays(reversed(paid(), now.minus(Span::from_seconds(1)), 0, 0));
    assert_eq!(branch.available(), 333);
    branch.check().unwrap();
}

#[test]
fn a_lot_that_was_let_go_of_is_taken_back_and_given_back_in_the_books() {
    let mut branch = shop("prepaid");
    branch.pays(purchase("pi_1", Progress::Paid));
    let call = branch.spends(5_000);
    branch.settle(call, 200);
    branch.set_clock(moment("2026-06-01T00:00:00"));
    // Another lot, so that the empty one is let go of.
    branch.grant("credits", 7, Source::Promo, None);
    let now = branch.clock;
    branch.pays(reversed(purchase("pi_1", Progress::Paid), now, 0, PAID));
    assert_eq!(branch.entries()[2..], [("shortfall", -5_000)]);
    assert_eq!(branch.available(), 7);
    branch.check().unwrap();
    branch.pays(reversed(purchase("pi_1", Progress::Paid), now, 0, 0));
    assert_eq!(branch.entries()[3..], [("given_back", 5_000)]);
    assert_eq!(branch.available(), 7);
    branch.check().unwrap();
}

#[test]
fn what_goes_back_and_what_is_disputed_is_told() {
    let mut branch = Branch::with_account("sold told", "prepaid", moment("2026-01-10T15:00:00"));
    branch.pays(purchase("pi_1", Progress::Paid));
    let call = branch.spends(3_000);
    branch.settle(call, 200);
    let now = branch.clock;
    branch.pays(reversed(purchase("pi_1", Progress::Paid), now, 1_200, 0));
    branch.pays(reversed(
        purchase("pi_1", Progress::Paid),
        now,
        1_200,
        4_800,
    ));
    branch.pays(reversed(
        purchase("pi_1", Progress::Paid),
        now,
        1_200,
        4_800,
    ));
    let told: Vec<Value> = branch
        .store()
        .all_events()
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .filter(|data: &Value| data.get("payment").is_some() || data.get("reason").is_some())
        .collect();
    let refunded = |credits, shortfall, price| {
        json!({ "account": "acc", "external_id": null, "pool": "credits", "credits": credits,
            "shortfall": shortfall, "price": price, "payment": "pi_1" })
    };
    let flagged = json!({ "account": "acc", "external_id": null, "reason": "pi_1: the payment is disputed",
        "key": null, "restricted_until": null });
    assert_eq!(
        told,
        [
            refunded(1_000, 0, "12.00 USD"),
            flagged,
            refunded(1_000, 3_000, "48.00 USD")
        ]
    );
}

#[test]
fn nothing_is_sold_while_a_payment_is_disputed_or_the_account_suspended() {
    let mut branch = shop("prepaid");
    let buy = || What::Buy("small".into());
    assert!(matches!(branch.wants(buy()), Reply::Order(_)));
    branch.pays(purchase("pi_1", Progress::Paid));
    let now = branch.clock;
    branch.pays(reversed(purchase("pi_1", Progress::Paid), now, 0, PAID));
    branch.evict();
    for what in [buy(), What::Subscribe("starter".into())] {
        match branch.wants(what) {
            Reply::Problem(complaint) => assert_eq!(complaint.code, Code::Conflict),
            other => panic!("{other:?}"),
        }
    }
    // The portal is where a card is changed.
    assert!(matches!(branch.wants(What::Portal), Reply::Order(_)));
    branch.pays(reversed(purchase("pi_1", Progress::Paid), now, 0, 0));
    assert!(matches!(branch.wants(buy()), Reply::Order(_)));
    assert_eq!(branch.available(), 5_000);

    branch.change_status(Status::Suspended {
        reason: Some("ask us".into()),
    });
    match branch.wants(buy()) {
        Reply::Problem(complaint) => {
            assert_eq!(
                (complaint.code, complaint.detail.as_str()),
                (Code::AccountSuspended, "ask us")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_sold_is_named() {
    let mut branch = shop("prepaid");
    for (what, field) in [
        (What::Buy("large".into()), "package"),
        (What::Subscribe("free".into()), "plan"),
        (What::Subscribe("gold".into()), "plan"),
    ] {
        match branch.wants(what) {
            Reply::Problem(complaint) => assert_eq!(complaint.field.as_deref(), Some(field)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_customer_that_is_made_is_the_accounts() {
    let mut branch = shop("prepaid");
    for made in ["cus_1", "cus_2"] {
        let ask = Ask {
            what: What::Portal,
            made: Some(made.into()),
            gone: None,
        };
        let page = Page::Payments(ask);
        match branch.read(1, page) {
            Reply::Order(order) => {
                assert_eq!(order.customer.as_deref(), Some("cus_1"));
                assert_eq!(order.page, Ordered::Portal);
                assert!(order.standing.is_some());
            }
            other => panic!("{other:?}"),
        }
        branch.evict();
    }
}

#[test]
fn a_customer_that_stripe_has_no_more_is_forgotten_for_another() {
    let mut branch = shop("prepaid");
    let mut customer = |made: Option<&str>, gone: Option<&str>| {
        let ask = Ask {
            what: What::Portal,
            made: made.map(Into::into),
            gone: gone.map(Into::into),
        };
        match branch.manage(Command::Payments(ask), None) {
            Reply::Order(order) => order.customer,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(customer(Some("cus_1"), None).as_deref(), Some("cus_1"));
    // Somebody has found that one before, and the account has another by now.
    assert_eq!(customer(None, Some("cus_0")).as_deref(), Some("cus_1"));
    assert_eq!(customer(None, Some("cus_1")), None);
    assert_eq!(
        customer(Some("cus_2"), Some("cus_1")).as_deref(),
        Some("cus_2")
    );
}

#[test]
fn what_is_another_deployments_changes_nothing_here() {
    let mut branch = shop("prepaid");
    let opened = branch.clock;
    let mut told = |opened, sighting: Sighting| {
        let seen = Command::SeePayment(Box::new(sighting));
        branch.manage(Command::IfOpened(opened, Box::new(seen)), None)
    };
    let elsewhere = opened.plus(Span::from_millis(1));
    match told(elsewhere, purchase("pi_1", Progress::Paid)) {
        Reply::Problem(complaint) => assert_eq!(complaint.code, Code::NotFound),
        other => panic!("{other:?}"),
    }
    let here = told(opened, purchase("pi_2", Progress::Paid));
    assert!(matches!(here, Reply::Document(_)), "{here:?}");
    assert_eq!(branch.entries(), [("bought", 5_000)]);
}

/// What Stripe is asked next; the path of a GET, `POST path form` or `DELETE path`.
fn next_task(branch: &Branch) -> Option<String> {
    let (_, call) = branch.object.stripe_task(branch.clock)?;
    Some(match call.kind {
        Kind::Look => call.path,
        Kind::Change { form, .. } => format!("POST {} {form}", call.path),
        Kind::End => format!("DELETE {}", call.path),
    })
}

impl Branch {
    /// An account that Stripe knows.
    fn has_bought(&mut self) {
        let ask = Ask {
            what: What::Portal,
            made: Some("cus_1".into()),
            gone: None,
        };
        self.manage(Command::Payments(ask), None);
    }

    fn stripe_answers(&mut self, answer: Result<&str, Failure>) {
        let (task, _) = self.object.stripe_task(self.clock).expect("a task");
        let answer = answer.map(str::to_owned);
        self.object
            .stripe_answered(&task, answer, self.clock)
            .unwrap();
    }
}

#[test]
fn pages_that_were_opened_before_nothing_is_sold_any_more_are_closed() {
    const OPEN: &str = "/v1/checkout/sessions?customer=cus_1&status=open&limit=100";
    let disputed = |branch: &mut Branch| {
        branch.pays(purchase("pi_1", Progress::Paid));
        let dispute = reversed(purchase("pi_1", Progress::Paid), branch.clock, 0, PAID);
        branch.pays(dispute.clone());
        branch.pays(dispute);
    };
    let suspended = |branch: &mut Branch| {
        branch.change_status(Status::Suspended { reason: None });
    };
    let closed = |branch: &mut Branch| drop(branch.close());
    let ways: [&dyn Fn(&mut Branch); 3] = [&disputed, &suspended, &closed];
    for way in ways {
        let mut branch = shop("prepaid");
        way(&mut branch);
        assert_eq!(next_task(&branch), None, "Stripe knows nothing of it");

        let mut branch = shop("prepaid");
        branch.has_bought();
        assert_eq!(next_task(&branch), None);
        way(&mut branch);
        branch.evict();
        branch.tick().unwrap();
        assert_eq!(next_task(&branch).as_deref(), Some(OPEN));
        let listed = r#"{"data":[{"id":"cs_1"},{"id":"cs_2"}],"has_more":false}"#;
        branch.stripe_answers(Ok(listed));
        for page in ["cs_1", "cs_2"] {
            let expected = format!("POST /v1/checkout/sessions/{page}/expire ");
            assert_eq!(next_task(&branch), Some(expected.clone()));
            // Lost on the way: it is asked again after a moment.
            branch.stripe_answers(Err(Failure::Unclear("no answer".into())));
            assert_eq!(next_task(&branch), None);
            branch.set_clock(branch.object.stripe_task_at().unwrap());
            assert_eq!(next_task(&branch), Some(expected));
            // It was paid meanwhile.
            branch.stripe_answers(Err(Failure::Mistake("400 not open".into())));
        }
        assert_eq!(next_task(&branch), None);
        branch.check().unwrap();
    }
}

#[test]
fn a_closed_account_pays_no_more_for_its_subscription() {
    let mut branch = Branch::with_account("sold told", "free", moment("2026-01-10T15:00:00"));
    branch.subscribes(subscription(Stage::Paid, "price_starter", branch.clock));
    branch.close();
    let end = Some("DELETE /v1/subscriptions/sub_1".to_owned());
    assert_eq!(next_task(&branch), end);
    // Stripe is out of reach for days, until the operator has to see to it.
    let begun = branch.clock;
    while let Some(at) = branch.object.stripe_task_at() {
        branch.set_clock(at);
        assert!(at.since(begun) < Span::from_days(4));
        branch.stripe_answers(Err(Failure::Busy));
    }
    assert!(branch.clock.since(begun) >= Span::from_days(3));
    let told = branch.store().all_events().last().unwrap().data.clone();
    assert!(
        told.contains("the subscription could not be ended at Stripe"),
        "{told}"
    );
}

#[test]
fn stripe_is_told_another_name_and_address() {
    let mut branch = shop("prepaid");
    let renamed = |email: &str| PatchAccount {
        email: Some(Edit::Set(email.into())),
        ..PatchAccount::default()
    };
    branch.patch(renamed("a@example.com"));
    assert_eq!(next_task(&branch), None, "Stripe knows nothing of it");
    branch.has_bought();
    branch.patch(renamed("b@example.com"));
    branch.patch(renamed("c@example.com"));
    let expected = "POST /v1/customers/cus_1 name=&email=c%40example.com";
    assert_eq!(next_task(&branch).as_deref(), Some(expected));
    branch.stripe_answers(Ok("{}"));
    // The second change came before anybody knew whether the first was told.
    assert_eq!(next_task(&branch).as_deref(), Some(expected));
    branch.stripe_answers(Ok("{}"));
    assert_eq!(next_task(&branch), None);
    branch.patch(renamed("c@example.com"));
    assert_eq!(next_task(&branch), None);
}

#[test]
fn the_history_is_paged_through_newest_first() {
    let mut branch = shop("prepaid");
    for payment in 1..=5 {
        branch.pays(purchase(&format!("pi_{payment}"), Progress::Paid));
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let query = HistoryQuery { limit: 2, before };
        let Reply::Document(page) = branch.wants(What::History(query)) else {
            panic!("no page");
        };
        let page: Value = serde_json::from_str(&page.json).unwrap();
        let ids = page["data"].as_array().unwrap().iter();
        seen.extend(ids.map(|payment| payment["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => before = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(seen, ["pi_5", "pi_4", "pi_3", "pi_2", "pi_1"]);
}

#[test]
fn a_plan_that_is_bought_is_granted_by_its_paid_invoice_and_not_by_the_clock() {
    let mut branch = shop("free");
    let start = branch.clock;
    let shown = branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    assert_eq!(
        (
            shown["plan"].as_str(),
            shown["subscription"]["billing_day"].as_u64()
        ),
        (Some("starter"), Some(10))
    );
    assert_eq!(branch.available(), 50, "nothing before its invoice is paid");
    let january = || {
        invoice(
            "in_1",
            "price_starter",
            "2026-01-10T15:00:00",
            "2026-02-10T15:00:00",
        )
    };
    branch.pays(january());
    branch.pays(january());
    assert_eq!(branch.available(), 350);
    assert_eq!(
        branch.balance("credits")["renews_at"],
        "2026-02-10T15:00:00Z"
    );

    // Between the period's end and the next invoice the lot can still be spent.
    branch.set_clock(moment("2026-02-10T16:30:00"));
    assert_eq!(branch.available(), 350);
    let call = branch.spends(100);
    branch.settle(call, 200);
    branch.pays(invoice(
        "in_2",
        "price_starter",
        "2026-02-10T15:00:00",
        "2026-03-10T15:00:00",
    ));
    // 50 of what was left are carried over.
    assert_eq!(branch.available(), 50 + 300);
    assert_eq!(branch.balance("lyrics")["available"], 100);

    // Nobody pays: the old lot ends by the clock, and no other comes.
    branch.set_clock(moment("2026-03-10T18:00:00"));
    assert_eq!(branch.available(), 0);
    branch.set_clock(moment("2026-03-14T00:00:00"));
    assert_eq!(branch.available(), 0);
    // Paid late: until the period's end.
    branch.pays(invoice(
        "in_3",
        "price_starter",
        "2026-03-10T15:00:00",
        "2026-04-10T15:00:00",
    ));
    assert_eq!(branch.available(), 300);
    assert_eq!(
        branch.balance("credits")["renews_at"],
        "2026-04-10T15:00:00Z"
    );
    // Paid when it is over.
    branch.set_clock(moment("2026-06-01T00:00:00"));
    let shown = branch.pays(invoice(
        "in_4",
        "price_starter",
        "2026-04-10T15:00:00",
        "2026-05-10T15:00:00",
    ));
    assert_eq!(shown["problem"], "the period was over when it was paid");
    assert_eq!(branch.available(), 0);
    branch.check().unwrap();
}

#[test]
fn a_year_that_is_paid_at_once_is_granted_month_by_month() {
    let mut branch = shop("free");
    branch.subscribes(subscription(Stage::Paid, "price_starter", branch.clock));
    branch.pays(invoice(
        "in_1",
        "price_starter",
        "2026-01-10T15:00:00",
        "2027-01-10T15:00:00",
    ));
    for day in [
        "2026-02-11T00:00:00",
        "2026-07-11T00:00:00",
        "2026-12-11T00:00:00",
        "2027-01-10T14:00:00",
    ] {
        branch.set_clock(moment(day));
        assert!(branch.available() >= 300, "{day}");
        branch.check().unwrap();
    }
    let renewed = branch.entries();
    let renewed = renewed
        .iter()
        .filter(|entry| **entry == ("renewed", 300))
        .count();
    assert_eq!(renewed, 12);
    branch.set_clock(moment("2027-01-10T18:00:00"));
    assert_eq!(branch.available(), 50, "the free plan's alone");
}

/// A year that is paid at once.
fn year(name: &str) -> Sighting {
    invoice(
        name,
        "price_starter",
        "2026-01-10T15:00:00",
        "2027-01-10T15:00:00",
    )
}

/// The first month.
fn january() -> Sighting {
    invoice(
        "in_1",
        "price_starter",
        "2026-01-10T15:00:00",
        "2026-02-10T15:00:00",
    )
}

/// The difference that a change of plan makes, paid.
fn difference(name: &str, price: &str, from: &str, until: &str) -> Sighting {
    let Sighting { purpose, .. } = invoice(name, price, from, until);
    let Purpose::Period(change) = purpose else {
        panic!("no period");
    };
    Sighting {
        change: Some(change),
        purpose: Purpose::Subscription,
        ..january()
    }
    .named(name)
}

trait Named {
    fn named(self, name: &str) -> Self;
}

impl Named for Sighting {
    fn named(self, name: &str) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }
}

#[test]
fn an_upgrade_raises_the_running_lot_when_it_is_paid_and_not_before() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    let later = |minutes: i64| start.plus(Span::from_seconds(60 * minutes));
    branch.set_clock(later(5));
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(january());
    // The difference could not be charged.
    let shown = branch.subscribes(subscription(Stage::Unpaid, "price_pro", later(1)));
    assert_eq!(
        (
            shown["plan"].as_str(),
            shown["subscription"]["status"].as_str()
        ),
        (Some("starter"), Some("lapsed"))
    );
    assert_eq!(branch.available(), 300);
    // It is billed later, perhaps: the plan and its limits are the new ones, the credits what was paid.
    let shown = branch.subscribes(subscription(Stage::Paid, "price_pro", later(2)));
    assert_eq!(
        (
            shown["plan"].as_str(),
            shown["subscription"]["status"].as_str()
        ),
        (Some("pro"), Some("active"))
    );
    assert_eq!(branch.available(), 300);
    // What is told of before is old.
    branch.subscribes(subscription(Stage::Paid, "price_starter", later(1)));
    let upgrade = || {
        difference(
            "in_2",
            "price_pro",
            "2026-01-10T15:02:00",
            "2026-02-10T15:00:00",
        )
    };
    branch.pays(upgrade());
    branch.evict();
    branch.pays(upgrade());
    assert_eq!(branch.available(), 1_000);

    // A downgrade lowers nothing that was paid for, and whoever changes to and fro has nothing of it.
    branch.subscribes(subscription(Stage::Paid, "price_starter", later(3)));
    branch.pays(difference(
        "in_3",
        "price_starter",
        "2026-01-10T15:03:00",
        "2026-02-10T15:00:00",
    ));
    assert_eq!(branch.available(), 1_000);
    let call = branch.spends(900);
    branch.settle(call, 200);
    branch.pays(difference(
        "in_4",
        "price_pro",
        "2026-01-10T15:04:00",
        "2026-02-10T15:00:00",
    ));
    assert_eq!(branch.available(), 100);
    branch.check().unwrap();

    let ends_at = moment("2026-02-10T15:00:00");
    let shown = branch.subscribes(subscription(Stage::Ending(ends_at), "price_pro", later(5)));
    assert_eq!(shown["subscription"]["status"], "cancelled");
    let shown = branch.subscribes(subscription(Stage::Ended, "price_pro", later(6)));
    assert_eq!(shown["subscription"]["status"], "lapsed");
    branch.check().unwrap();
}

#[test]
fn an_upgrade_brings_the_difference_for_the_rest_of_the_period_as_it_is_billed() {
    for (changed, available) in [
        ("2026-01-10T15:00:00", 1_000),
        ("2026-01-26T03:00:00", 650),
        ("2026-02-10T14:00:00", 301),
    ] {
        let mut branch = shop("prepaid");
        let start = branch.clock;
        branch.subscribes(subscription(Stage::Paid, "price_starter", start));
        branch.pays(january());
        branch.set_clock(moment(changed));
        let upgrade = difference("in_2", "price_pro", changed, "2026-02-10T15:00:00");
        branch.pays(upgrade.clone());
        assert_eq!(branch.available(), available, "{changed}");
        // Whoever changes back and again gets no more than the allowance.
        let back = difference("in_3", "price_starter", changed, "2026-02-10T15:00:00");
        branch.pays(back);
        branch.pays(upgrade.named("in_4"));
        assert!(
            branch.available() <= 1_000,
            "{changed}: {}",
            branch.available()
        );
        branch.check().unwrap();
    }
}

#[test]
fn an_upgrade_that_is_told_of_before_its_period_waits_for_it() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    let upgrade = || {
        difference(
            "in_2",
            "price_pro",
            "2026-01-10T15:02:00",
            "2026-02-10T15:00:00",
        )
    };
    branch.pays(upgrade());
    branch.subscribes(subscription(Stage::Paid, "price_pro", start));
    assert_eq!(branch.available(), 0);
    branch.evict();
    branch.pays(january());
    assert_eq!(branch.available(), 1_000);
    branch.pays(upgrade());
    branch.pays(january());
    assert_eq!(branch.available(), 1_000);
    // Each has brought what it paid for.
    let now = branch.clock;
    branch.pays(reversed(upgrade(), now, PAID, 0));
    assert_eq!(branch.available(), 300);
    let again = difference(
        "in_3",
        "price_pro",
        "2026-01-10T15:03:00",
        "2026-02-10T15:00:00",
    );
    branch.pays(again.clone());
    assert_eq!(branch.available(), 1_000);
    branch.pays(reversed(january(), now, PAID, 0));
    assert_eq!(branch.available(), 700);
    branch.pays(reversed(again, now, PAID, 0));
    assert_eq!(branch.available(), 0);
    branch.check().unwrap();
}

#[test]
fn the_months_of_a_year_are_those_of_the_plan_that_was_paid() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    let later = |minutes: i64| start.plus(Span::from_seconds(60 * minutes));
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(year("in_1"));
    branch.subscribes(subscription(Stage::Paid, "price_pro", later(1)));
    branch.set_clock(moment("2026-02-11T00:00:00"));
    assert_eq!(branch.available(), 350, "50 of them carried over");
    let upgrade = difference(
        "in_2",
        "price_pro",
        "2026-02-11T00:00:00",
        "2027-01-10T15:00:00",
    );
    branch.pays(upgrade.clone());
    assert_eq!(
        branch.available(),
        1_025,
        "675 of 700 for the rest of this month"
    );
    branch.set_clock(moment("2026-03-11T00:00:00"));
    assert_eq!(branch.available(), 1_050);
    branch.evict();
    // The difference went back: the next month is the other plan's again.
    let gone = reversed(upgrade, branch.clock, PAID, 0);
    branch.pays(gone);
    branch.set_clock(moment("2026-04-11T00:00:00"));
    assert_eq!(branch.available(), 350);
    // So is a month after a downgrade, whoever has the money.
    branch.subscribes(subscription(Stage::Paid, "price_starter", later(2)));
    branch.set_clock(moment("2026-05-11T00:00:00"));
    assert_eq!(branch.available(), 350);
    branch.check().unwrap();
    branch.audit_itself().unwrap();
}

#[test]
fn what_went_back_of_a_year_does_not_come_in_its_later_months() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(year("in_1"));
    branch.set_clock(moment("2026-03-12T00:00:00"));
    assert_eq!(branch.available(), 350);
    // A third of the money: a third of the running month, of what it carried over, and of the months to come.
    let gone = |branch: &Branch, refunded, disputed| {
        reversed(year("in_1"), branch.clock, refunded, disputed)
    };
    let third = gone(&branch, 2_000, 0);
    branch.pays(third);
    assert_eq!(branch.available(), 200 + 33);
    branch.set_clock(moment("2026-04-12T00:00:00"));
    assert_eq!(branch.available(), 200 + 50);
    branch.evict();
    // A dispute takes the rest …
    let all = gone(&branch, 2_000, 4_000);
    branch.pays(all.clone());
    branch.pays(all);
    assert_eq!(branch.available(), 0);
    branch.set_clock(moment("2026-06-12T00:00:00"));
    assert_eq!(branch.available(), 0);
    assert_eq!(branch.balance("credits")["renews_at"], Value::Null);
    // … until it is won.
    let won = gone(&branch, 2_000, 0);
    branch.pays(won);
    assert_eq!(branch.available(), 200);
    let refund_failed = gone(&branch, 0, 0);
    branch.pays(refund_failed);
    assert_eq!(branch.available(), 300);
    branch.set_clock(moment("2026-07-12T00:00:00"));
    assert_eq!(branch.available(), 350);
    branch.check().unwrap();
    branch.audit_itself().unwrap();
}

#[test]
fn a_change_of_plan_brings_back_nothing_that_was_refunded() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(january());
    let now = branch.clock;
    branch.pays(reversed(january(), now, PAID, 0));
    assert_eq!(branch.available(), 0);
    for price in ["price_pro", "price_starter"] {
        branch.subscribes(subscription(Stage::Paid, price, now));
        assert_eq!(branch.available(), 0);
    }
    for (plan, left) in [("pro", 700), ("starter", 0)] {
        branch.change_plan(plan);
        assert_eq!(branch.available(), left, "{plan}");
    }
    branch.pays(reversed(january(), now, 0, 0));
    assert_eq!(branch.available(), 300);
    branch.check().unwrap();
}

#[test]
fn a_refund_after_the_period_takes_what_was_carried_over_and_tells_what_was_spent() {
    let mut branch = Branch::with_account("sold told", "prepaid", moment("2026-01-10T15:00:00"));
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(january());
    let call = branch.spends(120);
    branch.settle(call, 200);
    branch.set_clock(moment("2026-02-10T16:00:00"));
    branch.pays(invoice(
        "in_2",
        "price_starter",
        "2026-02-10T15:00:00",
        "2026-03-10T15:00:00",
    ));
    assert_eq!(branch.available(), 350);
    let now = branch.clock;
    let before = branch.entries().len();
    branch.pays(reversed(january(), now, PAID, 0));
    branch.pays(reversed(january(), now, PAID, 0));
    assert_eq!(branch.available(), 300);
    let mut told = branch.entries()[before..].to_vec();
    told.sort_unstable();
    assert_eq!(told, [("shortfall", -120), ("taken_back", -50)]);
    let refunded = |branch: &Branch| {
        let events = branch.store().all_events();
        let read = events.map(|event| serde_json::from_str::<Value>(&event.data).unwrap());
        read.filter(|data| data.get("shortfall").is_some())
            .map(|data| {
                (
                    data["pool"].clone(),
                    data["credits"].clone(),
                    data["shortfall"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        refunded(&branch),
        [(json!("credits"), json!(50), json!(120))]
    );
    branch.check().unwrap();
    branch.audit_itself().unwrap();

    // When it is long over, the money is all that can be told of.
    branch.set_clock(moment("2026-08-01T00:00:00"));
    branch.grant("credits", 7, Source::Promo, None);
    let second = invoice(
        "in_2",
        "price_starter",
        "2026-02-10T15:00:00",
        "2026-03-10T15:00:00",
    );
    let now = branch.clock;
    branch.pays(reversed(second, now, PAID, 0));
    assert_eq!(refunded(&branch)[1], (json!("credits"), json!(0), json!(0)));
    assert_eq!(branch.available(), 7);
    branch.check().unwrap();
}

#[test]
fn a_price_that_left_the_policy_renews_what_was_paid_as_the_same() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(january());
    branch.policy = sold::edited("sold dearer");
    branch.evict();
    branch.set_clock(moment("2026-02-10T16:00:00"));
    let february = |name, price| invoice(name, price, "2026-02-10T15:00:00", "2026-03-10T15:00:00");
    let shown = branch.pays(february("in_2", "price_of_somebody"));
    assert_eq!(
        shown["problem"],
        "no plan of the policy has this stripe_price"
    );
    branch.pays(february("in_3", "price_starter"));
    assert_eq!(branch.available(), 350);
    branch.check().unwrap();
}

#[test]
fn extra_lots_of_a_lapsed_account_are_kept_and_cannot_be_spent_where_the_policy_says_so() {
    let mut branch = Branch::with_account(
        "sold extra_needs_subscription",
        "free",
        moment("2026-01-10T15:00:00"),
    );
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(purchase("pi_1", Progress::Paid));
    assert_eq!(branch.available(), 5_050);
    let later = start.plus(Span::from_seconds(1));
    branch.subscribes(subscription(Stage::Unpaid, "price_starter", later));
    assert_eq!(branch.available(), 50);
    let lots = branch.balance("credits")["lots"].clone();
    assert!(
        lots.as_array()
            .unwrap()
            .iter()
            .any(|lot| lot["amount"] == 5_000)
    );
    branch.subscribes(subscription(Stage::Paid, "price_starter", later));
    assert_eq!(branch.available(), 5_050);
}

/// What may be told of two payments, and what happens meanwhile.
#[derive(Clone, Debug)]
enum Step {
    Payment { second: bool, progress: Progress },
    Reversal { second: bool, nth: usize },
    Spend(u64),
    Wait,
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 0..3_usize).prop_map(|(second, progress)| Step::Payment {
            second,
            progress: [Progress::Processing, Progress::Failed, Progress::Paid][progress],
        }),
        (any::<bool>(), 0..6_usize).prop_map(|(second, nth)| Step::Reversal { second, nth }),
        (1..4_000_u64).prop_map(Step::Spend),
        Just(Step::Wait),
        Just(Step::Evict),
    ]
}

proptest! {
    #![proptest_config(config(64))]

    /// The last of everything is told at some time: whatever came before, in whatever order and number, the
    /// credits are what was paid less what went back.
    #[test]
    fn credits_come_to_the_money_in_any_order_and_any_number(
        steps in proptest::collection::vec(step(), 0..40),
        last in proptest::sample::subsequence(vec![0, 1, 2, 3], 4).prop_shuffle(),
        amounts in proptest::collection::vec((0..=PAID, 0..=PAID), 12),
        at in 0..40_usize,
    ) {
        let mut branch = shop("prepaid");
        let start = branch.clock;
        let name = |second| if second { "pi_2" } else { "pi_1" };
        // The nth look at Stripe finds these amounts.
        let looked = |second: bool, nth: usize| {
            let (refunded, disputed) = amounts[nth + 6 * usize::from(second)];
            let as_of = start.plus(Span::from_seconds(nth as i64));
            reversed(purchase(name(second), Progress::Paid), as_of, refunded, disputed)
        };
        let ends = [
            Step::Payment { second: false, progress: Progress::Paid },
            Step::Payment { second: true, progress: Progress::Paid },
            Step::Reversal { second: false, nth: 5 },
            Step::Reversal { second: true, nth: 5 },
        ];
        let mut all = steps;
        let at = at.min(all.len());
        for end in last {
            all.insert(at, ends[end].clone());
        }
        for step in all {
            match step {
                Step::Payment { second, progress } => drop(branch.pays(purchase(name(second), progress))),
                Step::Reversal { second, nth } => drop(branch.pays(looked(second, nth))),
                Step::Spend(amount) => {
                    if let Reply::Admitted(admission) = branch.call(cost(amount)) {
                        branch.settle(admission.call.get(), if amount % 3 == 0 { 500 } else { 200 });
                    }
                }
                Step::Wait => branch.set_clock(branch.clock.plus(Span::from_days(9))),
                Step::Evict => branch.evict(),
            }
        }
        branch.check().map_err(TestCaseError::fail)?;
        branch.audit_itself().map_err(TestCaseError::fail)?;
        let mut amounts_by_lot: std::collections::BTreeMap<LotNumber, i64> = Default::default();
        let mut bought = 0;
        for entry in branch.store().entries() {
            if entry.kind == EntryKind::Bought {
                bought += 1;
            }
            if entry.kind != EntryKind::Expired {
                *amounts_by_lot.entry(entry.lot).or_default() += entry.credits;
            }
        }
        prop_assert_eq!(bought, 2);
        let mut expected: Vec<i64> = [5, 11]
            .map(|nth: usize| {
                let (refunded, disputed) = amounts[nth];
                (5_000 * PAID.saturating_sub(refunded + disputed) / PAID) as i64
            })
            .to_vec();
        let mut found: Vec<i64> = amounts_by_lot.into_values().collect();
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    /// However a subscription's events come, it ends as Stripe has it last, and each paid period is granted
    /// once.
    #[test]
    fn a_subscription_ends_as_stripe_has_it_last(
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(0..8_usize, 0..10),
        evict_at in 0..18_usize,
    ) {
        let mut branch = shop("free");
        let start = branch.clock;
        branch.set_clock(moment("2026-02-10T16:00:00"));
        let at = |seconds: i64| start.plus(Span::from_seconds(seconds));
        for (turn, event) in order.into_iter().chain(again).enumerate() {
            if turn == evict_at {
                branch.evict();
            }
            match event {
                0 => drop(branch.subscribes(subscription(Stage::Begun, "price_starter", at(0)))),
                1 => drop(branch.subscribes(subscription(Stage::Paid, "price_starter", at(1)))),
                2 => drop(branch.subscribes(subscription(Stage::Unpaid, "price_pro", at(2)))),
                3 => drop(branch.subscribes(subscription(Stage::Paid, "price_pro", at(3)))),
                4 => drop(branch.pays(invoice("in_1", "price_starter", "2026-01-10T15:00:00", "2026-02-10T15:00:00"))),
                5 => drop(branch.pays(invoice("in_2", "price_pro", "2026-02-10T15:00:00", "2026-03-10T15:00:00"))),
                6 => drop(branch.pays(difference("in_3", "price_pro", "2026-01-20T15:00:00", "2026-02-10T15:00:00"))),
                _ => drop(branch.pays(purchase("pi_1", Progress::Paid))),
            }
        }
        branch.check().map_err(TestCaseError::fail)?;
        branch.audit_itself().map_err(TestCaseError::fail)?;
        let account = branch.object.account().unwrap().view();
        let account = serde_json::to_value(&account).unwrap();
        prop_assert_eq!(&account["plan"], "pro");
        prop_assert_eq!(&account["subscription"]["status"], "active");
        let periods = branch.store().entries().iter();
        let periods = periods.filter(|entry| entry.kind == EntryKind::Renewed && entry.pool == "credits");
        prop_assert_eq!(periods.count(), 2);
        // The first period's lot is over when the second's comes, or within hours.
        branch.set_clock(moment("2026-02-10T18:00:00"));
        let rolled_over = branch.entries().iter().any(|(kind, _)| *kind == "rolled_over");
        let expected = 50 + 1_000 + 5_000 + if rolled_over { 50 } else { 0 };
        prop_assert_eq!(branch.available(), expected);
    }
}

#[test]
fn amounts_that_are_taken_back_are_those_of_the_money() {
    let mut branch = shop("prepaid");
    branch.pays(purchase("pi_1", Progress::Paid));
    let now = branch.clock;
    for (refunded, left) in [
        (1, 4_999),
        (600, 4_500),
        (3_000, 2_500),
        (5_999, 0),
        (6_000, 0),
        (9_000, 0),
        (0, 5_000),
    ] {
        branch.pays(reversed(purchase("pi_1", Progress::Paid), now, refunded, 0));
        assert_eq!(branch.available(), left, "{refunded} of {PAID}");
    }
    assert_eq!(
        branch.balance("credits")["lots"][0]["amount"],
        json!(credits(5_000))
    );
}

fn second(stage: Stage, price: &str, as_of: Timestamp) -> SubscriptionSighting {
    SubscriptionSighting {
        id: "sub_2".into(),
        created_at: moment("2026-01-20T00:00:00"),
        ..subscription(stage, price, as_of)
    }
}

fn second_year() -> Sighting {
    let mut paid = invoice(
        "in_2",
        "price_starter",
        "2026-01-20T00:00:00",
        "2027-01-20T00:00:00",
    );
    if let Purpose::Period(period) = &mut paid.purpose {
        period.subscription = "sub_2".into();
    }
    paid
}

#[test]
fn two_subscriptions_at_a_time_bring_the_credits_of_both_in_whatever_order_they_are_told() {
    for invoice_first in [false, true] {
        let mut branch = shop("prepaid");
        branch.subscribes(subscription(Stage::Paid, "price_starter", branch.clock));
        branch.pays(january());
        branch.set_clock(moment("2026-01-20T00:10:00"));
        let now = branch.clock;
        if invoice_first {
            branch.pays(second_year());
            branch.evict();
        }
        branch.subscribes(second(Stage::Paid, "price_starter", now));
        if !invoice_first {
            branch.pays(second_year());
        }
        assert_eq!(branch.available(), 600, "{invoice_first}");
        // The first one is over, and the year of the second goes on.
        branch.subscribes(subscription(Stage::Ended, "price_starter", now));
        for day in ["2026-02-22", "2026-07-22", "2027-01-19"] {
            branch.set_clock(moment(&format!("{day}T00:00:00")));
            assert_eq!(branch.available(), 350, "{invoice_first} {day}");
        }
        branch.check().unwrap();
        branch.audit_itself().unwrap();
    }
}

#[test]
fn a_closed_account_pays_for_none_of_its_subscriptions() {
    let mut branch = shop("prepaid");
    branch.has_bought();
    branch.subscribes(subscription(Stage::Paid, "price_starter", branch.clock));
    branch.subscribes(second(Stage::Paid, "price_starter", branch.clock));
    branch.close();
    let mut told = Vec::new();
    while let Some(task) = next_task(&branch) {
        told.push(task);
        branch.stripe_answers(Ok(r#"{"data":[],"has_more":false}"#));
    }
    for id in ["sub_1", "sub_2"] {
        assert!(told.iter().any(|task| task.contains(id)), "{told:?}");
    }
}

/// Changing from years to months, which Stripe bills at once: it gives the money for the rest of the year back.
#[test]
fn months_that_take_the_place_of_a_year_are_all_that_is_granted() {
    let month = |name, from, until| {
        let day = |day: &str| format!("{day}T00:00:00");
        invoice(name, "price_starter", &day(from), &day(until))
    };
    let mut branch = shop("prepaid");
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_pro", start));
    let mut bought = year("in_1");
    if let Purpose::Period(period) = &mut bought.purpose {
        period.price = "price_pro".into();
    }
    branch.pays(bought);
    branch.set_clock(moment("2026-02-20T00:10:00"));
    branch.subscribes(SubscriptionSighting {
        anchor: moment("2026-02-20T00:00:00"),
        ..subscription(Stage::Paid, "price_starter", branch.clock)
    });
    branch.pays(month("in_2", "2026-02-20", "2026-03-20"));
    assert_eq!(branch.available(), 350, "50 carried over in February");
    branch.evict();
    branch.set_clock(moment("2026-03-20T01:00:00"));
    branch.pays(month("in_3", "2026-03-20", "2026-04-20"));
    assert_eq!(branch.available(), 350, "50 carried over");
    // What is paid no more is granted no more.
    branch.set_clock(moment("2026-05-20T00:00:00"));
    assert_eq!(branch.available(), 0);
    branch.check().unwrap();
    branch.audit_itself().unwrap();
}

#[test]
fn a_year_that_is_cancelled_tells_its_months_that_come() {
    let mut branch = shop("prepaid");
    let start = branch.clock;
    branch.subscribes(subscription(Stage::Paid, "price_starter", start));
    branch.pays(year("in_1"));
    let ends_at = moment("2027-01-10T15:00:00");
    branch.subscribes(subscription(Stage::Ending(ends_at), "price_starter", start));
    assert_ne!(branch.balance("credits")["renews_at"], Value::Null);
    branch.set_clock(moment("2026-02-11T00:00:00"));
    assert_eq!(branch.available(), 350);
    branch.set_clock(moment("2026-12-20T00:00:00"));
    assert_eq!(branch.balance("credits")["renews_at"], Value::Null);
    branch.check().unwrap();
}
