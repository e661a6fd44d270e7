//! What an event of Stripe's says (docs.stripe.com/api/events), and what is looked up because of it.
//!
//! An event is a report of how something stood when it was written, and events come in any order. What is
//! paid stays paid, so that is taken from the event. What can change to and fro is looked up instead: what
//! was given back, and how a subscription stands.

use std::borrow::Cow;

use super::{
    checkout::{account_of, offered},
    money::Currency,
    sighting::{
        Papers, Period, Progress, Purpose, Reversal, Sighting, Stage, SubscriptionSighting,
    },
    stripe::{Call, encode_into},
    top_up::top_up_of,
};
use crate::{
    id::AccountId,
    json::{self, Value},
    policy::Policy,
    time::Timestamp,
};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A payment on a Checkout page.
    Purchase(AccountId, Box<Sighting>),
    /// An invoice of a subscription or of a top-up that was paid.
    Invoice(Payer, Box<Sighting>),
    /// Something has gone back of the payment with this payment intent, or may have, or came again.
    Reversal(String),
    /// The subscription with this id is not what it was.
    Subscription(String),
    /// The customer of this id pays with something else since this moment.
    PaymentMethod(String, Timestamp),
    /// Nothing that concerns Tollgate.
    Other,
}

/// Whose payment or subscription it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payer {
    /// This account's.
    Account(AccountId),
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
        let object = event
            .member("data")
            .and_then(|data| data.member("object"))
            .ok_or(NoEvent)?;
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
            "invoice.payment_failed" => subscription_of(object).map(Self::Subscription),
            "invoice.paid" => paid_by(object, policy)
                .map(|(payer, sighting)| Self::Invoice(payer, Box::new(sighting))),
            "payment_method.attached"
            | "payment_method.automatically_updated"
            | "payment_method.updated" => {
                method_changed(id_in(object, "customer"), moment(event, "created"))
            }
            "customer.updated" if has_another_method(event) => {
                method_changed(id_in(object, "id"), moment(event, "created"))
            }
            _ => None,
        };
        Ok(read.unwrap_or(Self::Other))
    }
}

/// What an invoice has paid, and whose it is; `None` where it is none of ours.
fn paid_by(paid: Value<'_>, policy: &Policy) -> Option<(Payer, Sighting)> {
    match top_up_of(paid) {
        Some((account, sighting)) => Some((Payer::Account(account), sighting)),
        None => invoice(paid, policy),
    }
}

fn method_changed(customer: Option<String>, at: Option<Timestamp>) -> Option<Event> {
    Some(Event::PaymentMethod(customer?, at?))
}

/// Whether a customer was changed in what is paid with.
fn has_another_method(event: Value<'_>) -> bool {
    let before = event
        .member("data")
        .and_then(|data| data.member("previous_attributes"));
    before.is_some_and(|before| {
        let told = |name: &str| before.member(name);
        told("invoice_settings")
            .or_else(|| told("default_source"))
            .is_some()
    })
}

/// A Checkout session of ours that somebody has completed.
fn purchase(session: Value<'_>, kind: &str) -> Option<Event> {
    let metadata = session.member("metadata")?;
    let account = account_of(metadata)?;
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
    };
    Some(Event::Purchase(account, Box::new(sighting)))
}

/// An invoice of a subscription, paid or not.
fn invoice(invoice: Value<'_>, policy: &Policy) -> Option<(Payer, Sighting)> {
    let subscription = subscription_of(invoice)?;
    let name = id_in(invoice, "id")?;
    let is_paid = text(invoice, "status")? == "paid";
    let noted = [
        subscription_details(invoice).and_then(|details| details.member("metadata")),
        invoice.member("metadata"),
    ];
    let account = noted.into_iter().flatten().find_map(account_of);
    let payer = match account {
        Some(account) => Payer::Account(account),
        None => Payer::Customer(id_in(invoice, "customer")?),
    };
    let period = period_of(invoice, &subscription, policy);
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
    };
    Some((payer, sighting))
}

/// The period of a plan that an invoice is for: of the policy's, if it is for several things. The differences
/// that a change of plan makes are no period.
fn period_of(invoice: Value<'_>, subscription: &str, policy: &Policy) -> Option<Period> {
    let lines = invoice.member("lines")?.member("data")?.items()?;
    let periods = lines.filter_map(|line| {
        let parent = line.member("parent");
        let details = parent.and_then(|parent| parent.member("subscription_item_details"));
        // Releases before 2025-03-31 told this on the line itself.
        let place = details.unwrap_or(line);
        let is_of_plan = details.is_some() || text(line, "type")? == "subscription";
        let is_difference = place
            .member("proration")
            .is_some_and(|told| told.text() == "true");
        if !is_of_plan || is_difference {
            return None;
        }
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
    });
    let mut periods: Vec<Period> = periods.collect();
    let sold = periods
        .iter()
        .position(|period| policy.plan_sold_as(&period.price).is_some());
    let at = sold.unwrap_or(0);
    (at < periods.len()).then(|| periods.swap_remove(at))
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

/// What is asked of Stripe to learn where an invoice is shown.
#[must_use]
pub fn look_at_invoice(id: &str) -> Call {
    Call::get(path("/v1/invoices/", id, ""))
}

/// A payment of a package, from its payment intent; `None` where that is of something else.
#[must_use]
pub fn purchase_of(answer: &str) -> Option<(AccountId, Sighting)> {
    let intent = json::parse(answer).ok()?;
    let metadata = intent.member("metadata")?;
    let account = account_of(metadata)?;
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
    };
    Some((account, sighting))
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

/// What has gone back, from the lists of refunds and disputes as of `as_of`.
#[must_use]
pub fn reversal_of(refunds: &str, disputes: &str, as_of: Timestamp) -> Option<Reversal> {
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
    let account = found.member("metadata").and_then(account_of);
    let payer = match account {
        Some(account) => Payer::Account(account),
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

/// The account that is noted on a customer.
#[must_use]
pub fn account_of_customer(answer: &str) -> Option<AccountId> {
    account_of(json::parse(answer).ok()?.member("metadata")?)
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
