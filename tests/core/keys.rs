//! Keys: their own limits, scope, expiry and budget; rotation, revocation, suspension.

use serde_json::{Value, json};
use tollgate::{
    account::{Edit, KeyLimits, Limit, NewKey, PatchKey, RotateKey, Scope},
    id::KeyNumber,
    imported,
    key::SecretId,
    object::Imported,
    problem::Code,
    protocol::{
        Command, Document, ImportKey, KeysQuery, Manage, Page, Reply, Request, decode, encode,
    },
    time::Span,
};

use crate::{
    branch::{Branch, cost, digest_after, fingerprint},
    sold,
    statement::{moment, statement},
};

#[test]
fn a_keys_own_limits_tighten_and_widen_the_plans() {
    statement(
        "2026-11-02T10:00:00 | open tight        | 201
                             | key limits minute=1,day=2,jobs=2 | 201
                             | key limits minute=unlimited,in_flight=3,day=unlimited | 201
         # Tighter: one a minute and not three, two a day and not four.
                             | call 0            | call 1 holds 0
                             | standing          | minute 0 of 1, day 1 of 2
                             | call 0            | 429 minute, wait 60
         # Wider: three in flight and not two; the account's minute is for all keys together.
                             | call 0 key 2      | call 2 holds 0
                             | call 0 key 2      | call 3 holds 0
                             | call 0 key 2      | call 4 holds 0
                             | call 0 key 2      | 429 in_flight account, wait 60
                             | standing key 2    | minute unlimited, day unlimited
         +1m                 | call 0 job        | call 5 holds 0
                             | settle 5 202      | job 0
         +1m                 | call 0            | 429 daily, wait 50280
         # What a key has counted, it has counted under any limits.
                             | patch 1 limits minute=1,day=4,jobs=2 | 200
                             | standing          | minute 1 of 1, day 2 of 4
                             | call 0 job        | call 6 holds 0
                             | settle 6 202      | job 0
         # All of its own limits are set anew: of jobs it has the plan's.
         +1m                 | patch 1 limits minute=unlimited | 200
                             | call 0 job        | 429 jobs, wait 60
                             | call 0            | call 7 holds 0
                             | call 0            | 429 daily in_flight, wait 50220
                             | patch 1 limits none | 200
                             | standing          | minute 2 of 3, day 0 of 4
                             | evict             | ok
                             | standing          | minute 2 of 3, day 0 of 4",
    );
}

/// What a call was counted under is not what its key has now: its row does not tell.
#[test]
fn calls_are_replayed_under_the_limits_that_they_were_counted_under() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02T10:00:00"));
    let limits = |minute| PatchKey {
        limits: Some(Edit::Set(KeyLimits {
            requests_per_minute: Some(minute),
            ..KeyLimits::default()
        })),
        ..PatchKey::default()
    };
    branch.patch_key(1, limits(Limit::Of(20)));
    // More than the widest of any plan would have remembered.
    for _ in 0..12 {
        assert!(matches!(branch.call(cost(0)), Reply::Admitted(_)));
    }
    branch.patch_key(1, limits(Limit::Unlimited));
    branch.evict();
    branch.tick().expect("a store that works");
    branch.patch_key(1, limits(Limit::Of(20)));
    let account = branch.object.account().expect("awake");
    let standing = account.standing(KeyNumber::new(1), None, branch.clock);
    assert_eq!(standing.minute.map(|minute| minute.remaining), Some(8));
    branch.check().expect("an account that wakes as it was");
}

