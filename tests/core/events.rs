//! What an account tells of by itself: when, to whom, in which order, and what becomes of it.

use serde_json::{Value, json};
use tollgate::{
    account::{Attempt, Edit, Messenger, PatchAccount, Status},
    id::{EventId, EventNumber},
    object::{Email, Message},
    policy::Source,
    protocol::{Command, EventState, EventsQuery, Reply},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    sold::low,
    statement::moment,
};

/// The events that are stored, oldest first: type and data.
fn emitted(branch: &Branch) -> Vec<(String, Value)> {
    let mut events: Vec<_> = branch.store().all_events().collect();
    events.sort_by_key(|event| event.number);
    let told = |data: &str| serde_json::from_str(data).expect("data is JSON");
    events
        .iter()
        .map(|event| (event.kind.as_str().to_owned(), told(&event.data)))
        .collect()
}

fn spend(branch: &mut Branch, amount: u64) {
    let call = branch
        .object
        .account()
        .expect("an account")
        .calls_admitted()
        + 1;
    branch.call(cost(amount));
    branch.settle(call, 200);
}

#[test]
fn a_balance_is_told_once_for_each_fall_below_a_threshold() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 150, Source::Extra, None);
    assert_eq!(emitted(&branch), []);
    // What is held has not fallen: a release would take it back.
    branch.call(cost(140));
    branch.settle(1, 500);
    for amount in [50, 1, 30, 30, 28] {
        spend(&mut branch, amount);
    }
    let low = |threshold, balance| {
        let data = json!({
            "account": "acc", "external_id": null, "pool": "credits",
            "threshold": threshold, "balance": balance,
        });
        ("balance.low".to_owned(), data)
    };
    assert_eq!(emitted(&branch), [low(100, 99), low(20, 11)]);
    // Credits that come re-arm it; what falls below several at once is told once.
    branch.grant("credits", 200, Source::Extra, None);
    spend(&mut branch, 200);
    spend(&mut branch, 11);
    let exhausted = json!({ "account": "acc", "external_id": null, "pool": "credits" });
    assert_eq!(
        emitted(&branch)[2..],
        [low(20, 11), ("balance.exhausted".into(), exhausted)]
    );
    branch.check().expect("sound books");
}

#[test]
fn a_crossing_costs_its_own_rows_and_calls_before_and_after_it_two() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 110, Source::Extra, None);
    spend(&mut branch, 1);
    let mut rows = branch.store().rows_written;
    for expected in [2, 2, 4, 2] {
        spend(&mut branch, 4);
        assert_eq!(branch.store().rows_written - rows, expected);
        rows = branch.store().rows_written;
    }
}

#[test]
fn without_a_policy_for_it_nothing_is_written() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    spend(&mut branch, 300);
    branch.change_status(Status::Suspended { reason: None });
    branch.set_clock(branch.clock.plus(Span::from_days(60)));
    branch.tick().expect("a store that works");
    assert_eq!(emitted(&branch), []);
}

