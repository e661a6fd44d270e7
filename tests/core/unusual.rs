//! Unusual consumption: flagged, and restricted for a while.

use serde_json::{Value, json};
use tollgate::{
    directory::{self, Directory, Filter, Search},
    policy::Source,
    protocol::{Page, Reply},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    memory_directory::MemoryDirectory,
    sold,
    statement::{moment, statement},
};

#[test]
fn an_account_that_spends_far_above_its_habit_is_flagged_and_restricted_for_a_while() {
    statement(
        "2026-11-02T10:00:00 | policy unusual   | ok
                             | open prepaid     | 201
                             | key              | 201
                             | key              | 201
                             | grant credits 9000 extra | 201
                             | grant lyrics 9000 extra | 201
         # In its first week of spending it has no habit.
                             | call 400         | call 1 holds 400
                             | settle 1 200     | settled 400
         2026-11-08          | call 900         | call 2 holds 900
                             | settle 2 200     | settled 900
                             | flags            | none
         # Four weeks later nothing of that is left. What is not above the floor is never far.
         2026-12-08T10:00:00 | call 20          | call 3 holds 20
                             | settle 3 200     | settled 20
                             | flags            | none
         2026-12-09T10:00:00 | call 60          | call 4 holds 60
                             | settle 4 200     | settled 60
                             | evict            | ok
                             | flags            | none
         # What is held is not spent yet, and what fails never is. Pools have habits of their own.
                             | call 700         | call 5 holds 700
                             | settle 5 500     | released 0
                             | call 700 lyrics  | call 6 holds 700
                             | settle 6 200     | settled 700
                             | call 1           | call 7 holds 1
                             | flags            | none
                             | settle 7 200     | settled 1
                             | flags            | 61 credits after 20 until 2026-12-09T11:00:00
                             | call 0           | 403 account until 2026-12-09T11:00:00
                             | call 0 key 2     | 403 account until 2026-12-09T11:00:00
                             | evict            | ok
                             | call 0           | 403 account until 2026-12-09T11:00:00
         # The clock ends it. A flag is raised once a day, and stands until it is taken away.
         2026-12-09T11:00:00 | call 500         | call 8 holds 500
                             | settle 8 200     | settled 500
                             | call 0           | call 9 holds 0
                             | settle 9 200     | settled 0
         2026-12-10          | flags            | 61 credits after 20 until 2026-12-09T11:00:00
         # The day before counts like any other.
                             | call 1683        | call 10 holds 1683
                             | settle 10 200    | settled 1683
                             | call 1           | call 11 holds 1
                             | settle 11 200    | settled 1
                             | flags            | 1684 credits after 561 until 2026-12-10T01:00:00
         # The operator ends it sooner, and it is not there again at once.
                             | call 0           | 403 account until 2026-12-10T01:00:00
                             | unflag           | 200
                             | flags            | none
                             | call 900         | call 12 holds 900
                             | settle 12 200    | settled 900
                             | evict            | ok
                             | flags            | none",
    );
}

#[test]
fn a_key_that_draws_mostly_refusals_is_flagged_and_restricted_alone() {
    statement(
        "2026-11-02T23:00:00 | policy unusual   | ok
                             | open tight       | 201
                             | key              | 201
                             | key              | 201
                             | call 0           | call 1 holds 0
                             | call 0           | call 2 holds 0
                             | call_with_another_secret 0 | 401
                             | call 0           | 429 in_flight, wait 1
                             | settle 1 200     | settled 0
                             | settle 2 200     | settled 0
                             | call 0           | call 3 holds 0
                             | settle 3 200     | settled 0
                             | call 0           | 429 minute, wait 60
                             | flags            | none
                             | call 0           | 429 minute, wait 60
                             | flags            | key_acc_1 refused 3 of 6 until 2026-11-03
                             | call 0           | 403 key until 2026-11-03
                             | call 0 key 2     | call 4 holds 0
                             | settle 4 200     | settled 0
         # Those that isolates repeated count before the request that tells of them is decided.
         +1s                 | call 0 key 2 repeated 40 | 403 key until 2026-11-03T00:00:01
                             | flags            | key_acc_2 refused 40 of 41 until 2026-11-03T00:00:01; key_acc_1 refused 3 of 6 until 2026-11-03
                             | evict            | ok
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
         # What the restriction refuses, on the next day too, does not prolong it.
         2026-11-03T00:00:00 | call 0           | call 5 holds 0
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
                             | call 0 key 2     | 403 key until 2026-11-03T00:00:01
         +1s                 | call 0 key 2     | call 6 holds 0
                             | show 2           | active, used 0, 0 refused, last used 2026-11-03T00:00:01
                             | unflag           | 200
                             | flags            | none",
    );
}

