//! What Stripe is asked for a top-up, and what its answers say (docs.stripe.com/api/invoices).
//!
//! A top-up is an invoice of one line, which is paid off-session. Nothing is collected by Stripe itself:
//! `auto_advance` is off.

use super::{
    money::{Currency, Money},
    stripe::{Call, Form},
};
use crate::{
    credits::Credits,
    id::AccountId,
    json::{self, Value},
};

/// The member of an invoice's metadata that has the account's id.
const OF_ACCOUNT: &str = "metadata[tollgate_account]";
/// That which has the number of the attempt.
const OF_TOP_UP: &str = "metadata[tollgate_top_up]";
/// The payments of an invoice are not told unless they are asked for.
const WITH_PAYMENT: &str = "payments.data.payment.payment_intent";

/// What the customer pays with, as the customer says.
pub fn customer(customer: &str) -> Call {
    Call::get(format!("/v1/customers/{customer}"))
}

/// What else the customer could pay with: what was added last comes first.
pub fn methods(customer: &str) -> Call {
    Call::get(format!("/v1/customers/{customer}/payment_methods?limit=1"))
}

/// An invoice without a line yet.
pub fn draft(
    key: String,
    customer: &str,
    currency: Currency,
    with_tax: bool,
    (account, number): (&AccountId, u32),
) -> Call {
    let form = Form::default()
        .with("customer", customer)
        .with("currency", currency.as_str())
        .with("collection_method", "charge_automatically")
        .with("auto_advance", "false")
        .with("pending_invoice_items_behavior", "exclude")
        .with_some("automatic_tax[enabled]", with_tax.then_some("true"))
        .with(OF_ACCOUNT, account.as_str())
        .with(OF_TOP_UP, &number.to_string());
    Call::post("/v1/invoices", key, form)
}

/// The credits on the `invoice` of `customer`.
pub fn line(
    key: String,
    (customer, invoice): (&str, &str),
    price: Money,
    credits: Credits,
    pool: &str,
) -> Call {
    let form = Form::default()
        .with("customer", customer)
        .with("invoice", invoice)
        .with("amount", &price.amount.to_string())
        .with("currency", price.currency.as_str())
        .with(
            "description",
            &format!("Automatic top-up: {credits} {pool}"),
        );
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
    /// The last payment of it that was begun.
    pub payment: Option<String>,
    /// Where the customer can look at it, and pay.
    pub link: Option<String>,
    /// What is on it, without taxes and discounts.
    subtotal: u64,
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
        let invoice = json::parse(answer).ok()?;
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
        let is_processing = payment
            .and_then(|intent| intent.member("status")?.string())
            .is_some_and(|status| status == "processing");
        Some(Self {
            id: text("id")?.into_owned(),
            status,
            is_processing,
            payment: payment.and_then(id_of),
            link: text("hosted_invoice_url").map(Into::into),
            subtotal: invoice.member("subtotal")?.whole()?,
            currency: Currency::parse(&text("currency")?)?,
        })
    }

    /// Whether it is one of this price.
    #[must_use]
    pub fn is_of(&self, price: Money) -> bool {
        (self.subtotal, self.currency) == (price.amount, price.currency)
    }
}

fn last_payment(invoice: Value<'_>) -> Option<Value<'_>> {
    let payments = invoice.member("payments")?.member("data")?.items()?;
    let payment = payments.last()?.member("payment")?;
    payment.member("payment_intent")
}

/// The id of what is told whole or by its id alone.
fn id_of(object: Value<'_>) -> Option<String> {
    let id = object.string().or_else(|| object.member("id")?.string());
    id.map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoice(fields: &str) -> Option<Invoice> {
        Invoice::read(&format!(
            r#"{{"id":"in_1","subtotal":1600,"currency":"usd",{fields}}}"#
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
        assert_eq!(invoice(r#""total":1"#), None);
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
    fn an_invoice_is_of_its_price_alone() {
        let invoice = invoice(r#""status":"paid","total":1904"#).unwrap();
        for (price, is_it) in [
            ("16.00 USD", true),
            ("19.04 USD", false),
            ("16.00 EUR", false),
        ] {
            let price = Money::parse(price).unwrap();
            assert_eq!(invoice.is_of(price), is_it, "{price}");
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
