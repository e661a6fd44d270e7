//! Self-service pages: from the query string to the page that is asked for.

use crate::{
    admin::{nothing, set_top_up},
    cursor::{Cursors, Listing},
    id::CallNumber,
    ledger_page::ledger_query,
    payments::ask::{self, Ask, TopUpWish, What},
    policy::router,
    problem::Problem,
    protocol::{Page, SummaryPlace, SummaryQuery, UsageFilter, UsageQuery},
    time::Timestamp,
    totals::summary::By,
    url::decode_form,
};

const USAGE_PARAMETERS: [&str; 7] = [
    "limit", "offset", "next", "from", "to", "endpoint", "status",
];
const OPERATORS_USAGE_PARAMETERS: [&str; 8] = [
    "limit", "offset", "next", "from", "to", "endpoint", "status", "marked",
];
const SUMMARY_PARAMETERS: [&str; 4] = ["by", "from", "to", "next"];
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;
/// What every `next` is expected to be.
pub(crate) const NEXT: &str = "the `next` of an earlier page, unchanged";
/// `offset + limit` at most: what one request may make the object read.
const REACH_MAX: u32 = 4_000;

/// Reads what a page of an account is asked for, by a method that it allows; `query` is the query
/// string without `?`, `body` empty where the page takes none.
///
/// # Errors
///
/// 400 with the name of a parameter that is unknown, repeated or out of range; 404 for a page
/// that this release does not have.
pub fn read(
    page: router::Page,
    (method, query, body): (&str, Option<&str>, &[u8]),
    cursors: Cursors<'_>,
) -> Result<Page, Problem> {
    let pays = |what| {
        let (made, gone) = (None, None);
        Page::Payments(Ask { what, made, gone })
    };
    if page.takes_body() {
        no_parameters(query)?;
    }
    match page {
        router::Page::Me => no_parameters(query).map(|()| Page::Me),
        router::Page::Usage => usage_query(query, cursors).map(Page::Usage),
        router::Page::GetCredits => no_parameters(query).map(|()| Page::Credits),
        // Its parameters are read where it is told: see `quote_page.rs`.
        router::Page::Quote => Ok(Page::Quote),
        router::Page::UsageSummary => summary_query(query, cursors).map(Page::UsageSummary),
        router::Page::Ledger => ledger_query(query, cursors).map(Page::Ledger),
        router::Page::Purchase => ask::buy(body).map(pays),
        router::Page::Subscription => ask::subscribe(body).map(pays),
        router::Page::BillingPortal => ask::portal(body).map(pays),
        router::Page::BillingHistory => ask::history(query, cursors).map(pays),
        router::Page::TopUp if method == "PUT" => {
            let set = set_top_up(body)?;
            Ok(pays(What::TopUp(TopUpWish::Set(set))))
        }
        router::Page::TopUp => Ok(pays(What::TopUp(TopUpWish::Show))),
        router::Page::TopUpRetry => nothing(body).map(|()| pays(What::TopUp(TopUpWish::Retry))),
    }
}

/// The parameters of the operator's `/usage`: the customer's, and one more.
///
/// # Errors
///
/// 400 with the name of the parameter that is unknown, repeated or out of range.
pub fn operators_usage_query(
    query: Option<&str>,
    cursors: Cursors<'_>,
) -> Result<UsageQuery, Problem> {
    let parameters = Parameters::read(query, &OPERATORS_USAGE_PARAMETERS)?;
    let marked = parameters.read_as("marked", "true", |text| (text == "true").then_some(()))?;
    let asked = read_usage_query(&parameters, cursors)?;
    let filter = UsageFilter {
        marked: marked.is_some(),
        ..asked.filter
    };
    Ok(UsageQuery { filter, ..asked })
}

/// The parameters of `/usage`.
fn usage_query(query: Option<&str>, cursors: Cursors<'_>) -> Result<UsageQuery, Problem> {
    read_usage_query(&Parameters::read(query, &USAGE_PARAMETERS)?, cursors)
}

