//! What Stripe is asked for a top-up, and what its answers say (docs.stripe.com/api/invoices).
//!
//! A top-up is an invoice of one line, which is paid off-session. Nothing is collected by Stripe itself:
//! `auto_advance` is off.

use super::{
    checkout::{CREDITS, Owner, POOL, PRICE, noted, owner_of},
    money::{Currency, Money},
    sighting::{Papers, Progress, Purpose, Sighting},
    stripe::{Call, Failure, Form, refused_by},
};
use crate::{
    credits::Credits,
    id::AccountId,
    json::{self, Value},
    time::Timestamp,
    wire::{Decode, Encode},
};

/// What is noted on the invoice of a top-up besides its account: the number of the attempt.
const TOP_UP: &str = "tollgate_top_up";
/// The payments of an invoice are not told unless they are asked for.
const WITH_PAYMENT: &str = "payments.data.payment.payment_intent";

/// What a top-up buys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TopUpBought {
    /// The attempt's number inside its account.
    #[n(0)]
    pub number: u32,
    /// The pool.
    #[n(1)]
    pub pool: String,
    /// The credits.
    #[n(2)]
    pub credits: Credits,
    /// What they cost, without tax.
    #[n(3)]
    pub price: Money,
}

/// What the customer pays with, as the customer says.
pub fn customer(customer: &str) -> Call {
    Call::get(format!("/v1/customers/{customer}"))
}

/// What else the customer could pay with: what was added last comes first.
pub fn methods(customer: &str) -> Call {
    Call::get(format!("/v1/customers/{customer}/payment_methods?limit=1"))
}

/// An invoice without a line yet: what was noted on it tells later what it was for.
pub fn draft(
    key: String,
    (account, opened): (&AccountId, Timestamp),
    customer: &str,
    bought: &TopUpBought,
    with_tax: bool,
) -> Call {
    let mut form = Form::default()
        .with("customer", customer)
        .with("currency", bought.price.currency.as_str())
        .with("collection_method", "charge_automatically")
        .with("auto_advance", "false")
        .with("pending_invoice_items_behavior", "exclude")
        // None is given here that the customer may have elsewhere.
        .with("discounts", "")
        .with_some("automatic_tax[enabled]", with_tax.then_some("true"));
    form = noted(form, "metadata", account, Some(opened));
    for (name, value) in [
        (TOP_UP, &bought.number.to_string()),
        (POOL, &bought.pool),
        (CREDITS, &bought.credits.to_string()),
        (PRICE, &bought.price.to_string()),
    ] {
        form = form.with(&format!("metadata[{name}]"), value);
    }
    Call::post("/v1/invoices", key, form)
}

/// The credits on the `invoice` of `customer`.
pub fn line(key: String, (customer, invoice): (&str, &str), bought: &TopUpBought) -> Call {
    let what = format!("Automatic top-up: {} {}", bought.credits, bought.pool);
    let form = Form::default()
        .with("customer", customer)
        .with("invoice", invoice)
        .with("amount", &bought.price.amount.to_string())
        .with("currency", bought.price.currency.as_str())
        .with("description", &what);
    Call::post("/v1/invoiceitems", key, form)
}

/// That `invoice` can be paid.
pub fn finalize(key: String, invoice: &str) -> Call {
    let form = Form::default().with("auto_advance", "false");
    Call::post(format!("/v1/invoices/{invoice}/finalize"), key, form)
}

/// The payment of `invoice`, while the customer is not there.
pub fn pay(key: String, invoice: &str, method: Option<&str>) -> Call {
    let form = Form::default()
        .with("off_session", "true")
        .with_some("payment_method", method)
        .with("expand[]", WITH_PAYMENT);
    Call::post(format!("/v1/invoices/{invoice}/pay"), key, form)
}

/// How `invoice` stands.
pub fn look(invoice: &str) -> Call {
    Call::get(format!("/v1/invoices/{invoice}?expand[]={WITH_PAYMENT}"))
}

