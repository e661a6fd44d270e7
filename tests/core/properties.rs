//! Random histories of one account: what holds between any two commands, and after a replay.

use proptest::prelude::*;
use tollgate::{
    account::{
        Account, Adjustment, Edit, KeyLimits, Limit, PatchKey, Refusal, Scope, Status,
        StatusChange, Told, Word,
    },
    call::{BodyEnd, CallState},
    ledger::{Entry, EntryKind},
    object::Object,
    policy::Source,
    price::{Job, OnUnknown, Terms},
    protocol::{Command, Page, Reply, UsageQuery},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost, fingerprint},
    sold,
    statement::moment,
};

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    Wait(i64),
    Call {
        key: u32,
        terms: Terms,
        /// The `Idempotency-Key` and the content.
        retried: Option<(u8, u8)>,
    },
    Settle {
        back: u64,
        status: u16,
        body: Option<BodyEnd>,
    },
    Cancel {
        back: u64,
    },
    /// The origin's word: everything back, so many credits, or all that is held.
    Word {
        back: u64,
        told: Option<Told>,
    },
    Adjust {
        pool: usize,
        amount: u64,
        takes_away: bool,
    },
    Grant {
        pool: usize,
        amount: u64,
        source: Source,
        days: Option<i64>,
    },
    Plan(usize),
    Subscription(StatusChange),
    Suspend(bool),
    Close,
    PatchKey {
        key: u32,
        patch: PatchKey,
    },
    Rotate {
        key: u32,
        overlap: Span,
    },
    Policy(usize),
    Read,
    FailNext,
    Evict,
}

/// The plans that accounts are opened on.
pub const PLANS: [&str; 8] = [
    "free", "starter", "pro", "saver", "calendar", "prepaid", "tight", "strict",
];
const POOLS: [&str; 3] = ["credits", "lyrics", "strict"];
const POLICIES: [&str; 11] = [
    "standard",
    "usage_1",
    "usage_20",
    "starter_2_per_minute starter_500",
    "without_starter",
    "without_lyrics",
    "extra_needs_subscription",
    "subscription_first",
    "told",
    "told starter_500",
    "unusual",
];

fn terms() -> impl Strategy<Value = Terms> {
    (
        0_usize..3,
        0_u64..80,
        0_u64..200,
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(|(pool, least, more, is_job, charges_unknown)| Terms {
            most: sold::credits(if more > 150 { least + more } else { least }),
            job: is_job.then_some(Job {
                settle_within: Span::from_days(2),
                on_unknown: OnUnknown::Charge,
            }),
            on_unknown: if charges_unknown {
                OnUnknown::Charge
            } else {
                OnUnknown::Release
            },
            ..Terms::fixed(POOLS[pool].into(), sold::credits(least))
        })
}

fn body() -> impl Strategy<Value = Option<BodyEnd>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(BodyEnd::Left)),
        2 => any::<bool>().prop_map(|begun| Some(BodyEnd::BrokenOff { begun })),
    ]
}

fn wait() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0_i64..2_000,
        4 => 2_000_i64..70_000,
        2 => 70_000_i64..400_000,
        1 => 400_000_i64..200_000_000,
        1 => 200_000_000_i64..4_000_000_000,
    ]
}

