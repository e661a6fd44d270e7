use super::*;

use proptest::prelude::*;

use crate::{
    account::{
        Adjustment, Edit, KeyLimits, Limit, NewAccount, NewGrant, PatchAccount, PatchKey, Scope,
        Status, StatusChange, Told, TopUpSettings, Word,
    },
    credits::Credits,
    cursor::Listing,
    directory::{Filter, Page, Position},
    event::{BalanceLow, Thresholds},
    id::{CallNumber, EventNumber, ExternalId},
    payments::money::Money,
    policy::{Policy, Source},
    price::Quantity,
    protocol::{self, EventState, EventsQuery, KeysQuery, SummaryQuery, UsageQuery},
    time::{Span, Timestamp},
};

const ADMIN: &str = "admin-token-0123456789-0123456789";
const READ: &str = "read-token-0123456789-0123456789";
const ORIGIN: &str = "origin-token-0123456789-0123456789";

const JSON: Sent<'_> = Sent {
    query: None,
    idempotency_key: Some("order-1"),
    content_type: Some("application/json"),
    body: b"",
};

fn secrets(with_read_token: bool) -> Secrets {
    let lookup = |name: &str| match name {
        "ADMIN_TOKEN" => Some(ADMIN.to_owned()),
        "ADMIN_READ_TOKEN" => with_read_token.then(|| READ.to_owned()),
        "ORIGIN_TOKEN" => Some(ORIGIN.to_owned()),
        name if name.ends_with("_PREVIOUS") => None,
        other => Some(format!("{other:-<40}")),
    };
    Secrets::read(lookup, false).unwrap()
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

fn read(method: &str, path: &str, sent: &Sent<'_>) -> Result<AdminRequest, Problem> {
    let path = format!("/_tollgate/v1{path}");
    Endpoint::find(method, &path, Ok(Operator::Admin))?.read(sent, &secrets(true), None)
}

fn send(method: &str, path: &str, body: &str) -> Result<AdminRequest, Problem> {
    let body = body.as_bytes();
    read(method, path, &Sent { body, ..JSON })
}

/// The command that a request with this body is, as it reaches the object.
fn command(method: &str, path: &str, body: &str) -> Command {
    match send(method, path, body).unwrap() {
        AdminRequest::Manage { manage, .. } => {
            let told: Manage = protocol::decode(&protocol::encode(manage.as_ref())).unwrap();
            assert_eq!(told, *manage, "on the wire");
            told.command
        }
        other => panic!("{other:?}"),
    }
}

fn patched(body: &str) -> PatchAccount {
    match command("PATCH", "/accounts/acme", body) {
        Command::Patch(patch) => patch,
        other => panic!("{other:?}"),
    }
}

/// The `next` of a page that ended there.
fn sealed(listing: Listing, ended: &str) -> String {
    cursors(&secrets(true), &account("acme")).seal(listing, ended)
}

/// Field and sentence of the 400 that a request gets.
fn complaint(refused: Result<AdminRequest, Problem>) -> (Option<String>, String) {
    let problem = refused.unwrap_err();
    assert_eq!(problem.code, Code::BadRequest, "{problem:?}");
    let json: serde_json::Value = serde_json::from_str(&problem.to_json("req_1")).unwrap();
    let field = json.get("field").map(|field| {
        let field = field.as_str().unwrap();
        assert!(problem.detail.contains(field), "{problem:?}");
        field.to_owned()
    });
    (field, problem.detail)
}

#[test]
fn each_token_is_known_by_its_name() {
    let known = |secrets: &Secrets, value: Option<&str>| {
        Operator::of(secrets, value).map_err(|problem| problem.code)
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let all = secrets(true);
    for (value, expected) in [
        (bearer(ADMIN), Ok(Operator::Admin)),
        (format!("bearer  {ADMIN}"), Ok(Operator::Admin)),
        (bearer(READ), Ok(Operator::ReadOnly)),
        (bearer(ORIGIN), Ok(Operator::Origin)),
        (ADMIN.to_owned(), Err(Code::InvalidKey)),
        (format!("Basic {ADMIN}"), Err(Code::InvalidKey)),
        (format!("Bearer {ADMIN}x"), Err(Code::InvalidKey)),
        (
            format!("Bearer {ADMIN}, Bearer {ADMIN}"),
            Err(Code::InvalidKey),
        ),
        (bearer(""), Err(Code::InvalidKey)),
        (String::new(), Err(Code::InvalidKey)),
    ] {
        assert_eq!(known(&all, Some(&value)), expected, "{value}");
    }
    assert_eq!(known(&all, None), Err(Code::MissingKey));
    let few = secrets(false);
    assert_eq!(known(&few, Some(&bearer(READ))), Err(Code::InvalidKey));
}

#[test]
fn every_endpoint_answers_to_its_method() {
    for (method, path, command) in [
        ("GET", "/accounts/acme", Command::Show),
        ("HEAD", "/accounts/acme", Command::Show),
        (
            "GET",
            "/accounts/acme/keys",
            Command::Keys(KeysQuery::default()),
        ),
        (
            "GET",
            "/accounts/acme/keys/key_acme_7",
            Command::ShowKey(KeyNumber::new(7)),
        ),
        ("DELETE", "/accounts/acme", Command::Close),
        ("GET", "/accounts/acme/export", Command::Export(None)),
        ("GET", "/accounts/acme/balance", Command::Balance),
        ("GET", "/accounts/acme/top-up", Command::ShowTopUp),
        ("POST", "/accounts/acme/top-up/retry", Command::RetryTopUp),
        (
            "GET",
            "/accounts/acme/events",
            Command::Events(EventsQuery {
                limit: 50,
                before: None,
                state: None,
            }),
        ),
        (
            "POST",
            "/events/event_acme_7/replay",
            Command::ReplayEvent(EventNumber::new(7)),
        ),
        (
            "GET",
            "/accounts/acme/usage",
            Command::Usage(UsageQuery {
                limit: 50,
                offset: 0,
                ..UsageQuery::default()
            }),
        ),
        (
            "GET",
            "/accounts/acme/usage/summary",
            Command::UsageSummary(SummaryQuery::default()),
        ),
        (
            "DELETE",
            "/accounts/acme/keys/key_acme_7",
            Command::RevokeKey(KeyNumber::new(7)),
        ),
    ] {
        let expected = AdminRequest::Manage {
            account: account("acme"),
            manage: Box::new(Manage {
                command,
                idempotency: None,
                signs_under: None,
            }),
            region: None,
        };
        let request = read(method, path, &Sent::default());
        assert_eq!(request, Ok(expected), "{method} {path}");
    }
    assert_eq!(
        read("GET", "/plans", &Sent::default()),
        Ok(AdminRequest::Plans)
    );
    for (query, from, to) in [
        (None, None, None),
        (
            Some("from=2026-12-01T00:00:00Z"),
            Some("2026-12-01T00:00:00Z"),
            None,
        ),
        (
            Some("to=2026-12-02T00:00:00%2B01:00&from=2026-12-01T00:00:00Z"),
            Some("2026-12-01T00:00:00Z"),
            Some("2026-12-01T23:00:00Z"),
        ),
    ] {
        let sent = Sent {
            query,
            ..Sent::default()
        };
        let moment = |text: Option<&str>| text.and_then(Timestamp::parse_rfc3339);
        let (from, to) = (moment(from), moment(to));
        let status = AdminRequest::Status(StatusQuery { from, to });
        assert_eq!(read("GET", "/status", &sent), Ok(status), "{query:?}");
    }
}

#[test]
fn events_are_listed_by_page_and_state() {
    let ask = |query: &str| {
        let sent = Sent {
            query: Some(query),
            ..Sent::default()
        };
        read("GET", "/accounts/acme/events", &sent)
    };
    let next = sealed(Listing::Events, "event_acme_7");
    let Ok(AdminRequest::Manage { manage, .. }) =
        ask(&format!("limit=500&next={next}&state=parked"))
    else {
        panic!("not read");
    };
    let expected = EventsQuery {
        limit: 500,
        before: Some(EventNumber::new(7)),
        state: Some(EventState::Parked),
    };
    assert_eq!(manage.command, Command::Events(expected));
    for (query, field, expected) in [
        ("limit=501", "limit", "from 1 to 500"),
        ("next=7", "next", "the `next` of an earlier page"),
        (
            "next=event_other_7",
            "next",
            "the `next` of an earlier page",
        ),
        ("state=lost", "state", "waiting, delivered or parked"),
    ] {
        let (named, told) = complaint(ask(query));
        assert_eq!(named.as_deref(), Some(field), "{query}");
        assert!(told.contains(expected), "{told}");
    }
    let (named, _) = complaint(read("POST", "/events/call_acme_1/replay", &Sent::default()));
    assert_eq!(named.as_deref(), Some("event"));
}

#[test]
fn an_account_is_given_thresholds_of_its_own() {
    let read = patched(r#"{"balance_low":{"credits":[500,100],"lyrics":[5]}}"#);
    let thresholds = |pool: &str, below: &[u64]| Thresholds {
        pool: pool.to_owned(),
        below: below
            .iter()
            .filter_map(|amount| Credits::new(*amount))
            .collect(),
    };
    let expected = BalanceLow::new(vec![
        thresholds("credits", &[500, 100]),
        thresholds("lyrics", &[5]),
    ]);
    assert_eq!(read.balance_low, Some(Edit::Set(expected)));
    let read = patched(r#"{"balance_low":null}"#);
    assert_eq!(read.balance_low, Some(Edit::Remove));
    for (body, field) in [
        (r#"{"balance_low":7}"#, "balance_low"),
        (r#"{"balance_low":{}}"#, "balance_low"),
        (r#"{"balance_low":{"credits":[]}}"#, "balance_low.credits"),
        (
            r#"{"balance_low":{"credits":[0]}}"#,
            "balance_low.credits[0]",
        ),
        (
            r#"{"balance_low":{"credits":[1,2,3,4,5,6]}}"#,
            "balance_low.credits",
        ),
        (r#"{"balance_low":{"a":[1],"a":[2]}}"#, "balance_low.a"),
    ] {
        let (named, _) = complaint(send("PATCH", "/accounts/acme", body));
        assert_eq!(named.as_deref(), Some(field), "{body}");
    }
}

/// What `GET /accounts` with this query string asks for.
fn search(query: &str) -> Result<Search, Problem> {
    let sent = Sent {
        query: Some(query),
        ..Sent::default()
    };
    match read("GET", "/accounts", &sent)? {
        AdminRequest::List(search) => Ok(search),
        other => panic!("{other:?}"),
    }
}

#[test]
fn accounts_are_searched_by_what_they_are() {
    let filter = Filter {
        query: Some("söhne l".to_owned()),
        external_id: ExternalId::parse("CRM 7"),
        plan: Some("pro".to_owned()),
        status: Some("suspended".to_owned()),
        previous_keys: true,
        flagged: true,
    };
    let whole = "query=S%C3%96HNE+L&external_id=CRM+7&plan=pro&status=suspended&keys=previous\
                 &flagged=true";
    for (query, limit, filter) in [
        ("", 50, Filter::default()),
        ("limit=500", 500, Filter::default()),
        (whole, 50, filter),
    ] {
        let expected = Search {
            limit,
            filter,
            ..Search::default()
        };
        assert_eq!(search(query), Ok(expected), "{query}");
    }
    for (query, field) in [
        ("query=%20", "query"),
        ("query=a%0Ab", "query"),
        ("status=open", "status"),
        ("keys=", "keys"),
        ("flagged=false", "flagged"),
        ("external_id=+a", "external_id"),
        ("limit=501", "limit"),
        ("cursor=AAAA", "cursor"),
        ("next=AAAA", "next"),
    ] {
        let (found, _) = complaint(search(query).map(AdminRequest::List));
        assert_eq!(found.as_deref(), Some(field), "{query}");
    }
}

#[test]
fn a_page_goes_on_where_it_ended_in_the_same_list_only() {
    let secrets = secrets(false);
    let of_plan = |plan: &str| Filter {
        plan: Some(plan.to_owned()),
        ..Filter::default()
    };
    let ended = Position {
        text: "pro".to_owned(),
        number: 7,
    };
    let page = Page {
        accounts: Vec::new(),
        next: Some(ended.clone()),
    };
    let json = super::accounts(page, of_plan("pro"), &secrets.key_secret);
    let page: serde_json::Value = serde_json::from_str(&json).unwrap();
    let next = page["next"].as_str().unwrap();
    let after = search(&format!("plan=pro&limit=3&cursor={next}"))
        .unwrap()
        .after;
    assert_eq!(after, Some(ended));
    for other in ["plan=free", "", "plan=pro&status=active"] {
        let (field, _) =
            complaint(search(&format!("{other}&cursor={next}")).map(AdminRequest::List));
        assert_eq!(field.as_deref(), Some("cursor"), "{other}");
    }
    let last = Page {
        accounts: Vec::new(),
        next: None,
    };
    assert_eq!(
        super::accounts(last, Filter::default(), &secrets.key_secret),
        r#"{"data":[],"next":null}"#
    );
}

#[test]
fn health_needs_no_token_and_takes_any_query() {
    let missing = Operator::of(&secrets(true), None);
    let endpoint = Endpoint::find("GET", "/_tollgate/v1/healthz", missing).unwrap();
    let sent = Sent {
        query: Some("t=1"),
        ..Sent::default()
    };
    assert_eq!(
        endpoint.read(&sent, &secrets(true), None),
        Ok(AdminRequest::Healthz)
    );
}

#[test]
fn what_is_no_endpoint_is_not_found() {
    for path in [
        "",
        "/",
        "/_tollgate",
        "/_tollgate/",
        "/_tollgate/v1",
        "/_tollgate/v1/",
        "/_tollgate/v2/accounts",
        "/_tollgate/v1x/accounts",
        "/_tollgate/v1/Accounts",
        "/_tollgate/v1/accounts/",
        "/_tollgate/v1/accounts//keys",
        "/_tollgate/v1/accounts/acme/",
        "/_tollgate/v1/accounts/acme/keys/",
        "/_tollgate/v1/accounts/acme/keys/key_acme_1/more",
        "/_tollgate/v1/healthz/",
        "/accounts",
    ] {
        let found = Endpoint::find("GET", path, Ok(Operator::Admin));
        assert_eq!(found.unwrap_err().code, Code::NotFound, "{path}");
    }
}

#[test]
fn another_method_is_told_which_ones_there_are() {
    for (method, path, allow) in [
        ("DELETE", "/accounts", "GET, HEAD, POST"),
        ("POST", "/accounts/acme", "GET, HEAD, PATCH, DELETE"),
        ("PUT", "/accounts/acme/keys", "GET, HEAD, POST"),
        (
            "PUT",
            "/accounts/acme/keys/key_acme_1",
            "GET, HEAD, PATCH, DELETE",
        ),
        ("GET", "/accounts/acme/keys/key_acme_1/rotate", "POST"),
        ("get", "/plans", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ] {
        assert_eq!(
            send(method, path, ""),
            Err(Problem::method_not_allowed(allow)),
            "{method} {path}"
        );
    }
}

#[test]
fn each_token_opens_what_it_is_for() {
    for (method, path, reader) in [
        ("GET", "/plans", true),
        ("GET", "/status", true),
        ("GET", "/accounts", true),
        ("GET", "/accounts/acme", true),
        ("HEAD", "/accounts/acme/balance", true),
        ("GET", "/accounts/acme/usage", true),
        ("GET", "/accounts/acme/usage/summary", true),
        ("POST", "/accounts", false),
        ("GET", "/accounts/acme/export", true),
        ("DELETE", "/accounts/acme", false),
        ("PATCH", "/accounts/acme", false),
        ("DELETE", "/accounts/acme/keys/key_acme_1", false),
        ("GET", "/accounts/acme/keys/key_acme_1", true),
        ("PATCH", "/accounts/acme/keys/key_acme_1", false),
        ("POST", "/accounts/acme/keys/key_acme_1/rotate", false),
        ("POST", "/accounts/acme/grants", false),
    ] {
        let path = format!("/_tollgate/v1{path}");
        let code_for = |who| Endpoint::find(method, &path, who).err().map(|e| e.code);
        let stranger = || Operator::of(&secrets(true), None);
        assert_eq!(code_for(Ok(Operator::Admin)), None, "{path}");
        let refused = (!reader).then_some(Code::OutOfScope);
        assert_eq!(code_for(Ok(Operator::ReadOnly)), refused, "{path}");
        let refused = Some(Code::OutOfScope);
        assert_eq!(code_for(Ok(Operator::Origin)), refused, "{path}");
        assert_eq!(code_for(stranger()), Some(Code::MissingKey), "{path}");
    }
}

#[test]
fn an_account_is_opened_as_it_is_described() {
    let body = r#"{
        "id": "acme", "external_id": "cus 9", "name": "Acme \u00e4", "email": "a@b", "plan": "free",
        "subscription": {"status": "cancelled", "billing_day": 31}, "region": "weur"
    }"#;
    let AdminRequest::Manage {
        account: id,
        manage,
        region,
    } = send("POST", "/accounts", body).unwrap()
    else {
        panic!("no command");
    };
    let Command::Open(new) = manage.command else {
        panic!("{manage:?}");
    };
    let opened_by = new.opened_by;
    assert_eq!((id, region), (account("acme"), Some("weur")));
    assert_eq!(
        new,
        NewAccount {
            id: account("acme"),
            external_id: ExternalId::parse("cus 9"),
            name: Some("Acme ä".to_owned()),
            email: Some("a@b".to_owned()),
            plan: "free".to_owned(),
            billing_day: Some(31),
            subscription: Some(StatusChange::Cancelled),
            opened_by,
        }
    );
}

#[test]
fn an_account_without_an_id_has_the_one_of_its_idempotency_key() {
    let sparse = r#"{"plan":"free"}"#;
    let nulls = r#"{"id":null,"external_id":null,"name":null,"email":null,"plan":"free","subscription":null,"region":null}"#;
    for body in [sparse, nulls] {
        let AdminRequest::Manage { account, .. } = send("POST", "/accounts", body).unwrap() else {
            panic!("no command");
        };
        assert_eq!(account, AccountId::from_idempotency_key("order-1"));
    }
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let untouched = PatchAccount::default;
    for (body, patch) in [
        ("{}", untouched()),
        (
            r#"{"plan":"starter"}"#,
            PatchAccount {
                plan: Some("starter".to_owned()),
                ..untouched()
            },
        ),
        (
            r#"{"name":null,"email":"x@y.z"}"#,
            PatchAccount {
                name: Some(Edit::Remove),
                email: Some(Edit::Set("x@y.z".to_owned())),
                ..untouched()
            },
        ),
        (
            r#"{"status":"active"}"#,
            PatchAccount {
                status: Some(Status::Active),
                ..untouched()
            },
        ),
        (
            r#"{"status":"suspended","reason":"invoice 7"}"#,
            PatchAccount {
                status: Some(Status::Suspended {
                    reason: Some("invoice 7".to_owned()),
                }),
                ..untouched()
            },
        ),
        (
            r#"{"status":"suspended","reason":null}"#,
            PatchAccount {
                status: Some(Status::Suspended { reason: None }),
                ..untouched()
            },
        ),
        (
            r#"{"flags":null}"#,
            PatchAccount {
                dismisses_flags: true,
                ..untouched()
            },
        ),
        (
            r#"{"subscription":{"status":"lapsed","billing_day":1}}"#,
            PatchAccount {
                subscription: Some(StatusChange::Lapsed),
                billing_day: Some(1),
                ..untouched()
            },
        ),
    ] {
        assert_eq!(patched(body), patch, "{body}");
    }
}

#[test]
fn a_grant_is_read_to_the_last_credit() {
    let grant = |body| command("POST", "/accounts/acme/grants", body);
    let plain = NewGrant {
        pool: "credits".to_owned(),
        amount: Credits::MAX,
        source: Source::Extra,
        expires_at: None,
        reference: None,
    };
    assert_eq!(
        grant(r#"{"pool":"credits","amount":9007199254740991,"source":"extra"}"#),
        Command::Grant(plain.clone())
    );
    assert_eq!(
        grant(
            r#"{"pool":"credits","amount":1,"source":"subscription",
                "expires_at":"2026-12-01T01:00:00+01:00","reference":"in_7"}"#
        ),
        Command::Grant(NewGrant {
            amount: Credits::new(1).unwrap(),
            source: Source::Subscription,
            expires_at: Timestamp::parse_rfc3339("2026-12-01T00:00:00Z"),
            reference: Some("in_7".to_owned()),
            ..plain
        })
    );
}

#[test]
fn a_top_up_is_set_within_its_bounds() {
    let credits = |amount| Credits::new(amount).unwrap();
    let set = |body| command("PUT", "/accounts/acme/top-up", body);
    let on = |threshold, target, cap: Option<&str>| {
        Command::SetTopUp(TopUpSettings {
            is_on: true,
            threshold: credits(threshold),
            target: credits(target),
            monthly_cap: cap.map(|cap| Money::parse(cap).unwrap()),
        })
    };
    for (body, expected) in [
        (
            r#"{"enabled":true,"threshold":100,"target":1100}"#,
            on(100, 1_100, None),
        ),
        (
            r#"{"enabled":true,"threshold":99000,"target":100000,"monthly_cap":"200.00 EUR"}"#,
            on(99_000, 100_000, Some("200.00 EUR")),
        ),
        (
            r#"{"enabled":true,"threshold":500,"target":1500,"monthly_cap":null}"#,
            on(500, 1_500, None),
        ),
    ] {
        assert_eq!(set(body), expected, "{body}");
    }
    let wrong = |body: &str| complaint(send("PUT", "/accounts/acme/top-up", body));
    for (body, field, detail) in [
        (
            "{}",
            "enabled",
            "enabled: expected true or false, found nothing",
        ),
        (
            r#"{"enabled":1}"#,
            "enabled",
            "enabled: expected true or false, found 1",
        ),
        (
            r#"{"enabled":true,"target":2000}"#,
            "threshold",
            "threshold: expected a whole number from 100 to 99000, found nothing",
        ),
        (
            r#"{"enabled":true,"threshold":99,"target":2000}"#,
            "threshold",
            "threshold: expected a whole number from 100 to 99000, found 99",
        ),
        (
            r#"{"enabled":true,"threshold":1e3,"target":2000}"#,
            "threshold",
            "threshold: expected a whole number from 100 to 99000, found 1e3",
        ),
        (
            r#"{"enabled":true,"threshold":100,"target":100001}"#,
            "target",
            "target: expected a whole number from 1100 to 100000, found 100001",
        ),
        (
            r#"{"enabled":true,"threshold":500,"target":1499}"#,
            "target",
            "target: expected 1500 or more, 1000 above the threshold, found 1499",
        ),
        (
            r#"{"enabled":true,"threshold":500,"target":1500,"monthly_cap":200}"#,
            "monthly_cap",
            "monthly_cap: expected an amount such as \"200.00 USD\", found 200",
        ),
    ] {
        assert_eq!(
            wrong(body),
            (Some(field.to_owned()), detail.to_owned()),
            "{body}"
        );
    }
    let (field, _) = complaint(send(
        "POST",
        "/accounts/acme/top-up/retry",
        r#"{"now":true}"#,
    ));
    assert_eq!(field.as_deref(), Some("now"));
}

#[test]
fn an_adjustment_is_read_to_the_last_credit() {
    let adjusted = |amount: &str| {
        let body = format!(r#"{{"pool":"credits","amount":{amount},"reason":"ticket 7"}}"#);
        match command("POST", "/accounts/acme/adjustments", &body) {
            Command::Adjust(adjustment) => adjustment,
            other => panic!("{other:?}"),
        }
    };
    for (amount, takes_away, credits) in [
        ("1", false, 1),
        ("-1", true, 1),
        ("9007199254740991", false, Credits::MAX.get()),
        ("-9007199254740991", true, Credits::MAX.get()),
    ] {
        let expected = Adjustment {
            pool: "credits".to_owned(),
            credits: Credits::new(credits).unwrap(),
            takes_away,
            reason: "ticket 7".to_owned(),
        };
        assert_eq!(adjusted(amount), expected, "{amount}");
    }
    for amount in [
        "0",
        "-0",
        "+1",
        "--1",
        "1.0",
        "1e2",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551616",
        "\"1\"",
        "null",
    ] {
        let body = format!(r#"{{"pool":"credits","amount":{amount},"reason":"x"}}"#);
        let refused = send("POST", "/accounts/acme/adjustments", &body);
        // A plus sign is no JSON at all, nor are two minus signs.
        let is_json = !amount.starts_with('+') && !amount.starts_with("--");
        let (field, detail) = complaint(refused);
        assert_eq!(field.as_deref(), is_json.then_some("amount"), "{detail}");
    }
}

#[test]
fn the_end_of_a_call_is_told_by_its_id() {
    let settle = |told| Word::Settle(told);
    let release = |reason: Option<&str>| Word::Release {
        reason: reason.map(str::to_owned),
    };
    let credits = |amount| Told::Credits(Credits::new(amount).unwrap());
    let value = |text| Told::Value(Quantity::parse(text).unwrap());
    for (verb, body, word) in [
        ("settle", "", settle(Told::Hold)),
        ("settle", "{}", settle(Told::Hold)),
        ("settle", r#"{"credits":0}"#, settle(credits(0))),
        ("settle", r#"{"credits":15}"#, settle(credits(15))),
        ("settle", r#"{"value":180}"#, settle(value("180"))),
        ("settle", r#"{"value":0.125}"#, settle(value("0.125"))),
        ("release", "", release(None)),
        ("release", "{}", release(None)),
        ("release", r#"{"reason":null}"#, release(None)),
        ("release", r#"{"reason":"noise"}"#, release(Some("noise"))),
    ] {
        for idempotency_key in [None, Some("order-1")] {
            let sent = Sent {
                idempotency_key,
                content_type: (!body.is_empty()).then_some("application/json"),
                body: body.as_bytes(),
                ..JSON
            };
            let request = read("POST", &format!("/calls/call_a_b_7/{verb}"), &sent);
            let Ok(AdminRequest::Manage {
                account: id,
                manage,
                region: None,
            }) = request
            else {
                panic!("{verb} {body}: {request:?}");
            };
            assert_eq!(id, account("a_b"));
            assert_eq!(manage.idempotency.is_some(), idempotency_key.is_some());
            let call = CallNumber::new(7).unwrap();
            let word = word.clone();
            assert_eq!(manage.command, Command::EndCall { call, word }, "{body}");
        }
    }
    assert_eq!(
        read("GET", "/calls/call_a_b_7", &Sent::default()),
        Ok(about(
            account("a_b"),
            Command::ShowCall(CallNumber::new(7).unwrap()),
            None
        ))
    );
}

#[test]
fn a_call_id_of_another_shape_names_no_call() {
    for call in [
        "7",
        "call_7",
        "call_acme",
        "call_acme_",
        "call_acme_07",
        "call_acme_-1",
        "call_acme_1.0",
        "call_acme_9007199254740992",
        "call_acme_18446744073709551616",
        "call__1",
        "CALL_acme_1",
        "key_acme_1",
        "call_ac.me_1",
        "call_acme_1%20",
    ] {
        for (method, after) in [("GET", ""), ("POST", "/settle"), ("POST", "/release")] {
            let path = format!("/calls/{call}{after}");
            let (field, detail) = complaint(read(method, &path, &Sent::default()));
            assert_eq!(field.as_deref(), Some("call"), "{path} {detail}");
        }
    }
}

#[test]
fn the_origins_token_ends_calls_and_nothing_else() {
    for (method, template, _, _) in ENDPOINTS {
        let path = template
            .replace("{id}", "acme")
            .replace("{key}", "key_acme_1")
            .replace("{call}", "call_acme_1");
        let path = format!("/_tollgate/v1{path}");
        let code_for = |who| Endpoint::find(method, &path, Ok(who)).err().map(|e| e.code);
        let ends = path.ends_with("/settle") || path.ends_with("/release");
        let by_stripe = path.ends_with("/stripe/webhook");
        let is_open =
            ends || by_stripe || path.ends_with("/healthz") || path.ends_with("/openapi.json");
        let refused = (!is_open).then_some(Code::OutOfScope);
        assert_eq!(code_for(Operator::Origin), refused, "{method} {path}");
        assert_eq!(code_for(Operator::Admin), None, "{method} {path}");
        let reads = method == "GET";
        let refused = (!reads && !by_stripe).then_some(Code::OutOfScope);
        assert_eq!(code_for(Operator::ReadOnly), refused, "{method} {path}");
    }
}

#[test]
fn a_key_needs_no_more_than_to_be_asked_for() {
    for (body, name) in [
        ("", None),
        ("{}", None),
        (r#"{"name":null}"#, None),
        (r#"{"name":"ci"}"#, Some("ci".to_owned())),
    ] {
        let sent = Sent {
            idempotency_key: None,
            content_type: (!body.is_empty()).then_some("application/json; charset=utf-8"),
            body: body.as_bytes(),
            ..JSON
        };
        assert_eq!(
            read("POST", "/accounts/acme/keys", &sent),
            Ok(AdminRequest::IssueSecret {
                account: account("acme"),
                purpose: Purpose::Create(NewKey {
                    name,
                    ..NewKey::default()
                }),
                idempotency: None,
            }),
            "{body}"
        );
    }
}

/// What a secret is asked for, as it reaches the object.
#[test]
fn a_key_issued_before_tollgate_is_imported_by_its_digest_and_never_repeated() {
    let policy = format!(
        "{}\n[imported_keys]\npattern = \"sk_[0-9a-f]{{16}}\"",
        include_str!("../../policy.toml")
    );
    let policy = Policy::parse(&policy).unwrap();
    let import = |body: &str| {
        let body = body.as_bytes();
        let path = "/_tollgate/v1/accounts/acme/keys";
        Endpoint::find("POST", path, Ok(Operator::Admin))?.read(
            &Sent { body, ..JSON },
            &secrets(true),
            policy.imported_keys.as_ref(),
        )
    };
    let told = import(r#"{"name":"shop","secret":"sk_0123456789abcdef"}"#).unwrap();
    let AdminRequest::ImportKey {
        account,
        import: told,
        idempotency,
    } = told
    else {
        panic!("{told:?}");
    };
    let expected = ImportKey {
        new: NewKey {
            name: Some("shop".to_owned()),
            ..NewKey::default()
        },
        digest: SecretDigest::of(b"sk_0123456789abcdef"),
    };
    assert_eq!((account.as_str(), &told), ("acme", &expected));
    assert!(idempotency.is_some());
    let on_the_wire: Command =
        protocol::decode(&protocol::encode(&Command::ImportKey(told))).unwrap();
    assert_eq!(on_the_wire, Command::ImportKey(expected));

    for body in [
        r#"{"secret":"sk_0123456789abcde"}"#,
        r#"{"secret":"SK_0123456789ABCDEF"}"#,
        r#"{"secret":["sk_0123456789abcdef"]}"#,
        r#"{"secret":123456789}"#,
        r#"{"secret":""}"#,
    ] {
        let (field, detail) = complaint(import(body));
        assert_eq!(field.as_deref(), Some("secret"), "{body}");
        assert!(!detail.contains("123456789"), "{detail}");
    }
    // A client that writes every field has none to import.
    let none = import(r#"{"secret":null}"#).unwrap();
    assert!(matches!(none, AdminRequest::IssueSecret { .. }));
}

fn purpose(method: &str, path: &str, body: &str) -> Purpose {
    match send(method, path, body).unwrap() {
        AdminRequest::IssueSecret { purpose, .. } => {
            let command = purpose.clone().command(SecretDigest::of(b"secret"));
            let told: Command = protocol::decode(&protocol::encode(&command)).unwrap();
            assert_eq!(told, command, "on the wire");
            purpose
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_issued_and_changed_with_all_that_it_can_have() {
    let body = r#"{
        "name": "shop", "expires_at": "2026-12-01T01:00:00+01:00", "budget": 9007199254740991,
        "limits": {
            "requests_per_minute": 4294967295, "requests_per_day": "unlimited",
            "requests_in_flight": null
        },
        "scope": ["POST /search", "GET /tracks/*"]
    }"#;
    let limits = KeyLimits {
        requests_per_minute: Some(Limit::Of(u32::MAX)),
        requests_per_day: Some(Limit::Unlimited),
        ..KeyLimits::default()
    };
    let scope = || Scope::new(vec!["POST /search".to_owned(), "GET /tracks/*".to_owned()]);
    let expires_at = Timestamp::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    assert_eq!(
        purpose("POST", "/accounts/acme/keys", body),
        Purpose::Create(NewKey {
            name: Some("shop".to_owned()),
            limits: Some(limits),
            scope: Some(scope()),
            expires_at: Some(expires_at),
            budget: Some(Credits::MAX),
        })
    );
    let nulls = r#"{"name":null,"limits":null,"scope":null,"expires_at":null,"budget":null}"#;
    assert_eq!(
        purpose("POST", "/accounts/acme/keys", nulls),
        Purpose::Create(NewKey::default())
    );
    for (body, patch) in [
        ("{}", PatchKey::default()),
        (
            body,
            PatchKey {
                name: Some(Edit::Set("shop".to_owned())),
                limits: Some(Edit::Set(limits)),
                scope: Some(Edit::Set(scope())),
                expires_at: Some(Edit::Set(expires_at)),
                budget: Some(Edit::Set(Credits::MAX)),
            },
        ),
        (
            nulls,
            PatchKey {
                name: Some(Edit::Remove),
                limits: Some(Edit::Remove),
                scope: Some(Edit::Remove),
                expires_at: Some(Edit::Remove),
                budget: Some(Edit::Remove),
            },
        ),
        (
            r#"{"limits":{}}"#,
            PatchKey {
                limits: Some(Edit::Set(KeyLimits::default())),
                ..PatchKey::default()
            },
        ),
    ] {
        let key = KeyNumber::new(7);
        assert_eq!(
            command("PATCH", "/accounts/acme/keys/key_acme_7", body),
            Command::PatchKey { key, patch },
            "{body}"
        );
    }
    for seconds in [0, 1, 86_400, 2_592_000] {
        let body = format!(r#"{{"overlap_seconds":{seconds}}}"#);
        assert_eq!(
            purpose("POST", "/accounts/acme/keys/key_acme_7/rotate", &body),
            Purpose::Rotate(RotateKey {
                key: KeyNumber::new(7),
                overlap: Span::from_seconds(seconds),
            })
        );
    }
}

#[test]
fn a_wrong_field_of_a_key_is_named_in_post_and_patch() {
    let many: Vec<_> = (0..51).map(|n| format!("\"GET /{n}\"")).collect();
    let many = format!("[{}]", many.join(","));
    let long = format!("[\"GET /{}\"]", "x".repeat(300));
    for (field, value, named, found) in [
        ("limits", "7", "limits", "found 7"),
        ("limits", "\"unlimited\"", "limits", "found \"unlimited\""),
        ("limits", "[]", "limits", "found a list"),
        ("limits", r#"{"jobs":1}"#, "limits.jobs", "unknown field"),
        (
            "limits",
            r#"{"account_requests_per_minute":1}"#,
            "limits.account_requests_per_minute",
            "unknown field",
        ),
        (
            "limits",
            r#"{"jobs_open":1,"jobs_open":2}"#,
            "limits.jobs_open",
            "found twice",
        ),
        (
            "limits",
            r#"{"requests_per_minute":0}"#,
            "limits.requests_per_minute",
            "found 0",
        ),
        (
            "limits",
            r#"{"requests_per_day":-1}"#,
            "limits.requests_per_day",
            "found -1",
        ),
        (
            "limits",
            r#"{"requests_per_day":1.5}"#,
            "limits.requests_per_day",
            "found 1.5",
        ),
        (
            "limits",
            r#"{"requests_in_flight":4294967296}"#,
            "limits.requests_in_flight",
            "from 1 to 4294967295, \"unlimited\", or null",
        ),
        (
            "limits",
            r#"{"requests_in_flight":"Unlimited"}"#,
            "limits.requests_in_flight",
            "found \"Unlimited\"",
        ),
        ("scope", "\"POST /search\"", "scope", "found \"POST"),
        ("scope", "{}", "scope", "found an object"),
        ("scope", "[]", "scope", "a list of 1 to 50 items"),
        ("scope", &many, "scope", "a list of 1 to 50 items"),
        ("scope", "[\"GET /\",7]", "scope[1]", "found 7"),
        ("scope", "[null]", "scope[0]", "found null"),
        ("scope", "[[\"GET /\"]]", "scope[0]", "found a list"),
        ("scope", "[\"GET /\\n\"]", "scope[0]", "found \"GET /\\n\""),
        ("scope", &long, "scope[0]", "found \"GET /xxx"),
        (
            "scope",
            "[\"GET /\",\"GET /a\",\"GET \\u002f\"]",
            "scope[2]",
            "each route once",
        ),
        (
            "expires_at",
            "\"tomorrow\"",
            "expires_at",
            "found \"tomorrow\"",
        ),
        ("expires_at", "1780000000", "expires_at", "found 1780000000"),
        (
            "expires_at",
            "\"2026-12-01\"",
            "expires_at",
            "found \"2026-12-01\"",
        ),
        ("budget", "-1", "budget", "found -1"),
        ("budget", "1.0", "budget", "found 1.0"),
        ("budget", "\"7\"", "budget", "found \"7\""),
        (
            "budget",
            "9007199254740992",
            "budget",
            "found 9007199254740992",
        ),
        ("budget", r#"{"credits":1}"#, "budget", "found an object"),
        ("name", "7", "name", "found 7"),
        ("overlap_seconds", "7", "overlap_seconds", "unknown field"),
        ("id", "\"key_acme_9\"", "id", "unknown field"),
    ] {
        let body = format!("{{\"{field}\":{value}}}");
        for (method, path) in [
            ("POST", "/accounts/acme/keys"),
            ("PATCH", "/accounts/acme/keys/key_acme_1"),
        ] {
            let (told, detail) = complaint(send(method, path, &body));
            assert_eq!(told.as_deref(), Some(named), "{body} {detail}");
            assert!(detail.contains(found), "{body} {detail}");
        }
    }
    for (body, found) in [
        ("{}", "found nothing"),
        (r#"{"overlap_seconds":null}"#, "found null"),
        (r#"{"overlap_seconds":-1}"#, "found -1"),
        (r#"{"overlap_seconds":2592001}"#, "from 0 to 2592000"),
        (r#"{"overlap_seconds":"60"}"#, "found \"60\""),
    ] {
        let refused = send("POST", "/accounts/acme/keys/key_acme_1/rotate", body);
        let (field, detail) = complaint(refused);
        assert_eq!(field.as_deref(), Some("overlap_seconds"), "{detail}");
        assert!(detail.contains(found), "{detail}");
    }
}

#[test]
fn keys_are_asked_for_page_by_page() {
    let asked = |query: &str| {
        let query = Some(query);
        let sent = Sent {
            query,
            ..Sent::default()
        };
        read("GET", "/accounts/acme/keys", &sent)
    };
    let keys = |limit, after: Option<u32>| {
        let after = after.map(KeyNumber::new);
        Ok(about(
            account("acme"),
            Command::Keys(KeysQuery { limit, after }),
            None,
        ))
    };
    for (query, expected) in [("", keys(50, None)), ("limit=1", keys(1, None))] {
        assert_eq!(asked(query), expected, "{query}");
    }
    let next = sealed(Listing::Keys, "7");
    assert_eq!(asked(&format!("limit=500&next={next}")), keys(500, Some(7)));
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("next=", "next"),
        ("next=key_acme_7", "next"),
        ("next=1&next=2", "next"),
        ("offset=1", "offset"),
    ] {
        assert_eq!(complaint(asked(query)).0.as_deref(), Some(field), "{query}");
    }
}

#[test]
fn a_wrong_field_is_named_with_what_was_expected_and_found() {
    let long = "x".repeat(201);
    let long_name = format!(r#"{{"plan":"free","name":"{long}"}}"#);
    let long_email = format!(r#"{{"plan":"free","email":"{}@b"}}"#, "x".repeat(253));
    let long_field = format!(r#"{{"{}":1}}"#, "y".repeat(60_000));
    let grant = |more: &str| format!(r#"{{"pool":"credits",{more}}}"#);
    for (method, path, body, field, found) in [
        ("POST", "/accounts", "{}", "plan", "found nothing"),
        (
            "POST",
            "/accounts",
            r#"{"plan":null}"#,
            "plan",
            "found null",
        ),
        ("POST", "/accounts", r#"{"plan":7}"#, "plan", "found 7"),
        ("POST", "/accounts", r#"{"plan":""}"#, "plan", "found \"\""),
        (
            "POST",
            "/accounts",
            r#"{"plan":["free"]}"#,
            "plan",
            "found a list",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","plan":"pro"}"#,
            "plan",
            "found twice",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","\u0070lan":"pro"}"#,
            "plan",
            "found twice",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","Plan":"pro"}"#,
            "Plan",
            "unknown field",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","status":"active"}"#,
            "status",
            "unknown field",
        ),
        (
            "POST",
            "/accounts",
            &long_field,
            &format!("{}…", "y".repeat(64)),
            "unknown field",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","id":"a b"}"#,
            "id",
            "found \"a b\"",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","id":true}"#,
            "id",
            "found true",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","external_id":" 1"}"#,
            "external_id",
            "found \" 1\"",
        ),
        ("POST", "/accounts", &long_name, "name", "found \"xxx"),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","name":"a\u0000b"}"#,
            "name",
            "found \"a",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","name":"\ud800"}"#,
            "name",
            "found \"\\ud800\"",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","email":"nobody"}"#,
            "email",
            "found \"nobody\"",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","email":"@b"}"#,
            "email",
            "found \"@b\"",
        ),
        ("POST", "/accounts", &long_email, "email", "found \"xxx"),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","region":"mars"}"#,
            "region",
            "found \"mars\"",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","subscription":"active"}"#,
            "subscription",
            "found \"active\"",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","subscription":{"billing_day":32}}"#,
            "subscription.billing_day",
            "found 32",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","subscription":{"status":"active","status":"active"}}"#,
            "subscription.status",
            "found twice",
        ),
        (
            "POST",
            "/accounts",
            r#"{"plan":"free","subscription":{"day":1}}"#,
            "subscription.day",
            "unknown field",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"plan":null}"#,
            "plan",
            "found null",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"status":null}"#,
            "status",
            "found null",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"status":"closed"}"#,
            "status",
            "found \"closed\"",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"reason":"x"}"#,
            "reason",
            "found \"x\"",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"status":"active","reason":"x"}"#,
            "reason",
            "found \"x\"",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"subscription":null}"#,
            "subscription",
            "found null",
        ),
        (
            "PATCH",
            "/accounts/acme",
            r#"{"id":"other"}"#,
            "id",
            "unknown field",
        ),
        ("PATCH", "/accounts/a.b", "{}", "id", "in the path"),
        ("GET", "/accounts/a%20b", "", "id", "in the path"),
        (
            "POST",
            "/accounts/acme/keys",
            r#"{"name":""}"#,
            "name",
            "found \"\"",
        ),
        (
            "POST",
            "/accounts/acme/keys",
            r#"{"secret":"x"}"#,
            "secret",
            "the policy has no [imported_keys]",
        ),
        (
            "PATCH",
            "/accounts/acme/keys/key_acme_7",
            r#"{"secret":"x"}"#,
            "secret",
            "unknown field",
        ),
        ("DELETE", "/accounts/acme/keys/7", "", "key", "in the path"),
        (
            "DELETE",
            "/accounts/acme/keys/key_acme_07",
            "",
            "key",
            "in the path",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            "{}",
            "amount",
            "found nothing",
        ),
        (
            "POST",
            "/accounts/acme/adjustments",
            r#"{"pool":"credits","amount":1}"#,
            "reason",
            "found nothing",
        ),
        (
            "POST",
            "/accounts/acme/adjustments",
            r#"{"amount":1,"reason":"x"}"#,
            "pool",
            "found nothing",
        ),
        (
            "POST",
            "/accounts/acme/adjustments",
            r#"{"pool":"credits","amount":1,"reason":"x","source":"extra"}"#,
            "source",
            "unknown field",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"credits":-1}"#,
            "credits",
            "found -1",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"credits":1.5}"#,
            "credits",
            "found 1.5",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"credits":1,"credits":1}"#,
            "credits",
            "found twice",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"credits":1,"value":1}"#,
            "value",
            "either credits or value",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"value":"180"}"#,
            "value",
            "found \"180\"",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"credits":null}"#,
            "credits",
            "found null",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"value":null}"#,
            "value",
            "found null",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"value":1e3}"#,
            "value",
            "found 1e3",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"value":0.1234}"#,
            "value",
            "found 0.1234",
        ),
        (
            "POST",
            "/calls/call_acme_1/settle",
            r#"{"reason":"x"}"#,
            "reason",
            "unknown field",
        ),
        (
            "POST",
            "/calls/call_acme_1/release",
            r#"{"reason":""}"#,
            "reason",
            "found \"\"",
        ),
        (
            "POST",
            "/calls/call_acme_1/release",
            r#"{"credits":1}"#,
            "credits",
            "unknown field",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            r#"{"amount":1,"source":"extra"}"#,
            "pool",
            "found nothing",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            &grant(r#""amount":1"#),
            "source",
            "found nothing",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            &grant(r#""amount":1,"source":"gift""#),
            "source",
            "found \"gift\"",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            &grant(r#""amount":1,"source":"extra","expires_at":"2026-12-01""#),
            "expires_at",
            "found \"2026-12-01\"",
        ),
        (
            "POST",
            "/accounts/acme/grants",
            &grant(r#""amount":1,"source":"extra","expires_at":1780000000"#),
            "expires_at",
            "found 1780000000",
        ),
    ] {
        let (named, detail) = complaint(send(method, path, body));
        assert_eq!(named.as_deref(), Some(field), "{body} {detail}");
        assert!(detail.contains(found), "{body} {detail}");
        assert!(detail.len() < 500, "{detail}");
    }
}

#[test]
fn an_amount_is_a_whole_number_above_zero_that_json_carries() {
    for amount in [
        "0",
        "-1",
        "-0",
        "1.0",
        "1.5",
        "1e2",
        "1E400",
        "9007199254740992",
        "18446744073709551616",
        "\"1\"",
        "null",
        "true",
        "[1]",
        "{}",
    ] {
        let body = format!(r#"{{"pool":"credits","amount":{amount},"source":"extra"}}"#);
        let (field, detail) = complaint(send("POST", "/accounts/acme/grants", &body));
        assert_eq!(field.as_deref(), Some("amount"), "{amount} {detail}");
        assert!(
            detail.starts_with("amount: expected a whole number from 1 to 9007199254740991, found"),
            "{detail}"
        );
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    let deep = "[".repeat(60_000);
    for body in [
        "",
        " ",
        "null",
        "7",
        "\"plan\"",
        "[]",
        "[{}]",
        "{",
        "{}}",
        "{} {}",
        "{'plan':'free'}",
        "{plan:1}",
        "{\"plan\":\"free\",}",
        "\u{feff}{}",
        "{\"amount\":01}",
        &deep,
    ] {
        for (method, path) in [
            ("POST", "/accounts"),
            ("PATCH", "/accounts/acme"),
            ("POST", "/accounts/acme/grants"),
        ] {
            let (field, detail) = complaint(send(method, path, body));
            assert_eq!(field, None, "{body} {detail}");
            assert!(detail.starts_with("the body must be"), "{detail}");
        }
    }
    let body = b"{\"plan\":\"\xff\"}";
    let (_, detail) = complaint(read("POST", "/accounts", &Sent { body, ..JSON }));
    assert_eq!(detail, "the body must be JSON in UTF-8");
}

#[test]
fn a_body_says_that_it_is_json() {
    let sent = |content_type| Sent {
        content_type,
        body: br#"{"plan":"free"}"#,
        ..JSON
    };
    for good in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=\"UTF-8\"",
    ] {
        assert!(
            read("POST", "/accounts", &sent(Some(good))).is_ok(),
            "{good}"
        );
    }
    for bad in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=latin1"),
        Some("application/json; charset"),
        Some("application/json, application/json"),
        Some("application/problem+json"),
    ] {
        let (field, _) = complaint(read("POST", "/accounts", &sent(bad)));
        assert_eq!(field.as_deref(), Some("Content-Type"), "{bad:?}");
    }
}

#[test]
fn a_body_is_read_up_to_its_limit() {
    let padded = |length: usize| r#"{"plan":"free"}"#.to_owned() + &" ".repeat(length - 15);
    assert!(send("POST", "/accounts", &padded(BODY_MAX)).is_ok());
    let refused = send("POST", "/accounts", &padded(BODY_MAX + 1)).unwrap_err();
    assert_eq!(refused.code, Code::BodyTooLarge);
}

#[test]
fn what_opens_accounts_or_makes_credits_needs_an_idempotency_key() {
    let grant = br#"{"pool":"credits","amount":1,"source":"extra"}"#.as_slice();
    let open = br#"{"plan":"free"}"#.as_slice();
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    let adjust = br#"{"pool":"credits","amount":-1,"reason":"x"}"#.as_slice();
    for (path, body, required) in [
        ("/accounts", open, true),
        ("/accounts/acme/grants", grant, true),
        ("/accounts/acme/adjustments", adjust, true),
        ("/calls/call_acme_1/settle", b"{}".as_slice(), false),
        ("/calls/call_acme_1/release", b"{}".as_slice(), false),
        ("/accounts/acme/keys", b"{}".as_slice(), false),
        (
            "/accounts/acme/keys/key_acme_1/rotate",
            br#"{"overlap_seconds":0}"#.as_slice(),
            false,
        ),
    ] {
        let sent = |idempotency_key| Sent {
            idempotency_key,
            body,
            ..JSON
        };
        for good in ["k", "order-1", "\"8e03978e-40d5\"", &longest] {
            assert!(read("POST", path, &sent(Some(good))).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a, a", "ä", "a\t", &too_long] {
            let (field, _) = complaint(read("POST", path, &sent(Some(bad))));
            assert_eq!(field.as_deref(), Some("Idempotency-Key"), "{bad:?}");
        }
        let without = read("POST", path, &sent(None));
        if required {
            let (field, _) = complaint(without);
            assert_eq!(field.as_deref(), Some("Idempotency-Key"), "{path}");
        } else {
            assert!(without.is_ok(), "{path}");
        }
    }
}

#[test]
fn a_request_is_the_same_by_method_path_and_body() {
    let fingerprint = |path: &str, key, body: &str| {
        let sent = Sent {
            idempotency_key: Some(key),
            body: body.as_bytes(),
            ..JSON
        };
        match read("POST", path, &sent).unwrap() {
            AdminRequest::IssueSecret { idempotency, .. } => idempotency.unwrap(),
            AdminRequest::Manage { manage, .. } => manage.idempotency.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let one = fingerprint("/accounts/acme/keys", "k1", "{}");
    // Kept with entries for good: every later release must find it again.
    assert_eq!(one.key, <[u8; 32]>::from(Sha256::digest("k1")));
    assert_eq!(
        one.request,
        <[u8; 32]>::from(Sha256::digest("POST\n/_tollgate/v1/accounts/acme/keys\n{}"))
    );
    assert_eq!(fingerprint("/accounts/acme/keys", "k1", "{}"), one);
    let other_body = fingerprint("/accounts/acme/keys", "k1", "{ }");
    assert_eq!(other_body.key, one.key);
    assert_ne!(other_body.request, one.request);
    let other_path = fingerprint("/accounts/other/keys", "k1", "{}");
    assert_ne!(other_path.request, one.request);
    assert_ne!(fingerprint("/accounts/acme/keys", "k2", "{}").key, one.key);
    let grant = r#"{"pool":"credits","amount":1,"source":"promo"}"#;
    let granted = fingerprint("/accounts/acme/grants", "k1", grant);
    assert_eq!(granted.key, one.key);
}

#[test]
fn a_key_of_another_account_is_not_found_here() {
    for key in ["key_other_1", "key_acme_1_1", "key_ACME_1"] {
        let path = format!("/accounts/acme/keys/{key}");
        let refused = read("DELETE", &path, &Sent::default()).unwrap_err();
        assert_eq!(refused.code, Code::NotFound, "{key}");
    }
}

#[test]
fn a_parameter_that_means_nothing_is_refused() {
    for (method, path, query, field) in [
        ("GET", "/plans", "a=1", "a"),
        ("GET", "/status", "limit=5", "limit"),
        ("GET", "/status", "from=yesterday", "from"),
        (
            "GET",
            "/status",
            "from=2026-12-01T00:00:00Z&to=2026-12-01T00:00:00Z",
            "from",
        ),
        ("GET", "/accounts/acme", "verbose", "verbose"),
        ("GET", "/accounts/acme/usage", "limit=0", "limit"),
        ("GET", "/accounts/acme/usage", "from=x", "from"),
        ("GET", "/accounts/acme/usage/summary", "by=year", "by"),
        (
            "DELETE",
            "/accounts/acme/keys/key_acme_1",
            "force=1",
            "force",
        ),
    ] {
        let sent = Sent {
            query: Some(query),
            ..Sent::default()
        };
        let (named, _) = complaint(read(method, path, &sent));
        assert_eq!(named.as_deref(), Some(field), "{path}?{query}");
    }
}

fn path_of_something() -> impl Strategy<Value = (&'static str, String)> {
    let endpoints = ENDPOINTS.map(|(method, template, _, _)| {
        let path = template
            .replace("{id}", "acme")
            .replace("{key}", "key_acme_1")
            .replace("{call}", "call_acme_1");
        (method, path)
    });
    prop::sample::select(endpoints.to_vec())
}

/// JSON of the right shape with anything in it.
fn body_of_something() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "id",
        "external_id",
        "name",
        "email",
        "plan",
        "subscription",
        "region",
        "status",
        "reason",
        "pool",
        "amount",
        "source",
        "expires_at",
        "reference",
        "billing_day",
        "credits",
        "value",
        "limits",
        "scope",
        "budget",
        "overlap_seconds",
    ]);
    let value = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<i128>().prop_map(|number| number.to_string()),
        "[0-9eE.+-]{1,20}",
        "\"[0-9TZ:+-]{0,30}\"",
        "[\\[\\]{}\",:]{0,10}",
        Just(r#"{"status":"active","billing_day":99}"#.to_owned()),
        Just(r#"{"requests_per_day":"unlimited","jobs_open":99999999999}"#.to_owned()),
        prop::collection::vec(any::<String>(), 0..4)
            .prop_map(|items| serde_json::to_string(&items).unwrap()),
        Just("null".to_owned()),
    ];
    prop::collection::vec((name, value), 0..5).prop_map(|members| {
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    })
}

proptest! {
    #[test]
    fn no_body_makes_the_reader_fail_but_with_a_problem(
        (method, path) in path_of_something(),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), body_of_something()],
        query in "[a-z0-9=&%]{0,20}",
        idempotency_key in prop::option::of(any::<String>()),
    ) {
        let sent = Sent {
            query: Some(&query),
            idempotency_key: idempotency_key.as_deref(),
            body: &body,
            ..JSON
        };
        for sent in [sent, Sent { query: None, idempotency_key: Some("k"), ..sent }] {
            if let Err(problem) = read(method, &path, &sent) {
                prop_assert!(
                    matches!(problem.code, Code::BadRequest | Code::BodyTooLarge),
                    "{:?}", problem
                );
            }
        }
    }

    #[test]
    fn no_path_makes_the_reader_fail_but_with_a_problem(
        method in "[A-Z]{0,7}", path in any::<String>(), under in "[a-z/{}_0-9%]{0,40}",
    ) {
        for path in [path, format!("/_tollgate/v1/{under}"), format!("/_tollgate/v1/accounts/{under}")] {
            if let Ok(endpoint) = Endpoint::find(&method, &path, Ok(Operator::Admin)) {
                let _ = endpoint.read(&JSON, &secrets(true), None);
            }
        }
    }
}