fn read_usage_query(
    parameters: &Parameters<'_>,
    cursors: Cursors<'_>,
) -> Result<UsageQuery, Problem> {
    let limit = parameters.whole("limit", 1, LIMIT_MAX)?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    let offset = parameters.whole("offset", 0, REACH_MAX.saturating_sub(limit))?;
    let before = parameters.next(cursors, Listing::Usage, |text| {
        text.parse().ok().and_then(CallNumber::new)
    })?;
    if before.is_some() && offset.is_some_and(|offset| offset > 0) {
        return Err(Problem::bad_field(
            "offset",
            "offset: expected none beside next",
        ));
    }
    let (from, to) = parameters.period()?;
    Ok(UsageQuery {
        limit,
        offset: offset.unwrap_or(0),
        before,
        filter: UsageFilter {
            from,
            to,
            endpoint: parameters.text("endpoint"),
            status: parameters.read_as("status", "a status from 100 to 599", |text| {
                text.parse()
                    .ok()
                    .filter(|status| (100..=599).contains(status))
            })?,
            marked: false,
        },
    })
}

/// The parameters of `/usage/summary`, the customer's and the operator's alike.
///
/// # Errors
///
/// 400 with the name of the parameter that is unknown, repeated or out of range.
pub fn summary_query(query: Option<&str>, cursors: Cursors<'_>) -> Result<SummaryQuery, Problem> {
    let parameters = Parameters::read(query, &SUMMARY_PARAMETERS)?;
    let by = parameters.read_as("by", "day, hour, endpoint or key", |text| match text {
        "day" => Some(By::Day),
        "hour" => Some(By::Hour),
        "endpoint" => Some(By::Endpoint),
        "key" => Some(By::Key),
        _ => None,
    })?;
    let (from, to) = parameters.period()?;
    Ok(SummaryQuery {
        by: by.unwrap_or_default(),
        from,
        to,
        next: parameters.next(cursors, Listing::UsageSummary, SummaryPlace::parse)?,
    })
}

/// That a query string is empty.
///
/// # Errors
///
/// 400 with the name of the first parameter.
pub fn no_parameters(query: Option<&str>) -> Result<(), Problem> {
    Parameters::read(query, &[]).map(|_| ())
}

