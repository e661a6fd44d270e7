//! What an event of Stripe's says (docs.stripe.com/api/events), and what is looked up because of it.
//!
//! An event is a report of how something stood when it was written, and events come in any order. What is
//! paid stays paid, so that is taken from the event. What can change to and fro is looked up instead: what
//! was given back, and how a subscription stands.

use std::borrow::Cow;

use super::{
    checkout::{Owner, offered, owner_of},
    money::Currency,
    sighting::{
        Papers, Period, Progress, Purpose, Reversal, Sighting, Stage, SubscriptionSighting,
    },
    stripe::{Call, encode_into},
    top_up::top_up_of,
};
use crate::{
    json::{self, Value},
    policy::Policy,
    time::Timestamp,
};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A payment on a Checkout page.
    Purchase(Owner, Box<Sighting>),
    /// An invoice of a subscription or of a top-up that was paid.
    Invoice(Payer, Box<Sighting>),
    /// The same of a subscription, with this id: it has more lines than the event tells.
    LongInvoice(String),
    /// Something has gone back of the payment with this payment intent, or may have, or came again.
    Reversal(String),
    /// The subscription with this id is not what it was.
    Subscription(String),
    /// The payment of this account's top-up by this invoice has failed.
    TopUp(Owner, String),
    /// Something about what a customer pays with was changed.
    PaymentMethod {
        /// The customer's id.
        customer: String,
        /// When.
        at: Timestamp,
        /// The payment method whose details were changed, where it is that.
        updated: Option<String>,
    },
    /// Nothing that concerns Tollgate.
    Other,
}

/// Whose payment or subscription it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payer {
    /// This account's.
    Account(Owner),
    /// This customer's at Stripe, on whom it is noted whose account that is.
    Customer(String),
}

/// That a body is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEvent;

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(body: &[u8], policy: &Policy) -> Result<Self, NoEvent> {
        let text = std::str::from_utf8(body).map_err(|_| NoEvent)?;
        let event = json::parse(text).map_err(|_| NoEvent)?;
        let kind = event
            .member("type")
            .and_then(Value::string)
            .ok_or(NoEvent)?;
        let data = event.member("data");
        // Events of other kinds come without.
        let Some(object) = data.and_then(|data| data.member("object")) else {
            return Ok(Self::Other);
        };
        let read = match &*kind {
            "checkout.session.completed"
            | "checkout.session.async_payment_succeeded"
            | "checkout.session.async_payment_failed" => purchase(object, &kind),
            "charge.refunded"
            | "charge.refund.updated"
            | "refund.created"
            | "refund.updated"
            | "refund.failed" => payment_intent_of(object).map(Self::Reversal),
            kind if kind.starts_with("charge.dispute.") => {
                payment_intent_of(object).map(Self::Reversal)
            }
            kind if kind.starts_with("customer.subscription.") => {
                id_in(object, "id").map(Self::Subscription)
            }
            "invoice.payment_failed" => match top_up_of(object) {
                Some((owner, sighting)) => Some(Self::TopUp(owner, sighting.name)),
                None => subscription_of(object).map(Self::Subscription),
            },
            "invoice.paid" => match long_invoice(object) {
                Some(id) => Some(Self::LongInvoice(id)),
                None => paid_by(object, policy)
                    .map(|(payer, sighting)| Self::Invoice(payer, Box::new(sighting))),
            },
            "payment_method.attached" => method_changed(event, id_in(object, "customer"), None),
            "payment_method.automatically_updated" | "payment_method.updated" => {
                method_changed(event, id_in(object, "customer"), id_in(object, "id"))
            }
            "customer.updated" if has_another_method(event) => {
                method_changed(event, id_in(object, "id"), None)
            }
            _ => None,
        };
        Ok(read.unwrap_or(Self::Other))
    }
}

/// What an invoice has paid, and whose it is; `None` where it is none of ours.
fn paid_by(paid: Value<'_>, policy: &Policy) -> Option<(Payer, Sighting)> {
    match top_up_of(paid) {
        Some((owner, sighting)) => Some((Payer::Account(owner), sighting)),
        None => invoice(paid, paid.member("lines"), policy),
    }
}

/// The id of a subscription's invoice of which not all lines are there. The period comes behind the differences that
/// changes of plan have made, of which there may be any number.
fn long_invoice(invoice: Value<'_>) -> Option<String> {
    let has_more = invoice.member("lines")?.member("has_more")?.text() == "true";
    let is_long = has_more && subscription_of(invoice).is_some();
    is_long.then(|| id_in(invoice, "id"))?
}