/// Any step of a history.
pub fn step() -> impl Strategy<Value = Step> {
    let source = prop_oneof![
        Just(Source::Promo),
        Just(Source::Extra),
        Just(Source::Subscription)
    ];
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(404_u16), 1 => Just(500_u16)];
    let subscription = prop_oneof![
        2 => Just(StatusChange::Active),
        1 => Just(StatusChange::Cancelled),
        1 => Just(StatusChange::Lapsed)
    ];
    prop_oneof![
        10 => wait().prop_map(Step::Wait),
        16 => (1_u32..3, terms(), prop::option::weighted(0.4, (0_u8..4, 0_u8..2)))
            .prop_map(|(key, terms, retried)| Step::Call { key, terms, retried }),
        12 => (0_u64..6, status, body())
            .prop_map(|(back, status, body)| Step::Settle { back, status, body }),
        2 => (0_u64..6).prop_map(|back| Step::Cancel { back }),
        4 => (0_u64..9, told()).prop_map(|(back, told)| Step::Word { back, told }),
        1 => (0_usize..3, 1_u64..200, any::<bool>())
            .prop_map(|(pool, amount, takes_away)| Step::Adjust { pool, amount, takes_away }),
        4 => (0_usize..3, 1_u64..300, source, prop::option::of(0_i64..40))
            .prop_map(|(pool, amount, source, days)| Step::Grant { pool, amount, source, days }),
        1 => (0_usize..PLANS.len()).prop_map(Step::Plan),
        1 => subscription.prop_map(Step::Subscription),
        1 => any::<bool>().prop_map(Step::Suspend),
        3 => (1_u32..3, key_patch()).prop_map(|(key, patch)| Step::PatchKey { key, patch }),
        1 => (1_u32..3, 0_i64..100_000).prop_map(|(key, seconds)| {
            let overlap = Span::from_seconds(seconds);
            Step::Rotate { key, overlap }
        }),
        1 => (0_usize..POLICIES.len()).prop_map(Step::Policy),
        1 => Just(Step::Read),
        1 => Just(Step::FailNext),
        1 => Just(Step::Evict),
    ]
}

/// One of the things that a key can have of its own.
fn key_patch() -> impl Strategy<Value = PatchKey> {
    fn edit<T: std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Option<Edit<T>>> {
        prop::option::weighted(0.8, value)
            .prop_map(|value| Some(value.map_or(Edit::Remove, Edit::Set)))
    }
    let untouched = PatchKey::default;
    let limit = || {
        prop_oneof![
            1 => Just(None),
            1 => Just(Some(Limit::Unlimited)),
            3 => (1_u32..12).prop_map(|limit| Some(Limit::Of(limit))),
        ]
    };
    let limits =
        (limit(), limit(), limit(), limit()).prop_map(|(minute, day, in_flight, jobs)| KeyLimits {
            requests_per_minute: minute,
            requests_per_day: day,
            requests_in_flight: in_flight,
            jobs_open: jobs,
        });
    let route = prop::sample::select(vec!["POST /search", "GET /tracks/*"]);
    let scope = route.prop_map(|route| Scope::new(vec![route.to_owned()]));
    let expires_at = (0_i64..60).prop_map(|days| moment("2027-12-21").plus(Span::from_days(days)));
    prop_oneof![
        4 => edit((0_u64..150).prop_map(sold::credits))
            .prop_map(move |budget| PatchKey { budget, ..untouched() }),
        3 => edit(limits).prop_map(move |limits| PatchKey { limits, ..untouched() }),
        1 => edit(scope).prop_map(move |scope| PatchKey { scope, ..untouched() }),
        1 => edit(expires_at).prop_map(move |expires_at| PatchKey { expires_at, ..untouched() }),
    ]
}

fn told() -> impl Strategy<Value = Option<Told>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(Told::Hold)),
        1 => (0_u64..90).prop_map(|amount| Some(Told::Credits(sold::credits(amount)))),
    ]
}

