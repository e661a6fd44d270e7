//! That no page goes on with a cursor that was not handed out for it.

use super::*;
use crate::{
    admin::accounts,
    cursor::Listing,
    directory::{Filter, Page, Position},
    export::{ExportPlace, unfinished},
    id::{AccountId, KeyNumber},
    ledger_page::{LedgerCursor, LedgerPage},
    time::Timestamp,
};

#[test]
fn every_page_goes_on_only_with_a_cursor_of_its_own_list_and_account_as_it_was_handed_out() {
    let document = document();
    let paged = |parameters: &Value| {
        let parameters = parameters.as_array().into_iter().flatten();
        let mut names = parameters.map(|parameter| {
            let name = &followed(&document, parameter)["name"];
            name.as_str().unwrap().to_owned()
        });
        names.find(|name| ["next", "cursor"].contains(&name.as_str()))
    };
    let mut pages = 0;
    for (method, path, operation) in operations(&document) {
        let Some(name) = paged(&operation["parameters"]) else {
            continue;
        };
        assert_eq!(method, "GET", "{path}");
        pages += 1;
        let list = path.trim_start_matches("/_tollgate/v1/accounts/{id}");
        let asked = |cursor: &str| ask(path, &format!("{name}={cursor}"));
        let good = cursor_of(list, "acme");
        assert_eq!(asked(&good), Ok(()), "{path}");

        let truncated = &good[..good.len() - 1];
        let cut_in_front = &good[4..];
        let last_byte_cut = &good[..good.len() - 2];
        let changed = (0..good.len()).step_by(7).map(|at| {
            let other = if &good[at..=at] == "Q" { "w" } else { "Q" };
            format!("{}{other}{}", &good[..at], &good[at + 1..])
        });
        let of_other_lists = LISTS.iter().filter(|other| **other != list);
        let of_other_lists = of_other_lists.map(|other| cursor_of(other, "acme"));
        let mut wrong: Vec<String> = changed.chain(of_other_lists).collect();
        wrong.extend(
            [
                truncated,
                cut_in_front,
                last_byte_cut,
                "",
                "7",
                "d7",
                "event_acme_7",
            ]
            .map(str::to_owned),
        );
        wrong.extend([
            "A".repeat(10_000),
            format!("{good}{good}"),
            format!("{good}%00"),
            "%FF%FE".to_owned(),
        ]);
        if path.contains("/accounts/") || !path.starts_with("/_tollgate") {
            wrong.push(cursor_of(list, "globex"));
        }
        for cursor in wrong {
            let problem = asked(&cursor).unwrap_err();
            assert_eq!(problem.status(), 400, "{path}?{name}={cursor}");
            let told: Value = serde_json::from_str(&problem.to_json("req_1")).unwrap();
            assert_eq!(told["field"], name, "{path}?{name}={cursor}: {told}");
        }
    }
    assert_eq!(pages, 12, "those of the customer's and the operator's");
    let other_filter = format!(
        "plan=free&cursor={}",
        cursor_of("/_tollgate/v1/accounts", "acme")
    );
    assert!(ask("/_tollgate/v1/accounts", &other_filter).is_err());
}

/// Every list that has pages, by the end of its path.
const LISTS: [&str; 8] = [
    "/_tollgate/v1/accounts",
    "/keys",
    "/usage",
    "/usage/summary",
    "/ledger",
    "/events",
    "/billing/history",
    "/export",
];

/// A cursor as it is handed out.
fn cursor_of(list: &str, account: &str) -> String {
    let secrets = secrets();
    let key_secret = &secrets.key_secret;
    let account = &AccountId::parse(account).unwrap();
    let next_of = |json: &str| {
        let page: Value = serde_json::from_str(json).unwrap();
        page["next"].as_str().unwrap().to_owned()
    };
    let cursors = Cursors {
        key_secret,
        account,
    };
    let sealed = |listing, ended| cursors.seal(listing, ended);
    match list {
        "/keys" => sealed(Listing::Keys, "7"),
        "/usage" => sealed(Listing::Usage, "7"),
        "/usage/summary" => sealed(Listing::UsageSummary, "d7"),
        "/events" => sealed(Listing::Events, &format!("event_{account}_7")),
        "/billing/history" => sealed(Listing::BillingHistory, "7"),
        "/ledger" => {
            let next = LedgerCursor {
                ends: 7,
                calls_below: 7,
                entries_below: 7,
                balances: Vec::new(),
                months: None,
            };
            let page = LedgerPage {
                lines: Vec::new(),
                next: Some(next),
                standing: None,
            };
            page.next(key_secret, account).unwrap()
        }
        "/export" => {
            let place = ExportPlace {
                as_of: Timestamp::from_seconds(1_000),
                entries: 7,
                calls: 9,
                keys_written: KeyNumber::new(2),
                rolled_from: 0,
                entries_written: 7,
                calls_written: 4,
                lines: 13,
                payments_before: 9,
                events_before: 3,
            };
            next_of(&unfinished(&place, key_secret, account))
        }
        "/_tollgate/v1/accounts" => {
            let next = Some(Position {
                text: String::new(),
                number: 7,
            });
            let page = Page {
                accounts: Vec::new(),
                next,
            };
            next_of(&accounts(page, Filter::default(), key_secret))
        }
        other => panic!("{other} has pages, and is not in the table"),
    }
}