fn method_changed(
    event: Value<'_>,
    customer: Option<String>,
    updated: Option<String>,
) -> Option<Event> {
    Some(Event::PaymentMethod {
        customer: customer?,
        at: moment(event, "created")?,
        updated,
    })
}

/// Whether a customer was changed in what is paid with by default.
fn has_another_method(event: Value<'_>) -> bool {
    let before = event.member("data").and_then(|data| {
        data.member("previous_attributes")?
            .member("invoice_settings")
    });
    before.is_some_and(|before| before.member("default_payment_method").is_some())
}

/// A Checkout session of ours that somebody has completed.
fn purchase(session: Value<'_>, kind: &str) -> Option<Event> {
    let metadata = session.member("metadata")?;
    let owner = owner_of(metadata)?;
    // Without money that moved there is no payment intent; every package costs some.
    let intent = id_in(session, "payment_intent")?;
    let is_paid = text(session, "payment_status")? == "paid";
    let sighting = Sighting {
        purpose: Purpose::Package(offered(metadata)?),
        progress: if is_paid {
            Progress::Paid
        } else if kind.ends_with("failed") {
            Progress::Failed
        } else {
            Progress::Processing
        },
        total: whole(session, "amount_total")?,
        subtotal: whole(session, "amount_subtotal"),
        currency: currency_of(session)?,
        papers: Papers {
            checkout_session: id_in(session, "id"),
            payment_intent: Some(intent.clone()),
            invoice: id_in(session, "invoice"),
            receipt_url: None,
        },
        name: intent,
        reversal: None,
        change: None,
    };
    Some(Event::Purchase(owner, Box::new(sighting)))
}

/// An invoice of a subscription, paid or not, that has these lines.
fn invoice(
    invoice: Value<'_>,
    lines: Option<Value<'_>>,
    policy: &Policy,
) -> Option<(Payer, Sighting)> {
    let subscription = subscription_of(invoice)?;
    let name = id_in(invoice, "id")?;
    let is_paid = text(invoice, "status")? == "paid";
    let noted = [
        subscription_details(invoice).and_then(|details| details.member("metadata")),
        invoice.member("metadata"),
    ];
    let owner = noted.into_iter().flatten().find_map(owner_of);
    let payer = match owner {
        Some(owner) => Payer::Account(owner),
        None => Payer::Customer(id_in(invoice, "customer")?),
    };
    let period = lines.and_then(|lines| period_of(lines, &subscription, policy));
    let change = match period {
        Some(_) => None,
        None => lines.and_then(|lines| change_of(invoice, lines, &subscription, policy)),
    };
    let sighting = Sighting {
        purpose: period.map_or(Purpose::Subscription, Purpose::Period),
        progress: if is_paid {
            Progress::Paid
        } else {
            Progress::Processing
        },
        total: whole(invoice, "amount_paid")?,
        subtotal: None,
        currency: currency_of(invoice)?,
        papers: Papers {
            checkout_session: None,
            payment_intent: id_in(invoice, "payment_intent"),
            invoice: Some(name.clone()),
            receipt_url: text(invoice, "hosted_invoice_url").map(Cow::into_owned),
        },
        name,
        reversal: None,
        change,
    };
    Some((payer, sighting))
}

/// The period of a plan that an invoice with these lines is for: of the policy's, if it is for several things. The differences
/// that a change of plan makes are no period.
fn period_of(lines: Value<'_>, subscription: &str, policy: &Policy) -> Option<Period> {
    let lines = lines.member("data")?.items()?;
    let of_plan = lines.filter(|line| {
        // Releases before 2025-03-31 told this on the line itself.
        let is_of_plan = parent_of(*line, "subscription_item_details").is_some()
            || text(*line, "type").is_some_and(|told| told == "subscription");
        is_of_plan && !is_difference(*line)
    });
    let mut periods: Vec<Period> = of_plan
        .filter_map(|line| line_period(line, subscription))
        .collect();
    let sold = periods
        .iter()
        .position(|period| policy.plan_sold_as(&period.price).is_some());
    let at = sold.unwrap_or(0);
    (at < periods.len()).then(|| periods.swap_remove(at))
}

