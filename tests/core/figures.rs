//! What accounts count for `GET /status`, and that the directory counts it once.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::{
    account::{Admit, Cancel, FIGURES_SPREAD, Fingerprint, NewAccount, NewKey, Told, Word},
    directory::{self, Directory},
    id::{AccountId, CallNumber, KeyNumber},
    object::{Object, Opened},
    policy::{Policy, Source},
    protocol::{Command, Manage, Reply, Request, decode, encode},
    status::{Counts, HOURS_KEPT, Hours, Refusals, status},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost, digest_of, fingerprint},
    memory_directory::MemoryDirectory,
    memory_store::MemoryStore,
    properties::config,
    sold,
    statement::moment,
};

static SOLD: LazyLock<Arc<Policy>> = LazyLock::new(|| sold::edited("standard"));

/// So long after an hour every account has told it.
const TOLD_AFTER: Span = Span::from_seconds(3_600 + 1_800);

fn directory() -> Directory<MemoryDirectory> {
    Directory::new(MemoryDirectory::default(), Arc::clone(&SOLD))
}

/// Sends a request as it travels: in bytes.
fn ask(
    directory: &mut Directory<MemoryDirectory>,
    request: &directory::Request,
) -> directory::Reply {
    let request = decode(&encode(request)).unwrap();
    decode(&encode(&directory.handle(request))).unwrap()
}

/// What the directory shows of a period, as `GET /status` would.
fn shown(directory: &mut Directory<MemoryDirectory>, from: &str, to: &str) -> Value {
    let (from, to) = (moment(from), moment(to));
    let directory::Reply::Status(hours) = ask(directory, &directory::Request::Status { from, to })
    else {
        panic!("no status");
    };
    let json = status(&hours, (from, to), to, Span::from_seconds(300));
    serde_json::from_str(&json).unwrap()
}

fn list(directory: &mut Directory<MemoryDirectory>, branch: &Branch) {
    let report = branch.object.account().unwrap().listing();
    ask(directory, &directory::Request::Tell(report));
}

/// What the account tells now, and that the directory has counted it.
fn tell(directory: &mut Directory<MemoryDirectory>, branch: &mut Branch) -> bool {
    let Some(report) = branch.object.figures_report(branch.clock) else {
        return false;
    };
    let reply = ask(directory, &report);
    branch.object.hear(&reply, branch.clock).unwrap();
    true
}

/// A refusal told by an isolate that has repeated others.
fn refused_after(branch: &mut Branch, repeated: &[(&str, u64)]) {
    let repeated = repeated
        .iter()
        .map(|(code, times)| ((*code).to_owned(), *times));
    let reply = branch.send(Request::Admit(Admit {
        operation: 77,
        key: KeyNumber::new(1),
        digest: digest_of(99),
        method: "POST".into(),
        endpoint: "/search".into(),
        terms: cost(1),
        repeated_refusals: 0,
        repeated_by_code: repeated.collect::<Refusals>(),
        retried: None,
    }));
    assert!(matches!(reply, Reply::Refused(_)));
}