impl Step {
    /// Carries it out; `None` where there is nothing to be told.
    pub fn play(&self, branch: &mut Branch) -> Option<Reply> {
        Some(match self {
            Self::Wait(millis) => {
                branch.set_clock(branch.clock.plus(Span::from_millis(*millis)));
                return None;
            }
            Self::Call {
                key,
                terms,
                retried,
            } => {
                let operation = branch.operation();
                let retried = retried.map(|(key, content)| fingerprint(key, content));
                branch.ask(operation, *key, terms.clone(), retried)
            }
            Self::Settle { back, status, body } => {
                branch.settle_body(nth_latest(branch, *back)?, *status, *body)
            }
            Self::Cancel { back } => {
                let call = nth_latest(branch, *back)?;
                let operation = branch.row(call).call.hold.operation;
                branch.cancel(operation)
            }
            Self::Word { back, told } => {
                let call = nth_latest(branch, *back)?;
                let word = told.map_or(Word::Release { reason: None }, Word::Settle);
                branch.end_call(call, word, None)
            }
            Self::Adjust {
                pool,
                amount,
                takes_away,
            } => {
                let adjustment = Adjustment {
                    pool: POOLS[*pool].into(),
                    credits: sold::credits(*amount),
                    takes_away: *takes_away,
                    reason: "a mistake".into(),
                };
                branch.manage(Command::Adjust(adjustment), None)
            }
            Self::Grant {
                pool,
                amount,
                source,
                days,
            } => {
                let expires_at = days.map(|days| branch.clock.plus(Span::from_days(days)));
                branch.grant(POOLS[*pool], *amount, *source, expires_at)
            }
            Self::Plan(plan) => branch.change_plan(PLANS[*plan]),
            Self::Subscription(change) => branch.change_subscription(*change),
            Self::Suspend(suspend) => branch.change_status(if *suspend {
                Status::Suspended { reason: None }
            } else {
                Status::Active
            }),
            Self::Close => branch.close(),
            Self::PatchKey { key, patch } => branch.patch_key(*key, patch.clone()),
            Self::Rotate { key, overlap } => branch.rotate_key(*key, *overlap),
            Self::Policy(policy) => {
                branch.policy = sold::edited(POLICIES[*policy]);
                branch.evict();
                return None;
            }
            Self::Read => branch.read(
                1,
                Page::Usage(UsageQuery {
                    limit: 500,
                    offset: 0,
                    ..UsageQuery::default()
                }),
            ),
            Self::FailNext => {
                branch.object.store_mut().commits_to_fail = 1;
                return None;
            }
            Self::Evict => {
                branch.evict();
                return None;
            }
        })
    }
}

/// How many entries gave something that calls had not taken.
fn given(branch: &Branch) -> usize {
    let entries = branch.store().entries().iter();
    entries
        .filter(|entry| match entry.kind {
            EntryKind::Granted
            | EntryKind::Renewed
            | EntryKind::RolledOver
            | EntryKind::Adjusted
            | EntryKind::Bought
            | EntryKind::ToppedUp
            | EntryKind::GivenBack => true,
            EntryKind::Expired
            | EntryKind::Corrected
            | EntryKind::Refunded
            | EntryKind::TakenBack
            | EntryKind::Shortfall => false,
        })
        .count()
}

fn nth_latest(branch: &Branch, back: u64) -> Option<u64> {
    let last = branch.store().calls().last()?.call.number.get();
    last.checked_sub(back).filter(|call| *call > 0)
}

fn opened(plan: usize) -> Branch {
    let mut branch = Branch::with_account("standard", PLANS[plan], moment("2027-12-20T09:30:00"));
    branch.create_key();
    branch
}

