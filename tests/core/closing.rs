//! Closing an account: keys dead at once, calls ended as usual, nothing given any more; kept, then
//! erased.

use serde_json::Value;
use tollgate::{
    account::{Edit, NewKey, PatchAccount, Refusal, Told, Word},
    call::CallState,
    credits::Credits,
    directory,
    id::{AccountId, CallNumber, KeyNumber},
    ledger::EntryKind,
    object::Store,
    policy::Source,
    price::{Job, OnUnknown, Terms},
    problem::Code,
    protocol::{Command, Page, Reply, UsageQuery},
    time::Span,
};

use crate::{
    branch::{Branch, cost, digest_of, fingerprint},
    sold,
    statement::moment,
};

const CLOSED: &str = "2026-11-10T12:00:00";
/// 400 days later.
const ERASED: &str = "2027-12-15T12:00:00";

fn later(branch: &mut Branch, seconds: i64) {
    branch.set_clock(branch.clock.plus(Span::from_seconds(seconds)));
}

fn job(amount: u64) -> Terms {
    Terms {
        job: Some(Job {
            settle_within: Span::from_days(20),
            on_unknown: OnUnknown::Release,
        }),
        ..cost(amount)
    }
}

/// An account with credits of every source, closed.
fn closed() -> Branch {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.set_clock(moment(CLOSED));
    close(&mut branch);
    branch
}

fn close(branch: &mut Branch) {
    let Reply::Document(document) = branch.close() else {
        panic!("not closed");
    };
    assert_eq!((document.status, document.json.as_str()), (204, ""));
}

fn code(reply: &Reply) -> Option<Code> {
    match reply {
        Reply::Problem(complaint) => Some(complaint.code),
        _ => None,
    }
}

fn json(reply: Reply) -> Value {
    match reply {
        Reply::Document(document) => serde_json::from_str(&document.json).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

fn state(branch: &Branch, call: u64) -> (CallState, u64) {
    let outcome = branch.row(call).outcome.as_ref().expect("an end");
    (outcome.state, outcome.charged.get())
}

/// The directory hears everything that it has to be told.
fn told(branch: &mut Branch) -> Vec<directory::Request> {
    let mut requests = Vec::new();
    while let Some(request) = branch.object.report() {
        let version = match &request {
            directory::Request::Tell(report) => report.version,
            directory::Request::Erased { version, .. } => *version,
            other => panic!("{other:?}"),
        };
        requests.push(request);
        let known = directory::Reply::Known(version);
        branch
            .object
            .hear(&known, branch.clock)
            .expect("a store that works");
    }
    requests
}

#[test]
fn the_keys_of_a_closed_account_are_dead_at_once_and_its_calls_end_as_usual() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.set_clock(moment(CLOSED));
    for terms in [cost(5), cost(7), cost(9), job(20), cost(3)] {
        assert!(matches!(branch.call(terms), Reply::Admitted(_)));
    }
    branch.settle(4, 202);
    branch.settle(5, 200);
    close(&mut branch);

    assert_eq!(branch.call(cost(0)), Reply::Refused(Refusal::UnknownKey));
    for page in [Page::Me, Page::Usage(UsageQuery::default())] {
        assert_eq!(branch.read(1, page), Reply::Refused(Refusal::UnknownKey));
    }
    // A repeat of what was admitted before is answered from the record.
    let operation = branch.row(1).call.hold.operation;
    assert!(matches!(
        branch.admit_as(operation, 1, cost(5)),
        Reply::Admitted(_)
    ));

    branch.settle(1, 200);
    assert_eq!(state(&branch, 1), (CallState::Settled, 5));
    branch.cancel(branch.row(2).call.hold.operation);
    assert_eq!(state(&branch, 2), (CallState::Cancelled, 0));
    assert_eq!(
        branch.object.next_wakeup(),
        Some(branch.row(3).call.hold.deadline)
    );
    later(&mut branch, 300);
    branch.tick().expect("a store that works");
    assert_eq!(state(&branch, 3), (CallState::UnknownReleased, 0));
    // Its real end comes late, and the job's, and a refund.
    branch.settle(3, 200);
    assert_eq!(state(&branch, 3), (CallState::Settled, 9));
    later(&mut branch, 86_400 * 10);
    let told = Told::Credits(Credits::new(15).expect("credits"));
    branch.end_call(4, Word::Settle(told), None);
    assert_eq!(state(&branch, 4), (CallState::Settled, 15));
    branch.end_call(5, Word::Release { reason: None }, None);
    assert_eq!(state(&branch, 5), (CallState::Refunded, 0));
    branch.check().expect("sound books");
}

#[test]
fn closing_again_changes_nothing() {
    let mut branch = closed();
    let account = json(branch.manage(Command::Show, None));
    assert_eq!(account["status"], "closed");
    assert_eq!(account["closed_at"], "2026-11-10T12:00:00Z");
    let rows = branch.store().rows_written;
    later(&mut branch, 3_600);
    close(&mut branch);
    branch.evict();
    close(&mut branch);
    assert_eq!(json(branch.manage(Command::Show, None)), account);
    assert_eq!(branch.store().rows_written, rows);
}

#[test]
fn a_closed_account_is_given_nothing_any_more() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    // The renewal of the 2nd of December is missed in sleep, and comes before the closing.
    branch.set_clock(moment("2026-12-20"));
    close(&mut branch);
    let of_kind = |branch: &Branch, kind| {
        let entries = branch.store().entries().iter();
        entries.filter(|entry| entry.kind == kind).count()
    };
    let renewed = of_kind(&branch, EntryKind::Renewed);
    assert_eq!(renewed, 4, "two pools, two months");
    assert_eq!(branch.balance("credits")["renews_at"], Value::Null);
    // Neither by time, nor by an edit of the policy.
    branch.policy = sold::edited("starter_500");
    branch.evict();
    for date in ["2027-01-02", "2027-02-05", "2027-06-01"] {
        branch.set_clock(moment(date));
        branch.check().expect("sound books");
    }
    assert_eq!(of_kind(&branch, EntryKind::Renewed), renewed);
    assert_eq!(
        branch.balance("credits")["available"],
        0,
        "what it had has expired"
    );
}

