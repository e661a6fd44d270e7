//! Bodies of the admin API as commands for the account's object.

use super::{
    events::thresholds,
    json::{Fields, Value, is_control},
};
use crate::{
    account::{
        Adjustment, Edit, Fingerprint, NewAccount, NewGrant, PatchAccount, Status, StatusChange,
        TOP_UP_APART, TOP_UP_TARGET, TOP_UP_THRESHOLD, Told, TopUpSettings, Word,
    },
    credits::Credits,
    id::{AccountId, ExternalId},
    payments::money::Money,
    policy::{REGIONS, Source},
    problem::Problem,
};

pub(super) const NAME_MAX: usize = 200;
const REASON_MAX: usize = 200;
const REFERENCE_MAX: usize = 200;
/// RFC 5321 §4.5.3.1.3 leaves an address 254 characters.
const EMAIL_MAX: usize = 254;

const SOURCES: [(&str, Source); 3] = [
    ("extra", Source::Extra),
    ("promo", Source::Promo),
    ("subscription", Source::Subscription),
];
const SUBSCRIPTION_STATUSES: [(&str, StatusChange); 3] = [
    ("active", StatusChange::Active),
    ("cancelled", StatusChange::Cancelled),
    ("lapsed", StatusChange::Lapsed),
];

/// `POST /accounts`, and the region that it asks for. Without an id of the operator's own, the
/// account's is made from the `Idempotency-Key`.
pub(super) fn open(
    body: &[u8],
    (idempotency_key, opened_by): (&str, Fingerprint),
) -> Result<(NewAccount, Option<&'static str>), Problem> {
    let fields = Fields::parse(
        body,
        &[
            "id",
            "external_id",
            "name",
            "email",
            "plan",
            "subscription",
            "region",
        ],
    )?;
    let id = fields.get("id").not_null().map(|id| {
        id.text(
            "an account id, 1 to 64 of A-Z a-z 0-9 _ -",
            AccountId::parse,
        )
    });
    let external_id = fields.get("external_id").not_null().map(|external_id| {
        external_id.text(
            "1 to 128 printable ASCII characters without a space at an end",
            ExternalId::parse,
        )
    });
    let (billing_day, subscription) = read_subscription(fields.get("subscription").not_null())?;
    let new = NewAccount {
        id: id
            .transpose()?
            .unwrap_or_else(|| AccountId::from_idempotency_key(idempotency_key)),
        external_id: external_id.transpose()?,
        name: optional_line(&fields, "name", NAME_MAX)?,
        email: match fields.get("email").not_null() {
            Some(email) => Some(read_email(&email)?),
            None => None,
        },
        plan: fields.get("plan").line(NAME_MAX)?,
        billing_day,
        subscription,
        opened_by,
    };
    let region = fields.get("region").not_null();
    let region = region.map(|region| region.word(&REGIONS)).transpose()?;
    Ok((new, region))
}

/// `PATCH /accounts/{id}`: what is left out stays, and null takes a name, an address or the flags
/// away.
pub(super) fn patch(body: &[u8]) -> Result<PatchAccount, Problem> {
    let fields = Fields::parse(
        body,
        &[
            "plan",
            "status",
            "reason",
            "name",
            "email",
            "subscription",
            "balance_low",
            "flags",
        ],
    )?;
    let plan = fields.get("plan").given();
    let (billing_day, subscription) = read_subscription(fields.get("subscription").given())?;
    Ok(PatchAccount {
        plan: plan.map(|plan| plan.line(NAME_MAX)).transpose()?,
        status: read_status(&fields)?,
        name: or_removed(fields.get("name"), |name| name.line(NAME_MAX))?,
        email: or_removed(fields.get("email"), read_email)?,
        billing_day,
        subscription,
        balance_low: or_removed(fields.get("balance_low"), thresholds)?,
        dismisses_flags: read_dismissal(fields.get("flags"))?,
    })
}

/// `POST /accounts/{id}/grants`.
pub(super) fn grant(body: &[u8]) -> Result<NewGrant, Problem> {
    let fields = Fields::parse(
        body,
        &["pool", "amount", "source", "expires_at", "reference"],
    )?;
    let amount = fields.get("amount").whole(1, Credits::MAX.get())?;
    let expires_at = fields.get("expires_at").not_null();
    Ok(NewGrant {
        pool: fields.get("pool").line(NAME_MAX)?,
        amount: Credits::new(amount).unwrap_or(Credits::MAX),
        source: fields.get("source").word(&SOURCES)?,
        expires_at: expires_at.map(|time| time.time()).transpose()?,
        reference: optional_line(&fields, "reference", REFERENCE_MAX)?,
    })
}

/// `POST /accounts/{id}/adjustments`.
pub(super) fn adjust(body: &[u8]) -> Result<Adjustment, Problem> {
    let fields = Fields::parse(body, &["pool", "amount", "reason"])?;
    let (takes_away, amount) = fields.get("amount").signed(Credits::MAX.get())?;
    Ok(Adjustment {
        pool: fields.get("pool").line(NAME_MAX)?,
        credits: Credits::new(amount).unwrap_or(Credits::MAX),
        takes_away,
        reason: fields.get("reason").line(REASON_MAX)?,
    })
}