#[test]
fn renewals_and_suspensions_are_told() {
    let mut branch = Branch::with_account("told", "starter", moment("2026-11-02T10:00:00"));
    // Asleep for three months: of three renewals the last is news.
    branch.set_clock(moment("2027-02-10"));
    branch.tick().expect("a store that works");
    branch.change_status(Status::Suspended {
        reason: Some("unpaid".into()),
    });
    branch.change_status(Status::Suspended { reason: None });
    let told: Vec<String> = emitted(&branch)
        .iter()
        .map(|(kind, data)| {
            format!(
                "{kind} {} {} {}",
                data["pool"], data["credits"], data["reason"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"credits.renewed "credits" 300 null"#,
            r#"credits.renewed "lyrics" 100 null"#,
            r#"account.suspended null null "unpaid""#,
        ]
    );
    let at = branch.store().all_events().map(|event| event.at);
    let renewed_at = moment("2027-02-02");
    assert_eq!(at.filter(|at| *at == renewed_at).count(), 2);
}

#[test]
fn a_flag_is_told() {
    let mut branch = Branch::with_account("told unusual", "free", moment("2026-11-02"));
    for _ in 1..=5 {
        spend(&mut branch, 1);
    }
    for _ in 1..=6 {
        assert!(matches!(branch.call(cost(1)), Reply::Refused(_)));
    }
    let (kind, data) = emitted(&branch).pop().expect("an event");
    assert_eq!(
        (kind.as_str(), &data["key"]),
        ("account.flagged", &json!("key_acc_1"))
    );
    assert_eq!(data["restricted_until"], "2026-11-02T01:00:00Z");
    assert!(
        data["reason"]
            .as_str()
            .expect("a reason")
            .starts_with("unusual")
    );
}

#[test]
fn an_event_is_committed_with_what_brought_it_about_or_not_at_all() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.call(cost(1));
    branch.object.store_mut().commits_to_fail = 1;
    branch.settle(1, 200);
    assert_eq!(emitted(&branch), []);
    branch.settle(1, 200);
    assert_eq!(emitted(&branch).len(), 1);
}

/// An account whose balance falls below 100, then below 20, then to nothing.
fn told_three_times() -> Branch {
    fall_three_times(Branch::with_account(
        "told",
        "prepaid",
        moment("2026-11-02"),
    ))
}

fn set_email(branch: &mut Branch, email: &str) {
    branch.patch(PatchAccount {
        email: Some(Edit::Set(email.into())),
        ..PatchAccount::default()
    });
}

fn fall_three_times(mut branch: Branch) -> Branch {
    branch.grant("credits", 100, Source::Extra, None);
    for amount in [50, 40, 10] {
        spend(&mut branch, amount);
    }
    branch
}

/// The id and the body of the webhook that is to be sent now.
fn webhook(branch: &mut Branch) -> Option<(String, String)> {
    let clock = branch.clock;
    let message = branch.object.message(Messenger::Webhook, clock);
    match message.expect("a store that works")? {
        Message::Webhook(webhook) => Some((webhook.id, webhook.body)),
        Message::Email(email) => panic!("{email:?}"),
    }
}

fn email(branch: &mut Branch) -> Option<Email> {
    let clock = branch.clock;
    let message = branch.object.message(Messenger::Email, clock);
    match message.expect("a store that works")? {
        Message::Email(email) => Some(email),
        Message::Webhook(webhook) => panic!("{webhook:?}"),
    }
}

/// Sends what is to be sent now. Says the id of what was sent.
fn send(branch: &mut Branch, messenger: Messenger, attempt: Attempt) -> Option<String> {
    let clock = branch.clock;
    let message = branch.object.message(messenger, clock);
    let number = message.expect("a store that works")?.number();
    let booked = branch.object.attempted(messenger, number, attempt, clock);
    booked.expect("a store that works");
    Some(format!("event_acc_{}", number.get()))
}

fn post(branch: &mut Branch, attempt: Attempt) -> Option<String> {
    send(branch, Messenger::Webhook, attempt)
}

fn failed() -> Attempt {
    Attempt::Failed("HTTP 503".into())
}

/// The alarm, when it is due.
fn wait_for_alarm(branch: &mut Branch) -> Span {
    let before = branch.clock;
    let at = branch.object.events_at(before).expect("something to send");
    branch.set_clock(at);
    branch.evict();
    branch.tick().expect("a store that works");
    at.since(before)
}

/// The events as the operator reads them.
fn listed(branch: &mut Branch, state: Option<EventState>) -> Vec<Value> {
    listed_in_pages(branch, 2, state)
}

fn listed_in_pages(branch: &mut Branch, limit: u32, state: Option<EventState>) -> Vec<Value> {
    let (mut events, mut before) = (Vec::new(), None);
    loop {
        let query = EventsQuery {
            limit,
            before,
            state,
        };
        let Reply::Document(page) = branch.manage(Command::Events(query), None) else {
            panic!("no events");
        };
        let page: Value = serde_json::from_str(&page.json).expect("a page is JSON");
        events.extend(page["data"].as_array().expect("a list").clone());
        let Some(next) = page["next"].as_str() else {
            return events;
        };
        before = Some(EventId::parse(next).expect("an event's id").number);
    }
}

fn states(branch: &mut Branch) -> String {
    let events = listed(branch, None);
    let told = |event: &Value| {
        format!(
            "{} {} {} {}",
            event["id"]
                .as_str()
                .unwrap_or("")
                .trim_start_matches("event_acc_"),
            event["state"].as_str().unwrap_or(""),
            event["attempts"],
            event["last_error"].as_str().unwrap_or("-")
        )
    };
    events.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn replay(branch: &mut Branch, number: u64) -> Reply {
    branch.manage(Command::ReplayEvent(EventNumber::new(number)), None)
}

#[test]
fn an_event_is_sent_until_it_is_taken_always_the_same_whatever_is_forgotten() {
    let mut branch = told_three_times();
    let first = webhook(&mut branch).expect("the first");
    assert_eq!(first.0, "event_acc_1");
    assert_eq!(
        first.1,
        r#"{"type":"balance.low","timestamp":"2026-11-02T00:00:00Z","data":{"account":"acc","external_id":null,"pool":"credits","threshold":100,"balance":50}}"#
    );
    // The object dies between the commit and the sending, then between the sending and its word on it.
    branch.evict();
    branch.tick().expect("a store that works");
    assert_eq!(webhook(&mut branch).as_ref(), Some(&first));
    let clock = branch.clock;
    let number = EventNumber::new(1);
    branch.object.store_mut().commits_to_fail = 1;
    let booked = branch
        .object
        .attempted(Messenger::Webhook, number, Attempt::Taken, clock);
    assert!(booked.is_err());
    branch.tick().expect("a store that works");
    assert_eq!(webhook(&mut branch), Some(first));
    // Taken at last; its word that comes twice or late changes nothing.
    for attempt in [Attempt::Taken, failed(), Attempt::Taken] {
        let booked = branch
            .object
            .attempted(Messenger::Webhook, number, attempt, clock);
        booked.expect("a store that works");
    }
    assert_eq!(
        states(&mut branch),
        "3 waiting 0 -, 2 waiting 0 -, 1 delivered 1 -"
    );
    assert_eq!(webhook(&mut branch).expect("the second").0, "event_acc_2");
    branch.check().expect("sound books");
}

#[test]
fn the_next_waits_for_the_former_with_longer_and_longer_waits() {
    let mut branch = told_three_times();
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(post(&mut branch, failed()).as_deref(), Some("event_acc_1"));
        assert_eq!(webhook(&mut branch), None, "too early");
        waits.push(wait_for_alarm(&mut branch).as_seconds_ceil());
    }
    assert_eq!(
        states(&mut branch),
        "3 waiting 0 -, 2 waiting 0 -, 1 waiting 9 HTTP 503"
    );
    for (expected, wait) in [10, 30, 90, 270, 810, 2_430, 7_290, 21_870, 43_200]
        .iter()
        .zip(waits)
    {
        assert!(
            (expected * 8 / 10..=expected * 12 / 10).contains(&wait),
            "{wait}"
        );
    }
    for event in ["event_acc_1", "event_acc_2", "event_acc_3"] {
        assert_eq!(post(&mut branch, Attempt::Taken).as_deref(), Some(event));
    }
    assert_eq!(post(&mut branch, Attempt::Taken), None);
}

#[test]
fn what_nobody_takes_in_three_days_is_parked_and_can_be_replayed() {
    let mut branch = told_three_times();
    let opened = branch.clock;
    let body = webhook(&mut branch);
    let mut attempts = 0;
    while post(&mut branch, failed()).as_deref() == Some("event_acc_1") {
        attempts += 1;
        if branch.clock.since(opened) < Span::from_days(3) {
            wait_for_alarm(&mut branch);
        }
    }
    assert_eq!(branch.clock.since(opened), Span::from_days(3));
    assert!((12..=18).contains(&attempts), "{attempts}");
    // The others have waited as long and get their one attempt.
    assert_eq!(
        post(&mut branch, Attempt::Taken).as_deref(),
        Some("event_acc_3")
    );
    assert_eq!(branch.object.events_at(branch.clock), None);
    assert_eq!(
        states(&mut branch),
        format!("3 delivered 1 -, 2 parked 1 HTTP 503, 1 parked {attempts} HTTP 503")
    );
    let parked = listed(&mut branch, Some(EventState::Parked));
    assert_eq!(parked.len(), 2);
    // Replayed: the parked and the delivered alike, with the same id and content.
    for number in [1, 3, 1] {
        assert!(matches!(replay(&mut branch, number), Reply::Document(_)));
    }
    assert_eq!(webhook(&mut branch), body);
    post(&mut branch, failed());
    assert_eq!(
        states(&mut branch),
        "3 waiting 0 -, 2 parked 1 HTTP 503, 1 waiting 1 HTTP 503"
    );
    // The first that waits is sent at once when it is replayed.
    assert_eq!(webhook(&mut branch), None);
    replay(&mut branch, 1);
    for event in ["event_acc_1", "event_acc_3"] {
        assert_eq!(post(&mut branch, Attempt::Taken).as_deref(), Some(event));
    }
    assert_eq!(post(&mut branch, Attempt::Taken), None);
    for unknown in [0, 4] {
        assert!(matches!(replay(&mut branch, unknown), Reply::Problem(_)));
    }
}

#[test]
fn what_is_refused_for_good_is_parked_at_once() {
    let mut branch = told_three_times();
    post(&mut branch, Attempt::Refused("HTTP 410".into()));
    post(&mut branch, Attempt::Taken);
    assert_eq!(
        states(&mut branch),
        "3 waiting 0 -, 2 delivered 1 -, 1 parked 1 HTTP 410"
    );
}

#[test]
fn the_customer_is_written_to_whatever_becomes_of_the_webhook() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    set_email(&mut branch, "ada@example.com");
    let mut branch = fall_three_times(branch);
    post(&mut branch, failed());
    let letter = email(&mut branch).expect("an e-mail");
    assert_eq!(letter.to, "ada@example.com");
    assert_eq!(letter.subject, "Your credits are used up");
    assert_eq!(letter.number.get(), 3);
    let emailed = |branch: &mut Branch| listed(branch, None)[0]["email"].clone();
    send(
        &mut branch,
        Messenger::Email,
        Attempt::Failed("E_RATE_LIMIT_EXCEEDED".into()),
    );
    assert_eq!(emailed(&mut branch)["last_error"], "E_RATE_LIMIT_EXCEEDED");
    assert_eq!(email(&mut branch), None);
    wait_for_alarm(&mut branch);
    send(&mut branch, Messenger::Email, Attempt::Taken);
    assert_eq!(emailed(&mut branch)["state"], "delivered");
    // What the policy does not name is not written, nor is an account without a plain address.
    assert_eq!(listed(&mut branch, None)[1]["email"], Value::Null);
    set_email(&mut branch, "ada@example.com,bob@example.com");
    branch.change_status(Status::Suspended { reason: None });
    assert_eq!(email(&mut branch), None);
    assert_eq!(
        emailed(&mut branch)["last_error"],
        "the account has no plain e-mail address"
    );
}