/// A query string's parameters, as they are spelled: none that is known has a character that
/// would have to be encoded.
pub(crate) struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    pub(crate) fn read(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let name: String = name.chars().take(64).collect();
                let detail = match known {
                    [] => format!("{name}: unknown parameter, expected none"),
                    known => {
                        let known = known.join(", ");
                        format!("{name}: unknown parameter, expected only {known}")
                    }
                };
                return Err(Problem::bad_field(name, detail));
            }
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                let detail = format!("{name}: expected once, found twice");
                return Err(Problem::bad_field(name, detail));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The parameter's value, decoded.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let (_, text) = self.0.iter().find(|(other, _)| *other == name)?;
        Some(decode_form(text))
    }

    /// The value of a parameter that cannot be left out.
    pub(crate) fn required(&self, name: &str) -> Result<String, Problem> {
        self.text(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                Problem::bad_field(name, format!("{name}: expected a value, found none"))
            })
    }

    /// The value of a parameter, as `read` reads it.
    pub(crate) fn read_as<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        read(&text).map(Some).ok_or_else(|| {
            let found: String = text.chars().take(64).collect();
            Problem::bad_field(
                name,
                format!("{name}: expected {expected}, found {found:?}"),
            )
        })
    }

    /// Where an earlier page of `listing` ended, as `read` reads the object's word for it.
    pub(crate) fn next<T>(
        &self,
        cursors: Cursors<'_>,
        listing: Listing,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        self.read_as("next", NEXT, |text| read(&cursors.open(listing, text)?))
    }

    fn moment(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let expected = "a date and time as in RFC 3339, 2026-12-01T00:00:00Z";
        self.read_as(name, expected, Timestamp::parse_rfc3339)
    }

    /// The moments `from` and `to`, in this order.
    pub(crate) fn period(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let (from, to) = (self.moment("from")?, self.moment("to")?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(Problem::bad_field(
                "from",
                format!("from: expected a moment before to, {}", to.to_rfc3339()),
            ));
        }
        Ok((from, to))
    }

    /// The value of a parameter that is a number, written in digits alone.
    pub(crate) fn whole(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Problem> {
        let Some((_, text)) = self.0.iter().find(|(other, _)| *other == name) else {
            return Ok(None);
        };
        let number = Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|number| (least..=most).contains(number));
        match number {
            Some(number) => Ok(Some(number)),
            None => {
                let text: String = text.chars().take(64).collect();
                Err(Problem::bad_field(
                    name,
                    format!(
                        "{name}: expected a whole number from {least} to {most}, found {text:?}"
                    ),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::AccountId, secrets::Secrets, time::MonthNumber};

    fn asked_for(page: router::Page, query: Option<&str>) -> Result<Page, Problem> {
        let lookup = |name: &str| (!name.ends_with("_PREVIOUS")).then(|| format!("{name:-<40}"));
        let secrets = Secrets::read(lookup, false).unwrap();
        let account = AccountId::parse("acme").unwrap();
        let cursors = Cursors {
            key_secret: &secrets.key_secret,
            account: &account,
        };
        // What is asked with `next=(5)` is where a page ended as the object wrote it.
        let sealed = |query: &str| {
            let Some((before, (ended, after))) = query
                .split_once("next=(")
                .and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
            else {
                return query.to_owned();
            };
            let listing = match page {
                router::Page::UsageSummary => Listing::UsageSummary,
                _ => Listing::Usage,
            };
            format!("{before}next={}{after}", cursors.seal(listing, ended))
        };
        let query = query.map(sealed);
        read(page, ("GET", query.as_deref(), b""), cursors)
    }

    fn usage(query: &str) -> Result<Page, Problem> {
        asked_for(router::Page::Usage, Some(query))
    }

    const fn asked(limit: u32, offset: u32) -> Page {
        Page::Usage(UsageQuery {
            limit,
            offset,
            before: None,
            filter: UsageFilter {
                from: None,
                to: None,
                endpoint: None,
                status: None,
                marked: false,
            },
        })
    }

    #[test]
    fn what_is_marked_is_the_operators_to_ask_for() {
        let lookup = |name: &str| (!name.ends_with("_PREVIOUS")).then(|| format!("{name:-<40}"));
        let secrets = Secrets::read(lookup, false).unwrap();
        let cursors = Cursors {
            key_secret: &secrets.key_secret,
            account: &AccountId::parse("acme").unwrap(),
        };
        let filter = UsageFilter {
            marked: true,
            ..UsageFilter::default()
        };
        let asked = operators_usage_query(Some("marked=true&limit=50"), cursors);
        assert_eq!(asked.map(|query| query.filter), Ok(filter));
        assert!(operators_usage_query(Some("marked=false"), cursors).is_err());
        assert!(usage("marked=true").is_err());
    }

    #[test]
    fn usage_is_asked_for_page_by_page() {
        for (query, page) in [
            ("", asked(50, 0)),
            ("&", asked(50, 0)),
            ("limit=1", asked(1, 0)),
            ("limit=500&offset=3500", asked(500, 3_500)),
            ("offset=3950", asked(50, 3_950)),
            ("offset=0&limit=007", asked(7, 0)),
        ] {
            assert_eq!(usage(query), Ok(page), "{query}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (query, field, detail) in [
            (
                "limit=0",
                "limit",
                "limit: expected a whole number from 1 to 500, found \"0\"",
            ),
            (
                "limit=501",
                "limit",
                "limit: expected a whole number from 1 to 500, found \"501\"",
            ),
            (
                "limit=",
                "limit",
                "limit: expected a whole number from 1 to 500, found \"\"",
            ),
            (
                "limit",
                "limit",
                "limit: expected a whole number from 1 to 500, found \"\"",
            ),
            (
                "limit=%2B5",
                "limit",
                "limit: expected a whole number from 1 to 500, found \"%2B5\"",
            ),
            (
                "offset=-1",
                "offset",
                "offset: expected a whole number from 0 to 3950, found \"-1\"",
            ),
            (
                "offset=3951",
                "offset",
                "offset: expected a whole number from 0 to 3950, found \"3951\"",
            ),
            (
                "offset=3501&limit=500",
                "offset",
                "offset: expected a whole number from 0 to 3500, found \"3501\"",
            ),
            (
                "offset=99999999999999999999",
                "offset",
                "offset: expected a whole number from 0 to 3950, found \"99999999999999999999\"",
            ),
            (
                "limit=5&limit=5",
                "limit",
                "limit: expected once, found twice",
            ),
            (
                "from=2026-01-01",
                "from",
                "from: expected a date and time as in RFC 3339, 2026-12-01T00:00:00Z, found \"2026-01-01\"",
            ),
            (
                "status=999",
                "status",
                "status: expected a status from 100 to 599, found \"999\"",
            ),
            (
                "from=2026-12-02T00:00:00Z&to=2026-12-02T00:00:00Z",
                "from",
                "from: expected a moment before to, 2026-12-02T00:00:00Z",
            ),
            (
                "next=call_1",
                "next",
                "next: expected the `next` of an earlier page, unchanged, found \"call_1\"",
            ),
            (
                "next=(5)&offset=1",
                "offset",
                "offset: expected none beside next",
            ),
            (
                "key=1",
                "key",
                "key: unknown parameter, expected only limit, offset, next, from, to, endpoint, status",
            ),
            (
                "Limit=5",
                "Limit",
                "Limit: unknown parameter, expected only limit, offset, next, from, to, endpoint, status",
            ),
        ] {
            assert_eq!(
                usage(query),
                Err(Problem::bad_field(field, detail)),
                "{query}"
            );
        }
    }

    #[test]
    fn a_summary_is_asked_for_by_what_its_lines_are_about_and_from_when_to_when() {
        let summary = |query| asked_for(router::Page::UsageSummary, query);
        let plain = SummaryQuery::default();
        let at = Timestamp::parse_rfc3339;
        for (query, asked) in [
            ("", plain.clone()),
            (
                "by=key&next=(h24311-50)",
                SummaryQuery {
                    by: By::Key,
                    next: Some(SummaryPlace::Hours(MonthNumber::new(24_311), 50)),
                    ..plain.clone()
                },
            ),
            (
                "by=hour&next=(d7)",
                SummaryQuery {
                    by: By::Hour,
                    next: Some(SummaryPlace::Days(7)),
                    ..plain.clone()
                },
            ),
            (
                "from=2026-12-01T00:00:00Z&to=2026-12-01T02:00:00%2B01:00&by=endpoint",
                SummaryQuery {
                    by: By::Endpoint,
                    from: at("2026-12-01T00:00:00Z"),
                    to: at("2026-12-01T01:00:00Z"),
                    next: None,
                },
            ),
        ] {
            assert_eq!(
                summary(Some(query)),
                Ok(Page::UsageSummary(asked)),
                "{query}"
            );
        }
        let place = SummaryPlace::Hours(MonthNumber::new(24_311), 50);
        for place in [place, SummaryPlace::Days(7)] {
            assert_eq!(SummaryPlace::parse(&place.to_string()), Some(place));
        }
        let a_day = "from=2026-12-02T00:00:00Z&to=2026-12-02T00:00:00Z";
        for (query, field, detail) in [
            (
                "by=Day",
                "by",
                "by: expected day, hour, endpoint or key, found \"Day\"",
            ),
            (
                "by=",
                "by",
                "by: expected day, hour, endpoint or key, found \"\"",
            ),
            (
                "limit=5",
                "limit",
                "limit: unknown parameter, expected only by, from, to, next",
            ),
            (
                a_day,
                "from",
                "from: expected a moment before to, 2026-12-02T00:00:00Z",
            ),
            (
                "to=tomorrow",
                "to",
                "to: expected a date and time as in RFC 3339, 2026-12-01T00:00:00Z, found \"tomorrow\"",
            ),
            (
                "next=h1",
                "next",
                "next: expected the `next` of an earlier page, unchanged, found \"h1\"",
            ),
        ] {
            let problem = Problem::bad_field(field, detail);
            assert_eq!(summary(Some(query)), Err(problem), "{query}");
        }
    }

    #[test]
    fn pages_without_parameters_take_none() {
        for (page, expected) in [
            (router::Page::Me, Page::Me),
            (router::Page::GetCredits, Page::Credits),
        ] {
            assert_eq!(asked_for(page, None), Ok(expected.clone()));
            assert_eq!(asked_for(page, Some("")), Ok(expected));
            assert_eq!(
                asked_for(page, Some("limit=5")),
                Err(Problem::bad_field(
                    "limit",
                    "limit: unknown parameter, expected none"
                ))
            );
        }
    }
}