#[test]
fn what_requests_came_to_is_counted_in_its_hour() {
    let mut directory = directory();
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:20:00"));
    list(&mut directory, &branch);
    let hold = Span::from_seconds(300);
    for call in 1..=2 {
        branch.call(cost(1));
        branch.settle(call, 200);
    }
    // Nobody ends the third; what it came to is heard much later.
    branch.call(cost(1));
    let third = branch.operation() - 1;
    branch.call(cost(100));
    refused_after(&mut branch, &[("rate_limited", 40), ("invalid_key", 2)]);
    // Its answer was lost, and the word of that comes twice.
    branch.call(cost(1));
    let lost = branch.operation() - 1;
    for _ in 0..2 {
        branch.send(Request::Cancel(Cancel { operation: lost }));
    }
    branch.set_clock(moment("2026-11-02T10:50:00"));
    branch.tick().unwrap();
    branch.set_clock(moment("2026-11-02T11:05:00"));
    branch.send(Request::Settle(crate::branch::answered(third, 3, 200)));

    // The first hour is over; the second is told when it is.
    branch.set_clock(moment("2026-11-02T11:59:59"));
    assert!(tell(&mut directory, &mut branch));
    let ten = json!({
        "hour": "2026-11-02T10:00:00Z", "admitted": 4,
        "refused": { "insufficient_credits": 1, "invalid_key": 3, "rate_limited": 40 },
        "unavailable": 1, "ended_unknown": 1, "late_settles": 0, "failed_audits": 0,
    });
    let day = ("2026-11-02", "2026-11-03");
    let told = shown(&mut directory, day.0, day.1);
    assert_eq!(told["data"], json!([ten]));
    branch.set_clock(moment("2026-11-02T13:30:00"));
    assert!(tell(&mut directory, &mut branch));
    let eleven = json!({
        "hour": "2026-11-02T11:00:00Z", "admitted": 0, "refused": {},
        "unavailable": 0, "ended_unknown": 0, "late_settles": 1, "failed_audits": 0,
    });
    let told = shown(&mut directory, day.0, day.1);
    assert_eq!(told["data"], json!([eleven, ten]));
    // Until 30 minutes after its end, a hold, and a minute for the alarm.
    assert_eq!(told["as_of"], "2026-11-02T23:00:00Z");
    assert_eq!(hold, branch.policy.gateway.hold);
    let first = shown(&mut directory, "2026-11-02T10:00:00", "2026-11-02T11:00:00");
    assert_eq!(first["data"], json!([ten]));
    assert!(!tell(&mut directory, &mut branch), "there is nothing more");
    branch.check().unwrap();
}

#[test]
fn a_late_word_of_the_origins_and_a_failed_audit_are_counted() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:20:00"));
    branch.call(cost(1));
    branch.set_clock(moment("2026-11-02T10:30:00"));
    branch.tick().unwrap();
    let call = CallNumber::new(1).unwrap();
    let word = Word::Settle(Told::Hold);
    branch.manage(Command::EndCall { call, word }, None);
    // A refund replaces no unknown end.
    let word = Word::Release { reason: None };
    branch.manage(Command::EndCall { call, word }, None);
    branch.grant("credits", 5, Source::Extra, None);
    let store = branch.object.store_mut();
    store.tamper_with_entries(|entries| drop(entries.pop()));
    assert!(branch.audit_itself().is_err());
    branch.set_clock(moment("2026-11-02T12:00:00"));
    let hours = branch.object.account().unwrap().figures(branch.clock);
    let counts = hours.iter().next().unwrap();
    assert_eq!(
        (
            counts.ended_unknown,
            counts.late_settles,
            counts.failed_audits
        ),
        (1, 1, 1)
    );
    branch.evict();
    branch.tick().unwrap();
    assert_eq!(
        branch.object.account().unwrap().figures(branch.clock),
        hours,
        "stored"
    );
}

#[test]
fn calls_write_nothing_for_figures_and_a_report_costs_a_row_here_and_two_there() {
    let mut directory = directory();
    let mut branch = Branch::with_account("standard", "pro", moment("2026-11-02T10:00:00"));
    list(&mut directory, &branch);
    branch.call(cost(0));
    branch.settle(1, 200);
    let rows = branch.store().rows_written;
    for call in 2..=101 {
        branch.call(cost(0));
        branch.settle(call, 200);
        assert!(branch.object.figures_report(branch.clock).is_none());
    }
    assert_eq!(branch.store().rows_written - rows, 200);
    let due = branch.object.figures_at(branch.clock).unwrap();
    let end = moment("2026-11-02T11:00:00");
    assert!(end <= due && due < end.plus(FIGURES_SPREAD), "{due:?}");
    branch.set_clock(due);
    let before = (branch.store().rows_written, directory.store().rows_written);
    assert!(tell(&mut directory, &mut branch));
    let after = (branch.store().rows_written, directory.store().rows_written);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 2));
    // An account that nobody calls has nothing to tell, ever.
    assert_eq!(branch.object.figures_at(branch.clock), None);
    branch.set_clock(due.plus(Span::from_days(60)));
    branch.tick().unwrap();
    assert_eq!(branch.object.figures_at(branch.clock), None);
}