#[test]
fn an_account_wakes_for_events_only_while_there_are_any_to_send() {
    let mut branch = told_three_times();
    let clock = branch.clock;
    // One is under way now: the alarm looks after it later.
    assert_eq!(
        branch.object.events_at(clock),
        Some(clock.plus(Span::MINUTE))
    );
    post(&mut branch, failed());
    // Nobody is told any more: nothing is forgotten, and nobody is woken.
    let told = std::mem::replace(&mut branch.policy, crate::sold::edited("standard"));
    branch.evict();
    branch.tick().expect("a store that works");
    assert_eq!(branch.object.events_at(clock), None);
    assert_eq!(webhook(&mut branch), None);
    assert!(matches!(replay(&mut branch, 1), Reply::Problem(_)));
    branch.policy = told;
    branch.evict();
    branch.tick().expect("a store that works");
    branch.set_clock(clock.plus(Span::from_days(1)));
    for _ in 1..=3 {
        assert!(post(&mut branch, Attempt::Taken).is_some());
    }
    assert_eq!(branch.object.events_at(branch.clock), None);
}

#[test]
fn a_clock_that_strayed_delays_nothing_for_long() {
    let mut branch = told_three_times();
    let clock = branch.clock;
    branch.set_clock(clock.plus(Span::from_days(400)));
    post(&mut branch, failed());
    branch.set_clock(clock);
    assert!(post(&mut branch, Attempt::Taken).is_some());
    // An event of a moment that has not come yet is given up in three days all the same.
    branch.set_clock(clock.plus(Span::from_days(400)));
    branch.grant("credits", 50, Source::Extra, None);
    spend(&mut branch, 50);
    branch.set_clock(clock);
    for _ in 0..4 {
        post(&mut branch, Attempt::Taken);
    }
    assert_eq!(webhook(&mut branch), None);
    branch.set_clock(clock.plus(Span::from_days(400)));
    branch.grant("credits", 50, Source::Extra, None);
    spend(&mut branch, 50);
    branch.set_clock(clock);
    post(&mut branch, failed());
    branch.set_clock(clock.plus(Span::from_days(3)));
    post(&mut branch, failed());
    assert!(states(&mut branch).starts_with("5 parked 2"));
}

