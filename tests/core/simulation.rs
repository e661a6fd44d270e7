//! A seeded simulation: Workers, the account's object and an origin over a network that loses,
//! repeats, reorders and delays; commits fail, the object is evicted, its clock steps about.
//!
//! `TOLLGATE_SEEDS=N` runs N seeds from `TOLLGATE_FROM=S` on (`npm run simulate` sets both). A
//! seed that fails is run again with ever fewer of its events while it still fails; what is left
//! is printed with the line that replays it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use tollgate::{
    account::{
        Adjustment, Admit, Cancel, Edit, Fingerprint, Flag, KeyLimits, Limit, NewGrant, NewKey,
        PatchKey, Refusal, Scope, Status, StatusChange, Told, Word,
    },
    call::{BodyEnd, CallRow, CallState, Outcome, Settle},
    id::{AccountId, CallNumber, KeyNumber},
    ledger::EntryKind,
    policy::{Mode, Source},
    price::{ChargeOn, Job, Mark, Meter, OnUnknown, Quantity, Reported, Terms},
    problem::Code,
    protocol::{Command, Manage, Reply, Request},
    time::{Calendar, Span, Timestamp},
    totals::summary::By,
    unsettled::Unsettled,
};

use crate::{
    auditor::{
        audit, audit_calls, audit_costs, audit_ledger, audit_retried, audit_rolled, audit_summary,
        audit_totals, cost_of_month,
    },
    branch::{Branch, digest_after, digest_of, fingerprint},
    sold,
    statement::moment,
};

const SEEDS: u64 = 40;
const REQUESTS: usize = 120;
const FORGIVEN_PER_DAY: usize = 2;

/// How often a seed that fails is run again to find out what it takes to fail.
const SHORTENING_RUNS: usize = 400;
/// After so many seeds a long run says how far it has come.
const SEEDS_PER_LINE: u64 = 500;

#[test]
fn the_books_stand_whatever_the_network_does() {
    let told = |name: &str| std::env::var(name).ok();
    let number = |name: &str| told(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TOLLGATE_SEED") {
        let only = told("TOLLGATE_ONLY").map_or_else(Kept::default, |only| Kept::parse(&only));
        let (history, ended) = run(seed, &only);
        println!("{history}");
        ended.unwrap_or_else(|mistake| panic!("seed {seed}: {mistake}"));
        return;
    }
    let first = number("TOLLGATE_FROM").unwrap_or(0);
    let seeds = number("TOLLGATE_SEEDS").unwrap_or(SEEDS);
    let mut millis = 0;
    for seed in first..first + seeds {
        let mut world = World::new(seed, &Kept::default());
        if let Err(mistake) = world.run() {
            explain(seed, &mistake);
        }
        millis += world.now - world.start;
        let done = seed + 1 - first;
        if done.is_multiple_of(SEEDS_PER_LINE) || done == seeds {
            println!("{done} seeds, {} account-days", millis / 86_400_000);
        }
    }
}

/// Panics with the shortest history found that still fails.
fn explain(seed: u64, mistake: &str) -> ! {
    let kept = shortest(seed);
    let (history, ended) = run(seed, &kept);
    let told = ended.err().unwrap_or_else(|| mistake.to_owned());
    panic!(
        "{history}\nseed {seed}: {mistake}\nshortened: {told}\n\
         TOLLGATE_SEED={seed} TOLLGATE_ONLY={} cargo test --test core simulation -- --nocapture",
        kept.told()
    );
}

/// The Workers know one account.
fn the_account() -> AccountId {
    AccountId::parse("acme").expect("an id")
}

fn run(seed: u64, kept: &Kept) -> (String, Result<(), String>) {
    let mut world = World::new(seed, kept);
    let ended = world.run();
    (world.history, ended)
}

/// Drops ever smaller pieces of what happens while it still fails.
fn shortest(seed: u64) -> Kept {
    let mut runs = 0;
    let mut fails = |kept: &Kept| {
        runs += 1;
        runs <= SHORTENING_RUNS && run(seed, kept).1.is_err()
    };
    let mut kept = Kept {
        roots: Some(World::new(seed, &Kept::default()).roots()),
        ..Kept::default()
    };
    for fault in 0..Kept::FAULTS {
        let mut fewer = kept.clone();
        fewer.faults[fault] = false;
        if fails(&fewer) {
            kept = fewer;
        }
    }
    let mut piece = kept.len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        let mut dropped = false;
        while start < kept.len() {
            let fewer = kept.without(start, piece);
            if fails(&fewer) {
                kept = fewer;
                dropped = true;
            } else {
                start += piece;
            }
        }
        piece = if piece == 1 && dropped { 1 } else { piece / 2 };
    }
    kept
}

/// What of a seed's events takes place.
#[derive(Clone, Debug)]
struct Kept {
    /// The events that no other brings about, by number; `None`: all.
    roots: Option<BTreeSet<u64>>,
    /// Whether the object is evicted, commits fail, the network is bad.
    faults: [bool; Self::FAULTS],
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            roots: None,
            faults: [true; Self::FAULTS],
        }
    }
}

impl Kept {
    const FAULTS: usize = 3;

    fn len(&self) -> usize {
        self.roots.as_ref().map_or(0, BTreeSet::len)
    }

    fn has(&self, root: u64) -> bool {
        self.roots
            .as_ref()
            .is_none_or(|roots| roots.contains(&root))
    }

    fn without(&self, start: usize, piece: usize) -> Self {
        let roots = self.roots.iter().flatten().enumerate();
        let left = roots.filter(|(index, _)| !(start..start + piece).contains(index));
        Self {
            roots: Some(left.map(|(_, root)| *root).collect()),
            ..self.clone()
        }
    }

    /// `110:3,17,20`: the faults, and the events.
    fn told(&self) -> String {
        let faults: String = self
            .faults
            .iter()
            .map(|on| if *on { '1' } else { '0' })
            .collect();
        let roots: Vec<String> = self.roots.iter().flatten().map(u64::to_string).collect();
        format!("{faults}:{}", roots.join(","))
    }

    fn parse(told: &str) -> Self {
        let (faults, roots) = told.split_once(':').expect("faults:events");
        let mut kept = Self::default();
        for (on, told) in kept.faults.iter_mut().zip(faults.chars()) {
            *on = told == '1';
        }
        let roots = roots.split(',').filter(|root| !root.is_empty());
        kept.roots = Some(roots.map(|root| root.parse().expect("a number")).collect());
        kept
    }
}

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }
}

/// What is going to happen.
#[derive(Clone, Debug)]
enum Event {
    /// A client sends its request to a Worker.
    Client(usize),
    /// A message reaches the object, and beside it ends of calls.
    ToObject(Request, Vec<Settle>),
    /// A Worker hears how many of the ends that it told were taken.
    Taken(Vec<Settle>, u32),
    /// A Worker has waited long enough for a message that this end could go with.
    Alone(Settle),
    /// An answer to an admission reaches its Worker.
    ToWorker(usize, Reply),
    /// A Worker has waited long enough for the answer to its attempt.
    Impatient(usize, u32),
    /// The origin answers.
    Origin(usize),
    /// The origin tells how a call ended, or somebody refunds it.
    Word(usize),
    /// The operator does something.
    Operator,
    /// The clock steps, by so many milliseconds.
    ClockSteps(i64),
    /// The clock is right again.
    ClockIsRight,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Asking,
    Forwarded(CallNumber),
    GaveUp,
    Done,
}

/// What a key may do, as the operator has been answered.
#[derive(Clone, Debug, Default)]
struct KeyTerms {
    /// From when on each secret but the latest is dead.
    dead: Vec<Timestamp>,
    budget: Option<u64>,
    limits: KeyLimits,
    scope: Option<&'static str>,
    expires_at: Option<Timestamp>,
}