/// That `invoice` can be paid no more.
pub fn void(key: String, invoice: &str) -> Call {
    Call::post(format!("/v1/invoices/{invoice}/void"), key, Form::default())
}

/// What the customer of [`customer`]'s answer pays with.
pub fn own_method(answer: &str) -> Option<String> {
    let customer = json::parse(answer).ok()?;
    let settings = customer.member("invoice_settings")?;
    id_of(settings.member("default_payment_method")?)
}

/// Whether what is left of the customer of [`customer`]'s answer is that it was deleted.
pub fn is_deleted(answer: &str) -> bool {
    let customer = json::parse(answer).ok();
    let told = customer.and_then(|customer| customer.member("deleted"));
    told.is_some_and(|told| told.text() == "true")
}

/// The first of [`methods`]' answer.
pub fn first_method(answer: &str) -> Option<String> {
    let list = json::parse(answer).ok()?;
    id_of(list.member("data")?.items()?.next()?)
}

/// An invoice as Stripe tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub status: InvoiceStatus,
    /// A payment of it has been begun, and takes days.
    pub is_processing: bool,
    /// Why the payment of it that was tried last failed, where none is under way.
    pub failed: Option<Failure>,
    /// The last payment of it that was begun.
    pub payment: Option<String>,
    /// Where the customer can look at it, and pay.
    pub link: Option<String>,
    /// What is on it, tax included.
    pub total: u64,
    /// What is on it, without tax.
    subtotal: Option<u64>,
    currency: Currency,
}

/// How an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Nobody can pay it yet.
    Draft,
    /// It can be paid.
    Open,
    /// It was paid.
    Paid,
    /// It can be paid no more.
    Void,
}

impl Invoice {
    /// Reads an invoice; `None` where it is none.
    #[must_use]
    pub fn read(answer: &str) -> Option<Self> {
        Self::of(json::parse(answer).ok()?)
    }

    fn of(invoice: Value<'_>) -> Option<Self> {
        let text = |name: &str| invoice.member(name)?.string();
        let status = match &*text("status")? {
            "draft" => InvoiceStatus::Draft,
            // What the operator has given up can be paid all the same.
            "open" | "uncollectible" => InvoiceStatus::Open,
            "paid" => InvoiceStatus::Paid,
            "void" => InvoiceStatus::Void,
            _ => return None,
        };
        let payment = last_payment(invoice);
        let is_processing = payments(invoice).any(|intent| stands(intent, "processing"));
        let failed = payment.filter(|_| !is_processing).and_then(failure_of);
        Some(Self {
            id: text("id")?.into_owned(),
            status,
            is_processing,
            failed,
            payment: payment.and_then(id_of),
            link: text("hosted_invoice_url").map(Into::into),
            total: invoice.member("total")?.whole()?,
            subtotal: invoice.member("subtotal").and_then(Value::whole),
            currency: Currency::parse(&text("currency")?)?,
        })
    }

    /// How its payment stands, where it is the invoice of this top-up.
    #[must_use]
    pub fn sighting(self, bought: TopUpBought) -> Sighting {
        Sighting {
            name: self.id.clone(),
            purpose: Purpose::TopUp(bought),
            progress: match self.status {
                InvoiceStatus::Paid => Progress::Paid,
                InvoiceStatus::Void => Progress::Failed,
                InvoiceStatus::Draft | InvoiceStatus::Open => Progress::Processing,
            },
            total: self.total,
            subtotal: self.subtotal,
            currency: self.currency,
            papers: Papers {
                checkout_session: None,
                payment_intent: self.payment,
                invoice: Some(self.id),
                receipt_url: self.link,
            },
            reversal: None,
            change: None,
        }
    }
}