#[test]
fn a_job_that_ends_later_and_an_end_by_the_alarm_count_when_they_are_charged() {
    statement(
        "2026-11-02T10:00:00 | policy flags_only | ok
                             | open prepaid     | 201
                             | key              | 201
                             | grant credits 9000 extra | 201
                             | call 10          | call 1 holds 10
                             | settle 1 200     | settled 10
         2026-11-20T10:00:00 | call 40 job      | call 2 holds 40
                             | settle 2 202     | job 0
         2026-11-21          | flags            | none
                             | settle 2 credits 31 | settled 31
                             | flags            | 31 credits after 10
                             | call 0           | call 3 holds 0
         2026-11-22          | call 95 charge_unknown | call 4 holds 95
         +10m                | tick             | ok
                             | flags            | 95 credits after 31
                             | settle 4 500     | released 0
         # What comes back changes nothing, and what is charged later counts then.
         2026-11-23          | call 300 job     | call 5 holds 300
                             | settle 5 202     | job 0
         2026-11-24T10:00:00 | tick             | ok
                             | row 5            | unknown released 0
                             | settle 5         | settled 300
                             | flags            | 300 credits after 95",
    );
}

#[test]
fn observing_flags_and_restricts_nothing() {
    statement(
        "2026-11-02T10:00:00 | policy unusual observe | ok
                             | open prepaid     | 201
                             | key expires 2026-11-03 | 201
         2026-11-03          | call 0           | 401
                             | call 0 repeated 9 | 401
                             | flags            | key_acc_1 refused 10 of 10
                             | patch 1 expires none | 200
                             | call 0           | call 1 holds 0",
    );
}

#[test]
fn nothing_is_flagged_of_what_the_operator_has_stopped() {
    statement(
        "2026-11-02T10:00:00 | policy unusual   | ok
                             | open prepaid     | 201
                             | key              | 201
                             | key              | 201
                             | suspend why      | 200
                             | call 0           | 403 why
                             | call 0 repeated 5 | 403 why
                             | resume           | 200
                             | flags            | none
         # An operator's word comes first, and outlasts a restriction.
                             | call 0 repeated 9 | 403 key until 2026-11-02T11:00:00
                             | suspend why      | 200
                             | call 0           | 403 why
                             | resume           | 200
                             | call 0           | 403 key until 2026-11-02T11:00:00
         # Neither a revoked key nor a closed account is worth a look.
                             | revoke 1         | 204
                             | flags            | none
                             | call 0           | 401
                             | call 0 key 2 repeated 9 | 403 key until 2026-11-02T11:00:00
                             | close            | 204
                             | flags            | none",
    );
}

#[test]
fn a_clock_that_strays_restricts_nobody_when_it_is_right_again() {
    statement(
        "2026-11-02T10:00:00 | policy unusual   | ok
                             | open prepaid     | 201
                             | key              | 201
         +30d                | call 0 repeated 9 | 403 key until 2026-12-02T11:00:00
         -30d                | call 0           | call 1 holds 0",
    );
}