#[test]
fn what_would_change_a_closed_account_is_a_conflict() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    let grant = Command::Grant(tollgate::account::NewGrant {
        pool: "credits".into(),
        amount: sold::credits(50),
        source: Source::Extra,
        expires_at: None,
        reference: None,
    });
    let granted = branch.manage(grant.clone(), Some(fingerprint(7, 7)));
    branch.set_clock(moment(CLOSED));
    close(&mut branch);
    let before = branch.store().clone();
    let (new, digest, key) = (NewKey::default(), digest_of(9), KeyNumber::new(1));
    let rotate = tollgate::account::RotateKey {
        key,
        overlap: Span::ZERO,
    };
    let patch = PatchAccount {
        name: Some(Edit::Set("Acme".into())),
        ..PatchAccount::default()
    };
    for command in [
        Command::Patch(patch),
        Command::CreateKey { new, digest },
        Command::PatchKey {
            key,
            patch: Default::default(),
        },
        Command::RotateKey { rotate, digest },
        Command::RevokeKey(key),
        grant.clone(),
        Command::Adjust(tollgate::account::Adjustment {
            pool: "credits".into(),
            credits: sold::credits(1),
            takes_away: true,
            reason: "a mistake".into(),
        }),
    ] {
        let Reply::Problem(complaint) = branch.manage(command.clone(), None) else {
            panic!("{command:?}");
        };
        assert_eq!(complaint.code, Code::Conflict, "{command:?}");
        assert!(
            complaint.detail.contains("closed at 2026-11-10T12:00:00Z"),
            "{complaint:?}"
        );
    }
    assert!(branch.store().holds_the_same_as(&before));
    // What was answered before is answered again.
    assert_eq!(branch.manage(grant, Some(fingerprint(7, 7))), granted);

    // It can be read as before; only its keys have changed.
    assert_eq!(branch.show_key(1)["status"], "revoked");
    assert_eq!(branch.balance("credits")["available"], 350);
    assert!(!branch.ledger(50).is_empty());
    branch.check().expect("sound books");
}