#[test]
fn a_scoped_key_calls_what_its_scope_names_and_nothing_else() {
    statement(
        "2026-11-02T10:00:00 | open free         | 201
                             | key scope GET:/tracks/* | 201
                             | call 1 to GET:/tracks/{id} | call 1 holds 1
                             | call 0 to HEAD:/tracks/{id}/preview | call 2 holds 0
                             | call 1 to POST:/search | 403 not POST /search
                             | call 1 to GET:*   | 403 not GET *
                             | standing          | minute 3 of 5, day 48 of 50
                             | patch 1 scope GET:/,POST:/search | 200
                             | call 1 to POST:/search | call 3 holds 1
                             | call 1 to GET:/tracks/{id} | 403 not GET /tracks/{id}
                             | patch 1 scope POST:/nothing | BadRequest
                             | key scope POST:/nothing | BadRequest
                             | patch 1 scope none | 200
                             | call 1 to GET:/tracks/{id} | call 4 holds 1
                             | evict             | ok
                             | call 1 to GET:*   | call 5 holds 1",
    );
}

#[test]
fn what_left_the_policy_is_in_nobodys_way() {
    statement(
        "2026-11-02T10:00:00 | open free         | 201
                             | key scope POST:/search,GET:/ budget 5 expires 2026-11-03 | 201
                             | policy without_search | ok
                             | call 1 to GET:/   | call 1 holds 1
                             | patch 1 budget 4  | 200
                             | patch 1 limits minute=2 | 200
                             | patch 1 scope POST:/search | BadRequest
                             | call 4 to GET:/   | 402 budget 4, 3 of 4, wait 2469600
                             | policy without_credits | ok
                             | patch 1 limits none | 200
                             | patch 1 budget 3  | BadRequest
                             | key budget 3      | BadRequest
                             | patch 1 budget none | 200",
    );
}

#[test]
fn a_key_dies_at_its_expiry_and_lives_again_with_another() {
    statement(
        "2026-11-02T10:00:00 | open tight        | 201
                             | key expires 2026-11-02T10:00:00 | BadRequest
                             | key expires 2026-11-02T11:00:00 | 201
                             | key               | 201
                             | key               | Conflict
                             | show 1            | active, used 0, 0 refused, last used never
                             | call 1            | call 1 holds 1
         2026-11-02T10:59:59 | call 1            | call 2 holds 1
         +1s                 | call 1            | 401
                             | show 1            | expired, used 1, 1 refused, last used 2026-11-02T10:59:59
                             | me                | 401
                             | rotate 1 1h       | Conflict
         # What it has under way ends as usual.
                             | settle 2 200      | settled 1
         # It does not stand: another may. Then there is no room for it any more.
                             | key               | 201
                             | patch 1 expires none | Conflict
                             | revoke 3          | 204
                             | patch 1 expires 2026-11-02T10:30:00 | BadRequest
                             | patch 1 expires 2026-11-03 | 200
                             | call 1            | call 3 holds 1
                             | evict             | ok
         2026-11-03          | call 1            | 401",
    );
}

#[test]
fn a_budget_bounds_what_a_keys_calls_cost_in_a_month() {
    statement(
        "2026-11-02T10:00:00 | open prepaid      | 201
                             | grant credits 1000 extra | 201
                             | key budget 20     | 201
                             | key               | 201
                             | call 15           | call 1 holds 15
                             | call 6            | 402 budget 20, 5 of 6, wait 2469600
                             | call 21           | 402 budget 20, 5 of 21
         # The other key has none, and the balance is the account's.
                             | call 15 key 2     | call 2 holds 15
                             | balance credits   | 970 available, 30 held, 0 spent
         # What comes back comes back to the budget as well.
                             | settle 1 500      | released 0
                             | call 20           | call 3 holds 20
                             | settle 3 200      | settled 20
                             | call 0            | call 4 holds 0
                             | show 1            | active, used 20 of 20, 0 refused, last used 2026-11-02T10:00:00
         # Only the pool of a budget is bounded by it.
                             | grant lyrics 5 promo | 201
                             | call 5 lyrics     | call 5 holds 5
         +1m                 | release 3         | refunded 0
                             | call 1            | call 6 holds 1
                             | evict             | ok
                             | show 1            | active, used 1 of 20, 0 refused, last used 2026-11-02T10:01:00
         # A budget that is set later knows what the month has cost before.
                             | patch 2 budget 20 | 200
                             | call 6 key 2      | 402 budget 20, 5 of 6, wait 2469540
                             | patch 2 budget none | 200
                             | call 6 key 2      | call 7 holds 6
                             | patch 2 budget 0  | 200
                             | call 1 key 2      | 402 budget 0, 0 of 1
                             | call 0 key 2      | call 8 holds 0",
    );
}

#[test]
fn a_refund_lands_in_the_month_of_its_call() {
    statement(
        "2026-11-30T23:58:00 | open prepaid      | 201
                             | grant credits 1000 extra | 201
                             | key budget 20     | 201
                             | call 12           | call 1 holds 12
                             | call 8            | call 2 holds 8
                             | settle 1 200      | settled 12
         +119s               | call 1            | 402 budget 20, 0 of 1, wait 1
         +1s                 | call 20           | call 3 holds 20
                             | settle 3 200      | settled 20
         # November's come back to November: December is used up.
                             | settle 2 500      | released 0
                             | release 1         | refunded 0
                             | show 1            | active, used 20 of 20, 0 refused, last used 2026-12-01
                             | evict             | ok
                             | call 1            | 402 budget 20, 0 of 1, wait 2678400
         # Ended by the alarm, charged and given back: each in its own month, too.
         2027-01-01          | call 15 charge_unknown | call 4 holds 15
                             | call 5            | call 5 holds 5
         +5m                 | call 5            | call 6 holds 5
                             | call 1            | 402 budget 20, 0 of 1, wait 2678100
                             | settle 4 500      | released 0
                             | call 15           | call 7 holds 15",
    );
}

#[test]
fn a_metered_call_holds_no_more_than_what_is_left_of_the_budget() {
    statement(
        "2026-11-02T10:00:00 | open prepaid      | 201
                             | grant credits 1000 extra | 201
                             | key budget 100    | 201
                             | call 10..600 per 60 | call 1 holds 100
                             | call 10..600 per 60 | 402 budget 100, 0 of 10, wait 2469600
                             | settle 1 200 reported 540 | settled 90
                             | call 10..600 per 60 | call 2 holds 10
                             | settle 2 200 reported 600 | settled 10
                             | row 2             | settled 10, AboveHold
                             | call 10..600 per 60 | 402 budget 100, 0 of 10, wait 2469600",
    );
}

#[test]
fn an_undone_call_takes_nothing_of_the_budget() {
    statement(
        "2026-11-02T10:00:00 | open prepaid      | 201
                             | grant credits 100 extra | 201
                             | key budget 20     | 201
                             | call 15 as 7      | call 1 holds 15
                             | cancel 7          | cancelled
                             | call 20           | call 2 holds 20",
    );
}

#[test]
fn a_budgets_402_promises_the_next_month_only_if_the_pool_can_pay_then() {
    statement(
        "2026-11-29T00:00:00 | open free         | 201
                             | key budget 30     | 201
                             | call 30           | call 1 holds 30
                             | settle 1 200      | settled 30
         # 20 are left of the plan's 50, for good.
                             | call 20           | 402 budget 30, 0 of 20, wait 172800
                             | call 21           | 402 20 of 21
         # These are gone before the month is over; those come with it.
                             | grant credits 100 extra until 2026-11-30 | 201
                             | call 21           | 402 budget 30, 0 of 21
                             | plan saver        | 200
                             | call 21           | 402 budget 30, 0 of 21, wait 172800
                             | call 31           | 402 budget 30, 0 of 31
         2026-11-30T23:59:59 | call 21           | 402 budget 30, 0 of 21, wait 1
         +1s                 | call 21           | call 2 holds 21",
    );
    // The pool is short, and the budget too when the pool is renewed.
    statement(
        "2026-11-02T00:00:00 | open starter billing 10 | 201
                             | key budget 300    | 201
                             | call 299          | call 1 holds 299
                             | settle 1 200      | settled 299
                             | call 2            | 402 1 of 2
                             | patch 1 budget 301 | 200
                             | call 2            | 402 1 of 2, wait 691200
         2026-11-10          | call 2            | call 2 holds 2",
    );
}

#[test]
fn a_limit_that_frees_after_the_month_is_a_429_and_not_the_budgets_402() {
    statement(
        "2026-11-30T23:59:30 | open free         | 201
                             | key budget 5 limits minute=1 | 201
                             | call 5            | call 1 holds 5
                             | settle 1 200      | settled 5
                             | call 5            | 429 minute, wait 60
                             | call 6            | 402 budget 5, 0 of 6
         +30s                | call 5            | 429 minute, wait 30
         +30s                | call 5            | call 2 holds 5",
    );
}

#[test]
fn a_months_budget_starts_with_the_deployments_days() {
    statement(
        "2026-11-30T21:59:59 | policy local_days | ok
                             | open prepaid      | 201
                             | grant credits 100 extra | 201
                             | key budget 5      | 201
                             | call 5            | call 1 holds 5
                             | call 5            | 402 budget 5, 0 of 5, wait 1
         +1s                 | call 5            | call 2 holds 5",
    );
}

#[test]
fn a_rotated_key_keeps_all_but_its_secret() {
    statement(
        "2026-11-02T10:00:00 | open tight        | 201
                             | key budget 10     | 201
                             | call 5            | call 1 holds 5
                             | rotate 1 1h       | 200
                             | show 1            | rotating, used 5 of 10, 0 refused, last used 2026-11-02T10:00:00
         # Both secrets are one key: its limits, its budget, its calls in flight.
                             | call 1 secret 0   | call 2 holds 1
                             | call 1            | 429 in_flight, wait 1
                             | settle 1 200      | settled 5
                             | settle 2 200      | settled 1
                             | call 5            | 402 budget 10, 4 of 5, wait 2469600
                             | balance credits   | 14 available, 0 held, 6 spent, renews 2026-12-01
         2026-11-02T10:59:59 | call 1 secret 0   | call 3 holds 1
         +1s                 | call 1 secret 0   | 401
                             | call 1            | call 4 holds 1
         # Who still tries the dead one is not counted against the key.
                             | show 1            | active, used 8 of 10, 1 refused, last used 2026-11-02T11:00:00
                             | evict             | ok
         # Without an overlap the old one is dead at once.
                             | rotate 1 0s       | 200
                             | call 0 secret 1   | 401
                             | me                | 200
                             | revoke 1          | 204
                             | call 0            | 401
                             | rotate 1 0s       | Conflict
                             | patch 1 budget 5  | Conflict
                             | rotate 9 0s       | NotFound
                             | patch 9 budget 5  | NotFound
                             | key               | 201
                             | key               | 201",
    );
}

#[test]
fn rotating_during_an_overlap_drops_the_oldest_secret() {
    statement(
        "2026-11-02T10:00:00 | open prepaid      | 201
                             | key               | 201
                             | rotate 1 1d       | 200
                             | call 0 secret 0   | call 1 holds 0
                             | call 0 secret 1   | call 2 holds 0
                             | rotate 1 1h       | 200
                             | call 0 secret 0   | 401
                             | call 0 secret 1   | call 3 holds 0
                             | call 0 secret 2   | call 4 holds 0
                             | call 0 secret 3   | 401
         +1h                 | call 0 secret 1   | 401
                             | call 0 secret 2   | call 5 holds 0",
    );
}

#[test]
fn a_rotation_whose_answer_was_lost_is_done_again_and_the_secret_in_use_stays_good() {
    statement(
        "2026-11-02T10:00:00 | open prepaid      | 201
                             | key               | 201
                             | rotate 1 1h       | 200
                             | call 0 secret 0   | call 1 holds 0
                             | evict             | ok
         # Nobody has the secret 1: it is replaced, and the overlap is the one told last.
         +30m                | rotate 1 1h       | 200
                             | call 0 secret 1   | 401
         +59m                | call 0 secret 0   | call 2 holds 0
                             | rotate 1 2h       | 200
                             | evict             | ok
                             | call 0 secret 0   | call 3 holds 0
         # A look at the account is a use, too.
                             | me                | 200
                             | evict             | ok
                             | rotate 1 1h       | 200
                             | call 0 secret 0   | 401
                             | call 0 secret 3   | call 4 holds 0
                             | rotate 1 0s       | 200
                             | call 0 secret 3   | 401
                             | call 0 secret 4   | 401
                             | call 0 secret 5   | call 5 holds 0
         # When the overlap is over nothing but the latest is left to stay good.
                             | rotate 1 1h       | 200
         +1h                 | call 0 secret 5   | 401
                             | rotate 1 1h       | 200
                             | call 0 secret 5   | 401
                             | call 0 secret 6   | call 6 holds 0
                             | call 0 secret 7   | call 7 holds 0",
    );
}

#[test]
fn a_suspended_account_calls_nothing_and_reads_why() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    branch.create_key();
    branch.change_status(tollgate::account::Status::Suspended {
        reason: Some("invoice 7 is open".into()),
    });
    for key in [1, 2] {
        let operation = branch.operation();
        let refused = branch.admit_as(operation, key, cost(0));
        let Reply::Refused(refusal) = refused else {
            panic!("{refused:?}");
        };
        let problem = refusal.problem(branch.clock);
        assert_eq!(problem.code, Code::AccountSuspended);
        assert!(problem.detail.ends_with("invoice 7 is open"));
        let Reply::Document(me) = branch.read(key, Page::Me) else {
            panic!("no page");
        };
        let me: Value = serde_json::from_str(&me.json).expect("JSON");
        assert_eq!(
            (&me["status"], &me["reason"]),
            (&json!("suspended"), &json!("invoice 7 is open"))
        );
        for page in [Page::Credits, Page::Quote, Page::Usage(Default::default())] {
            assert!(matches!(branch.read(key, page), Reply::Document(_)));
        }
    }
}

#[test]
fn a_key_is_shown_with_all_that_was_said_of_it() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    let mut expected = json!({
        "id": "key_acc_2", "name": "shop", "status": "active",
        "created_at": "2026-11-02T10:00:00Z", "last_used_at": null,
        "expires_at": "2026-12-01T00:00:00Z",
        "limits": {
            "requests_per_minute": 2, "requests_per_day": "unlimited",
            "requests_in_flight": null, "jobs_open": null,
        },
        "scope": ["POST /search", "GET /tracks/*"],
        "budget": 7, "budget_used": 0, "imported": false,
        "rotated_at": null, "overlap_ends_at": null,
        "refused_today": 0,
    });
    let created = branch.create_key_as(NewKey {
        name: Some("shop".into()),
        limits: Some(KeyLimits {
            requests_per_minute: Some(Limit::Of(2)),
            requests_per_day: Some(Limit::Unlimited),
            ..KeyLimits::default()
        }),
        scope: Some(Scope::new(vec![
            "POST /search".into(),
            "GET /tracks/*".into(),
        ])),
        expires_at: Some(moment("2026-12-01")),
        budget: Some(sold::credits(7)),
    });
    let Reply::Document(document) = created else {
        panic!("{created:?}");
    };
    let shown: Value = serde_json::from_str(&document.json).expect("JSON");
    assert_eq!(shown, expected);
    assert_eq!(document.created_key.map(KeyNumber::get), Some(2));

    branch.rotate_key(2, Span::from_days(1));
    let operation = branch.operation();
    branch.admit_as(operation, 2, cost(5));
    expected["status"] = json!("rotating");
    expected["rotated_at"] = json!("2026-11-02T10:00:00Z");
    expected["overlap_ends_at"] = json!("2026-11-03T10:00:00Z");
    expected["last_used_at"] = json!("2026-11-02T10:00:00Z");
    expected["budget_used"] = json!(5);
    assert_eq!(branch.show_key(2), expected);
    branch.evict();
    assert_eq!(branch.show_key(2), expected);

    // The customer reads the own key, and the limits that hold for it.
    let Reply::Document(me) = branch.read(2, Page::Me) else {
        panic!("no page");
    };
    let me: Value = serde_json::from_str(&me.json).expect("JSON");
    assert_eq!(
        me["rate_limit"],
        json!({ "requests_per_minute": 2, "requests_per_day": null })
    );
    assert_eq!(
        me["key"],
        json!({
            "id": "key_acc_2", "name": "shop", "expires_at": "2026-12-01T00:00:00Z",
            "scope": ["POST /search", "GET /tracks/*"], "budget": 7, "budget_used": 5,
        })
    );

    // Null takes each of them away, and what is not named stays.
    branch.patch_key(
        2,
        PatchKey {
            limits: Some(Edit::Remove),
            scope: Some(Edit::Remove),
            ..PatchKey::default()
        },
    );
    expected["limits"] = Value::Null;
    expected["scope"] = Value::Null;
    assert_eq!(branch.show_key(2), expected);
    branch.patch_key(
        2,
        PatchKey {
            name: Some(Edit::Remove),
            expires_at: Some(Edit::Remove),
            budget: Some(Edit::Remove),
            ..PatchKey::default()
        },
    );
    for field in ["name", "expires_at", "budget"] {
        expected[field] = Value::Null;
    }
    assert_eq!(branch.show_key(2), expected);
    // Nothing is written where nothing changes.
    let rows = branch.store().rows_written;
    branch.patch_key(2, PatchKey::default());
    assert_eq!(branch.store().rows_written, rows);
}

#[test]
fn keys_are_listed_page_by_page() {
    let mut branch = Branch::with_account("standard", "pro", moment("2026-11-02"));
    for _ in 1..7 {
        branch.create_key();
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let query = KeysQuery { limit: 3, after };
        let Reply::Document(page) = branch.manage(Command::Keys(query), None) else {
            panic!("no page");
        };
        let page: Value = serde_json::from_str(&page.json).expect("JSON");
        let ids = page["data"].as_array().expect("a list").iter();
        pages.push(
            ids.map(|key| key["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        );
        match page["next"].as_str() {
            Some(next) => after = Some(KeyNumber::new(next.parse().expect("a number"))),
            None => break,
        }
    }
    let ids = |numbers: &[u32]| {
        numbers
            .iter()
            .map(|n| format!("key_acc_{n}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(pages, [ids(&[1, 2, 3]), ids(&[4, 5, 6]), ids(&[7])]);
    let beyond = KeysQuery {
        limit: 3,
        after: Some(KeyNumber::new(u32::MAX)),
    };
    let Reply::Document(page) = branch.manage(Command::Keys(beyond), None) else {
        panic!("no page");
    };
    assert_eq!(page.json, r#"{"data":[],"next":null}"#);
}

#[test]
fn refusals_are_counted_for_whoever_has_the_secret() {
    statement(
        "2026-11-02T10:00:00 | open tight        | 201
                             | key limits minute=1 | 201
                             | call 0            | call 1 holds 0
                             | call 0            | 429 minute, wait 60
                             | call 0 repeated 40 | 429 minute, wait 60
                             | call_with_another_secret 0 | 401
                             | show 1            | active, used 0, 42 refused, last used 2026-11-02T10:00:00
                             | evict             | ok
                             | show 1            | active, used 0, 42 refused, last used 2026-11-02T10:00:00
         +1m                 | call 0 repeated 7 | call 2 holds 0
                             | revoke 1          | 204
                             | call 0            | 401
                             | show 1            | revoked, used 0, 50 refused, last used 2026-11-02T10:01:00
         # They go with any snapshot; what comes after the last is lost in sleep.
                             | call 0            | 401
                             | grant credits 1 extra | 201
                             | call 0            | 401
                             | evict             | ok
                             | show 1            | revoked, used 0, 51 refused, last used 2026-11-02T10:01:00
         2026-11-03          | show 1            | revoked, used 0, 0 refused, last used 2026-11-02T10:01:00",
    );
}

#[test]
fn a_repeated_rotation_is_one_and_shows_no_secret_again() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    let ask = |branch: &mut Branch, rotations: u32, request: u8| {
        let rotate = RotateKey {
            key: KeyNumber::new(1),
            overlap: Span::from_days(1),
        };
        let digest = digest_after(1, rotations);
        branch.manage(
            Command::RotateKey { rotate, digest },
            Some(fingerprint(7, request)),
        )
    };
    let Reply::Document(first) = ask(&mut branch, 1, 1) else {
        panic!("not rotated");
    };
    assert_eq!(first.created_key, Some(KeyNumber::new(1)));
    branch.evict();
    // The gateway asks again where the answer was lost: it has the secret that was taken.
    assert_eq!(ask(&mut branch, 1, 1), Reply::Document(first.clone()));
    let without_secret = Document {
        created_key: None,
        ..first
    };
    assert_eq!(ask(&mut branch, 2, 1), Reply::Document(without_secret));
    assert!(matches!(
        ask(&mut branch, 3, 2),
        Reply::Problem(problem) if problem.code == Code::IdempotencyMismatch
    ));
    let mut calls = |rotations| {
        branch.rotations.insert(1, rotations);
        matches!(branch.call(cost(0)), Reply::Admitted(_))
    };
    assert_eq!([0, 1, 2, 3].map(&mut calls), [true, true, false, false]);
}

/// One KEY_SECRET, by its name.
fn secret(number: u32) -> SecretId {
    decode(&encode(&number)).expect("a name")
}

/// Rotates a key, signed under `secret` from then on.
fn rotate_under(branch: &mut Branch, key: u32, secret: SecretId, overlap: Span) {
    let rotate = RotateKey {
        key: KeyNumber::new(key),
        overlap,
    };
    let digest = digest_after(key, branch.rotations_of(key) + 1);
    let reply = branch.send(Request::Manage(Manage {
        command: Command::RotateKey { rotate, digest },
        idempotency: None,
        signs_under: Some(secret),
    }));
    assert!(matches!(reply, Reply::Document(_)), "{reply:?}");
    *branch.rotations.entry(key).or_default() += 1;
}

/// What the account is listed as having keys under.
fn listed_under(branch: &Branch) -> Vec<SecretId> {
    let account = branch.object.account().expect("an account");
    account.listing().secrets.into_iter().collect()
}

#[test]
fn the_old_secret_of_a_rotation_is_listed_until_its_overlap_is_over() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    let (old, new) = (secret(1), secret(2));
    // What it was signed under first was not kept.
    assert_eq!(listed_under(&branch), [SecretId::UNKNOWN]);
    let day = Span::from_days(1);
    rotate_under(&mut branch, 1, old, day);
    assert_eq!(listed_under(&branch), [SecretId::UNKNOWN, old]);
    branch.read(1, Page::Me);
    rotate_under(&mut branch, 1, new, day);
    assert_eq!(listed_under(&branch), [old, new]);
    let version = branch.object.account().unwrap().listing().version;

    // Nobody comes; the alarm tells.
    let over = branch.clock.plus(day);
    assert_eq!(branch.object.next_alarm(), Some(over));
    branch.evict();
    branch.set_clock(over);
    branch.tick().unwrap();
    assert_eq!(listed_under(&branch), [new]);
    let listing = branch.object.account().unwrap().report();
    assert!(listing.is_some_and(|listing| listing.version > version));
    assert_eq!(branch.object.next_alarm(), None);

    // Without an overlap there is nothing left of the old one, and an expired key has none.
    rotate_under(&mut branch, 1, old, Span::ZERO);
    assert_eq!(listed_under(&branch), [old]);
    let expires_at = branch.clock.plus(day);
    branch.patch_key(
        1,
        PatchKey {
            expires_at: Some(Edit::Set(expires_at)),
            ..PatchKey::default()
        },
    );
    assert_eq!(branch.object.next_alarm(), Some(expires_at));
    branch.set_clock(expires_at);
    branch.tick().unwrap();
    assert_eq!(listed_under(&branch), []);
}

#[test]
fn a_key_from_before_tollgate_is_signed_under_no_secret() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    branch.manage(Command::RevokeKey(KeyNumber::new(1)), None);
    let import = ImportKey {
        new: NewKey::default(),
        digest: digest_after(2, 0),
    };
    let Imported::Ask(imported::Request::Register { key, .. }) =
        branch.object.import(&import, None, branch.clock)
    else {
        panic!("nobody is asked");
    };
    let registered = imported::Reply::Registered(key);
    branch
        .object
        .import_looked_up(&import, None, &registered, branch.clock);
    assert_eq!(listed_under(&branch), []);
    rotate_under(&mut branch, 2, secret(2), Span::from_days(1));
    assert_eq!(listed_under(&branch), [secret(2)]);
}