/// `PROPTEST_CASES` runs more.
pub fn config(cases: u32) -> ProptestConfig {
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if told { default.cases } else { cases },
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config(48))]

    /// The auditor's books, the account's and those of the account woken from storage agree.
    #[test]
    fn the_books_are_sound_and_waking_is_exact(
        plan in 0_usize..PLANS.len(),
        mut steps in prop::collection::vec(step(), 1..120),
        closes_after in prop::option::weighted(0.25, 0_usize..120),
    ) {
        let mut branch = opened(plan);
        if let Some(after) = closes_after {
            steps.insert(after.min(steps.len()), Step::Close);
        }
        for step in &steps {
            let closed = branch.object.account().is_some_and(Account::is_closed);
            let given_before = given(&branch);
            let reply = step.play(&mut branch);
            if closed {
                prop_assert!(!matches!(reply, Some(Reply::Admitted(_))), "{step:?} -> {reply:?}");
                prop_assert_eq!(given_before, given(&branch), "{:?}", step);
            }
            let failed = branch.store().commits_to_fail > 0;
            if !failed && let Err(mistake) = branch.check() {
                prop_assert!(false, "after {step:?}: {mistake}");
            }
        }
        branch.object.store_mut().commits_to_fail = 0;
        // Down to the bytes: both write a snapshot now.
        branch.rest().map_err(TestCaseError::fail)?;
        // What was refused since the last snapshot is told by memory alone, until the next.
        branch.cancel(2);
        let mut woken = Branch::new(branch.policy.clone(), branch.clock);
        woken.object = Object::new(branch.store().clone(), branch.policy.clone());
        woken.rest().map_err(TestCaseError::fail)?;
        branch.cancel(1);
        woken.cancel(1);
        prop_assert!(branch.store().holds_the_same_as(woken.store()));
    }

    /// A repeat of any message gets the same answer and changes nothing.
    #[test]
    fn a_replay_changes_nothing(
        plan in 0_usize..PLANS.len(),
        steps in prop::collection::vec(step(), 1..60),
        status in prop_oneof![Just(200_u16), Just(500_u16)],
        terms in terms(),
        retried in prop::option::of((0_u8..4, 0_u8..2)),
    ) {
        let mut branch = opened(plan);
        for step in &steps {
            step.play(&mut branch);
        }
        // What is refused is counted each time, and may be flagged once it was too often.
        prop_assume!(branch.policy.unusual.is_none());
        branch.object.store_mut().commits_to_fail = 0;
        let operation = branch.operation();
        let retried = retried.map(|(key, content)| fingerprint(key, content));
        let first = branch.ask(operation, 1, terms.clone(), retried);
        let before = branch.balance("credits");
        let rows = branch.store().rows_written;
        for _ in 0..2 {
            prop_assert_eq!(&first, &branch.ask(operation, 1, terms.clone(), retried));
        }
        prop_assert_eq!(rows, branch.store().rows_written);
        prop_assert_eq!(before, branch.balance("credits"));
        if let Reply::Admitted(admission) = first {
            let call = admission.call.get();
            let settled = branch.settle(call, status);
            let before = branch.balance("credits");
            let rows = branch.store().rows_written;
            prop_assert_eq!(&settled, &branch.settle(call, status));
            branch.evict();
            prop_assert_eq!(&settled, &branch.settle(call, status));
            prop_assert_eq!(rows, branch.store().rows_written);
            prop_assert_eq!(before, branch.balance("credits"));
        }
    }

    /// Refused until exactly the told second, and admitted at it.
    #[test]
    fn a_lone_caller_passes_at_the_told_second_and_not_a_second_before(
        plan in 0_usize..PLANS.len(),
        steps in prop::collection::vec(step(), 1..60),
        amount in 0_u64..120,
    ) {
        let mut branch = opened(plan);
        for step in &steps {
            step.play(&mut branch);
        }
        branch.object.store_mut().commits_to_fail = 0;
        // A lone caller: nothing of its own is open, and nobody else changes anything.
        branch.change_status(Status::Active);
        branch.patch_key(
            1,
            PatchKey {
                expires_at: Some(Edit::Remove),
                ..PatchKey::default()
            },
        );
        for call in open_calls(&branch) {
            branch.settle(call, 500);
        }
        prop_assume!(open_calls(&branch).is_empty());
        for _ in 0..6 {
            let start = branch.clock;
            let reply = branch.call(cost(amount));
            let Some(retry_at) = retry_at(&reply) else {
                if let Reply::Admitted(admission) = reply {
                    branch.settle(admission.call.get(), 500);
                    continue;
                }
                break;
            };
            let seconds = retry_at.since(start).as_seconds_ceil();
            let is_minute_or_renewal = seconds < 40 * 86_400;
            prop_assert!(is_minute_or_renewal, "{seconds} s");
            if seconds > 1 {
                branch.set_clock(retry_at.minus(Span::from_millis(1)));
                let early = branch.call(cost(amount));
                prop_assert!(matches!(early, Reply::Refused(_)), "1 ms early: {early:?}");
            }
            branch.set_clock(start.plus(Span::from_seconds(seconds)));
            let again = branch.call(cost(amount));
            if let Reply::Admitted(admission) = again {
                branch.settle(admission.call.get(), 500);
                continue;
            }
            // The limit frees as it was told; what would have paid was gone by then.
            let is_short = matches!(again, Reply::Refused(Refusal::InsufficientCredits { .. }));
            let was_limited = matches!(reply, Reply::Refused(Refusal::RateLimited { .. }));
            // Too many refused calls may restrict the key, where the policy says so.
            let is_restricted = matches!(
                again,
                Reply::Refused(Refusal::Suspended { restricted: Some(_), .. })
            );
            let is_spent = is_short && was_limited && has_expired_since(&branch, start);
            let excused = is_restricted || is_spent;
            prop_assert!(excused, "after {seconds} s: {again:?}");
            break;
        }
    }

    /// Never more than the limit in any 60 seconds, whatever is evicted, fails or is undone.
    #[test]
    fn never_more_than_the_limit_in_any_sixty_seconds(
        steps in prop::collection::vec(
            prop_oneof![
                6 => (0_i64..25_000).prop_map(Step::Wait),
                12 => (1_u32..3, 0_u64..2).prop_map(|(key, amount)| Step::Call { key, terms: cost(amount), retried: None }),
                6 => (0_u64..4).prop_map(|back| Step::Settle { back, status: 200, body: None }),
                1 => (0_u64..4).prop_map(|back| Step::Cancel { back }),
                1 => Just(Step::Evict),
                1 => Just(Step::FailNext),
            ],
            1..200,
        ),
    ) {
        let mut branch = opened(0);
        branch.grant("credits", 1_000, Source::Extra, None);
        for step in &steps {
            step.play(&mut branch);
        }
        for key in 1..=2 {
            let admitted: Vec<Timestamp> = branch
                .store()
                .calls()
                .filter(|row| row.call.key.get() == key && !is_undone(row))
                .map(|row| row.call.admitted_at)
                .collect();
            for (index, at) in admitted.iter().enumerate().skip(5) {
                prop_assert!(at.since(admitted[index - 5]) >= Span::MINUTE);
            }
            prop_assert!(admitted.len() <= 50);
        }
    }
}

/// Whether a lot ran out after `start` that no renewal replaced.
fn has_expired_since(branch: &Branch, start: Timestamp) -> bool {
    let entries = || branch.store().entries().iter();
    entries().any(|expired| {
        let is_renewed = |entry: &Entry| entry.kind == EntryKind::Renewed && entry.at == expired.at;
        expired.kind == EntryKind::Expired && expired.at > start && !entries().any(is_renewed)
    })
}

fn is_undone(row: &tollgate::call::CallRow) -> bool {
    row.outcome
        .as_ref()
        .is_some_and(|outcome| outcome.state == CallState::Cancelled)
}

fn open_calls(branch: &Branch) -> Vec<u64> {
    branch
        .store()
        .calls()
        .filter(|row| {
            row.outcome
                .as_ref()
                .is_none_or(|outcome| outcome.state == CallState::Job)
        })
        .map(|row| row.call.number.get())
        .collect()
}

fn retry_at(reply: &Reply) -> Option<Timestamp> {
    match reply {
        Reply::Refused(Refusal::RateLimited { retry_at, .. }) => Some(*retry_at),
        Reply::Refused(Refusal::InsufficientCredits {
            renews_at,
            affordable_then: true,
            ..
        }) => *renews_at,
        _ => None,
    }
}