#[test]
fn a_closed_account_is_kept_for_retain_days_and_then_erased_by_the_alarm() {
    let mut branch = closed();
    let directory::Request::Tell(report) = &told(&mut branch)[..][0] else {
        panic!("the directory is told");
    };
    assert_eq!(report.account.status.name(), "closed");
    assert!(report.secrets.is_empty(), "no key stands");
    let version = report.version;
    let due = moment(ERASED);
    branch.set_clock(due.minus(Span::from_millis(1)));
    branch.rest().expect("a store that works");
    assert_eq!(branch.object.next_alarm(), Some(due));
    assert_eq!(branch.balance("credits")["spent"], 0);

    // Whoever reads it later than that erases nothing, but has the alarm set.
    branch.set_clock(due);
    assert!(matches!(
        branch.manage(Command::Show, None),
        Reply::Document(_)
    ));
    assert_eq!(branch.object.next_wakeup(), Some(due));
    // What cannot be written has not happened.
    let before = branch.store().clone();
    branch.object.store_mut().commits_to_fail = 1;
    assert!(branch.tick().is_err());
    assert!(branch.store().holds_the_same_as(&before));
    assert!(matches!(
        branch.manage(Command::Show, None),
        Reply::Document(_)
    ));

    branch.tick().expect("a store that works");
    assert_eq!(branch.store().load().expect("a store that works"), None);
    assert_eq!(
        (
            branch.store().entries().len(),
            branch.store().calls().count()
        ),
        (0, 0)
    );
    assert_eq!(branch.object.next_alarm(), None);
    for evicted in [false, true] {
        if evicted {
            branch.evict();
        }
        assert_eq!(branch.call(cost(1)), Reply::Refused(Refusal::UnknownKey));
        assert_eq!(
            branch.read(1, Page::Me),
            Reply::Refused(Refusal::UnknownKey)
        );
        let call = Command::ShowCall(CallNumber::new(1).expect("a number"));
        for command in [Command::Show, Command::Close, Command::Balance, call] {
            assert_eq!(code(&branch.manage(command, None)), Some(Code::NotFound));
        }
        // The id is never given out again, not even to the request that opened it.
        assert_eq!(code(&branch.open("free", None, None)), Some(Code::Conflict));
    }
    // The directory is told until it knows, as a later version.
    let late = directory::Reply::Known(version);
    branch
        .object
        .hear(&late, branch.clock)
        .expect("a store that works");
    assert!(branch.object.report_at(branch.clock).is_some());
    let id = AccountId::parse("acc").expect("an id");
    let erased = directory::Request::Erased {
        id,
        version: version + 1,
    };
    assert_eq!(told(&mut branch), [erased]);
    branch.evict();
    assert_eq!(
        code(&branch.manage(Command::Show, None)),
        Some(Code::NotFound)
    );
    assert_eq!(branch.object.report_at(branch.clock), None);
}

#[test]
fn an_account_is_not_erased_while_a_call_of_it_is_open() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    branch.call(job(20));
    branch.settle(1, 202);
    branch.policy = sold::edited("standard retain_10");
    branch.evict();
    close(&mut branch);
    branch.set_clock(moment("2026-11-20"));
    branch.rest().expect("a store that works");
    assert_eq!(
        branch.object.next_alarm(),
        Some(moment("2026-11-22")),
        "the job's"
    );
    branch.set_clock(moment("2026-11-23"));
    branch.tick().expect("a store that works");
    assert!(
        branch.object.account().is_none(),
        "nothing is open any more"
    );
}

#[test]
fn a_clock_that_strays_has_nothing_erased_too_soon() {
    // Order time is ahead when it is closed: it is kept longer, not shorter.
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    branch.set_clock(moment("2026-12-02"));
    branch.tick().expect("a store that works");
    branch.set_clock(moment(CLOSED));
    close(&mut branch);
    branch.set_clock(moment(ERASED));
    branch.rest().expect("a store that works");
    assert_eq!(branch.object.next_alarm(), Some(moment("2028-01-06")));

    // Order time is past the end, the clock is not.
    let mut branch = closed();
    branch.set_clock(moment(ERASED));
    branch.manage(Command::Show, None);
    branch.set_clock(moment(ERASED).minus(Span::from_days(300)));
    branch.tick().expect("a store that works");
    assert!(branch.object.account().is_some());
    assert_eq!(
        branch.object.next_wakeup(),
        Some(moment(ERASED)),
        "not at once, again and again"
    );
}