impl KeyTerms {
    fn knows(&self, secret: u32, clock: Timestamp) -> bool {
        let is_dead = self
            .dead
            .get(secret as usize)
            .is_some_and(|dead| *dead <= clock);
        !is_dead && self.expires_at.is_none_or(|expires_at| clock < expires_at)
    }

    fn allows(&self, (method, endpoint): (&str, &str)) -> bool {
        match self.scope {
            None => true,
            Some("POST /search") => (method, endpoint) == ("POST", "/search"),
            Some(_) => method != "POST" && endpoint.starts_with("/tracks/"),
        }
    }

    /// The minute, day, in flight and jobs that hold for the key.
    fn limits(&self, plan: tollgate::policy::Limits) -> [Option<u32>; 4] {
        let over = |own: Option<Limit>, plan| match own {
            None => plan,
            Some(Limit::Of(limit)) => Some(limit),
            Some(Limit::Unlimited) => None,
        };
        [
            over(self.limits.requests_per_minute, plan.requests_per_minute),
            over(self.limits.requests_per_day, plan.requests_per_day),
            over(self.limits.requests_in_flight, plan.requests_in_flight),
            over(self.limits.jobs_open, plan.jobs_open),
        ]
    }
}

/// A method and a template.
type Route = (&'static str, &'static str);

/// A request on its way through a Worker, and what really happened to it.
#[derive(Clone, Debug)]
struct Journey {
    operation: u64,
    key: u32,
    /// How often the key had been rotated when it got this secret; told when it first asks.
    secret: u32,
    route: Route,
    terms: Terms,
    /// Its `Idempotency-Key` and content.
    retried: Option<Fingerprint>,
    attempts: u32,
    progress: Progress,
    /// What the origin answered: whether at all, the status, seconds of audio.
    answer: Option<(bool, u16, u64)>,
    /// How the answer's body ended, where the call waits for that.
    body: Option<BodyEnd>,
    /// The object has taken the settlement, first at this time of its clock.
    told_at: Option<Timestamp>,
    /// The object has taken the cancel.
    cancelled: bool,
    /// The object has taken somebody's word on how it ended.
    concluded: bool,
}

/// Something the operator or the origin sent with an `Idempotency-Key`, and the first answer.
struct Answered {
    until: Timestamp,
    reply: Reply,
}

struct World {
    seed: u64,
    kept: Kept,
    /// The event that is taking place, and how many it has brought about: its own chance, so
    /// that what is left out of a history changes nothing of the rest.
    event: u64,
    children: u64,
    chance: Chance,
    branch: Branch,
    journeys: Vec<Journey>,
    /// Sorted by true time; the number keeps equal times in order.
    events: BTreeMap<(i64, u64), (u64, Event)>,
    scheduled: u64,
    start: i64,
    now: i64,
    skew: i64,
    alarm: Option<Timestamp>,
    grants: BTreeMap<u8, bool>,
    keys: BTreeMap<u32, KeyTerms>,
    /// What adjustments should have come to.
    adjustments: BTreeMap<u8, i64>,
    /// By the `Idempotency-Key` of the origin's words.
    answered: BTreeMap<u64, Answered>,
    /// The latest time of the object's clock.
    latest: Timestamp,
    /// Calls admitted while their key, or the account, had no limit a minute: no window knows
    /// them when a plan with a limit comes.
    unlimited: (BTreeSet<CallNumber>, BTreeSet<CallNumber>),
    /// The last call before the clock was found to have strayed: it and those before it count as
    /// made at that moment, which their rows do not tell.
    strayed: Option<CallNumber>,
    /// Calls whose time was up at some time of the object's clock, or brought forward by it: they
    /// may have ended before they were told of.
    outrun: BTreeSet<CallNumber>,
    /// How long calls are kept, and whether the gateway only observes: edits of the policy.
    usage: &'static str,
    mode: &'static str,
    /// Whether unusual consumption is restricted, by the seed alone.
    watch: &'static str,
    /// Calls that were open, or had ended without a word, while the gateway only observed.
    observed: BTreeSet<CallNumber>,
    /// Calls that were given back as unknown until a repeat took their place for good.
    replaced: BTreeSet<CallNumber>,
    /// The ends that the Workers have yet to tell.
    unsettled: Unsettled,
    is_closed: bool,
    history: String,
    steps: u64,
}