/// An account whose key 1 is restricted until 11:00.
fn restricted() -> Branch {
    let mut branch = Branch::with_account("unusual", "tight", moment("2026-11-02T10:00:00"));
    for _ in 0..3 {
        branch.call(cost(0));
    }
    while !matches!(
        branch.call(cost(0)),
        Reply::Refused(tollgate::account::Refusal::Suspended { .. })
    ) {}
    branch
}

#[test]
fn a_flag_costs_one_row_a_day_and_a_refusal_none() {
    let mut branch = Branch::with_account("flags_only", "tight", moment("2026-11-02T10:00:00"));
    branch.call(cost(0));
    branch.settle(1, 200);
    let rows = branch.store().rows_written;
    for _ in 0..200 {
        branch.call(cost(900));
    }
    assert_eq!(branch.store().rows_written - rows, 1);
    assert_eq!(branch.object.take_flagged().len(), 1);
}

#[test]
fn a_restricted_customer_reads_until_when_and_why() {
    let mut branch = restricted();
    let Reply::Refused(refusal) = branch.call(cost(0)) else {
        panic!("admitted");
    };
    let reason = "unusual consumption: 4 of 6 requests of this API key in a day were refused";
    assert_eq!(
        refusal.problem(branch.clock).detail,
        format!("this API key is restricted until 2026-11-02T11:00:00Z: {reason}")
    );
    let me = |branch: &mut Branch| {
        let Reply::Document(me) = branch.read(1, Page::Me) else {
            panic!("no page");
        };
        let me: Value = serde_json::from_str(&me.json).expect("JSON");
        (me["reason"].clone(), me["restricted_until"].clone())
    };
    let told = (json!(reason), json!("2026-11-02T11:00:00Z"));
    assert_eq!(me(&mut branch), told);
    let flag = json!({
        "cause": "refusals", "at": "2026-11-02T10:00:00Z", "key": "key_acc_1",
        "refused": 4, "requests": 6, "restricted_until": "2026-11-02T11:00:00Z",
    });
    assert_eq!(branch.show_key(1)["flag"], flag);
    branch.unflag();
    assert_eq!(me(&mut branch), (Value::Null, Value::Null));
    assert_eq!(branch.show_key(1)["flag"], Value::Null);
}

#[test]
fn the_directory_lists_who_is_flagged() {
    let mut branch = restricted();
    let mut directory = Directory::new(MemoryDirectory::default(), sold::edited("standard"));
    let mut listed = |branch: &mut Branch| {
        let report = branch.object.report().expect("something to tell");
        let known = directory.handle(report);
        branch.object.hear(&known, branch.clock).expect("a commit");
        let search = Search {
            limit: 9,
            filter: Filter {
                flagged: true,
                ..Filter::default()
            },
            ..Search::default()
        };
        let directory::Reply::Page(page) = directory.handle(directory::Request::List(search))
        else {
            panic!("no page");
        };
        let accounts = page.accounts.iter();
        let accounts = accounts.map(|account| serde_json::to_value(account).expect("JSON"));
        accounts.collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut branch), [branch.show()]);
    branch.unflag();
    assert_eq!(listed(&mut branch), Vec::<Value>::new());
}

#[test]
fn at_most_the_latest_eight_flags_are_told() {
    let mut branch = Branch::with_account("flags_only", "pro", moment("2026-11-02T10:00:00"));
    for key in 2..=10 {
        branch.create_key();
        let operation = branch.operation();
        branch.set_clock(branch.clock.plus(Span::from_seconds(1)));
        branch.grant("credits", 1, Source::Extra, None);
        for _ in 0..6 {
            branch.admit_as(operation + u64::from(key) * 1_000, key, cost(90_000));
        }
    }
    let account = branch.show();
    let keys = account["flags"].as_array().expect("flags").iter();
    let keys: Vec<&str> = keys
        .map(|flag| flag["key"].as_str().expect("a key"))
        .collect();
    let expected: Vec<String> = (3..=10).rev().map(|key| format!("key_acc_{key}")).collect();
    assert_eq!(keys, expected);
}