/// The change of plan in the midst of a period that an invoice, which is for nothing else, bills: what is added is the
/// rest of the period under the new price, what is taken off the same under the one before.
fn change_of(
    invoice: Value<'_>,
    lines: Value<'_>,
    subscription: &str,
    policy: &Policy,
) -> Option<Period> {
    // At the next period's beginning the change is over.
    if text(invoice, "billing_reason")? != "subscription_update" {
        return None;
    }
    let mut lines = lines.member("data")?.items()?;
    lines.find_map(|line| {
        let is_added = is_difference(line) && whole(line, "amount")? > 0;
        let period = is_added.then(|| line_period(line, subscription))??;
        policy.plan_sold_as(&period.price).map(|_| period)
    })
}

/// What an invoice's line comes from, in this release of Stripe's.
fn parent_of<'a>(line: Value<'a>, kind: &str) -> Option<Value<'a>> {
    line.member("parent")?.member(kind)
}

/// Whether a line is a difference that a change made.
fn is_difference(line: Value<'_>) -> bool {
    let places = [
        parent_of(line, "subscription_item_details"),
        parent_of(line, "invoice_item_details"),
        Some(line),
    ];
    places.into_iter().flatten().any(|place| {
        let told = place.member("proration");
        told.is_some_and(|told| told.text() == "true")
    })
}

/// What a line is for, and from when until when.
fn line_period(line: Value<'_>, subscription: &str) -> Option<Period> {
    let priced = line.member("pricing").and_then(|pricing| {
        let details = pricing.member("price_details")?;
        id_in(details, "price")
    });
    let period = line.member("period")?;
    Some(Period {
        subscription: subscription.to_owned(),
        price: priced.or_else(|| id_in(line, "price"))?,
        starts_at: moment(period, "start")?,
        ends_at: moment(period, "end")?,
    })
}

/// What is asked of Stripe to learn what went back of a payment: first the payment itself …
#[must_use]
pub fn look_at_payment(intent: &str) -> Call {
    Call::get(path(
        "/v1/payment_intents/",
        intent,
        "?expand[]=latest_charge",
    ))
}

/// … where that was not made on a Checkout page of ours, the invoice that it paid …
#[must_use]
pub fn look_for_invoice(intent: &str) -> Call {
    let start = "/v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=";
    Call::get(path(start, intent, "&expand[]=data.invoice"))
}

/// … and what was refunded …
#[must_use]
pub fn look_at_refunds(intent: &str) -> Call {
    Call::get(path("/v1/refunds?payment_intent=", intent, "&limit=100"))
}

/// … and disputed.
#[must_use]
pub fn look_at_disputes(intent: &str) -> Call {
    Call::get(path("/v1/disputes?payment_intent=", intent, "&limit=100"))
}

/// What is asked of Stripe to learn how a subscription stands.
#[must_use]
pub fn look_at_subscription(id: &str) -> Call {
    Call::get(path("/v1/subscriptions/", id, ""))
}

/// What is asked of Stripe to learn whose account a customer's is.
#[must_use]
pub fn look_at_customer(id: &str) -> Call {
    Call::get(path("/v1/customers/", id, ""))
}

/// What is asked of Stripe to learn what a long invoice is for, besides the invoice itself.
#[must_use]
pub fn look_at_lines(invoice: &str) -> Call {
    Call::get(path("/v1/invoices/", invoice, "/lines?limit=100"))
}

/// What is asked of Stripe to learn where an invoice is shown.
#[must_use]
pub fn look_at_invoice(id: &str) -> Call {
    Call::get(path("/v1/invoices/", id, ""))
}

/// A payment of a package, from its payment intent; `None` where that is of something else.
#[must_use]
pub fn purchase_of(answer: &str) -> Option<(Owner, Sighting)> {
    let intent = json::parse(answer).ok()?;
    let metadata = intent.member("metadata")?;
    let owner = owner_of(metadata)?;
    let name = id_in(intent, "id")?;
    let charge = intent.member("latest_charge");
    let sighting = Sighting {
        purpose: Purpose::Package(offered(metadata)?),
        progress: match &*text(intent, "status")? {
            "succeeded" => Progress::Paid,
            "canceled" => Progress::Failed,
            _ => Progress::Processing,
        },
        total: whole(intent, "amount_received")?,
        subtotal: None,
        currency: currency_of(intent)?,
        papers: Papers {
            payment_intent: Some(name.clone()),
            receipt_url: charge.and_then(|charge| text(charge, "receipt_url").map(Cow::into_owned)),
            ..Papers::default()
        },
        name,
        reversal: None,
        change: None,
    };
    Some((owner, sighting))
}