impl World {
    fn new(seed: u64, kept: &Kept) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0xA5A5);
        let plan = chance.one_of(&["free", "starter", "tight", "saver", "calendar"]);
        let start = moment("2027-12-30T22:30:00");
        let usage = chance.one_of(&["usage_1", "usage_5", "usage_40", "usage_90", "usage_90"]);
        let mode = chance.one_of(&["standard", "standard", "standard", "standard", "observe"]);
        let watch = if seed % 4 == 3 { "unusual" } else { "standard" };
        let mut branch = Branch::with_account(&format!("{usage} {mode} {watch}"), plan, start);
        branch.create_key();
        branch.grant("credits", 100 + chance.below(400), Source::Extra, None);
        let mut world = Self {
            seed,
            kept: kept.clone(),
            event: 0,
            children: 0,
            chance,
            branch,
            journeys: Vec::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            start: start.as_millis(),
            now: start.as_millis(),
            skew: 0,
            alarm: None,
            grants: BTreeMap::new(),
            keys: [1, 2].map(|key| (key, KeyTerms::default())).into(),
            adjustments: BTreeMap::new(),
            is_closed: false,
            answered: BTreeMap::new(),
            latest: start,
            unlimited: (BTreeSet::new(), BTreeSet::new()),
            strayed: None,
            outrun: BTreeSet::new(),
            usage,
            mode,
            watch,
            observed: BTreeSet::new(),
            replaced: BTreeSet::new(),
            unsettled: Unsettled::default(),
            history: format!("plan {plan} {usage} {mode} {watch}\n"),
            steps: 0,
        };
        world.invent();
        world
    }

    /// Clients, an operator and a clock, for a few days.
    fn invent(&mut self) {
        let mut at = 0;
        // Some accounts are busy for a day, some call now and then for months.
        let longest = self.chance.one_of(&[20_000_000, 20_000_000, 900_000_000]);
        for index in 0..REQUESTS {
            at += match self.chance.below(20) {
                0 => self.chance.below(longest),
                1..5 => self.chance.below(120_000),
                _ => self.chance.below(4_000),
            } as i64;
            let (key, route, terms, retried) = self.request(index);
            self.journeys.push(Journey {
                operation: 1_000 + index as u64,
                key,
                secret: 0,
                route,
                terms,
                retried,
                attempts: 0,
                progress: Progress::Asking,
                answer: None,
                body: None,
                told_at: None,
                cancelled: false,
                concluded: false,
            });
            self.after(at, Event::Client(index));
            if self.chance.percent(12) {
                self.after(at + 1, Event::Operator);
            }
            if self.chance.percent(4) {
                let step = match self.chance.below(4) {
                    0 => self.chance.below(7_200_000) as i64,
                    1 => -(self.chance.below(7_200_000) as i64),
                    _ => self.chance.below(60_000) as i64 - 30_000,
                };
                self.after(at + 2, Event::ClockSteps(step));
                let minutes = self.chance.below(600_000) as i64;
                self.after(at + 3 + minutes, Event::ClockIsRight);
            }
        }
    }

    /// A new request, or an earlier one again, or something else under its `Idempotency-Key`.
    fn request(&mut self, index: usize) -> (u32, Route, Terms, Option<Fingerprint>) {
        let earlier = index.checked_sub(1 + self.chance.below(8) as usize);
        if self.chance.percent(40)
            && let Some(earlier) = earlier.map(|earlier| self.journeys[earlier].clone())
            && let Some(retried) = earlier.retried
        {
            return if self.chance.percent(90) {
                (earlier.key, earlier.route, earlier.terms, Some(retried))
            } else {
                let other = fingerprint(retried.key[0], 1 + retried.request[0]);
                (earlier.key, self.route(), self.terms(), Some(other))
            };
        }
        let is_retriable = self.chance.percent(50);
        let retried = is_retriable.then(|| fingerprint(index as u8, 0));
        let key = 1 + self.chance.below(2) as u32;
        (key, self.route(), self.terms(), retried)
    }

    fn route(&mut self) -> Route {
        self.chance.one_of(&[
            ("POST", "/search"),
            ("POST", "/search"),
            ("GET", "/tracks/{id}"),
            ("HEAD", "/tracks/{id}"),
        ])
    }

    fn terms(&mut self) -> Terms {
        let pool = self
            .chance
            .one_of(&["credits", "credits", "credits", "lyrics"]);
        let amount = self.chance.below(25);
        let fixed = Terms {
            charge_on: self
                .chance
                .one_of(&[ChargeOn::BelowFourHundred, ChargeOn::TwoHundreds]),
            on_unknown: self.chance.one_of(&[
                OnUnknown::Release,
                OnUnknown::Release,
                OnUnknown::Charge,
            ]),
            ..Terms::fixed(pool.into(), sold::credits(amount))
        };
        match self.chance.below(10) {
            0 => Terms {
                job: Some(Job {
                    settle_within: Span::from_days(1),
                    on_unknown: self.chance.one_of(&[OnUnknown::Release, OnUnknown::Charge]),
                }),
                ..fixed
            },
            1 | 2 => Terms {
                least: sold::credits(10),
                most: sold::credits(60),
                reads_answer: true,
                meter: Some(Meter {
                    rate: sold::credits(10),
                    unit: Quantity::parse("60").expect("a quantity"),
                    minimum: sold::credits(10),
                    maximum: sold::credits(60),
                }),
                ..fixed
            },
            _ => fixed,
        }
    }

    fn after(&mut self, millis: i64, event: Event) {
        self.scheduled += 1;
        self.children += 1;
        let id = if self.event == 0 {
            self.children
        } else {
            Chance(self.event.rotate_left(17) ^ self.children).next()
        };
        let at = (self.now + millis, self.scheduled);
        if self.event != 0 || self.kept.has(id) {
            self.events.insert(at, (id, event));
        }
    }

    /// The events that no other brings about.
    fn roots(&self) -> BTreeSet<u64> {
        self.events.values().map(|(id, _)| *id).collect()
    }

    fn is_watched(&self) -> bool {
        self.watch == "unusual"
    }

    fn fault(&mut self, fault: usize, percent: u64) -> bool {
        self.chance.percent(percent) && self.kept.faults[fault]
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_millis(self.now + self.skew)
    }

    fn note(&mut self, what: &str) {
        let at = self.clock();
        let _ = writeln!(
            self.history,
            "{} +{:03} {what}",
            at.to_rfc3339(),
            at.as_millis() % 1_000
        );
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), (id, event))) = self.events.pop_first() {
            self.now = at;
            self.event = id;
            self.children = 0;
            self.chance = Chance(self.seed.wrapping_mul(0xA24B_AED4_963E_E407) ^ id);
            self.chance.next();
            self.step(event)?;
        }
        // Everything is told that will be told; time ends what is still open.
        self.skew = 0;
        for _ in 0..8 {
            self.now += Span::from_days(1).as_millis();
            self.ring()?;
        }
        self.inspect()?;
        self.inspect_ends()?;
        self.inspect_rest()
    }

    /// Nobody comes any more: the alarm alone rolls up every month.
    fn inspect_rest(&mut self) -> Result<(), String> {
        let lived = self.now;
        for _ in 0..5 {
            self.now += Span::from_days(30).as_millis();
            self.ring()?;
        }
        let account = self.branch.object.account().ok_or("no account")?;
        // A closed account has still to be erased.
        let next_alarm = self.branch.object.next_alarm();
        if !account.log().is_empty() || next_alarm != account.erased_at() {
            return Err(format!("left to itself, it still has {:?}", account.log()));
        }
        self.inspect()?;
        self.now = lived;
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        self.steps += 1;
        if self.fault(0, 4) {
            self.note("evicted");
            self.branch.evict();
        }
        self.branch.object.store_mut().commits_to_fail = u32::from(self.fault(1, 2));
        self.ring()?;
        match event {
            Event::Client(index) => self.ask(index),
            Event::ToObject(request, ends) => self.deliver_all(request, ends)?,
            Event::Taken(ends, taken) => {
                self.unsettled.heard(&the_account(), &ends, taken);
            }
            Event::Alone(settle) => {
                if self.unsettled.remove(&the_account(), settle.call) {
                    self.travel(Request::Settle(settle), 1_000_000);
                }
            }
            Event::ToWorker(index, reply) => self.hear(index, &reply),
            Event::Impatient(index, attempt) => {
                let journey = &self.journeys[index];
                if journey.progress == Progress::Asking && journey.attempts == attempt {
                    self.ask_again(index);
                }
            }
            Event::Origin(index) => self.answer(index),
            Event::Word(index) => self.tell(index),
            Event::Operator => self.operate(),
            Event::ClockSteps(step) => {
                self.skew += step;
                self.note(&format!("the clock steps by {step} ms"));
            }
            Event::ClockIsRight => {
                self.skew = 0;
                self.note("the clock is right");
            }
        }
        self.branch.object.store_mut().commits_to_fail = 0;
        if self.steps.is_multiple_of(16) {
            self.inspect()?;
        }
        Ok(())
    }

    /// The alarm that the shell has set, if its time has come.
    fn ring(&mut self) -> Result<(), String> {
        let clock = self.clock();
        self.branch.set_clock(clock);
        self.latest = self.latest.max(clock);
        let ahead = self
            .branch
            .store()
            .calls()
            .filter(|row| row.call.admitted_at > clock.plus(Span::MINUTE));
        self.strayed = self.strayed.max(ahead.map(|row| row.call.number).max());
        let outrun = self.branch.store().calls().filter(|row| {
            state(row) == CallState::Open
                && (row.call.admitted_at > clock || row.call.hold.deadline <= clock)
        });
        self.outrun.extend(outrun.map(|row| row.call.number));
        if self.branch.policy.gateway.mode == Mode::Observe {
            let unsettled = self.branch.store().kept().filter(|row| {
                matches!(
                    state(row),
                    CallState::Open | CallState::UnknownReleased | CallState::UnknownCharged
                )
            });
            self.observed.extend(unsettled.map(|row| row.call.number));
        }
        // Months that are due together are rolled up one after the other.
        for _ in 0..20 {
            if self.alarm.is_none_or(|alarm| alarm > clock) {
                return Ok(());
            }
            if self.branch.tick().is_err() {
                return Ok(());
            }
            self.alarm = self.branch.object.next_alarm();
        }
        Err("the alarm left something due".into())
    }

    /// A message sets the alarm only if it would come too late.
    fn set_alarm(&mut self) {
        let wakeup = self.branch.object.next_wakeup();
        self.alarm = self.alarm.into_iter().chain(wakeup).min();
    }

    // The Worker.

    fn ask(&mut self, index: usize) {
        if self.journeys[index].attempts == 0 {
            // Some have not heard yet of the latest secret.
            let latest = self.branch.rotations_of(self.journeys[index].key);
            let behind = u32::from(self.chance.percent(20));
            self.journeys[index].secret = latest.saturating_sub(behind);
        }
        self.journeys[index].attempts += 1;
        let repeated = if self.is_watched() {
            self.chance.below(3)
        } else {
            0
        };
        let journey = &self.journeys[index];
        let (attempts, admit) = (
            journey.attempts,
            Admit {
                operation: journey.operation,
                key: KeyNumber::new(journey.key),
                digest: digest_after(journey.key, journey.secret),
                method: journey.route.0.into(),
                endpoint: journey.route.1.into(),
                terms: journey.terms.clone(),
                repeated_refusals: repeated as u32,
                repeated_by_code: std::collections::BTreeMap::new(),
                retried: journey.retried,
            },
        );
        self.travel(Request::Admit(admit), 20_000);
        self.after(2_000, Event::Impatient(index, attempts));
    }

    fn ask_again(&mut self, index: usize) {
        if self.journeys[index].attempts < 2 && self.chance.percent(60) {
            self.ask(index);
            return;
        }
        self.journeys[index].progress = Progress::GaveUp;
        let operation = self.journeys[index].operation;
        self.note(&format!("operation {operation} is given up"));
        self.travel(Request::Cancel(Cancel { operation }), 60_000);
    }

    fn hear(&mut self, index: usize, reply: &Reply) {
        if self.journeys[index].progress != Progress::Asking {
            return;
        }
        match reply {
            Reply::Admitted(admission) => {
                self.journeys[index].progress = Progress::Forwarded(admission.call);
                let takes = match self.chance.below(12) {
                    0 => self.chance.below(500_000),
                    _ => self.chance.below(9_000),
                };
                self.after(takes as i64, Event::Origin(index));
            }
            Reply::Unavailable { .. } => self.ask_again(index),
            _ => self.journeys[index].progress = Progress::Done,
        }
    }

    fn answer(&mut self, index: usize) {
        let Progress::Forwarded(call) = self.journeys[index].progress else {
            return;
        };
        let answered = !self.chance.percent(5);
        let status = if answered {
            self.chance
                .one_of(&[200, 200, 200, 200, 204, 302, 404, 500])
        } else {
            502
        };
        let seconds = self.chance.below(450);
        let body = match self.chance.below(12) {
            0 => Some(BodyEnd::Whole),
            1 => Some(BodyEnd::Left),
            2 => Some(BodyEnd::BrokenOff { begun: false }),
            3 | 4 => Some(BodyEnd::BrokenOff { begun: true }),
            _ => None,
        };
        let journey = &mut self.journeys[index];
        let body = body.filter(|_| answered && journey.terms.job.is_none());
        journey.progress = Progress::Done;
        journey.answer = Some((answered, status, seconds));
        journey.body = body;
        let settle = Settle {
            call,
            operation: journey.operation,
            status,
            response_time_ms: 1,
            answered,
            reported: Quantity::parse(&seconds.to_string()).map(Reported::Value),
            body,
        };
        self.note(&format!("the origin answers call {call} with {status}"));
        let is_job = self.journeys[index].terms.job.is_some() && status < 400;
        if (is_job && self.chance.percent(85)) || self.chance.percent(8) {
            let after = match self.chance.below(10) {
                0 => self.chance.below(40 * 86_400_000),
                1 => self.chance.below(2 * 86_400_000),
                2..5 => self.chance.below(10),
                _ => self.chance.below(20_000_000),
            };
            self.after(after as i64, Event::Word(index));
        }
        if self.chance.percent(4) {
            self.note("and the Worker is gone");
            return;
        }
        // In the simulation every account is busy, and a Worker more patient.
        if self.chance.percent(60)
            && self
                .unsettled
                .list(&the_account(), settle, Timestamp::EPOCH)
        {
            let patience = self.chance.below(20_000);
            self.after(patience as i64, Event::Alone(settle));
            return;
        }
        self.travel(Request::Settle(settle), 1_000_000);
    }

    /// The origin's word on how a call ended, or the operator's refund of it.
    fn tell(&mut self, index: usize) {
        let operation = self.journeys[index].operation;
        let of_call = |row: &&CallRow| row.call.hold.operation == operation;
        let Some(call) = self.branch.store().calls().find(of_call) else {
            return;
        };
        let call = call.call.number;
        let word = match self.chance.below(10) {
            0..4 => Word::Release { reason: None },
            4..7 => Word::Settle(Told::Hold),
            7 => {
                let seconds = self.chance.below(500).to_string();
                Word::Settle(Told::Value(Quantity::parse(&seconds).expect("a quantity")))
            }
            _ => Word::Settle(Told::Credits(sold::credits(self.chance.below(40)))),
        };
        let key = self.chance.next();
        let idempotency = self.chance.percent(70).then(|| {
            let mut wide = fingerprint(0, 1);
            wide.key[..8].copy_from_slice(&key.to_be_bytes());
            wide
        });
        let command = Command::EndCall { call, word };
        let manage = Manage {
            command,
            idempotency,
            signs_under: None,
        };
        self.travel(Request::Manage(manage), 100_000_000);
        if self.chance.percent(25) {
            let after = self.chance.below(35 * 86_400_000);
            self.after(after as i64, Event::Word(index));
        }
    }

    /// The network: may lose, repeat and delay by up to `longest` milliseconds. With the message go the
    /// ends that wait for one.
    fn travel(&mut self, request: Request, longest: u64) {
        let ends = self.unsettled.take(&the_account());
        let copies = match self.chance.below(20) {
            0 => 0,
            1 | 2 => 2,
            _ => 1,
        };
        let copies = if self.kept.faults[2] { copies } else { 1 };
        for _ in 0..copies {
            let delay = match self.chance.below(10) {
                0 if self.kept.faults[2] => self.chance.below(longest),
                1 | 2 => self.chance.below(3_000),
                _ => self.chance.below(30),
            };
            self.after(delay as i64, Event::ToObject(request.clone(), ends.clone()));
        }
    }

    // The object.

    fn deliver_all(&mut self, request: Request, ends: Vec<Settle>) -> Result<(), String> {
        let mut taken = 0;
        for settle in &ends {
            if !self.deliver(Request::Settle(*settle))? {
                break;
            }
            taken += 1;
        }
        if !ends.is_empty() && !self.chance.percent(10) {
            let delay = self.chance.below(3_000);
            self.after(delay as i64, Event::Taken(ends, taken));
        }
        self.deliver(request).map(drop)
    }

    /// Says whether it was taken.
    fn deliver(&mut self, request: Request) -> Result<bool, String> {
        let calls_before = self.branch.store().calls().count();
        let firsts = self.firsts_of(&request)?;
        let before = self.before(&request)?;
        let reply = self.branch.send(request.clone());
        self.set_alarm();
        self.note(&format!("{} -> {}", brief(&request), brief(&reply)));
        let taken = !matches!(reply, Reply::Unavailable { .. });
        let clock = self.clock();
        let journey = |operation: u64| operation as usize - 1_000;
        match request {
            Request::Admit(admit) => {
                let index = journey(admit.operation);
                let replaced = firsts.iter().map(|(row, _)| row).filter(|row| {
                    let now = self.branch.row(row.call.number.get());
                    state(row) == CallState::UnknownReleased && state(now) == CallState::Released
                });
                self.replaced.extend(replaced.map(|row| row.call.number));
                if self.branch.store().calls().count() > calls_before {
                    self.inspect_admission(index)?;
                    self.inspect_turn(&firsts, &reply)?;
                }
                if let Reply::Refused(refusal) = &reply {
                    self.inspect_refusal(index, refusal)?;
                    if is_of_turn(refusal) {
                        self.inspect_turn(&firsts, &reply)?;
                    }
                }
                if !self.chance.percent(5) {
                    let delay = match self.chance.below(10) {
                        0 => self.chance.below(5_000),
                        _ => self.chance.below(30),
                    };
                    self.after(delay as i64, Event::ToWorker(index, reply));
                }
            }
            Request::Settle(settle) if taken => {
                if let Some((mut row, _)) = before
                    && state(&row) != CallState::Open
                    && !state(&row).is_unknown()
                {
                    let now = self.branch.row(settle.call.get());
                    // What the client was answered is all that it can tell.
                    let answer = now.outcome.as_ref().and_then(Outcome::answer);
                    row.outcome = row.outcome.map(|end| match (end.status, answer) {
                        (None, Some(answer)) => end.answered(answer),
                        _ => end,
                    });
                    if row != *now {
                        return Err(format!("a late settle made {now:?} of {row:?}"));
                    }
                }
                if reply != Reply::Settled(None) {
                    self.journeys[journey(settle.operation)]
                        .told_at
                        .get_or_insert(clock);
                }
            }
            Request::Manage(Manage {
                command: Command::EndCall { call, word },
                idempotency,
                ..
            }) => {
                let before = before.ok_or("a word on no call")?;
                self.inspect_word(&before, (call, &word, idempotency), &reply)?;
            }
            Request::Cancel(cancel) if taken => {
                self.journeys[journey(cancel.operation)].cancelled = true;
            }
            _ => {}
        }
        Ok(taken)
    }

    fn operate(&mut self) {
        let plan = self
            .chance
            .one_of(&["free", "starter", "pro", "saver", "calendar", "tight"]);
        match self.chance.below(20) {
            0..5 => self.operator_grants(),
            12..15 => self.operator_adjusts(),
            15..18 => self.operator_changes_a_key(),
            18.. => self.operator_rotates_a_key(),
            5 | 6 => {
                self.note(&format!("plan {plan}"));
                self.branch.change_plan(plan);
            }
            7 => {
                let change = self.chance.one_of(&[
                    StatusChange::Active,
                    StatusChange::Cancelled,
                    StatusChange::Lapsed,
                ]);
                self.note(&format!("subscription {change:?}"));
                self.branch.change_subscription(change);
            }
            8 => {
                self.note("suspended and resumed");
                self.branch
                    .change_status(Status::Suspended { reason: None });
                self.branch.change_status(Status::Active);
                if self.is_watched() && self.chance.percent(50) {
                    self.note("unflagged");
                    self.branch.unflag();
                }
            }
            9 => {
                self.note("a key that nobody uses");
                let (new, digest) = (NewKey::default(), digest_of(77));
                self.branch.manage(Command::CreateKey { new, digest }, None);
            }
            10 => {
                self.note("the policy is edited");
                let edits = self.chance.one_of(&[
                    "standard",
                    "starter_500",
                    "without_starter",
                    "subscription_first",
                    "extra_needs_subscription",
                ]);
                if self.chance.percent(20) {
                    self.mode = self.chance.one_of(&["standard", "observe"]);
                }
                let told = self.chance.one_of(&["", "told"]);
                let (usage, mode, watch) = (&self.usage, &self.mode, &self.watch);
                let edits = format!("{edits} {told} {usage} {mode} {watch}");
                self.branch.policy = sold::edited(&edits);
                self.branch.evict();
            }
            11 if self.chance.percent(10) => {
                let reply = self.branch.close();
                self.note(&format!("closed -> {}", brief(&reply)));
                self.is_closed |= matches!(reply, Reply::Document(_));
            }
            _ => {
                self.note("a spurious alarm");
                let _ = self.branch.tick();
            }
        }
        self.set_alarm();
    }

    fn operator_changes_a_key(&mut self) {
        fn edit<T>(value: Option<T>) -> Option<Edit<T>> {
            Some(value.map_or(Edit::Remove, Edit::Set))
        }
        let key = 1 + self.chance.below(2) as u32;
        let mut terms = self.keys[&key].clone();
        let mut patch = PatchKey::default();
        match self.chance.below(7) {
            0..3 => {
                terms.budget = self.chance.one_of(&[None, Some(30), Some(100), Some(300)]);
                patch.budget = edit(terms.budget.map(sold::credits));
            }
            3 | 4 => {
                let limit = |chance: &mut Chance| {
                    let limit = Limit::Of(1 + chance.below(15) as u32);
                    chance.one_of(&[None, Some(Limit::Unlimited), Some(limit)])
                };
                terms.limits = KeyLimits {
                    requests_per_minute: limit(&mut self.chance),
                    requests_per_day: limit(&mut self.chance),
                    requests_in_flight: limit(&mut self.chance),
                    jobs_open: limit(&mut self.chance),
                };
                patch.limits = edit(Some(terms.limits));
            }
            5 => {
                terms.scope =
                    self.chance
                        .one_of(&[None, Some("POST /search"), Some("GET /tracks/*")]);
                patch.scope = edit(terms.scope.map(|item| Scope::new(vec![item.into()])));
            }
            _ => {
                let hours = self.chance.one_of(&[None, None, Some(1), Some(24)]);
                let clock = self.clock();
                terms.expires_at = hours.map(|hours| clock.plus(Span::from_seconds(hours * 3_600)));
                patch.expires_at = edit(terms.expires_at);
            }
        }
        let reply = self.branch.patch_key(key, patch.clone());
        self.note(&format!("key {key} {patch:?} -> {}", brief(&reply)));
        if matches!(reply, Reply::Document(_)) {
            self.keys.insert(key, terms);
        }
    }

    fn operator_rotates_a_key(&mut self) {
        let key = 1 + self.chance.below(2) as u32;
        let overlap = Span::from_seconds(self.chance.one_of(&[0, 60, 3_600, 86_400]));
        let clock = self.clock();
        let reply = self.branch.rotate_key(key, overlap);
        self.note(&format!(
            "key {key} rotated, {overlap:?} -> {}",
            brief(&reply)
        ));
        if matches!(reply, Reply::Document(_))
            && let Some(terms) = self.keys.get_mut(&key)
        {
            // What is gone is dead at any time of a clock that steps about.
            terms.dead.fill(Timestamp::EPOCH);
            terms.dead.push(if overlap > Span::ZERO {
                clock.plus(overlap)
            } else {
                Timestamp::EPOCH
            });
        }
    }

    /// A grant is sent until it is answered, and now and then once more.
    fn operator_grants(&mut self) {
        let id = self.grants.len() as u8 + 1;
        let amount = 1 + self.chance.below(120);
        let days = self.chance.one_of(&[None, Some(1), Some(3)]);
        let grant = NewGrant {
            pool: self.chance.one_of(&["credits", "lyrics"]).into(),
            amount: sold::credits(amount),
            source: self.chance.one_of(&[Source::Promo, Source::Extra]),
            expires_at: days.map(|days| self.clock().plus(Span::from_days(days + 1))),
            reference: Some(format!("order {id}")),
        };
        let mut was_made = false;
        for _ in 0..1 + self.chance.below(2) {
            let manage = Manage {
                command: Command::Grant(grant.clone()),
                idempotency: Some(fingerprint(id, id)),
                signs_under: None,
            };
            let reply = self.branch.send(Request::Manage(manage));
            self.note(&format!("grant {id} of {amount} -> {}", brief(&reply)));
            was_made |= matches!(reply, Reply::Document(_));
        }
        self.grants.insert(id, was_made);
    }

    /// An adjustment likewise.
    fn operator_adjusts(&mut self) {
        let id = self.adjustments.len() as u8 + 1;
        let amount = 1 + self.chance.below(150) as i64;
        let takes_away = self.chance.percent(60);
        let adjustment = Adjustment {
            pool: self.chance.one_of(&["credits", "lyrics"]).into(),
            credits: sold::credits(amount as u64),
            takes_away,
            reason: format!("mistake {id}"),
        };
        let mut was_made = false;
        for _ in 0..1 + self.chance.below(2) {
            let manage = Manage {
                command: Command::Adjust(adjustment.clone()),
                idempotency: Some(fingerprint(100 + id, id)),
                signs_under: None,
            };
            let reply = self.branch.send(Request::Manage(manage));
            self.note(&format!("{adjustment:?} -> {}", brief(&reply)));
            was_made |= matches!(reply, Reply::Document(_));
        }
        let signed = if takes_away { -amount } else { amount };
        self.adjustments
            .insert(id, if was_made { signed } else { 0 });
    }

    // The auditor's own questions.

    fn retried(&self, operation: u64) -> Option<Fingerprint> {
        self.journeys.get(operation as usize - 1_000)?.retried
    }

    /// What a request may be a repeat of, as it stands with all that is due booked: every call of
    /// the same key under the same `Idempotency-Key` in 24 hours, and whether it was for the same.
    fn firsts_of(&mut self, request: &Request) -> Result<Vec<(CallRow, bool)>, String> {
        let Request::Admit(Admit {
            key,
            retried: Some(retried),
            ..
        }) = request
        else {
            return Ok(Vec::new());
        };
        self.book_all()?;
        let clock = self.clock();
        let calls = self.branch.store().calls();
        let of_request = calls.filter(|row| {
            row.call.key == *key
                && row.call.hold.repeats.is_none()
                && row.call.hold.would_refuse.is_none()
                && row.call.admitted_at.plus(Span::from_days(1)) > clock
        });
        let firsts = of_request.filter_map(|row| {
            let sent = self.retried(row.call.hold.operation)?;
            (sent.key == retried.key).then(|| (row.clone(), sent == *retried))
        });
        Ok(firsts.collect())
    }

    /// A request was taken for a new call, for a repeat, for one that comes too early or for one
    /// of other content, and it is that.
    fn inspect_turn(&self, firsts: &[(CallRow, bool)], reply: &Reply) -> Result<(), String> {
        use CallState::{Job, Open, Settled, UnknownCharged};
        let last = firsts.last();
        if let Reply::Admitted(admission) = reply
            && let Some(refusal) = admission.would_refuse.clone()
        {
            // Another one may have come first.
            return if is_of_turn(&refusal) {
                self.inspect_turn(firsts, &Reply::Refused(refusal))
            } else {
                Ok(())
            };
        }
        let is_right = match reply {
            Reply::Admitted(admission) => match admission.repeats {
                Some(repeats) => last.is_some_and(|(row, is_same)| {
                    let is_paid = matches!(state(row), Job | Settled | UnknownCharged);
                    row.call.number == repeats && is_paid && *is_same && admission.held.get() == 0
                }),
                None => last.is_none_or(|(row, is_same)| {
                    let is_unpaid = !matches!(state(row), Open | Job | Settled | UnknownCharged);
                    is_undone(row) || (*is_same && is_unpaid)
                }),
            },
            Reply::Refused(Refusal::FirstRuns { .. }) => {
                last.is_some_and(|(row, is_same)| *is_same && state(row) == Open)
            }
            _ => last.is_some_and(|(row, is_same)| !is_same && !is_undone(row)),
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("{reply:?} to a repeat of {last:?}"))
        }
    }

    /// Books all that is due, whatever fails.
    fn book_all(&mut self) -> Result<(), String> {
        let failing = std::mem::take(&mut self.branch.object.store_mut().commits_to_fail);
        let booked = self.branch.tick();
        self.branch.object.store_mut().commits_to_fail = failing;
        booked
    }

    /// The row of the call that a message ends, with all that is due booked, and what its pool
    /// can spend.
    fn before(&mut self, request: &Request) -> Result<Option<(CallRow, u64)>, String> {
        let call = match request {
            Request::Manage(Manage {
                command: Command::EndCall { call, .. },
                ..
            }) => *call,
            Request::Settle(settle) => settle.call,
            _ => return Ok(None),
        };
        self.book_all()?;
        let failing = std::mem::take(&mut self.branch.object.store_mut().commits_to_fail);
        let row = self.branch.row(call.get()).clone();
        let pool = row.call.hold.terms.pool.clone();
        let available = self.branch.balance(&pool)["available"].as_u64();
        self.branch.object.store_mut().commits_to_fail = failing;
        Ok(Some((row, available.ok_or("no balance")?)))
    }

    /// What somebody's word made of a call is what it may make of it.
    fn inspect_word(
        &mut self,
        (before, available): &(CallRow, u64),
        (call, word, idempotency): (CallNumber, &Word, Option<Fingerprint>),
        reply: &Reply,
    ) -> Result<(), String> {
        let clock = self.clock();
        let after = self.branch.row(call.get());
        let wrong = |what: &str| {
            Err(format!(
                "call {call}, {word:?}: {what}: {before:?} to {after:?}, {reply:?}"
            ))
        };
        let is_unchanged = before == after;
        let key = idempotency.map(|idempotency| idempotency.row());
        if let Some(answered) = key.and_then(|key| self.answered.get(&key))
            && answered.until > clock
        {
            let is_same = *reply == answered.reply || matches!(reply, Reply::Unavailable { .. });
            return if is_same && is_unchanged {
                Ok(())
            } else {
                wrong("another answer to the same request")
            };
        }
        let told = match reply {
            Reply::Document(_) => Ok((
                state(after),
                after
                    .outcome
                    .as_ref()
                    .map_or(0, |outcome| outcome.charged.get()),
            )),
            Reply::Problem(problem) if is_unchanged => Err(problem.code),
            Reply::Unavailable { .. } if is_unchanged => return Ok(()),
            _ => return wrong("changed by nothing"),
        };
        let late = |latest: Timestamp| {
            let ended = before.outcome.as_ref().map_or(latest, |outcome| outcome.at);
            latest > ended.plus(Span::from_days(30))
        };
        let is_gone = self.branch.store().is_dropped(call);
        let is_observed =
            before.call.hold.observed || self.branch.policy.gateway.mode == Mode::Observe;
        // Whether an object that was evicted still knows of a stray clock depends on its writes.
        let expected = [late(clock), late(self.latest)].map(|is_late| match is_gone {
            true => Err(Code::NotFound),
            false => expected_end(before, word, is_late, is_observed, *available),
        });
        if !expected.contains(&told) {
            return wrong(&format!("{told:?} and not {expected:?}"));
        }
        if told.is_ok() {
            let operation = before.call.hold.operation as usize;
            self.journeys[operation - 1_000].concluded = true;
        }
        // A no that depends on how the call stands is remembered as well.
        if told != Err(Code::BadRequest)
            && let Some(key) = key
        {
            let until = clock.plus(Span::from_days(1));
            let reply = reply.clone();
            self.answered.insert(key, Answered { until, reply });
        }
        Ok(())
    }

    fn inspect(&mut self) -> Result<(), String> {
        self.branch.object.store_mut().commits_to_fail = 0;
        let clock = self.clock();
        self.branch.set_clock(clock);
        self.branch.rest()?;
        self.set_alarm();
        let account = self.branch.object.account().ok_or("no account")?;
        audit(self.branch.store(), account)?;
        audit_calls(self.branch.store(), &self.branch.told_to_settle)?;
        audit_retried(self.branch.store(), |operation| self.retried(operation))?;
        audit_costs(self.branch.store(), account, Calendar::default(), clock)?;
        audit_rolled(self.branch.store(), account)?;
        audit_totals(self.branch.store(), account)?;
        for by in [By::Day, By::Hour, By::Endpoint, By::Key] {
            let told = self.branch.summary(by);
            audit_summary(self.branch.store(), by, &told)?;
        }
        let lines = self.branch.ledger(500);
        let account = self.branch.object.account().ok_or("no account")?;
        audit_ledger(&lines, account)?;
        self.branch.audit_itself()?;
        self.inspect_grants()?;
        self.branch.check_waking()
    }

    fn inspect_grants(&self) -> Result<(), String> {
        let mut renewals = BTreeSet::new();
        for entry in self.branch.store().entries() {
            if entry.kind == EntryKind::Renewed && !renewals.insert(&entry.reference) {
                return Err(format!("renewed twice: {entry:?}"));
            }
        }
        for (id, was_made) in &self.grants {
            let reference = Some(format!("order {id}"));
            let made = self
                .branch
                .store()
                .entries()
                .iter()
                .filter(|entry| entry.kind == EntryKind::Granted && entry.reference == reference)
                .count();
            if made != usize::from(*was_made) {
                return Err(format!("grant {id} was made {made} times"));
            }
        }
        for (id, amount) in &self.adjustments {
            let reference = Some(format!("mistake {id}"));
            let entries = self.branch.store().entries().iter();
            let adjusted: i64 = entries
                .filter(|entry| entry.reference == reference)
                .map(|entry| entry.credits)
                .sum();
            if adjusted != *amount {
                return Err(format!("adjustment {id} came to {adjusted}, not {amount}"));
            }
        }
        Ok(())
    }

    /// What the key's calls of this month cost, as the log tells.
    fn cost_of_month(&self, key: u32) -> u64 {
        let (store, key) = (self.branch.store(), KeyNumber::new(key));
        cost_of_month(store, key, Calendar::default(), self.clock())
    }

    /// A key is refused as such, as out of scope or for its budget only where that is so.
    fn inspect_refusal(&self, index: usize, refusal: &Refusal) -> Result<(), String> {
        let journey = &self.journeys[index];
        let terms = &self.keys[&journey.key];
        let is_right = match refusal {
            Refusal::UnknownKey => self.is_closed || !terms.knows(journey.secret, self.clock()),
            Refusal::OutOfScope { .. } => !terms.allows(journey.route),
            Refusal::InsufficientCredits {
                required, budget, ..
            } => budget.is_none_or(|budget| {
                let cost = self.cost_of_month(journey.key) + required.get();
                terms.budget == Some(budget.get()) && cost > budget.get()
            }),
            Refusal::Suspended {
                restricted: Some(restricted),
                ..
            } => {
                let left = restricted.until.since(self.clock());
                self.is_watched() && left > Span::ZERO && left <= Span::from_seconds(3_600)
            }
            Refusal::Suspended { .. }
            | Refusal::FirstRuns { .. }
            | Refusal::OtherContent { .. }
            | Refusal::RateLimited { .. }
            | Refusal::Cancelled => true,
        };
        if is_right {
            return Ok(());
        }
        Err(format!("{refusal:?} to {journey:?} under {terms:?}"))
    }

    /// The call that was just admitted exceeds no limit and no budget, and its key may make it, as
    /// the log tells.
    fn inspect_admission(&mut self, index: usize) -> Result<(), String> {
        let account = self.branch.object.account().ok_or("no account")?;
        let limits = account.profile().plan.limits;
        let (journey, clock) = (&self.journeys[index], self.clock());
        let terms = &self.keys[&journey.key];
        let [per_minute, per_day, most_in_flight, most_jobs] = terms.limits(limits);
        let calls: Vec<&CallRow> = self.branch.store().calls().collect();
        let newest = calls.last().ok_or("no call")?;
        let of_key = || calls.iter().filter(|row| row.call.key == newest.call.key);
        if per_minute.is_none() {
            self.unlimited.0.insert(newest.call.number);
        }
        if limits.account_requests_per_minute.is_none() {
            self.unlimited.1.insert(newest.call.number);
        }
        if self.is_closed {
            return Err(format!("{journey:?} was admitted by a closed account"));
        }
        if newest.call.hold.observed {
            return Ok(());
        }
        let restricts = |flag: &Flag| {
            let in_time = flag.at <= clock && flag.until.is_some_and(|until| clock < until);
            in_time && flag.cause.key().is_none_or(|key| key == newest.call.key)
        };
        if let Some(flag) = account.view().flags.iter().find(|flag| restricts(flag)) {
            return Err(format!("{journey:?} was admitted under {flag:?}"));
        }
        if !terms.knows(journey.secret, clock) || !terms.allows(journey.route) {
            return Err(format!("{journey:?} was admitted under {terms:?}"));
        }
        let cost = self.cost_of_month(journey.key);
        let pays = newest.call.hold.terms.pool == "credits" && newest.call.held().get() > 0;
        if pays && terms.budget.is_some_and(|budget| cost > budget) {
            return Err(format!("key {} cost {cost} under {terms:?}", journey.key));
        }
        let calendar = Calendar::default();
        let today = calendar.day_of(newest.call.admitted_at);
        let in_day = of_key()
            .filter(|row| !is_undone(row) && calendar.day_of(row.call.admitted_at) == today)
            .count();
        let in_flight = of_key().filter(|row| state(row) == CallState::Open).count();
        // The newest is not one of them yet.
        let is_or_becomes_a_job = |row: &&&CallRow| match state(row) {
            CallState::Job => true,
            CallState::Open => {
                row.call.hold.terms.job.is_some() && row.call.number != newest.call.number
            }
            _ => false,
        };
        let jobs = of_key().filter(is_or_becomes_a_job).count();
        let exceeds =
            |count: usize, limit: Option<u32>| limit.is_some_and(|limit| count > limit as usize);
        let counted = |unlimited: &BTreeSet<_>, row: &CallRow| {
            !unlimited.contains(&row.call.number) && Some(row.call.number) > self.strayed
        };
        let minute = in_last_minute(
            of_key()
                .copied()
                .filter(|row| counted(&self.unlimited.0, row)),
        );
        let account_minute = in_last_minute(
            calls
                .iter()
                .copied()
                .filter(|row| counted(&self.unlimited.1, row)),
        );
        if exceeds(minute, per_minute)
            || exceeds(account_minute, limits.account_requests_per_minute)
            || exceeds(in_day, per_day)
            || exceeds(in_flight, most_in_flight)
            || (newest.call.hold.terms.job.is_some()
                && most_jobs.is_some_and(|limit| jobs >= limit as usize))
        {
            return Err(format!(
                "call {}: {minute} and {account_minute} in a minute, {in_day} in a day, \
                 {in_flight} in flight, {jobs} jobs under {limits:?}, {terms:?}",
                newest.call.number
            ));
        }
        Ok(())
    }

    /// Each call ended as the origin answered it, and as far as that was told.
    fn inspect_ends(&self) -> Result<(), String> {
        let mut forgiven: BTreeMap<_, usize> = BTreeMap::new();
        let mut calls_of: BTreeMap<_, usize> = BTreeMap::new();
        let calendar = Calendar::default();
        for row in self.branch.store().calls() {
            let day = calendar.day_of(row.call.admitted_at);
            *calls_of.entry((row.call.key, day)).or_default() += 1;
        }
        let mut seen = BTreeSet::new();
        for row in self.branch.store().calls() {
            let operation = row.call.hold.operation;
            let Some(journey) = self
                .journeys
                .iter()
                .find(|journey| journey.operation == operation)
            else {
                continue;
            };
            if state(row) == CallState::Cancelled {
                continue;
            }
            if !seen.insert(operation) {
                return Err(format!("operation {operation} became two calls"));
            }
            let status = row.outcome.as_ref().and_then(|end| end.status);
            let told = journey.answer.filter(|_| journey.told_at.is_some());
            if status != told.map(|(_, status, _)| status) {
                return Err(format!(
                    "{row:?} does not say what was answered: {journey:?}"
                ));
            }
            if self.observed.contains(&row.call.number) || row.call.hold.observed {
                inspect_observed(row)?;
                continue;
            }
            let was_outrun = self.outrun.contains(&row.call.number);
            if self.replaced.contains(&row.call.number) {
                continue;
            }
            inspect_end(row, journey, was_outrun)?;
            let hold = &row.call.hold;
            let outcome = row.outcome.as_ref().ok_or("an open call")?;
            // One that had ended before it was told of was forgiven then, perhaps on another day.
            let is_broken_off = outcome.state == CallState::Released
                && journey.body == Some(BodyEnd::BrokenOff { begun: true })
                && is_charged(hold.terms.charge_on, outcome.status)
                && journey.told_at.is_some()
                && !journey.concluded
                && outcome.first_charged.is_none();
            let is_unknown = outcome.state == CallState::UnknownReleased
                && hold.terms.on_unknown == OnUnknown::Release
                && (hold.terms.job.is_none() || journey.told_at.is_none());
            if row.call.held().get() > 0 && (is_unknown || is_broken_off) {
                let day = calendar.day_of(outcome.at);
                let count = forgiven.entry((row.call.key, day)).or_default();
                *count += 1;
                let share = calls_of.get(&(row.call.key, day)).copied().unwrap_or(0) / 100;
                if *count > FORGIVEN_PER_DAY.max(share) {
                    return Err(format!("forgave {count} of {:?}", row.call.key));
                }
            }
        }
        Ok(())
    }
}