#[test]
fn while_the_directory_cannot_be_told_it_is_tried_less_and_less_often() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    branch.call(cost(0));
    let due = branch.object.figures_at(branch.clock).unwrap();
    for (behind, wait) in [(0, 10), (60, 60), (600, 600), (36_000, 3_600)] {
        let clock = due.plus(Span::from_seconds(behind));
        let retry_at = clock.plus(Span::from_seconds(wait));
        assert_eq!(branch.object.figures_at(clock), Some(retry_at));
    }
}

/// An account that tells `count` calls in each of `hours` hours from the first of 2026 on.
fn tell_hours(directory: &mut Directory<MemoryDirectory>, id: &AccountId, from: u64, to: u64) {
    for number in from..=to {
        let hour = Timestamp::EPOCH.plus(Span::from_seconds(number as i64 * 3_600));
        let mut hours = Hours::default();
        hours.count(&Counts {
            admitted: 1,
            ..Counts::at(hour)
        });
        let request = directory::Request::Count {
            account: id.clone(),
            number,
            hours,
        };
        assert!(matches!(
            ask(directory, &request),
            directory::Reply::Counted { .. }
        ));
    }
}

#[test]
fn the_latest_hours_are_kept_and_no_request_reads_more_than_them() {
    let mut directory = directory();
    let branch = Branch::with_account("standard", "free", Timestamp::EPOCH);
    list(&mut directory, &branch);
    let id = branch.object.account().unwrap().id().clone();
    let kept = HOURS_KEPT as u64;
    tell_hours(&mut directory, &id, 1, kept + 10);
    // A clock that strays costs one hour of them.
    directory.store().rows_read.set(0);
    tell_hours(&mut directory, &id, 9_000_000, 9_000_000);
    assert!(directory.store().rows_read.get() < 800);
    directory.store().rows_read.set(0);
    let (from, to) = (Timestamp::EPOCH, Timestamp::from_millis(i64::MAX));
    let directory::Reply::Status(hours) =
        ask(&mut directory, &directory::Request::Status { from, to })
    else {
        panic!("no status");
    };
    assert!(directory.store().rows_read.get() <= kept);
    assert_eq!(hours.iter().count() as u64, kept);
    assert_eq!(hours.first(), Some(Timestamp::from_seconds(12 * 3_600)));
}

#[test]
fn an_account_whose_count_was_lost_counts_on_from_the_directorys() {
    let mut directory = directory();
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    list(&mut directory, &branch);
    let id = branch.object.account().unwrap().id().clone();
    tell_hours(&mut directory, &id, 1, 7);
    branch.call(cost(0));
    branch.set_clock(moment("2026-11-02T12:00:00"));
    assert!(
        tell(&mut directory, &mut branch),
        "under a number that is no news"
    );
    assert!(tell(&mut directory, &mut branch), "under one that is");
    assert!(!tell(&mut directory, &mut branch));
    let told = shown(&mut directory, "2026-11-02", "2026-11-03");
    assert_eq!(told["data"][0]["admitted"], 1);
}

// Accounts and the directory over a network that loses, repeats and reorders.

const ACCOUNTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Call(usize),
    /// With a secret that is none.
    Refuse(usize),
    /// The clock moves by so many minutes.
    Pass(u8),
    TurnBack(u8),
    /// The alarm, or the end of any message.
    Tell(usize),
    Arrive(usize),
    Repeat(usize),
    Lose(usize),
    /// Something else of the account changes.
    Rename(usize),
    Evict(usize),
    EvictDirectory,
    FailCommit(usize),
    FailDirectoryCommit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let account = || 0..ACCOUNTS;
    let step = prop_oneof![
        8 => account().prop_map(Step::Call),
        3 => account().prop_map(Step::Refuse),
        6 => (1..100_u8).prop_map(Step::Pass),
        1 => (1..200_u8).prop_map(Step::TurnBack),
        6 => account().prop_map(Step::Tell),
        10 => (0..6_usize).prop_map(Step::Arrive),
        3 => (0..6_usize).prop_map(Step::Repeat),
        3 => (0..6_usize).prop_map(Step::Lose),
        1 => account().prop_map(Step::Rename),
        2 => account().prop_map(Step::Evict),
        1 => Just(Step::EvictDirectory),
        1 => account().prop_map(Step::FailCommit),
        1 => Just(Step::FailDirectoryCommit),
    ];
    proptest::collection::vec(step, 1..120)
}

#[derive(Clone)]
enum Message {
    ToDirectory(usize, Box<directory::Request>),
    ToAccount(usize, directory::Reply),
}

struct World {
    objects: Vec<Object<MemoryStore>>,
    directory: Directory<MemoryDirectory>,
    in_flight: Vec<Message>,
    clock: Timestamp,
    operation: u64,
    refused: u64,
    is_lossy: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            objects: Vec::new(),
            directory: directory(),
            in_flight: Vec::new(),
            clock: moment("2026-11-02T10:00:00"),
            operation: 0,
            refused: 0,
            is_lossy: false,
        };
        for account in 0..ACCOUNTS {
            let mut object = Object::new(MemoryStore::default(), Arc::clone(&SOLD));
            let new = new_account(account);
            let Opened::Claim(claim) = object.open(&new, world.clock) else {
                panic!("no claim");
            };
            let reply = world.directory.handle(*claim);
            object.claimed(&new, &reply, world.clock);
            world.objects.push(object);
            let command = Command::CreateKey {
                new: NewKey::default(),
                digest: digest_of(1),
            };
            world.manage(account, command);
        }
        world
    }

    fn manage(&mut self, account: usize, command: Command) {
        let manage = Manage {
            command,
            idempotency: None,
            signs_under: None,
        };
        self.objects[account].handle(Request::Manage(manage), self.clock);
    }

    fn ask_for_a_call(&mut self, account: usize, secret: u32) -> Reply {
        self.operation += 1;
        let admit = Admit {
            operation: self.operation,
            key: KeyNumber::new(1),
            digest: digest_of(secret),
            method: "POST".into(),
            endpoint: "/search".into(),
            terms: cost(0),
            repeated_refusals: 0,
            repeated_by_code: Refusals::new(),
            retried: None,
        };
        self.objects[account].handle(Request::Admit(admit), self.clock)
    }

    fn tell(&mut self, account: usize) -> bool {
        let object = &mut self.objects[account];
        self.is_lossy |= object.tick(self.clock).is_err();
        let told = object.report();
        let told = told.or_else(|| object.figures_report(self.clock));
        let Some(request) = told else {
            return false;
        };
        self.in_flight
            .push(Message::ToDirectory(account, Box::new(request)));
        true
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::ToDirectory(account, request) => {
                let reply = ask(&mut self.directory, &request);
                self.in_flight.push(Message::ToAccount(account, reply));
            }
            Message::ToAccount(account, reply) => {
                self.is_lossy |= self.objects[account].hear(&reply, self.clock).is_err();
            }
        }
    }

    fn evict(&mut self, account: usize) {
        let store = self.objects[account].store().clone();
        self.objects[account] = Object::new(store, Arc::clone(&SOLD));
        self.is_lossy = true;
    }

    fn step(&mut self, step: &Step) {
        let picked = |number: usize, of: &[Message]| (!of.is_empty()).then(|| number % of.len());
        match *step {
            Step::Call(account) => {
                let reply = self.ask_for_a_call(account, 1);
                self.is_lossy |= matches!(reply, Reply::Unavailable { .. });
                // What was refused for a limit is refused; the plan has some.
                self.refused += u64::from(matches!(reply, Reply::Refused(_)));
            }
            Step::Refuse(account) => {
                let reply = self.ask_for_a_call(account, 9);
                self.refused += u64::from(matches!(reply, Reply::Refused(_)));
            }
            Step::Pass(minutes) => {
                self.clock = self.clock.plus(Span::from_seconds(60 * i64::from(minutes)))
            }
            // Overtaken by the clock and thrown out of memory, an account may not know how much a
            // message tells that is still on its way: in this history there is none.
            Step::TurnBack(minutes) => {
                self.in_flight.clear();
                self.clock = self
                    .clock
                    .minus(Span::from_seconds(60 * i64::from(minutes)))
            }
            Step::Tell(account) => {
                self.tell(account);
            }
            Step::Arrive(number) => {
                if let Some(at) = picked(number, &self.in_flight) {
                    let message = self.in_flight.remove(at);
                    self.arrive(message);
                }
            }
            Step::Repeat(number) => {
                if let Some(at) = picked(number, &self.in_flight) {
                    let message = self.in_flight[at].clone();
                    self.arrive(message);
                }
            }
            Step::Lose(number) => {
                if let Some(at) = picked(number, &self.in_flight) {
                    self.in_flight.remove(at);
                }
            }
            Step::Rename(account) => {
                let command = Command::Patch(tollgate::account::PatchAccount {
                    name: Some(tollgate::account::Edit::Set(format!(
                        "name {}",
                        self.operation
                    ))),
                    ..Default::default()
                });
                self.manage(account, command);
            }
            Step::Evict(account) => self.evict(account),
            Step::EvictDirectory => {
                let store = self.directory.store().clone();
                self.directory = Directory::new(store, Arc::clone(&SOLD));
            }
            Step::FailCommit(account) => {
                self.objects[account].store_mut().commits_to_fail = 1;
                self.is_lossy = true;
            }
            Step::FailDirectoryCommit => self.directory.store_mut().commits_to_fail = 1,
        }
    }

    /// Everything arrives from now on, and the accounts tell what they have to.
    fn quiet(&mut self) {
        for _ in 0..4 {
            self.clock = self
                .clock
                .plus(Span::from_seconds(4 * 3_600))
                .plus(TOLD_AFTER);
            for account in 0..ACCOUNTS {
                for _ in 0..8 {
                    self.tell(account);
                    while let Some(message) = self.in_flight.pop() {
                        self.arrive(message);
                    }
                }
            }
        }
    }
}

