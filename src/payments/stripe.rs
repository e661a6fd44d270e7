//! One request to Stripe and its answer (docs.stripe.com/api): forms go out, JSON comes back.

use std::borrow::Cow;

use crate::json::{self, Value};

/// The release of Stripe's API that requests are written for and answers are read as.
pub const VERSION: &str = "2026-10-28.endive";

/// How much of what Stripe says about a mistake goes into the log, in characters.
const MESSAGE_MAX: usize = 300;

/// A request to Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// From `/v1` on, with its query.
    pub path: String,
    /// What is asked for.
    pub kind: Kind,
}

/// Whether a request changes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GET.
    Look,
    /// POST.
    Change {
        /// The body, `application/x-www-form-urlencoded`.
        form: String,
        /// `Idempotency-Key`: Stripe carries out the first request of a key, and answers every other of
        /// the next 24 hours at least as it answered that one, failures included.
        idempotency_key: String,
    },
    /// DELETE, which needs no key: to do it twice is as good as once.
    End,
}

impl Call {
    /// Looks something up.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            kind: Kind::Look,
        }
    }

    /// Ends something.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            kind: Kind::End,
        }
    }

    /// Changes something, once for each `idempotency_key`.
    #[must_use]
    pub fn post(path: impl Into<String>, idempotency_key: impl Into<String>, form: Form) -> Self {
        Self {
            path: path.into(),
            kind: Kind::Change {
                form: form.0,
                idempotency_key: idempotency_key.into(),
            },
        }
    }
}

/// Fields of a form, in their order. Nested ones are spelled `metadata[account]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(String);

impl Form {
    /// The form with one field more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode_into(&mut self.0, name);
        self.0.push('=');
        encode_into(&mut self.0, value);
        self
    }

    /// The form with one field more, if there is a value for it.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text as it stands in a URL's query or in a form, where only what is free of any meaning there
/// stands for itself (RFC 3986 §2.3).
pub fn encode_into(encoded: &mut String, text: &str) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            let digits = [byte >> 4, byte & 0xf].map(usize::from);
            encoded.extend(digits.iter().filter_map(|digit| DIGITS.get(*digit)));
        }
    }
}

/// Why Stripe did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The payment method was declined, and no money moved. The code is the most exact one told:
    /// `insufficient_funds`, `expired_card`, `card_declined`.
    Declined(String),
    /// The customer has to confirm the payment (3-D Secure) and is not there. No money moved.
    AuthenticationRequired,
    /// Nobody knows: Stripe did not answer in time, or said that it failed itself. Money may have moved,
    /// and only the same `Idempotency-Key` may be tried again.
    Unclear(String),
    /// Stripe asks to be left alone for a moment, and did nothing.
    Busy,
    /// Stripe does not have what is asked for.
    Missing,
    /// The customer that is asked for was deleted at Stripe.
    NoCustomer,
    /// This `Idempotency-Key` came with another request before.
    OtherRequest,
    /// Stripe cannot do what it was asked, and will say the same again: a wrong secret, a price that it
    /// does not have.
    Mistake(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Declined(code) => write!(formatter, "Stripe: declined, {code}"),
            Self::AuthenticationRequired => formatter.write_str("Stripe: authentication required"),
            Self::Unclear(detail) => write!(formatter, "Stripe: unclear, {detail}"),
            Self::Busy => formatter.write_str("Stripe: too many requests"),
            Self::Missing => formatter.write_str("Stripe: no such object"),
            Self::NoCustomer => formatter.write_str("Stripe: no such customer"),
            Self::OtherRequest => formatter.write_str("Stripe: another request had this key"),
            Self::Mistake(detail) => write!(formatter, "Stripe: refused, {detail}"),
        }
    }
}

/// Reads an answer of Stripe's: its body, where the request was carried out.
///
/// # Errors
///
/// Why it was not, or that nobody knows.
pub fn read(status: u16, body: String) -> Result<String, Failure> {
    match status {
        200..=299 if json::parse(&body).is_ok() => Ok(body),
        // Cut off on its way, or from somebody else.
        200..=299 => Err(Failure::Unclear("an answer that is no JSON".to_owned())),
        402 => Err(declined(&body)),
        400 | 404 if names_no_customer(&body) => Err(Failure::NoCustomer),
        404 => Err(Failure::Missing),
        // Another request with this `Idempotency-Key` is being carried out.
        409 => Err(Failure::Unclear("the same request is under way".to_owned())),
        429 => Err(Failure::Busy),
        400 if kind_of(&body).as_deref() == Some("idempotency_error") => Err(Failure::OtherRequest),
        400..=499 => Err(Failure::Mistake(message_of(status, &body))),
        _ => Err(Failure::Unclear(message_of(status, &body))),
    }
}