/// A payment of a subscription, from its invoice and the invoice's lines.
#[must_use]
pub fn invoice_with(answer: &str, lines: &str, policy: &Policy) -> Option<(Payer, Sighting)> {
    let lines = json::parse(lines).ok()?;
    invoice(json::parse(answer).ok()?, Some(lines), policy)
}

/// The long invoice that a payment intent has paid, if it is one.
#[must_use]
pub fn long_invoice_of(answer: &str) -> Option<String> {
    let answer = json::parse(answer).ok()?;
    let payment = answer.member("data")?.items()?.next()?;
    long_invoice(payment.member("invoice")?)
}

/// A payment of a subscription or a top-up, from what its payment intent has paid; `None` where that is
/// neither.
#[must_use]
pub fn invoice_of(answer: &str, intent: &str, policy: &Policy) -> Option<(Payer, Sighting)> {
    let answer = json::parse(answer).ok()?;
    let payment = answer.member("data")?.items()?.next()?;
    let (payer, mut sighting) = paid_by(payment.member("invoice")?, policy)?;
    sighting.papers.payment_intent = Some(intent.to_owned());
    Some((payer, sighting))
}

/// What has gone back of `payment`, from the lists of refunds and disputes as of `as_of`.
#[must_use]
pub fn reversal_of(
    payment: &str,
    refunds: &str,
    disputes: &str,
    as_of: Timestamp,
) -> Option<Reversal> {
    let mut reversal = Reversal {
        as_of,
        ..Reversal::default()
    };
    let refunds = json::parse(refunds).ok()?;
    for refund in refunds.member("data")?.items()? {
        let status = text(refund, "status").unwrap_or_default();
        if !matches!(&*status, "failed" | "canceled") {
            let amount = whole(refund, "amount")?;
            reversal.refunded = reversal.refunded.saturating_add(amount);
        }
    }
    // The list is no longer than a page; the charge has the sum, and counts what fails to arrive later.
    if refunds.member("has_more")?.text() == "true" {
        let charge = json::parse(payment).ok()?.member("latest_charge")?;
        reversal.refunded = whole(charge, "amount_refunded")?;
    }
    let disputes = json::parse(disputes).ok()?;
    for dispute in disputes.member("data")?.items()? {
        let status = text(dispute, "status")?;
        let is_decided = matches!(&*status, "won" | "lost" | "warning_closed" | "prevented");
        reversal.is_open |= !is_decided;
        // While banks only inquire, the money stays where it is.
        let is_taken = !status.starts_with("warning_") && !matches!(&*status, "won" | "prevented");
        if is_taken {
            let amount = whole(dispute, "amount")?;
            reversal.disputed = reversal.disputed.saturating_add(amount);
        }
    }
    Some(reversal)
}

/// How a subscription stands, and whose it is.
#[must_use]
pub fn subscription(
    answer: &str,
    as_of: Timestamp,
    policy: &Policy,
) -> Option<(Payer, SubscriptionSighting)> {
    let found = json::parse(answer).ok()?;
    let owner = found.member("metadata").and_then(owner_of);
    let payer = match owner {
        Some(owner) => Payer::Account(owner),
        None => Payer::Customer(id_in(found, "customer")?),
    };
    let items = || found.member("items")?.member("data")?.items();
    let price = |item: Value<'_>| id_in(item, "price");
    let sold = items()?.filter_map(price);
    let price = sold
        .into_iter()
        .find(|price| policy.plan_sold_as(price).is_some())
        .or_else(|| items()?.find_map(price))?;
    let period_ends_at = || {
        let of_items = items()?.find_map(|item| moment(item, "current_period_end"));
        of_items.or_else(|| moment(found, "current_period_end"))
    };
    let ends_with_period = found
        .member("cancel_at_period_end")
        .is_some_and(|told| told.text() == "true");
    let ends_at =
        moment(found, "cancel_at").or_else(|| ends_with_period.then(period_ends_at).flatten());
    let sighting = SubscriptionSighting {
        id: id_in(found, "id")?,
        as_of,
        created_at: moment(found, "created")?,
        stage: match &*text(found, "status")? {
            "active" | "trialing" => ends_at.map_or(Stage::Paid, Stage::Ending),
            "incomplete" => Stage::Begun,
            "canceled" | "incomplete_expired" => Stage::Ended,
            _ => Stage::Unpaid,
        },
        price,
        anchor: moment(found, "billing_cycle_anchor")?,
    };
    Some((payer, sighting))
}

/// Whose a customer is noted to be.
#[must_use]
pub fn owner_of_customer(answer: &str) -> Option<Owner> {
    owner_of(json::parse(answer).ok()?.member("metadata")?)
}