fn new_account(number: usize) -> NewAccount {
    NewAccount {
        id: AccountId::parse(&format!("acc_{number}")).unwrap(),
        external_id: None,
        name: None,
        email: None,
        plan: "pro".to_owned(),
        billing_day: None,
        subscription: None,
        opened_by: Fingerprint {
            key: [number as u8; 32],
            ..fingerprint(0, 0)
        },
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_report_is_counted_once_whatever_is_lost_repeated_or_late(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.quiet();
        let (from, to) = (Timestamp::EPOCH, Timestamp::from_millis(i64::MAX));
        let status = directory::Request::Status { from, to };
        let directory::Reply::Status(hours) = world.directory.handle(status) else {
            panic!("no status");
        };
        let calls: u64 = world
            .objects
            .iter()
            .map(|object| object.account().unwrap().calls_admitted())
            .sum();
        prop_assert_eq!(hours.iter().map(|counts| counts.admitted).sum::<u64>(), calls);
        let refused: u64 = hours.iter().flat_map(|counts| counts.refused.values()).sum();
        // Refusals that were in memory alone may be lost, and none is counted twice.
        if world.is_lossy {
            prop_assert!(refused <= world.refused);
        } else {
            prop_assert_eq!(refused, world.refused);
        }
        for object in &world.objects {
            prop_assert_eq!(object.figures_at(world.clock), None);
        }
    }
}