/// Whether what a request names and Stripe does not have is a customer.
fn names_no_customer(body: &str) -> bool {
    let answer = json::parse(body).ok();
    let told = |name: &str| answer?.member("error")?.member(name)?.string();
    told("code").as_deref() == Some("resource_missing")
        && told("param").as_deref() == Some("customer")
}

/// What kind of error Stripe says that it is.
fn kind_of(body: &str) -> Option<String> {
    let answer = json::parse(body).ok()?;
    let kind = answer.member("error")?.member("type")?.string()?;
    Some(kind.into_owned())
}

/// 402: the request was right, and the payment failed.
fn declined(body: &str) -> Failure {
    let error = json::parse(body).ok();
    refused_by(error.and_then(|answer| answer.member("error")))
}

/// Why the payment method was refused, from the error that Stripe tells of it.
pub(super) fn refused_by(error: Option<Value<'_>>) -> Failure {
    let told = |name: &str| {
        let value = error?.member(name)?.string()?;
        (!value.is_empty()).then_some(value)
    };
    let code = told("code");
    let needs_the_customer = code.as_deref().is_some_and(|code| {
        code == "authentication_required" || code.ends_with("_payment_intent_requires_action")
    });
    let decline_code = told("decline_code");
    if needs_the_customer || decline_code.as_deref() == Some("authentication_required") {
        return Failure::AuthenticationRequired;
    }
    let code = decline_code.or(code).map(Cow::into_owned);
    Failure::Declined(code.unwrap_or_else(|| "card_declined".to_owned()))
}

/// What Stripe says went wrong, for the log.
fn message_of(status: u16, body: &str) -> String {
    let message = json::parse(body).ok().and_then(|answer| {
        let message = answer.member("error")?.member("message")?.string()?;
        Some(message.chars().take(MESSAGE_MAX).collect::<String>())
    });
    format!("{status} {}", message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        format!(r#"{{"error": {json}}}"#)
    }

    #[test]
    fn a_form_is_encoded_field_by_field() {
        let form = Form::default()
            .with("metadata[tollgate_account]", "acme & co")
            .with_some("email", Some("ä+b@example.com"))
            .with_some("name", None)
            .with("amount", "5000");
        assert_eq!(
            form.as_str(),
            "metadata%5Btollgate_account%5D=acme%20%26%20co&email=%C3%A4%2Bb%40example.com&amount=5000"
        );
    }

    #[test]
    fn what_may_have_moved_money_is_told_from_what_did_not() {
        let declined = |code: &str| Err(Failure::Declined(code.to_owned()));
        let table = [
            (
                200,
                r#"{"id":"cus_1"}"#.to_owned(),
                Ok(r#"{"id":"cus_1"}"#.to_owned()),
            ),
            (
                200,
                r#"{"id":"cus"#.to_owned(),
                Err(Failure::Unclear("an answer that is no JSON".to_owned())),
            ),
            (
                402,
                error(r#"{"code":"card_declined","decline_code":"insufficient_funds"}"#),
                declined("insufficient_funds"),
            ),
            (
                402,
                error(r#"{"code":"expired_card"}"#),
                declined("expired_card"),
            ),
            (402, String::new(), declined("card_declined")),
            (
                402,
                error(
                    r#"{"code":"authentication_required","decline_code":"authentication_required"}"#,
                ),
                Err(Failure::AuthenticationRequired),
            ),
            (
                402,
                error(r#"{"code":"invoice_payment_intent_requires_action"}"#),
                Err(Failure::AuthenticationRequired),
            ),
            (
                400,
                error(r#"{"message":"No such price"}"#),
                Err(Failure::Mistake("400 No such price".to_owned())),
            ),
            (401, String::new(), Err(Failure::Mistake("401 ".to_owned()))),
            (
                400,
                error(
                    r#"{"code":"resource_missing","param":"customer","message":"No such customer: 'cus_1'"}"#,
                ),
                Err(Failure::NoCustomer),
            ),
            (404, String::new(), Err(Failure::Missing)),
            (
                409,
                String::new(),
                Err(Failure::Unclear("the same request is under way".to_owned())),
            ),
            (429, String::new(), Err(Failure::Busy)),
            (500, String::new(), Err(Failure::Unclear("500 ".to_owned()))),
            (
                503,
                "<html>".to_owned(),
                Err(Failure::Unclear("503 ".to_owned())),
            ),
            (302, String::new(), Err(Failure::Unclear("302 ".to_owned()))),
        ];
        for (status, body, expected) in table {
            assert_eq!(read(status, body.clone()), expected, "{status} {body}");
        }
    }
}
