//! Requests about keys as commands for the account's object.

use super::{
    commands::{NAME_MAX, optional_line, or_removed},
    json::{Fields, Value},
};
use crate::{
    account::{KeyLimits, Limit, NewKey, OVERLAP_MAX, PatchKey, RotateKey, SCOPE_MAX, Scope},
    credits::Credits,
    cursor::{Cursors, Listing},
    id::KeyNumber,
    key::SecretDigest,
    policy::KeyPattern,
    problem::Problem,
    protocol::KeysQuery,
    self_service::Parameters,
    time::Span,
};

const FIELDS: [&str; 5] = ["name", "limits", "scope", "expires_at", "budget"];
/// Where a key is created, it may be one that was issued before Tollgate.
const FIELDS_AND_SECRET: [&str; 6] = ["name", "limits", "scope", "expires_at", "budget", "secret"];
const SCOPE_ITEM_MAX: usize = 300;
const PAGE_MAX: u32 = 500;

/// `GET /accounts/{id}/keys`.
pub(super) fn query(query: Option<&str>, cursors: Cursors<'_>) -> Result<KeysQuery, Problem> {
    let parameters = Parameters::read(query, &["limit", "next"])?;
    let first_page = KeysQuery::default();
    Ok(KeysQuery {
        limit: parameters
            .whole("limit", 1, PAGE_MAX)?
            .unwrap_or(first_page.limit),
        after: parameters.next(cursors, Listing::Keys, |text| {
            text.parse().ok().map(KeyNumber::new)
        })?,
    })
}

/// `POST /accounts/{id}/keys`: nothing has to be told, so no body will do. With the digest of a
/// secret that was issued before Tollgate, if one is told.
pub(super) fn create(
    body: &[u8],
    imported_keys: Option<&KeyPattern>,
) -> Result<(NewKey, Option<SecretDigest>), Problem> {
    if body.is_empty() {
        return Ok((NewKey::default(), None));
    }
    let fields = Fields::parse(body, &FIELDS_AND_SECRET)?;
    let secret = fields.get("secret").not_null();
    let new = read_new(&fields)?;
    let digest = secret.map(|secret| read_secret(&secret, imported_keys));
    Ok((new, digest.transpose()?))
}

fn read_new(fields: &Fields<'_>) -> Result<NewKey, Problem> {
    let (limits, scope) = (
        fields.get("limits").not_null(),
        fields.get("scope").not_null(),
    );
    let (expires_at, budget) = (
        fields.get("expires_at").not_null(),
        fields.get("budget").not_null(),
    );
    Ok(NewKey {
        name: optional_line(fields, "name", NAME_MAX)?,
        limits: limits.map(|limits| read_limits(&limits)).transpose()?,
        scope: scope.map(|scope| read_scope(&scope)).transpose()?,
        expires_at: expires_at.map(|time| time.time()).transpose()?,
        budget: budget.map(|budget| read_budget(&budget)).transpose()?,
    })
}

/// `PATCH /accounts/{id}/keys/{key}`: what is left out stays, and null takes it away.
pub(super) fn patch(body: &[u8]) -> Result<PatchKey, Problem> {
    let fields = Fields::parse(body, &FIELDS)?;
    Ok(PatchKey {
        name: or_removed(fields.get("name"), |name| name.line(NAME_MAX))?,
        limits: or_removed(fields.get("limits"), read_limits)?,
        scope: or_removed(fields.get("scope"), read_scope)?,
        expires_at: or_removed(fields.get("expires_at"), |time| time.time())?,
        budget: or_removed(fields.get("budget"), read_budget)?,
    })
}

/// `POST /accounts/{id}/keys/{key}/rotate`. How long the present secret stays good has to be
/// told: to guess it would cut callers off, or leave them a secret that has leaked.
pub(super) fn rotate(key: KeyNumber, body: &[u8]) -> Result<RotateKey, Problem> {
    let fields = Fields::parse(body, &["overlap_seconds"])?;
    let most = u64::try_from(OVERLAP_MAX.as_seconds_ceil()).unwrap_or(0);
    let seconds: u32 = fields.get("overlap_seconds").whole(0, most)?;
    Ok(RotateKey {
        key,
        overlap: Span::from_seconds(seconds.into()),
    })
}

/// What is wrong with a secret is told without it.
fn read_secret(
    secret: &Value<'_>,
    imported_keys: Option<&KeyPattern>,
) -> Result<SecretDigest, Problem> {
    let Some(pattern) = imported_keys else {
        return Err(Problem::bad_field(
            "secret",
            "secret: the policy has no [imported_keys], so there are none",
        ));
    };
    let matching = |text: &str| {
        let matches = pattern.matches(text);
        matches.then(|| SecretDigest::of(text.as_bytes()))
    };
    secret.text("", matching).map_err(|_: Problem| {
        Problem::bad_field(
            "secret",
            "secret: expected a key of the pattern that the policy has in [imported_keys]",
        )
    })
}

fn read_limits(limits: &Value<'_>) -> Result<KeyLimits, Problem> {
    let fields = limits.fields(&[
        "requests_per_minute",
        "requests_per_day",
        "requests_in_flight",
        "jobs_open",
    ])?;
    let limit = |name| read_limit(fields.get(name));
    Ok(KeyLimits {
        requests_per_minute: limit("requests_per_minute")?,
        requests_per_day: limit("requests_per_day")?,
        requests_in_flight: limit("requests_in_flight")?,
        jobs_open: limit("jobs_open")?,
    })
}

/// Absent and null are the plan's, as a client that writes every field would have it.
fn read_limit(limit: Value<'_>) -> Result<Option<Limit>, Problem> {
    let Some(limit) = limit.not_null() else {
        return Ok(None);
    };
    let unlimited = limit.text("", |text| {
        (text == Limit::UNLIMITED).then_some(Limit::Unlimited)
    });
    unlimited
        .or_else(|_| limit.whole(1, u32::MAX.into()).map(Limit::Of))
        .map(Some)
        .map_err(|_: Problem| {
            let most = u32::MAX;
            limit.problem(&format!(
                "a whole number from 1 to {most}, \"unlimited\", or null for the plan's"
            ))
        })
}

fn read_scope(scope: &Value<'_>) -> Result<Scope, Problem> {
    let mut items: Vec<String> = Vec::new();
    for item in scope.list(SCOPE_MAX)? {
        let text = item.line(SCOPE_ITEM_MAX)?;
        if items.contains(&text) {
            return Err(item.problem("each route once"));
        }
        items.push(text);
    }
    Ok(Scope::new(items))
}

fn read_budget(budget: &Value<'_>) -> Result<Credits, Problem> {
    let credits = budget.whole(0, Credits::MAX.get())?;
    Ok(Credits::new(credits).unwrap_or(Credits::MAX))
}