/// The balance falls twice, below 20 and to nothing.
fn fall_twice(branch: &mut Branch) {
    branch.grant("credits", 120, Source::Extra, None);
    spend(branch, 110);
    spend(branch, 10);
}

fn kept(branch: &Branch) -> Vec<u64> {
    let events = branch.store().all_events();
    let mut numbers: Vec<_> = events.map(|event| event.number.get()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn so_many_of_the_latest_events_are_kept_and_no_more() {
    let mut branch = told_three_times();
    for _ in 0..510 {
        fall_twice(&mut branch);
        while post(&mut branch, Attempt::Taken).is_some() {}
    }
    assert!(kept(&branch).into_iter().eq(24..=1_023));
    assert!(matches!(replay(&mut branch, 23), Reply::Problem(_)));
    let rows_read = branch.store().rows_read.get();
    let all = branch.manage(
        Command::Events(EventsQuery {
            limit: 500,
            before: None,
            state: None,
        }),
        None,
    );
    assert!(matches!(all, Reply::Document(_)));
    assert!(branch.store().rows_read.get() - rows_read <= 1_000);
}

#[test]
fn what_is_still_to_be_sent_makes_room_for_nothing_for_three_days() {
    let mut branch = told_three_times();
    for _ in 0..455 {
        fall_twice(&mut branch);
    }
    // What calls bring about leaves room for the rest …
    assert!(kept(&branch).into_iter().eq(1..=900));
    for _ in 0..107 {
        branch.change_status(Status::Suspended { reason: None });
        branch.change_status(Status::Active);
    }
    // … of which there may be too much, too.
    assert!(kept(&branch).into_iter().eq(1..=1_000));
    let queue = branch.object.account().expect("an account").notices_bytes();
    assert!(queue.len() < 14_000, "{} bytes", queue.len());
    assert_eq!(webhook(&mut branch).expect("the first").0, "event_acc_1");
    branch.evict();
    branch.tick().expect("a store that works");
    // As soon as there is room, that is told.
    post(&mut branch, Attempt::Taken);
    let last = &listed_in_pages(&mut branch, 500, None)[0];
    assert_eq!(
        (&last["id"], &last["type"]),
        (&json!("event_acc_1001"), &json!("account.flagged"))
    );
    assert_eq!(
        last["data"]["reason"],
        "20 events were not kept: too many others could not be sent"
    );
    // After three days the first that is sent in vain is parked, and makes room.
    branch.set_clock(branch.clock.plus(Span::from_days(3)));
    post(&mut branch, failed());
    fall_twice(&mut branch);
    assert!(kept(&branch).ends_with(&[1_001, 1_002, 1_003]));
    assert_eq!(webhook(&mut branch).expect("the next").0, "event_acc_4");
    branch.check().expect("sound books");
}

#[test]
fn a_letter_that_waits_keeps_its_event_while_the_webhook_goes_on() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    set_email(&mut branch, "ada@example.com");
    branch.change_status(Status::Suspended { reason: None });
    branch.change_status(Status::Active);
    send(&mut branch, Messenger::Email, failed());
    branch.patch(PatchAccount {
        email: Some(Edit::Remove),
        ..PatchAccount::default()
    });
    for _ in 0..510 {
        fall_twice(&mut branch);
        while post(&mut branch, Attempt::Taken).is_some() {}
    }
    // Its row is passed over, once in a thousand.
    let numbers = kept(&branch);
    assert_eq!((numbers.len(), numbers[0]), (1_000, 1));
    assert_eq!(numbers.last(), Some(&1_022));
    let events = listed_in_pages(&mut branch, 500, None);
    let first = events.last().expect("an event");
    assert_eq!(
        (&first["id"], &first["email"]["state"]),
        (&json!("event_acc_1"), &json!("waiting"))
    );
    // It is parked after three days, and goes out once more when it is replayed.
    set_email(&mut branch, "ada@example.com");
    branch.set_clock(branch.clock.plus(Span::from_days(3)));
    send(&mut branch, Messenger::Email, failed());
    assert_eq!(email(&mut branch), None);
    let Reply::Document(replayed) = replay(&mut branch, 1) else {
        panic!("no event");
    };
    let replayed: Value = serde_json::from_str(&replayed.json).expect("JSON");
    assert_eq!(
        (&replayed["state"], &replayed["email"]["state"]),
        (&json!("waiting"), &json!("waiting"))
    );
    send(&mut branch, Messenger::Email, Attempt::Taken);
    // One that was taken is not written again.
    replay(&mut branch, 1);
    assert_eq!(email(&mut branch), None);
    assert_eq!(webhook(&mut branch).expect("the webhook").0, "event_acc_1");
}

#[test]
fn an_account_may_have_thresholds_of_its_own() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    let patch = |branch: &mut Branch, balance_low| {
        branch.patch(PatchAccount {
            balance_low: Some(balance_low),
            ..PatchAccount::default()
        })
    };
    let own = |pool: &str| Edit::Set(low(pool, &[500]));
    let told = patch(&mut branch, own("credits"));
    let Reply::Document(told) = told else {
        panic!("{told:?}");
    };
    assert!(
        told.json.contains(r#""balance_low":{"credits":[500]}"#),
        "{}",
        told.json
    );
    let Reply::Problem(complaint) = patch(&mut branch, own("words")) else {
        panic!("no complaint");
    };
    assert_eq!(complaint.field.as_deref(), Some("balance_low"));
    branch.grant("credits", 600, Source::Extra, None);
    spend(&mut branch, 101);
    spend(&mut branch, 400);
    let thresholds = |branch: &Branch| -> Vec<Value> {
        let told = emitted(branch).into_iter();
        told.map(|(_, data)| data["threshold"].clone()).collect()
    };
    assert_eq!(thresholds(&branch), [500]);
    // Without them the policy's hold again.
    patch(&mut branch, Edit::Remove);
    spend(&mut branch, 80);
    assert_eq!(thresholds(&branch), [500, 20]);
}
