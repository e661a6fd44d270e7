//! Answers: Tollgate's own, and the origin's with Tollgate's headers.

use std::convert::Infallible;

use wasm_bindgen::prelude::*;

use super::{
    crossing::{HeaderLines, copy_of, deciding_of},
    log::{Fault, Line},
    platform::clock,
    visit::Visit,
};
use crate::{
    credits::Credits,
    headers::{
        AnswerHeaders, OWN_CORS, Standing, TOLD_TO_ORIGIN, expose_headers, rewrite_location,
    },
    policy::Origin,
    problem::{Code, Problem},
};

/// A refusal on its way out: what it is, and how the key stands where an object had a part in it.
pub struct Refused {
    /// What it is.
    pub problem: Problem,
    /// How the key stands.
    pub standing: Option<Standing>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            standing: None,
        }
    }
}

/// What is added to an answer about the call it belongs to.
pub struct About<'a> {
    /// The call's id, or the request's.
    pub request_id: &'a str,
    /// How the key stands.
    pub standing: Option<&'a Standing>,
    /// What the call was charged, where that is known.
    pub charged: Option<Credits>,
}

/// A problem document.
pub fn problem(
    visit: &Visit,
    refused: &Refused,
    about: &About<'_>,
) -> Result<web_sys::Response, JsValue> {
    let mut headers = own_headers(visit, about);
    let Ok(()) = refused
        .problem
        .write_headers(|name, value| -> Result<(), Infallible> {
            headers.set(name, value);
            Ok(())
        });
    let json = refused.problem.to_json(about.request_id);
    headers.respond(refused.problem.status(), Some(&json))
}

/// A JSON document; nothing at all with 204.
pub fn document(
    visit: &Visit,
    status: u16,
    json: &str,
    about: &About<'_>,
) -> Result<web_sys::Response, JsValue> {
    let mut headers = own_headers(visit, about);
    headers.set("Cache-Control", "no-store");
    if status == 204 {
        return headers.respond(status, None);
    }
    headers.set("Content-Type", "application/json");
    headers.respond(status, Some(json))
}

/// CSV, and where there is more of it, a link to that.
pub fn csv(
    visit: &Visit,
    csv: &str,
    link: Option<&str>,
    about: &About<'_>,
) -> Result<web_sys::Response, JsValue> {
    let mut headers = own_headers(visit, about);
    headers.set("Cache-Control", "no-store");
    headers.set("Content-Type", "text/csv; charset=utf-8; header=present");
    headers.set("Vary", "Accept");
    if let Some(link) = link {
        headers.set("Link", link);
    }
    headers.respond(200, Some(csv))
}

/// JSON lines, as they come.
pub fn json_lines(
    visit: &Visit,
    lines: Option<&web_sys::ReadableStream>,
    about: &About<'_>,
) -> Result<web_sys::Response, JsValue> {
    let mut own = own_headers(visit, about);
    own.set("Cache-Control", "no-store");
    own.set("Content-Type", "application/x-ndjson");
    let (headers, init) = (web_sys::Headers::new()?, web_sys::ResponseInit::new());
    own.change(&headers)?;
    init.set_headers(&headers);
    web_sys::Response::new_with_opt_readable_stream_and_init(lines, &init)
}

/// The answer to a preflight: whoever asks may send `methods`, and read the answer if `origin`.
pub fn preflight(
    visit: &Visit,
    origin: Option<&str>,
    methods: &str,
) -> Result<web_sys::Response, JsValue> {
    let mut headers = HeaderLines::new();
    headers.set("X-Request-Id", &visit.request_id());
    if let Some(origin) = origin {
        headers.set("Access-Control-Allow-Origin", origin);
        headers.set("Access-Control-Allow-Methods", methods);
        headers.set("Access-Control-Max-Age", "600");
        // What is asked for is allowed: a key in a header is what protects, not the list.
        if let Some(asked) = visit.header("Access-Control-Request-Headers") {
            headers.set("Access-Control-Allow-Headers", &asked);
        }
    }
    headers.set("Vary", "Origin, Access-Control-Request-Headers");
    headers.respond(204, None)
}

/// The origin's answer, handed on: its status untouched, Tollgate's headers in place of any of the
/// same names. Its body is its own, or `carried` by another stream.
pub fn hand_on(
    visit: &Visit,
    origin: &Origin,
    from_origin: &web_sys::Response,
    carried: Option<&web_sys::ReadableStream>,
    about: &About<'_>,
) -> Result<web_sys::Response, JsValue> {
    let answer = copy_of(from_origin, carried)?;
    let deciding = deciding_of(&answer)?;
    let mut values = deciding
        .split('\n')
        .map(|value| Some(value).filter(|value| !value.is_empty()));
    let mut value = || values.next().flatten();
    let (allow_origin, exposed, location) = (value(), value(), value());
    let mut headers = HeaderLines::new();
    write_about(about, &mut headers);
    for name in TOLD_TO_ORIGIN {
        headers.remove(name);
    }
    if let Some(exposed) = expose_headers(allow_origin, exposed) {
        headers.set("Access-Control-Expose-Headers", &exposed);
    }
    let rewritten = location.and_then(|location| {
        let called = visit.url();
        rewrite_location(location, &origin.url(&called), &called.origin())
    });
    if let Some(rewritten) = rewritten {
        headers.set("Location", &rewritten);
    }
    headers.change(&answer.headers())?;
    Ok(answer)
}

/// 503 for everything: the deployment is not fit to serve. The log says why, the caller is not
/// told.
pub fn out_of_order(
    request: &web_sys::Request,
    faults: &str,
) -> Result<web_sys::Response, JsValue> {
    let visit = Visit::new(request.clone()?)?;
    Fault::new("not_fit_to_serve", faults).write();
    let refused = Problem::new(
        Code::Unavailable,
        "this gateway is not set up; its operator's log says why",
    )
    .into();
    let request_id = visit.request_id();
    let about = About {
        request_id: &request_id,
        standing: None,
        charged: None,
    };
    let answer = problem(&visit, &refused, &about)?;
    let mut line = Line {
        request_id: visit.request_id(),
        method: visit.method.clone(),
        code: Some(Code::Unavailable.as_str()),
        ..Line::default()
    };
    line.answered(answer.status(), clock());
    line.write();
    Ok(answer)
}

fn own_headers(visit: &Visit, about: &About<'_>) -> HeaderLines {
    let mut headers = HeaderLines::new();
    write_about(about, &mut headers);
    if visit.is_cross_origin() {
        for (name, value) in OWN_CORS {
            headers.set(name, value);
        }
    }
    headers
}

fn write_about(about: &About<'_>, headers: &mut HeaderLines) {
    let about = AnswerHeaders {
        request_id: about.request_id,
        standing: about.standing,
        charged: about.charged,
    };
    about.write(|name, value| headers.put(name, value));
}
