//! What Stripe is asked for: customers, and pages on which they pay.

use base16ct::lower;
use sha2::{Digest, Sha256};

use super::{
    ask::{Order, Ordered},
    stripe::{Call, Form},
};
use crate::{
    credits::Credits,
    id::AccountId,
    json,
    payments::money::Money,
    policy::{Package, Payments},
    time::Timestamp,
};

const HOUR_SECONDS: i64 = 3_600;

/// Names of what Tollgate notes on Stripe's objects. Nobody can set it without the secret key: not a customer
/// on Stripe's pages, and no link to pay by.
pub(super) const ACCOUNT: &str = "tollgate_account";
/// When the account was opened, in milliseconds: several deployments may have one of the same id, and one Stripe.
pub(super) const OPENED: &str = "tollgate_opened";
const PACKAGE: &str = "tollgate_package";
pub(super) const POOL: &str = "tollgate_pool";
pub(super) const CREDITS: &str = "tollgate_credits";
pub(super) const PRICE: &str = "tollgate_price";

/// For whom, and where Stripe's page leads back to.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The account.
    pub account: &'a AccountId,
    /// When it was opened.
    pub opened: Option<Timestamp>,
    /// The clock.
    pub now: Timestamp,
    /// Scheme and host that were called.
    pub called: &'a str,
    /// How the policy has it.
    pub payments: &'a Payments,
    /// Whether what a package is paid with is kept, for top-ups.
    pub keeps_method: bool,
}

/// Makes the account's customer at Stripe, in the place of one that is `gone`, if there was one. Made again within a
/// day for the same name and address, it is the same customer.
#[must_use]
pub fn make_customer(account: &AccountId, order: &Order, gone: Option<&str>) -> Call {
    let form = Form::default()
        .with_some("name", order.name.as_deref())
        .with_some("email", order.email.as_deref());
    let form = noted(form, "metadata", account, order.opened);
    let parts = [form.as_str(), gone.unwrap_or_default()];
    let key = idempotency_key(account, "customer", &parts);
    Call::post("/v1/customers", key, form)
}

/// Makes the page that was ordered for a customer: with the same `idempotency_key`, the same page.
#[must_use]
pub fn make_page(
    order: &Ordered,
    customer: &str,
    context: Context<'_>,
    idempotency_key: String,
) -> Call {
    let home = format!("{}/", context.called);
    let back = context.payments.return_url.as_deref().unwrap_or(&home);
    let form = Form::default().with("customer", customer);
    match order {
        Ordered::Portal => {
            let form = form.with("return_url", back);
            Call::post("/v1/billing_portal/sessions", idempotency_key, form)
        }
        Ordered::Package(package) => {
            let form = pay_once(checkout(form, "payment", back, context), package, context);
            Call::post("/v1/checkout/sessions", idempotency_key, form)
        }
        Ordered::Plan { price, .. } => {
            let mut form = checkout(form, "subscription", back, context)
                .with("line_items[0][price]", price)
                .with("line_items[0][quantity]", "1");
            for place in ["metadata", "subscription_data[metadata]"] {
                form = noted(form, place, context.account, context.opened);
            }
            Call::post("/v1/checkout/sessions", idempotency_key, form)
        }
    }
}

/// What every Checkout session is asked for with.
fn checkout(form: Form, mode: &str, back: &str, context: Context<'_>) -> Form {
    let form = form
        .with("mode", mode)
        // What is paid has to be the price, in its currency.
        .with("adaptive_pricing[enabled]", "false")
        .with("success_url", back)
        .with("cancel_url", back)
        .with(
            "expires_at",
            &closes_at(context.now).as_seconds().to_string(),
        )
        // For people who look for it at Stripe; nothing is read from it.
        .with("client_reference_id", context.account.as_str());
    if !context.payments.automatic_tax {
        return form;
    }
    form.with("automatic_tax[enabled]", "true")
        // What tax is due depends on where the customer is, which the page then asks and keeps.
        .with("customer_update[address]", "auto")
        .with("customer_update[name]", "auto")
        .with("tax_id_collection[enabled]", "true")
}