/// Where an invoice is shown.
#[must_use]
pub fn receipt_of(answer: &str) -> Option<String> {
    text(json::parse(answer).ok()?, "hosted_invoice_url").map(Cow::into_owned)
}

fn path(start: &str, id: &str, end: &str) -> String {
    let mut path = start.to_owned();
    encode_into(&mut path, id);
    path.push_str(end);
    path
}

/// What the invoice is of, in this release of Stripe's and in those before 2025-03-31.
fn subscription_details(invoice: Value<'_>) -> Option<Value<'_>> {
    let parent = invoice.member("parent");
    let details = parent.and_then(|parent| parent.member("subscription_details"));
    details.or_else(|| invoice.member("subscription_details"))
}

fn subscription_of(invoice: Value<'_>) -> Option<String> {
    let details = subscription_details(invoice);
    let told = details.and_then(|details| id_in(details, "subscription"));
    told.or_else(|| id_in(invoice, "subscription"))
}

fn payment_intent_of(object: Value<'_>) -> Option<String> {
    id_in(object, "payment_intent")
}

fn text<'a>(object: Value<'a>, name: &str) -> Option<Cow<'a, str>> {
    object.member(name)?.string()
}

fn whole(object: Value<'_>, name: &str) -> Option<u64> {
    object.member(name)?.whole()
}

fn moment(object: Value<'_>, name: &str) -> Option<Timestamp> {
    let seconds = i64::try_from(whole(object, name)?).ok()?;
    Some(Timestamp::from_seconds(seconds))
}

fn currency_of(object: Value<'_>) -> Option<Currency> {
    Currency::parse(&text(object, "currency")?)
}