/// How the payment of a top-up stands, and whose it is, from its invoice; `None` where that is one of
/// something else.
#[must_use]
pub fn top_up_of(invoice: Value<'_>) -> Option<(Owner, Sighting)> {
    let noted = invoice.member("metadata")?;
    let text = |name: &str| noted.member(name)?.string();
    let bought = TopUpBought {
        number: text(TOP_UP)?.parse().ok()?,
        pool: text(POOL)?.into_owned(),
        credits: text(CREDITS)?.parse().ok().and_then(Credits::new)?,
        price: Money::parse(&text(PRICE)?)?,
    };
    let owner = owner_of(noted)?;
    Some((owner, Invoice::of(invoice)?.sighting(bought)))
}

fn last_payment(invoice: Value<'_>) -> Option<Value<'_>> {
    payments(invoice).last()
}

/// The payment intents of an invoice.
fn payments(invoice: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    let all = invoice
        .member("payments")
        .and_then(|all| all.member("data")?.items());
    let all = all.into_iter().flatten();
    all.filter_map(|payment| payment.member("payment")?.member("payment_intent"))
}

fn stands(intent: Value<'_>, as_told: &str) -> bool {
    let status = intent.member("status").and_then(Value::string);
    status.is_some_and(|status| status == as_told)
}

/// Why a payment that was tried has failed. A debit is refused days after it was begun
/// (docs.stripe.com/payments/paymentintents/lifecycle): it is to be tried again from the start, and
/// `last_payment_error` says why.
fn failure_of(intent: Value<'_>) -> Option<Failure> {
    if stands(intent, "requires_action") {
        return Some(Failure::AuthenticationRequired);
    }
    let error = intent.member("last_payment_error")?;
    let was_tried = error.text() != "null" && stands(intent, "requires_payment_method");
    was_tried.then(|| refused_by(Some(error)))
}

/// The id of what is told whole or by its id alone.
fn id_of(object: Value<'_>) -> Option<String> {
    let id = object.string().or_else(|| object.member("id")?.string());
    id.map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::payments::stripe::Kind;

    fn invoice(fields: &str) -> Option<Invoice> {
        Invoice::read(&format!(
            r#"{{"id":"in_1","total":1600,"subtotal":1600,"currency":"usd",{fields}}}"#
        ))
    }

    #[test]
    fn an_invoice_is_read_as_stripe_tells_it() {
        for (told, status) in [
            ("draft", Some(InvoiceStatus::Draft)),
            ("open", Some(InvoiceStatus::Open)),
            ("uncollectible", Some(InvoiceStatus::Open)),
            ("paid", Some(InvoiceStatus::Paid)),
            ("void", Some(InvoiceStatus::Void)),
            ("deleted", None),
        ] {
            let read = invoice(&format!(r#""status":"{told}""#));
            assert_eq!(read.map(|invoice| invoice.status), status, "{told}");
        }
        assert_eq!(invoice(r#""amount_due":1"#), None);
        assert_eq!(Invoice::read("[]"), None);
        assert_eq!(Invoice::read(""), None);

        let payments = r#""payments":{"data":[
            {"payment":{"type":"payment_intent","payment_intent":"pi_1"}},
            {"payment":{"payment_intent":{"id":"pi_2","status":"processing"}}}]}"#;
        let read = invoice(&format!(
            r#""status":"open","hosted_invoice_url":"https://x",{payments}"#
        ));
        let read = read.unwrap();
        assert_eq!(read.payment.as_deref(), Some("pi_2"));
        assert_eq!(read.link.as_deref(), Some("https://x"));
        assert!(read.is_processing);
        assert!(
            !invoice(r#""status":"open","hosted_invoice_url":null"#)
                .unwrap()
                .is_processing
        );
    }

    #[test]
    fn an_invoice_tells_why_its_payment_failed() {
        let declined = |code: &str| Some(Failure::Declined(code.to_owned()));
        let error = r#""last_payment_error":{"code":"card_declined","decline_code":"fraudulent"}"#;
        let secured = r#""last_payment_error":{"code":"authentication_required"}"#;
        let none = r#""last_payment_error":null"#;
        for (status, error, failed) in [
            ("requires_payment_method", error, declined("fraudulent")),
            (
                "requires_payment_method",
                secured,
                Some(Failure::AuthenticationRequired),
            ),
            ("requires_payment_method", none, None),
            (
                "requires_action",
                none,
                Some(Failure::AuthenticationRequired),
            ),
            ("processing", error, None),
            ("succeeded", error, None),
        ] {
            let intent = format!(r#"{{"id":"pi_1","status":"{status}",{error}}}"#);
            let payments = format!(r#"{{"data":[{{"payment":{{"payment_intent":{intent}}}}}]}}"#);
            let read = invoice(&format!(r#""status":"open","payments":{payments}"#));
            assert_eq!(read.unwrap().failed, failed, "{intent}");
        }
    }

    #[test]
    fn the_invoice_of_a_top_up_tells_what_it_was_for() {
        let bought = TopUpBought {
            number: 3,
            pool: "credits".to_owned(),
            credits: Credits::new(1_600).unwrap(),
            price: Money::parse("16.00 USD").unwrap(),
        };
        let told = |metadata: &str| {
            let invoice = format!(
                r#"{{"id":"in_1","status":"paid","total":1904,"subtotal":1600,"currency":"usd",
                    "hosted_invoice_url":"https://x","metadata":{{{metadata}}}}}"#
            );
            top_up_of(json::parse(&invoice).unwrap())
        };
        let noted = r#""tollgate_account":"acme","tollgate_top_up":"3","tollgate_pool":"credits",
            "tollgate_credits":"1600","tollgate_price":"16.00 USD""#;
        let (owner, sighting) = told(noted).unwrap();
        assert_eq!(owner.account.as_str(), "acme");
        assert_eq!(sighting.purpose, Purpose::TopUp(bought.clone()));
        assert_eq!(sighting.name, "in_1");
        assert_eq!((sighting.progress, sighting.total), (Progress::Paid, 1_904));
        assert_eq!(sighting.subtotal, Some(1_600));
        assert_eq!(sighting.papers.receipt_url.as_deref(), Some("https://x"));
        assert_eq!(told(&noted.replace("tollgate_top_up", "number")), None);
        assert_eq!(told(&noted.replace("1600", "-1")), None);
        assert_eq!(told(""), None);

        // What is sent is what is read.
        let account = AccountId::parse("acme").unwrap();
        let call = draft(
            "k".to_owned(),
            (&account, Timestamp::EPOCH),
            "cus_1",
            &bought,
            true,
        );
        let Kind::Change { form, .. } = call.kind else {
            panic!("no change");
        };
        for field in [
            "metadata%5Btollgate_top_up%5D=3",
            "metadata%5Btollgate_price%5D=16.00%20USD",
            "auto_advance=false",
            "automatic_tax%5Benabled%5D=true",
        ] {
            assert!(
                form.split('&').any(|other| other == field),
                "{field} in {form}"
            );
        }
    }

    #[test]
    fn what_the_customer_chose_is_paid_with_and_else_what_was_added_last() {
        let own = |method: &str| {
            own_method(&format!(
                r#"{{"id":"cus_1","invoice_settings":{{"default_payment_method":{method}}}}}"#
            ))
        };
        assert_eq!(own(r#""pm_1""#).as_deref(), Some("pm_1"));
        assert_eq!(own(r#"{"id":"pm_1"}"#).as_deref(), Some("pm_1"));
        assert_eq!(own("null"), None);
        let first = first_method(r#"{"data":[{"id":"pm_2"},{"id":"pm_1"}]}"#);
        assert_eq!(first.as_deref(), Some("pm_2"));
        assert_eq!(first_method(r#"{"data":[]}"#), None);
    }
}