/// What was admitted while the gateway only observes is never charged.
fn inspect_observed(row: &CallRow) -> Result<(), String> {
    let charged = row.outcome.as_ref().ok_or("an open call")?.charged;
    if row.call.hold.observed && charged.get() > 0 {
        return Err(format!("observed, and charged: {row:?}"));
    }
    Ok(())
}

fn inspect_end(row: &CallRow, journey: &Journey, was_outrun: bool) -> Result<(), String> {
    let outcome = row.outcome.as_ref().ok_or("an open call")?;
    let charged = outcome.charged.get();
    let wrong = |what: &str| {
        Err(format!(
            "call {}: {what}: {outcome:?}, {journey:?}",
            row.call.number
        ))
    };
    let is_unknown = matches!(
        outcome.state,
        CallState::UnknownReleased | CallState::UnknownCharged
    );
    let Some((answered, status, seconds)) = journey.answer.filter(|_| journey.told_at.is_some())
    else {
        // Nobody told how it ended, or the origin alone.
        return if is_unknown || journey.concluded {
            Ok(())
        } else {
            wrong("ended by nobody")
        };
    };
    if journey.cancelled {
        return wrong("forwarded and cancelled");
    }
    if journey.concluded {
        // Each word was looked at when it came.
        return Ok(());
    }
    let is_broken_off = match journey.body {
        Some(BodyEnd::BrokenOff { begun: false }) => true,
        // The charge of one beyond the forgiveness is looked at below.
        Some(BodyEnd::BrokenOff { begun: true }) => outcome.mark != Some(Mark::Unforgiven),
        None | Some(BodyEnd::Whole | BodyEnd::Left) => false,
    };
    let succeeded =
        answered && is_charged(row.call.hold.terms.charge_on, Some(status)) && !is_broken_off;
    if !succeeded {
        return if outcome.state == CallState::Released && charged == 0 {
            Ok(())
        } else {
            wrong("an error is charged")
        };
    }
    if row.call.hold.terms.job.is_some() {
        return if is_unknown {
            Ok(())
        } else {
            wrong("a job ended by nobody")
        };
    }
    let price = if row.call.hold.terms.meter.is_some() {
        (seconds.div_ceil(60) * 10).max(10)
    } else {
        row.call.hold.terms.least.get()
    };
    let most = row.call.hold.terms.most.get();
    if outcome.state != CallState::Settled
        || charged > price.min(most)
        || (!was_outrun && charged != price.min(row.call.held().get()))
    {
        return wrong("a success is not charged what it cost");
    }
    Ok(())
}