/// A package: paid once, with an invoice.
fn pay_once(form: Form, package: &Package, context: Context<'_>) -> Form {
    let what = format!("{} {}", package.credits, package.pool);
    let mut form = form
        .with("line_items[0][quantity]", "1")
        .with(
            "line_items[0][price_data][currency]",
            package.price.currency.as_str(),
        )
        .with(
            "line_items[0][price_data][unit_amount]",
            &package.price.amount.to_string(),
        )
        .with("line_items[0][price_data][product_data][name]", &what)
        .with("invoice_creation[enabled]", "true");
    if context.keeps_method {
        form = form.with("payment_intent_data[setup_future_usage]", "off_session");
    }
    // The session tells of the payment, the payment intent of refunds and disputes.
    let offer = [
        (PACKAGE, &package.id),
        (POOL, &package.pool),
        (CREDITS, &package.credits.to_string()),
        (PRICE, &package.price.to_string()),
    ];
    for place in [
        "metadata",
        "payment_intent_data[metadata]",
        "invoice_creation[invoice_data][metadata]",
    ] {
        form = noted(form, place, context.account, context.opened);
        for (name, value) in offer {
            form = form.with(&format!("{place}[{name}]"), value);
        }
    }
    form
}

/// The package as it was offered when its page was made, whatever the policy says by now: read back from the
/// metadata of what was paid.
#[must_use]
pub(super) fn offered(metadata: json::Value<'_>) -> Option<Package> {
    let text = |name| metadata.member(name)?.string();
    Some(Package {
        id: text(PACKAGE)?.into_owned(),
        pool: text(POOL)?.into_owned(),
        credits: text(CREDITS)?.parse().ok().and_then(Credits::new)?,
        price: Money::parse(&text(PRICE)?)?,
    })
}

/// When a page can be paid no more: an hour from now, up to two, so that the same request gets the same page within
/// the hour. Stripe wants it 30 minutes from now at least.
fn closes_at(now: Timestamp) -> Timestamp {
    let hour = hour_of(now).saturating_add(2);
    Timestamp::from_seconds(hour.saturating_mul(HOUR_SECONDS))
}

/// Hours since 1970: a page is the same within one.
fn hour_of(now: Timestamp) -> i64 {
    now.as_seconds().div_euclid(HOUR_SECONDS)
}

/// The `Idempotency-Key` of a page: `parts` are what tells one request from another, within the hour.
#[must_use]
pub fn page_key(context: Context<'_>, customer: &str, parts: [&str; 2]) -> String {
    let opened = context.opened.map(|opened| opened.as_millis().to_string());
    let hour = hour_of(context.now).to_string();
    let [path, told] = parts;
    let parts = [
        path,
        told,
        customer,
        opened.as_deref().unwrap_or_default(),
        &hour,
    ];
    idempotency_key(context.account, "page", &parts)
}

/// Whose an object at Stripe is noted to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// When it was opened, unless a release before this one has made the object.
    pub opened: Option<Timestamp>,
}

/// Notes in the metadata at `place` whose it is.
pub(super) fn noted(
    form: Form,
    place: &str,
    account: &AccountId,
    opened: Option<Timestamp>,
) -> Form {
    let opened = opened.map(|opened| opened.as_millis().to_string());
    form.with(&format!("{place}[{ACCOUNT}]"), account.as_str())
        .with_some(&format!("{place}[{OPENED}]"), opened.as_deref())
}

/// The account that an object at Stripe is noted to be of.
#[must_use]
pub(super) fn owner_of(metadata: json::Value<'_>) -> Option<Owner> {
    let opened = metadata.member(OPENED).and_then(json::Value::string);
    Some(Owner {
        account: AccountId::parse(&metadata.member(ACCOUNT)?.string()?)?,
        opened: match opened {
            Some(opened) => Some(Timestamp::from_millis(opened.parse().ok()?)),
            None => None,
        },
    })
}

/// An `Idempotency-Key` for Stripe, which holds for all of the operator's account there: `parts` are what
/// tells one request from another.
#[must_use]
pub fn idempotency_key(account: &AccountId, what: &str, parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update(b"\n");
    }
    let digest = lower::encode_string(&digest.finalize());
    format!("tollgate-{what}-{account}-{digest:.32}")
}

/// What Stripe has made, from its answer.
#[must_use]
pub fn made(answer: &str) -> Option<Made> {
    let answer = json::parse(answer).ok()?;
    let url = answer.member("url").and_then(json::Value::string);
    Some(Made {
        id: answer.member("id")?.string()?.into_owned(),
        url: url.map(Into::into),
    })
}

