//! Points for Analytics Engine, where a dataset is bound: one for each request, whatever became of it,
//! also where no account's object heard of it. Their places are the operator's to query by: only added to.

use serde::Serialize;

use crate::status::Counts;

/// What is known of a request by its end. Never a secret, a path or a query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered<'a> {
    /// Whose key it was.
    pub account: &'a str,
    /// The problem that was answered.
    pub code: &'a str,
    /// The problem that would have been answered, where the gateway only observes.
    pub would_refuse: &'a str,
    /// The route's template.
    pub route: &'a str,
    /// The method.
    pub method: &'a str,
    /// Which key it was.
    pub key: &'a str,
    /// The status that the client saw.
    pub status: u16,
    /// From the request to the answer's headers.
    pub ms: i64,
    /// Rows written for it.
    pub rows: u32,
    /// Whether it became a call.
    pub admitted: bool,
}

#[derive(Serialize)]
struct Point<'a> {
    /// What is sampled by.
    indexes: [&'a str; 1],
    blobs: [&'a str; 6],
    doubles: [i64; 7],
}

/// The point of a request, as JSON.
#[must_use]
pub fn of_request(request: &Answered<'_>) -> String {
    json(&Point {
        indexes: [request.account],
        blobs: [
            "request",
            request.code,
            request.would_refuse,
            request.route,
            request.method,
            request.key,
        ],
        doubles: [
            request.status.into(),
            request.ms,
            request.rows.into(),
            request.admitted.into(),
            0,
            0,
            0,
        ],
    })
}

/// What no request's point tells of an hour of `account`, as JSON; `None` where there is nothing.
#[must_use]
pub fn of_hour(account: &str, counts: &Counts) -> Option<String> {
    let figures = [
        counts.ended_unknown,
        counts.late_settles,
        counts.failed_audits,
    ];
    let [ended_unknown, late_settles, failed_audits] =
        figures.map(|figure| i64::try_from(figure).unwrap_or(i64::MAX));
    let is_told = figures.iter().any(|figure| *figure > 0);
    is_told.then(|| {
        json(&Point {
            indexes: [account],
            blobs: ["hour", "", "", "", "", ""],
            doubles: [0, 0, 0, 0, ended_unknown, late_settles, failed_audits],
        })
    })
}

fn json(point: &Point<'_>) -> String {
    // Texts and numbers alone: writing them cannot fail.
    serde_json::to_string(point).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_point_has_its_places() {
        let request = Answered {
            account: "acme",
            code: "rate_limited",
            would_refuse: "",
            route: "/search",
            method: "POST",
            key: "key_acme_1",
            status: 429,
            ms: 3,
            rows: 0,
            admitted: false,
        };
        assert_eq!(
            of_request(&request),
            concat!(
                r#"{"indexes":["acme"],"#,
                r#""blobs":["request","rate_limited","","/search","POST","key_acme_1"],"#,
                r#""doubles":[429,3,0,0,0,0,0]}"#
            )
        );
        let admitted = Answered {
            admitted: true,
            rows: 2,
            status: 200,
            ..Answered::default()
        };
        assert!(of_request(&admitted).ends_with(r#""doubles":[200,0,2,1,0,0,0]}"#));
    }

    #[test]
    fn an_hours_point_tells_what_no_request_does() {
        let counts = Counts {
            admitted: 7,
            unavailable: 1,
            ended_unknown: 3,
            late_settles: 2,
            failed_audits: 1,
            ..Counts::default()
        };
        assert_eq!(
            of_hour("acme", &counts).unwrap(),
            r#"{"indexes":["acme"],"blobs":["hour","","","","",""],"doubles":[0,0,0,0,3,2,1]}"#
        );
        let quiet = Counts {
            admitted: 7,
            ..Counts::default()
        };
        assert_eq!(of_hour("acme", &quiet), None);
    }
}