fn is_charged(charge_on: ChargeOn, status: Option<u16>) -> bool {
    status.is_some_and(|status| match charge_on {
        ChargeOn::BelowFourHundred => status < 400,
        ChargeOn::TwoHundreds => (200..300).contains(&status),
    })
}

/// What a word makes of a call: its state and charge, or what it is answered.
fn expected_end(
    before: &CallRow,
    word: &Word,
    is_late: bool,
    is_observed: bool,
    available: u64,
) -> Result<(CallState, u64), Code> {
    use CallState::{
        Cancelled, Job, Open, Refunded, Released, Settled, UnknownCharged, UnknownReleased,
    };
    let terms = &before.call.hold.terms;
    let held = before.call.held().get();
    let price = || match word {
        Word::Release { .. } | Word::Settle(Told::Hold) => Ok(held),
        Word::Settle(Told::Credits(credits)) => Ok(credits.get()),
        Word::Settle(Told::Value(value)) if terms.meter.is_some() => {
            let seconds = value.as_thousandths().div_ceil(1_000);
            Ok((seconds.div_ceil(60) * 10).max(10))
        }
        Word::Settle(Told::Value(_)) => Err(Code::BadRequest),
    };
    let price = || {
        price().and_then(|price| {
            let is_value = matches!(word, Word::Settle(Told::Value(_)));
            if is_observed && !(is_value && price > terms.most.get()) {
                Ok(0)
            } else if price > held {
                Err(Code::AboveHold)
            } else {
                Ok(price)
            }
        })
    };
    let releases = matches!(word, Word::Release { .. });
    let charged = before
        .outcome
        .as_ref()
        .map_or(0, |outcome| outcome.charged.get());
    match state(before) {
        Open | Job if releases => Ok((Released, 0)),
        Open | Job => Ok((Settled, price()?)),
        UnknownReleased | UnknownCharged if !is_late && releases => Ok((Released, 0)),
        UnknownReleased | UnknownCharged if !is_late => {
            Ok((Settled, price()?.min(charged + available)))
        }
        Settled if !is_late && releases => Ok((Refunded, 0)),
        Settled | UnknownCharged => Err(Code::AlreadySettled),
        Released | Cancelled | UnknownReleased | Refunded => Err(Code::AlreadyReleased),
    }
}

fn state(row: &CallRow) -> CallState {
    row.outcome
        .as_ref()
        .map_or(CallState::Open, |outcome| outcome.state)
}

/// How many of these calls, the newest included, lie in its 60 seconds. Time runs as the calls
/// saw it and never backwards, those that were undone included.
fn in_last_minute<'a>(calls: impl Iterator<Item = &'a CallRow>) -> usize {
    let mut newest = Timestamp::EPOCH;
    let mut times: Vec<Timestamp> = Vec::new();
    for row in calls {
        newest = newest.max(row.call.admitted_at);
        if !is_undone(row) {
            times.push(newest);
        }
    }
    times
        .iter()
        .filter(|at| at.plus(Span::MINUTE) > newest)
        .count()
}

/// Whether it is for what an earlier request of the same `Idempotency-Key` was.
fn is_of_turn(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::FirstRuns { .. } | Refusal::OtherContent { .. }
    )
}

fn is_undone(row: &CallRow) -> bool {
    state(row) == CallState::Cancelled
}

fn brief<T: std::fmt::Debug>(thing: &T) -> String {
    let text = format!("{thing:?}");
    let end = text
        .char_indices()
        .nth(240)
        .map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}