/// Something that Stripe has made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Made {
    /// Its id there.
    pub id: String,
    /// Where it is, if it is a page.
    pub url: Option<String>,
}

impl Made {
    /// As whoever asked for it is told.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts alone: writing them cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::stripe::Kind;

    fn form_of(page: &Ordered, payments: &Payments) -> String {
        form_kept(page, payments, false)
    }

    fn form_kept(page: &Ordered, payments: &Payments, keeps_method: bool) -> String {
        let account = AccountId::parse("acme").unwrap();
        let context = Context {
            account: &account,
            opened: Some(Timestamp::from_seconds(7)),
            now: Timestamp::from_seconds(3_600),
            called: "https://api.example.com",
            payments,
            keeps_method,
        };
        match make_page(page, "cus_1", context, "key".into()).kind {
            Kind::Change { form, .. } => form,
            Kind::Look | Kind::End => panic!("nothing is made"),
        }
    }

    fn small() -> Package {
        Package {
            id: "small".into(),
            pool: "credits".into(),
            credits: Credits::new(5_000).unwrap(),
            price: Money::parse("50.00 USD").unwrap(),
        }
    }

    #[test]
    fn what_is_offered_is_read_back_from_what_is_noted() {
        let form = form_of(&Ordered::Package(small()), &Payments::default());
        for place in ["metadata", "payment_intent_data%5Bmetadata%5D"] {
            let fields = form.split('&').filter_map(|field| {
                let (name, value) = field.strip_prefix(place)?.split_once('=')?;
                let name = name.strip_prefix("%5B")?.strip_suffix("%5D")?;
                let value = crate::url::decode_form(value);
                Some(format!("{name:?}:{value:?}"))
            });
            let noted = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
            let noted = json::parse(&noted).unwrap();
            assert_eq!(offered(noted), Some(small()), "{place}");
            let owner = Owner {
                account: AccountId::parse("acme").unwrap(),
                opened: Some(Timestamp::from_seconds(7)),
            };
            assert_eq!(owner_of(noted), Some(owner), "{place}");
        }
    }

    #[test]
    fn what_pays_a_package_is_kept_where_top_up_is_sold() {
        for keeps_method in [true, false] {
            let package = Ordered::Package(small());
            let form = form_kept(&package, &Payments::default(), keeps_method);
            let kept = "payment_intent_data%5Bsetup_future_usage%5D=off_session";
            assert_eq!(form.contains(kept), keeps_method, "{form}");
        }
    }

    #[test]
    fn stripes_pages_lead_back_to_where_the_policy_says() {
        let plan = Ordered::Plan {
            name: "starter".into(),
            price: "price_1".into(),
        };
        let here = form_of(&plan, &Payments::default());
        assert!(
            here.contains("success_url=https%3A%2F%2Fapi.example.com%2F&"),
            "{here}"
        );
        assert!(!here.contains("automatic_tax"), "{here}");
        let payments = Payments {
            return_url: Some("https://app.example.com/billing".into()),
            automatic_tax: true,
        };
        let there = form_of(&plan, &payments);
        assert!(
            there.contains("cancel_url=https%3A%2F%2Fapp.example.com%2Fbilling&"),
            "{there}"
        );
        assert!(there.contains("automatic_tax%5Benabled%5D=true"), "{there}");
        assert_eq!(
            form_of(&Ordered::Portal, &payments),
            "customer=cus_1&return_url=https%3A%2F%2Fapp.example.com%2Fbilling"
        );
    }

    #[test]
    fn keys_tell_requests_and_accounts_apart() {
        let acme = AccountId::parse("acme").unwrap();
        let key = |account: &str, parts: &[&str]| {
            idempotency_key(&AccountId::parse(account).unwrap(), "page", parts)
        };
        assert_eq!(
            key("acme", &["a", "b"]),
            idempotency_key(&acme, "page", &["a", "b"])
        );
        for other in [
            key("acme", &["ab", ""]),
            key("acme", &["a"]),
            key("acme-2", &["a", "b"]),
        ] {
            assert_ne!(other, key("acme", &["a", "b"]));
        }
    }
}