/// An id, or that of the object that stands in its place.
fn id_in(object: Value<'_>, name: &str) -> Option<String> {
    let told = object.member(name)?;
    let id = told.string().or_else(|| text(told, "id"))?;
    (!id.is_empty()).then(|| id.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{credits::Credits, id::AccountId, payments::money::Money, policy::Package};

    /// Noted by a release that did not write when it was opened.
    fn acme() -> Owner {
        Owner {
            account: AccountId::parse("acme").unwrap(),
            opened: None,
        }
    }

    fn policy() -> Policy {
        Policy::parse(include_str!("../../tests/policies/full.toml")).unwrap()
    }

    fn read(kind: &str, object: &str) -> Event {
        let event = format!(r#"{{"id":"evt_1","type":"{kind}","data":{{"object":{object}}}}}"#);
        Event::read(event.as_bytes(), &policy()).unwrap()
    }

    const NOTED: &str = r#"{"tollgate_account":"acme","tollgate_package":"small","tollgate_pool":"credits",
        "tollgate_credits":"5000","tollgate_price":"50.00 USD"}"#;

    fn session(status: &str) -> String {
        format!(
            r#"{{"id":"cs_1","mode":"payment","payment_status":"{status}","amount_subtotal":5000,"amount_total":6000,
            "currency":"usd","payment_intent":"pi_1","invoice":{{"id":"in_1"}},"metadata":{NOTED},
            "client_reference_id":"somebody-else"}}"#
        )
    }

    #[test]
    fn a_session_is_a_payment_of_what_was_offered_to_the_account_that_is_noted_on_it() {
        for (kind, status, progress) in [
            ("completed", "paid", Progress::Paid),
            ("completed", "unpaid", Progress::Processing),
            ("async_payment_succeeded", "paid", Progress::Paid),
            ("async_payment_failed", "unpaid", Progress::Failed),
        ] {
            let Event::Purchase(owner, sighting) =
                read(&format!("checkout.session.{kind}"), &session(status))
            else {
                panic!("{kind}");
            };
            assert_eq!(owner, acme());
            assert_eq!(sighting.progress, progress);
            assert_eq!(sighting.name, "pi_1");
            assert_eq!((sighting.total, sighting.subtotal), (6_000, Some(5_000)));
            assert_eq!(sighting.papers.invoice.as_deref(), Some("in_1"));
            let package = Package {
                id: "small".into(),
                pool: "credits".into(),
                credits: Credits::new(5_000).unwrap(),
                price: Money::parse("50.00 USD").unwrap(),
            };
            assert_eq!(sighting.purpose, Purpose::Package(package));
        }
    }

    #[test]
    fn what_is_not_tollgates_is_passed_over() {
        let of_another_shop = session("paid").replace("tollgate_account", "shop_account");
        let damaged = session("paid").replace("50.00 USD", "50 dollars");
        for (kind, object) in [
            ("checkout.session.completed", of_another_shop.as_str()),
            ("checkout.session.completed", &damaged),
            ("checkout.session.expired", &session("unpaid")),
            (
                "invoice.paid",
                r#"{"id":"in_1","status":"paid","customer":"cus_1","currency":"usd","amount_paid":1}"#,
            ),
            ("charge.refunded", r#"{"id":"ch_1","payment_intent":null}"#),
            ("customer.created", "{}"),
        ] {
            assert_eq!(read(kind, object), Event::Other, "{kind} {object}");
        }
        let bare = br#"{"type":"v1.billing.meter.no_meter_found"}"#;
        assert_eq!(Event::read(bare, &policy()), Ok(Event::Other));
        for body in [&b""[..], b"{", b"[]", b"{}", b"\xff"] {
            assert_eq!(Event::read(body, &policy()), Err(NoEvent), "{body:?}");
        }
    }

    #[test]
    fn what_goes_to_and_fro_is_looked_up() {
        for (kind, object, expected) in [
            (
                "charge.refunded",
                r#"{"payment_intent":"pi_1"}"#,
                Event::Reversal("pi_1".into()),
            ),
            (
                "refund.failed",
                r#"{"payment_intent":{"id":"pi_1"}}"#,
                Event::Reversal("pi_1".into()),
            ),
            (
                "charge.dispute.closed",
                r#"{"payment_intent":"pi_1"}"#,
                Event::Reversal("pi_1".into()),
            ),
            (
                "customer.subscription.deleted",
                r#"{"id":"sub_1"}"#,
                Event::Subscription("sub_1".into()),
            ),
            (
                "invoice.payment_failed",
                r#"{"parent":{"subscription_details":{"subscription":"sub_1"}}}"#,
                Event::Subscription("sub_1".into()),
            ),
            (
                "invoice.payment_failed",
                r#"{"subscription":"sub_1"}"#,
                Event::Subscription("sub_1".into()),
            ),
        ] {
            assert_eq!(read(kind, object), expected, "{kind} {object}");
        }
    }

    #[test]
    fn what_a_customer_pays_with_is_worth_a_look_where_it_may_be_another() {
        let read = |kind: &str, data: &str| {
            let event =
                format!(r#"{{"id":"evt_1","type":"{kind}","created":7,"data":{{{data}}}}}"#);
            Event::read(event.as_bytes(), &policy()).unwrap()
        };
        let changed = |updated: Option<&str>| Event::PaymentMethod {
            customer: "cus_1".into(),
            at: Timestamp::from_seconds(7),
            updated: updated.map(str::to_owned),
        };
        let method = r#""object":{"id":"pm_1","customer":"cus_1"}"#;
        let customer = |before: &str| {
            format!(r#""object":{{"id":"cus_1"}},"previous_attributes":{{{before}}}"#)
        };
        for (kind, data, expected) in [
            ("payment_method.attached", method, changed(None)),
            ("payment_method.updated", method, changed(Some("pm_1"))),
            (
                "payment_method.automatically_updated",
                method,
                changed(Some("pm_1")),
            ),
            (
                "customer.updated",
                &customer(r#""invoice_settings":{"default_payment_method":null}"#),
                changed(None),
            ),
            (
                "customer.updated",
                &customer(r#""invoice_settings":{"footer":null}"#),
                Event::Other,
            ),
            (
                "customer.updated",
                &customer(r#""name":null"#),
                Event::Other,
            ),
        ] {
            assert_eq!(read(kind, data), expected, "{kind} {data}");
        }
    }

    #[test]
    fn a_payment_of_a_top_up_that_fails_is_told_to_its_account() {
        let invoice = r#"{"id":"in_1","status":"open","total":1600,"subtotal":1600,"currency":"usd","metadata":{
            "tollgate_account":"acme","tollgate_top_up":"3","tollgate_pool":"credits",
            "tollgate_credits":"1600","tollgate_price":"16.00 USD"}}"#;
        let told = read("invoice.payment_failed", invoice);
        assert_eq!(told, Event::TopUp(acme(), "in_1".into()));
    }

    /// As Stripe writes it now, and as it did before 2025-03-31.
    #[test]
    fn an_invoice_tells_the_period_of_the_plan_that_it_is_for() {
        let now = r#"{"id":"in_1","status":"paid","currency":"usd","amount_paid":1900,"customer":"cus_1",
            "parent":{"subscription_details":{"subscription":"sub_1","metadata":{"tollgate_account":"acme"}}},
            "hosted_invoice_url":"https://invoice.stripe.com/i/1",
            "lines":{"data":[
                {"parent":{"subscription_item_details":{"proration":true}},"period":{"start":1,"end":2},
                    "pricing":{"price_details":{"price":"price_1Qx"}}},
                {"parent":{"subscription_item_details":{"proration":false}},"period":{"start":10,"end":20},
                    "pricing":{"price_details":{"price":"price_of_seats"}}},
                {"parent":{"subscription_item_details":{"proration":false}},"period":{"start":100,"end":200},
                    "pricing":{"price_details":{"price":"price_1Qx"}}}]}}"#;
        let before = r#"{"id":"in_1","status":"paid","currency":"usd","amount_paid":1900,"customer":"cus_1",
            "subscription":"sub_1","subscription_details":{"metadata":{"tollgate_account":"acme"}},
            "hosted_invoice_url":"https://invoice.stripe.com/i/1",
            "lines":{"data":[
                {"type":"invoiceitem","proration":true,"period":{"start":1,"end":2},"price":{"id":"price_1Qx"}},
                {"type":"subscription","proration":false,"period":{"start":100,"end":200},"price":{"id":"price_1Qx"}}]}}"#;
        let period = Period {
            subscription: "sub_1".into(),
            price: "price_1Qx".into(),
            starts_at: Timestamp::from_seconds(100),
            ends_at: Timestamp::from_seconds(200),
        };
        for invoice in [now, before] {
            let Event::Invoice(payer, sighting) = read("invoice.paid", invoice) else {
                panic!("{invoice}");
            };
            assert_eq!(payer, Payer::Account(acme()));
            assert_eq!(sighting.purpose, Purpose::Period(period.clone()));
            assert_eq!(
                (sighting.name.as_str(), sighting.progress),
                ("in_1", Progress::Paid)
            );
            let receipt = sighting.papers.receipt_url.as_deref();
            assert_eq!(receipt, Some("https://invoice.stripe.com/i/1"));
        }
        let difference = now.replace("\"proration\":false", "\"proration\":true");
        let unnoted = difference.replace("tollgate_account", "note");
        let Event::Invoice(payer, sighting) = read("invoice.paid", &unnoted) else {
            panic!("{unnoted}");
        };
        assert_eq!(payer, Payer::Customer("cus_1".into()));
        assert_eq!(sighting.purpose, Purpose::Subscription);
    }

    /// Stripe tells no more than ten lines with an invoice, and the differences first.
    #[test]
    fn an_invoice_with_many_lines_is_looked_up() {
        let difference = r#"{"parent":{"invoice_item_details":{"proration":true}},"period":{"start":1,"end":2},
            "pricing":{"price_details":{"price":"price_1Qx"}}}"#;
        let plan = r#"{"parent":{"subscription_item_details":{"proration":false}},"period":{"start":100,"end":200},
            "pricing":{"price_details":{"price":"price_1Qx"}}}"#;
        let told = [difference; 10].join(",");
        let invoice = format!(
            r#"{{"id":"in_1","status":"paid","currency":"usd","amount_paid":1900,"customer":"cus_1",
            "parent":{{"subscription_details":{{"subscription":"sub_1"}}}},
            "lines":{{"data":[{told}],"has_more":true}}}}"#
        );
        let long = Some("in_1".to_owned());
        assert_eq!(
            read("invoice.paid", &invoice),
            Event::LongInvoice("in_1".into())
        );
        let paid = format!(r#"{{"data":[{{"invoice":{invoice}}}]}}"#);
        assert_eq!(long_invoice_of(&paid), long);
        let lines = format!(r#"{{"data":[{told},{plan}],"has_more":false}}"#);
        let (_, sighting) = invoice_with(&invoice, &lines, &policy()).unwrap();
        let Purpose::Period(period) = sighting.purpose else {
            panic!("no period");
        };
        assert_eq!(period.ends_at, Timestamp::from_seconds(200));
        let short = invoice.replace("true}}", "false}}");
        assert_eq!(long_invoice_of(&short), None);
    }

    #[test]
    fn the_difference_of_a_change_tells_what_it_changed_to() {
        let line = |amount: i64, price: &str, parent: &str| {
            format!(
                r#"{{"amount":{amount},"parent":{{"{parent}":{{"proration":true}}}},"period":{{"start":10,"end":20}},
                "pricing":{{"price_details":{{"price":"{price}"}}}}}}"#
            )
        };
        let read = |reason: &str, lines: &[String]| {
            let invoice = format!(
                r#"{{"id":"in_1","status":"paid","currency":"usd","amount_paid":3000,"customer":"cus_1",
                "billing_reason":"{reason}","parent":{{"subscription_details":{{"subscription":"sub_1"}}}},
                "lines":{{"data":[{}]}}}}"#,
                lines.join(",")
            );
            let Event::Invoice(_, sighting) = read("invoice.paid", &invoice) else {
                panic!("{invoice}");
            };
            assert_eq!(sighting.purpose, Purpose::Subscription);
            sighting.change.map(|change| change.price)
        };
        for parent in ["subscription_item_details", "invoice_item_details"] {
            let taken_off = line(-1_900, "price_1Qy", parent);
            let added = line(4_900, "price_1Qx", parent);
            let change = read("subscription_update", &[taken_off.clone(), added.clone()]);
            assert_eq!(change.as_deref(), Some("price_1Qx"));
            // Billed when it is over.
            assert_eq!(
                read("subscription_cycle", &[taken_off.clone(), added]),
                None
            );
            let seats = line(900, "price_of_seats", parent);
            assert_eq!(read("subscription_update", &[taken_off, seats]), None);
        }
    }

    #[test]
    fn a_reversal_is_what_was_refunded_and_has_arrived_and_what_banks_have_taken() {
        let at = Timestamp::from_seconds(7);
        let dispute = |status| format!(r#"{{"status":"{status}","amount":50}}"#);
        let payment = r#"{"latest_charge":{"amount_refunded":900}}"#;
        for (refunds, has_more, disputes, expected) in [
            ("", false, vec![], (0, 0, false)),
            (
                r#"{"status":"succeeded","amount":10},{"status":"pending","amount":5},{"status":"failed","amount":3}"#,
                false,
                vec![],
                (15, 0, false),
            ),
            (
                r#"{"status":"succeeded","amount":10}"#,
                true,
                vec![],
                (900, 0, false),
            ),
            ("", false, vec!["needs_response"], (0, 50, true)),
            ("", false, vec!["lost"], (0, 50, false)),
            ("", false, vec!["appeal_under_review"], (0, 50, true)),
            (
                "",
                false,
                vec!["won", "prevented", "warning_closed"],
                (0, 0, false),
            ),
            ("", false, vec!["warning_needs_response"], (0, 0, true)),
            (
                "",
                false,
                vec!["won", "lost", "under_review"],
                (0, 100, true),
            ),
        ] {
            let refunds = format!(r#"{{"data":[{refunds}],"has_more":{has_more}}}"#);
            let list: Vec<String> = disputes.iter().copied().map(dispute).collect();
            let told = format!(r#"{{"data":[{}]}}"#, list.join(","));
            let reversal = reversal_of(payment, &refunds, &told, at).unwrap();
            let found = (reversal.refunded, reversal.disputed, reversal.is_open);
            assert_eq!((found, reversal.as_of), (expected, at), "{refunds} {told}");
        }
    }

    #[test]
    fn a_subscription_is_paid_ending_unpaid_or_over() {
        let at = Timestamp::from_seconds(7);
        let ending = Stage::Ending(Timestamp::from_seconds(200));
        for (status, more, stage) in [
            ("active", "", Stage::Paid),
            ("trialing", "", Stage::Paid),
            ("active", r#","cancel_at_period_end":true"#, ending),
            ("active", r#","cancel_at":200"#, ending),
            ("past_due", r#","cancel_at":200"#, Stage::Unpaid),
            ("unpaid", "", Stage::Unpaid),
            ("paused", "", Stage::Unpaid),
            ("incomplete", "", Stage::Begun),
            ("incomplete_expired", "", Stage::Ended),
            ("canceled", "", Stage::Ended),
        ] {
            let told = format!(
                r#"{{"id":"sub_1","customer":"cus_1","created":5,"billing_cycle_anchor":100,"metadata":{{}},"status":"{status}",
                "items":{{"data":[{{"price":{{"id":"price_of_seats"}}}},
                    {{"price":{{"id":"price_1Qx"}},"current_period_end":200}}]}}{more}}}"#
            );
            let (payer, sighting) = subscription(&told, at, &policy()).unwrap();
            assert_eq!(payer, Payer::Customer("cus_1".into()));
            assert_eq!(
                (sighting.stage, sighting.price.as_str()),
                (stage, "price_1Qx"),
                "{told}"
            );
            assert_eq!(sighting.as_of, at);
        }
    }
}