/// `POST /calls/{call}/settle`: credits, or the quantity that its price counts; what the call
/// holds, if nothing is told.
pub(super) fn settle(body: &[u8]) -> Result<Word, Problem> {
    if body.is_empty() {
        return Ok(Word::Settle(Told::Hold));
    }
    let fields = Fields::parse(body, &["credits", "value"])?;
    // A null is a quantity that went wrong (JSON has no NaN), and not the word that all of it is due.
    let (credits, value) = (fields.get("credits").given(), fields.get("value").given());
    Ok(Word::Settle(match (credits, value) {
        (None, None) => Told::Hold,
        (Some(credits), None) => {
            let credits = credits.whole(0, Credits::MAX.get())?;
            Told::Credits(Credits::new(credits).unwrap_or(Credits::MAX))
        }
        (None, Some(value)) => Told::Value(value.quantity()?),
        (Some(_), Some(value)) => return Err(value.problem("either credits or value")),
    }))
}

/// `POST /calls/{call}/release`.
pub(super) fn release(body: &[u8]) -> Result<Word, Problem> {
    let fields = if body.is_empty() {
        Fields::none()
    } else {
        Fields::parse(body, &["reason"])?
    };
    Ok(Word::Release {
        reason: optional_line(&fields, "reason", REASON_MAX)?,
    })
}

/// `PUT /accounts/{id}/top-up`, and the customer's own.
///
/// # Errors
///
/// 400 with the field that is wrong.
pub(crate) fn set_top_up(body: &[u8]) -> Result<TopUpSettings, Problem> {
    let fields = Fields::parse(body, &["enabled", "threshold", "target", "monthly_cap"])?;
    let is_on = fields.get("enabled").flag()?;
    let threshold = top_up_credits(&fields.get("threshold"), TOP_UP_THRESHOLD)?;
    let target_field = fields.get("target");
    let target = top_up_credits(&target_field, TOP_UP_TARGET)?;
    let least = threshold.get().saturating_add(TOP_UP_APART);
    if target.get() < least {
        return Err(target_field.problem(&format!(
            "{least} or more, {TOP_UP_APART} above the threshold"
        )));
    }
    let cap = fields.get("monthly_cap").not_null();
    let cap = cap.map(|cap| cap.text("an amount such as \"200.00 USD\"", Money::parse));
    Ok(TopUpSettings {
        is_on,
        threshold,
        target,
        monthly_cap: cap.transpose()?,
    })
}

fn top_up_credits(field: &Value<'_>, (least, most): (u64, u64)) -> Result<Credits, Problem> {
    let credits = field.whole(least, most)?;
    Ok(Credits::new(credits).unwrap_or(Credits::MAX))
}

fn read_status(fields: &Fields<'_>) -> Result<Option<Status>, Problem> {
    let reason = fields.get("reason");
    let status = fields.get("status").given();
    let is_suspended = status
        .map(|status| status.word(&[("active", false), ("suspended", true)]))
        .transpose()?;
    match (is_suspended, reason.given()) {
        (Some(true), _) => Ok(Some(Status::Suspended {
            reason: optional_line(fields, "reason", REASON_MAX)?,
        })),
        (None | Some(false), Some(reason)) => {
            Err(reason.problem("a reason only together with the status \"suspended\""))
        }
        (Some(false), None) => Ok(Some(Status::Active)),
        (None, None) => Ok(None),
    }
}

/// Tollgate alone raises flags: they can only be taken away.
fn read_dismissal(flags: Value<'_>) -> Result<bool, Problem> {
    let Some(flags) = flags.given() else {
        return Ok(false);
    };
    match flags.not_null() {
        None => Ok(true),
        Some(flags) => Err(flags.problem("null, which takes them away")),
    }
}

fn read_subscription(
    subscription: Option<Value<'_>>,
) -> Result<(Option<u8>, Option<StatusChange>), Problem> {
    let Some(subscription) = subscription else {
        return Ok((None, None));
    };
    let fields = subscription.fields(&["status", "billing_day"])?;
    let billing_day = fields.get("billing_day").given();
    let status = fields.get("status").given();
    Ok((
        billing_day.map(|day| day.whole(1, 31)).transpose()?,
        status
            .map(|status| status.word(&SUBSCRIPTION_STATUSES))
            .transpose()?,
    ))
}

/// An address is not proven by its looks: only what could be none is refused.
fn read_email(email: &Value<'_>) -> Result<String, Problem> {
    email.text(
        &format!("an e-mail address of at most {EMAIL_MAX} characters"),
        |text| {
            let fits = text.chars().count() <= EMAIL_MAX;
            let plain = !text
                .chars()
                .any(|each| is_control(each) || each.is_whitespace());
            let parted = text
                .split_once('@')
                .is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
            (fits && plain && parted).then(|| text.to_owned())
        },
    )
}

pub(super) fn optional_line(
    fields: &Fields<'_>,
    name: &str,
    most: usize,
) -> Result<Option<String>, Problem> {
    let value = fields.get(name).not_null();
    value.map(|value| value.line(most)).transpose()
}

/// `None` where nothing is said; null removes.
pub(super) fn or_removed<T>(
    value: Value<'_>,
    read: impl FnOnce(&Value<'_>) -> Result<T, Problem>,
) -> Result<Option<Edit<T>>, Problem> {
    let Some(value) = value.given() else {
        return Ok(None);
    };
    Ok(Some(match value.not_null() {
        Some(value) => Edit::Set(read(&value)?),
        None => Edit::Remove,
    }))
}
