//! Keys that were issued before Tollgate: imported into accounts, revoked and moved, over a network that
//! loses, delays and repeats, with commits that fail and objects that are evicted at any moment.
//! However that goes: a secret is one account's at a time, and is looked up where it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use tollgate::{
    account::{Admit, Fingerprint, NewKey, RotateKey},
    id::{AccountId, KeyId, KeyNumber},
    imported::{self, Lookup, Registered},
    key::SecretDigest,
    object::{Imported, Object, Opened, Store},
    policy::Policy,
    problem::Code,
    protocol::{Command, Complaint, ImportKey, Manage, Reply, Request, decode, encode},
    time::{Span, Timestamp},
};

use crate::{
    branch::{cost, digest_of, fingerprint},
    memory_store::MemoryStore,
    network::{Message, Network, What},
    properties::config,
    sold,
    statement::moment,
};

static SOLD: LazyLock<Arc<Policy>> = LazyLock::new(|| sold::edited("standard"));

/// A lookup object's rows, and how often one was written.
#[derive(Debug, Default)]
struct Rows {
    rows: HashMap<[u8; 32], Registered>,
    written: usize,
    commits_to_fail: u32,
}

impl imported::Store for Rows {
    type Error = &'static str;

    fn find(&self, digest: &SecretDigest) -> Result<Option<Registered>, &'static str> {
        Ok(self.rows.get(digest.as_bytes()).cloned())
    }

    fn put(&mut self, digest: &SecretDigest, registered: &Registered) -> Result<(), &'static str> {
        if let Some(left) = self.commits_to_fail.checked_sub(1) {
            self.commits_to_fail = left;
            return Err("a failure of the test's");
        }
        self.rows.insert(*digest.as_bytes(), registered.clone());
        self.written += 1;
        Ok(())
    }
}

fn secret(number: u8) -> SecretDigest {
    SecretDigest::of(&[number; 20])
}

fn id(text: &str) -> KeyId {
    KeyId::parse(text).expect("a key's id")
}

#[test]
fn a_secret_is_one_accounts_at_a_time_whatever_comes_twice_or_late() {
    let digest = secret(1);
    let find = || imported::Request::Find(digest);
    let register = |key: &str| imported::Request::Register {
        digest,
        key: id(key),
    };
    let withdraw = |key: &str| imported::Request::Withdraw {
        digest,
        key: id(key),
    };
    let found = |key: Option<&str>| imported::Reply::Found(key.map(id));
    let registered = |key: &str| imported::Reply::Registered(id(key));
    let withdrawn = |key: &str| imported::Reply::Withdrawn(id(key));
    let taken = |key: &str, by: &str| imported::Reply::Taken {
        key: id(key),
        by: id(by),
    };
    let mut lookup = Lookup::new(Rows::default());
    for (request, reply, rows) in [
        (find(), found(None), 0),
        (withdraw("key_a_1"), withdrawn("key_a_1"), 0),
        (register("key_a_1"), registered("key_a_1"), 1),
        (register("key_a_1"), registered("key_a_1"), 0),
        (find(), found(Some("key_a_1")), 0),
        (register("key_b_1"), taken("key_b_1", "key_a_1"), 0),
        (withdraw("key_b_1"), withdrawn("key_b_1"), 0),
        (find(), found(Some("key_a_1")), 0),
        // The account knows best which of its keys has it.
        (register("key_a_3"), registered("key_a_3"), 1),
        (register("key_a_2"), taken("key_a_2", "key_a_3"), 0),
        (withdraw("key_a_1"), withdrawn("key_a_1"), 0),
        (register("key_b_1"), taken("key_b_1", "key_a_3"), 0),
        (withdraw("key_a_3"), withdrawn("key_a_3"), 1),
        (withdraw("key_a_3"), withdrawn("key_a_3"), 0),
        (find(), found(Some("key_a_3")), 0),
        // A late copy does not bring it back.
        (register("key_a_3"), registered("key_a_3"), 0),
        (register("key_b_2"), registered("key_b_2"), 1),
        (find(), found(Some("key_b_2")), 0),
        (withdraw("key_a_3"), withdrawn("key_a_3"), 0),
        (register("key_a_3"), taken("key_a_3", "key_b_2"), 0),
        (find(), found(Some("key_b_2")), 0),
    ] {
        let before = lookup.store_mut().written;
        assert_eq!(lookup.handle(request.clone()), reply, "{request:?}");
        assert_eq!(lookup.store_mut().written - before, rows, "{request:?}");
    }
    let other = imported::Request::Find(secret(2));
    assert_eq!(lookup.handle(other), found(None));
}

/// What is on its way between an account's object and the lookup object. The request to import waits.
type InFlight = Network<imported::Request, imported::Reply, (ImportKey, Option<Fingerprint>)>;

struct World {
    objects: Vec<Object<MemoryStore>>,
    lookup: Lookup<Rows>,
    in_flight: InFlight,
    clock: Timestamp,
    /// The key of every request that was answered 201, by account and secret.
    imported: BTreeMap<(usize, [u8; 32]), String>,
    calls: u64,
    /// The last answer to a request.
    answer: Option<Result<String, Complaint>>,
}

impl World {
    fn new(accounts: usize) -> Self {
        Self::on_plan("prepaid", accounts)
    }

    fn on_plan(plan: &str, accounts: usize) -> Self {
        let clock = moment("2026-11-02T10:00:00");
        let object = |account: usize| {
            let mut object = Object::new(MemoryStore::default(), Arc::clone(&SOLD));
            let new = tollgate::account::NewAccount {
                id: account_id(account),
                external_id: None,
                name: None,
                email: None,
                plan: plan.to_owned(),
                billing_day: None,
                subscription: None,
                opened_by: fingerprint(255, 255),
            };
            let Opened::Claim(claim) = object.open(&new, clock) else {
                panic!("no claim");
            };
            let tollgate::directory::Request::Claim { report, .. } = *claim else {
                panic!("no claim");
            };
            let known = tollgate::directory::Reply::Known(report.version);
            object.claimed(&new, &known, clock);
            object
        };
        Self {
            objects: (0..accounts).map(object).collect(),
            lookup: Lookup::new(Rows::default()),
            in_flight: InFlight::quiet(),
            clock,
            imported: BTreeMap::new(),
            calls: 0,
            answer: None,
        }
    }

    fn import(&mut self, account: usize, secret_number: u8, name: Option<&str>, key: Option<u8>) {
        let import = ImportKey {
            new: NewKey {
                name: name.map(str::to_owned),
                ..NewKey::default()
            },
            digest: secret(secret_number),
        };
        let idempotency = key.map(|key| {
            let named = u8::from(name.is_some());
            fingerprint(key, 16 * secret_number + named)
        });
        let import: ImportKey = decode(&encode(&import)).expect("readable");
        let imported = self.objects[account].import(&import, idempotency, self.clock);
        self.go_on(account, import, idempotency, imported);
    }

    fn go_on(
        &mut self,
        account: usize,
        import: ImportKey,
        idempotency: Option<Fingerprint>,
        imported: Imported,
    ) {
        match imported {
            Imported::Ask(request) => self.in_flight.send(Message {
                account,
                waiting: Some((import, idempotency)),
                what: What::Request(request),
            }),
            Imported::Answered(Reply::Document(document)) => {
                assert_eq!(document.status, 201);
                let told: serde_json::Value = serde_json::from_str(&document.json).expect("JSON");
                assert_eq!(told["imported"], true);
                let key = told["id"].as_str().expect("an id").to_owned();
                let of = (account, *import.digest.as_bytes());
                let first = self.imported.entry(of).or_insert(key.clone());
                assert_eq!(*first, key, "another key for the same secret");
                self.answer = Some(Ok(key));
            }
            Imported::Answered(Reply::Problem(complaint)) => {
                let expected = [Code::Conflict, Code::IdempotencyMismatch];
                assert!(expected.contains(&complaint.code), "{complaint:?}");
                self.answer = Some(Err(complaint));
            }
            Imported::Answered(Reply::Unavailable { .. }) => {}
            Imported::Answered(other) => panic!("{other:?}"),
        }
    }

    fn manage(&mut self, account: usize, command: Command) -> Reply {
        let manage = Manage {
            command,
            idempotency: None,
            signs_under: None,
        };
        self.objects[account].handle(Request::Manage(manage), self.clock)
    }

    fn revoke(&mut self, account: usize, key: u32) -> Reply {
        self.manage(account, Command::RevokeKey(KeyNumber::new(key)))
    }

    fn rotate(&mut self, account: usize, key: u32) {
        let rotate = RotateKey {
            key: KeyNumber::new(key),
            overlap: Span::from_seconds(60),
        };
        let digest = digest_of(1_000 + key);
        self.manage(account, Command::RotateKey { rotate, digest });
    }

    /// Whether a call with this secret is admitted as this key's.
    fn admits(&mut self, key: &KeyId, secret: SecretDigest) -> bool {
        let account = (0..self.objects.len())
            .find(|account| account_id(*account) == key.account)
            .expect("an account");
        self.calls += 1;
        let admit = Admit {
            operation: self.calls,
            key: key.number,
            digest: secret,
            method: "POST".to_owned(),
            endpoint: "/search".to_owned(),
            terms: cost(0),
            repeated_refusals: 0,
            repeated_by_code: std::collections::BTreeMap::new(),
            retried: None,
        };
        let reply = self.objects[account].handle(Request::Admit(admit), self.clock);
        matches!(reply, Reply::Admitted(_))
    }

    /// Whose the secret is, as far as the lookup object knows.
    fn found(&self, secret: SecretDigest) -> Option<Registered> {
        imported::Store::find(self.lookup.store(), &secret).expect("readable")
    }

    fn tell(&mut self, account: usize) -> bool {
        let errand = self.objects[account].errand();
        let is_told = errand.is_some();
        assert_eq!(
            is_told,
            self.objects[account].errand_at(self.clock).is_some()
        );
        if let Some(request) = errand {
            self.in_flight.send(Message {
                account,
                waiting: None,
                what: What::Request(request),
            });
        }
        is_told
    }

    fn arrive(&mut self, which: usize, again: bool) {
        let Some(Message {
            account,
            waiting,
            what,
        }) = self.in_flight.take(which, again)
        else {
            return;
        };
        match (what, waiting) {
            (What::Request(request), waiting) => {
                let request = decode(&encode(&request)).expect("a readable request");
                let reply = self.lookup.handle(request);
                let reply = decode(&encode(&reply)).expect("a readable reply");
                // What cannot be answered is an error where it was asked.
                if !matches!(reply, imported::Reply::Unavailable { .. }) {
                    self.in_flight.send(Message {
                        account,
                        waiting,
                        what: What::Reply(reply),
                    });
                }
            }
            (What::Reply(reply), None) => {
                let _ = self.objects[account].looked_up(&reply, self.clock);
            }
            (What::Reply(reply), Some((import, idempotency))) => {
                let object = &mut self.objects[account];
                let imported = object.import_looked_up(&import, idempotency, &reply, self.clock);
                self.go_on(account, import, idempotency, imported);
            }
        }
    }

    fn arrive_all(&mut self) {
        for arrived in 0.. {
            assert!(arrived < 1_000, "messages go on for ever");
            if self.in_flight.is_quiet() {
                break;
            }
            self.arrive(0, false);
        }
    }

    fn evict(&mut self, account: usize) {
        let store = std::mem::take(self.objects[account].store_mut());
        self.objects[account] = Object::new(store, Arc::clone(&SOLD));
    }

    /// The network works again, and every alarm goes off.
    fn settle_down(&mut self) {
        self.lookup.store_mut().commits_to_fail = 0;
        self.arrive_all();
        for account in 0..self.objects.len() {
            self.objects[account].store_mut().commits_to_fail = 0;
            for round in 0.. {
                assert!(round < 50, "account {account} has errands for ever");
                assert_eq!(self.objects[account].tick(self.clock), Ok(()));
                if !self.tell(account) {
                    break;
                }
                self.arrive_all();
            }
        }
    }

    /// Every key that has this secret: whether it was revoked.
    fn keys_of(&self, secret: SecretDigest) -> Vec<(usize, KeyId, bool)> {
        let mut keys = Vec::new();
        for (number, object) in self.objects.iter().enumerate() {
            let account = object.account().expect("awake");
            for key in (1..=account.profile().keys_issued).map(KeyNumber::new) {
                let row = object.store().keys(&[key]).expect("a store that works");
                if let Some((_, row)) = row.first()
                    && let Ok(known) = account.read_at_rest(key, row)
                    && known.imported == Some(secret)
                {
                    let is_dead = known.revoked_at.is_some() || account.is_closed();
                    keys.push((number, account.key_id(key), is_dead));
                }
            }
        }
        keys
    }

    fn check(&mut self) {
        for number in 0..SECRETS {
            let keys = self.keys_of(secret(number));
            let standing: Vec<_> = keys.iter().filter(|(_, _, revoked)| !revoked).collect();
            assert!(
                standing.len() <= 1,
                "several have secret {number}: {keys:?}"
            );
            if let Some((_, key, _)) = standing.first() {
                let found = self.found(secret(number));
                let expected = Registered {
                    key: key.clone(),
                    withdrawn: false,
                };
                assert_eq!(found, Some(expected));
                continue;
            }
            // Nobody has it: somebody can, though not who has revoked it.
            let has_revoked: BTreeSet<usize> = keys.iter().map(|(account, ..)| *account).collect();
            // A request that was given up may have come late; then that account has a say first.
            let stuck = self.found(secret(number)).filter(|found| !found.withdrawn);
            let account = (0..self.objects.len()).find(|account| {
                let is_closed = self.objects[*account].account().expect("awake").is_closed();
                let is_free = !has_revoked.contains(account) && !is_closed;
                let of_row = |found: &Registered| found.key.account == account_id(*account);
                is_free && stuck.as_ref().is_none_or(of_row)
            });
            if let Some(account) = account {
                self.answer = None;
                self.import(account, number, None, None);
                self.arrive_all();
                assert!(matches!(self.answer, Some(Ok(_))), "{:?}", self.answer);
            }
        }
    }
}

const SECRETS: u8 = 3;

fn account_id(account: usize) -> AccountId {
    AccountId::parse(&format!("a{account}")).expect("an id")
}

#[test]
fn an_imported_key_works_is_imported_once_and_keeps_to_what_was_told() {
    let mut world = World::new(1);
    world.import(0, 1, Some("shop"), Some(1));
    assert_eq!(world.answer, None, "not before it is looked up");
    assert!(!world.admits(&id("key_a0_1"), secret(1)));
    world.arrive_all();
    assert_eq!(world.answer, Some(Ok("key_a0_1".to_owned())));
    assert!(world.admits(&id("key_a0_1"), secret(1)));
    assert!(!world.admits(&id("key_a0_1"), secret(2)));

    // The same again, under the same Idempotency-Key, another and none; and with less told.
    let rows = world.lookup.store().written;
    for (name, key) in [
        (Some("shop"), Some(1)),
        (Some("shop"), Some(2)),
        (Some("shop"), None),
        (None, None),
    ] {
        world.answer = None;
        world.import(0, 1, name, key);
        assert_eq!(world.answer, Some(Ok("key_a0_1".to_owned())));
    }
    assert_eq!(world.lookup.store().written, rows);

    // Something else told is refused, and changes nothing.
    world.import(0, 1, Some("other"), Some(3));
    let Some(Err(complaint)) = world.answer.take() else {
        panic!("imported otherwise");
    };
    assert_eq!(complaint.code, Code::Conflict);
    assert_eq!(complaint.field.as_deref(), Some("secret"));
    assert!(complaint.detail.contains("key_a0_1"), "{complaint:?}");

    // Revoked is for good, also where the import is run once more.
    world.revoke(0, 1);
    assert!(!world.admits(&id("key_a0_1"), secret(1)));
    world.import(0, 1, None, None);
    assert!(matches!(world.answer, Some(Err(_))));
    world.settle_down();
    assert!(world.found(secret(1)).expect("known").withdrawn);
}

#[test]
fn a_rotated_imported_key_is_a_key_of_tollgates_once_the_overlap_is_over() {
    let mut world = World::new(1);
    world.import(0, 1, None, None);
    world.arrive_all();
    let key = id("key_a0_1");
    world.rotate(0, 1);
    world.clock = world.clock.plus(Span::from_millis(59_999));
    assert!(world.admits(&key, secret(1)));
    assert!(world.admits(&key, digest_of(1_001)));
    world.import(0, 1, None, None);
    assert_eq!(world.answer, Some(Ok("key_a0_1".to_owned())));
    world.clock = world.clock.plus(Span::from_millis(1));
    assert!(!world.admits(&key, secret(1)));
    assert!(world.admits(&key, digest_of(1_001)));
    // Imported again it stays dead, and is not said to be alive.
    world.import(0, 1, None, None);
    let Some(Err(complaint)) = world.answer.take() else {
        panic!("a dead secret is a key");
    };
    assert_eq!(complaint.code, Code::Conflict);
    assert!(complaint.detail.contains("key_a0_1"), "{complaint:?}");
    assert!(!world.admits(&key, secret(1)));
    // It is withdrawn by its first secret.
    world.revoke(0, 1);
    world.settle_down();
    assert!(world.found(secret(1)).expect("known").withdrawn);
}

#[test]
fn a_secret_moves_to_another_account_when_its_key_is_revoked() {
    let mut world = World::new(2);
    world.import(0, 1, None, Some(1));
    world.arrive_all();
    world.import(1, 1, None, Some(1));
    world.arrive_all();
    let Some(Err(complaint)) = world.answer.take() else {
        panic!("two accounts have it");
    };
    assert_eq!(complaint.code, Code::Conflict);
    assert!(complaint.detail.contains("key_a0_1"), "{complaint:?}");
    assert_eq!(world.keys_of(secret(1)).len(), 1, "nothing is left of it");

    world.revoke(0, 1);
    world.settle_down();
    // What was refused stays refused under its Idempotency-Key.
    world.import(1, 1, None, Some(1));
    assert_eq!(world.answer.take(), Some(Err(complaint)));
    world.import(1, 1, None, Some(2));
    world.arrive_all();
    let Some(Ok(key)) = world.answer.take() else {
        panic!("it did not move");
    };
    assert!(world.admits(&id(&key), secret(1)));
    assert!(!world.admits(&id("key_a0_1"), secret(1)));
    assert_eq!(world.found(secret(1)).expect("known").key, id(&key));
}

#[test]
fn a_closed_account_gives_up_its_secrets_and_is_not_erased_before() {
    let mut world = World::new(2);
    world.import(0, 1, None, None);
    world.arrive_all();
    // This one is still asked for when it is closed.
    world.import(0, 2, None, None);
    world.manage(0, Command::Close);
    assert!(!world.admits(&id("key_a0_1"), secret(1)));
    world.answer = None;
    world.import(0, 3, None, None);
    let Some(Err(complaint)) = world.answer.take() else {
        panic!("imported by a closed account");
    };
    assert!(complaint.detail.contains("closed"), "{complaint:?}");

    world.clock = world.clock.plus(Span::from_days(401));
    assert_eq!(world.objects[0].tick(world.clock), Ok(()));
    assert!(
        world.objects[0].account().is_some(),
        "the secrets would stay its own"
    );
    world.tell(0);
    world.arrive_all();
    while world.tell(0) {
        world.arrive_all();
    }
    for number in 1..=2 {
        world.import(1, number, None, None);
        world.arrive_all();
        assert!(
            matches!(world.answer.take(), Some(Ok(_))),
            "secret {number}"
        );
    }
    assert_eq!(world.objects[0].tick(world.clock), Ok(()));
    assert!(world.objects[0].account().is_none());
    assert!(!world.admits(&id("key_a0_1"), secret(1)));
}

#[test]
fn a_closed_account_with_many_secrets_gives_them_up_within_the_hour() {
    let mut world = World::new(1);
    for number in 1..=200 {
        world.import(0, number, None, None);
        world.arrive_all();
    }
    world.manage(0, Command::Close);
    let closed_at = world.clock;
    while let Some(at) = world.objects[0].errand_at(world.clock) {
        world.clock = at;
        // As many as one alarm asks about: see `edge/object.rs`.
        for _ in 0..4 {
            world.tell(0);
            world.arrive_all();
        }
    }
    assert!(world.clock.since(closed_at) < Span::from_seconds(3_600));
}

#[test]
fn keys_that_are_asked_for_count_among_those_that_an_account_may_have() {
    let mut world = World::on_plan("tight", 1);
    // The plan allows for two keys.
    for number in 1..=2 {
        world.import(0, number, None, None);
    }
    assert_eq!(world.answer, None);
    world.import(0, 3, None, None);
    assert!(matches!(world.answer, Some(Err(_))));
    let digest = digest_of(9);
    let new = NewKey::default();
    let issued = world.manage(0, Command::CreateKey { new, digest });
    assert!(matches!(issued, Reply::Problem(_)), "{issued:?}");
}

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody imports a key.
    Import {
        account: usize,
        secret: u8,
        named: bool,
        key: Option<u8>,
    },
    /// A message in flight arrives.
    Arrive(usize),
    /// It arrives, and once more later.
    Repeat(usize),
    /// It is lost.
    Lose(usize),
    Revoke(usize, u32),
    Rotate(usize, u32),
    Close(usize),
    /// The alarm, or the end of any message: the lookup object is asked what it has not answered.
    Tell(usize),
    /// The account's object is thrown out of memory.
    Evict(usize),
    /// The next commit of the account fails.
    FailCommit(usize),
    FailLookupCommit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let account = || 0..3_usize;
    let step = prop_oneof![
        6 => (account(), 0..SECRETS, any::<bool>(), proptest::option::of(0..6_u8)).prop_map(
            |(account, secret, named, key)| Step::Import { account, secret, named, key }
        ),
        12 => (0..8_usize).prop_map(Step::Arrive),
        2 => (0..8_usize).prop_map(Step::Repeat),
        2 => (0..8_usize).prop_map(Step::Lose),
        3 => (account(), 1..6_u32).prop_map(|(account, key)| Step::Revoke(account, key)),
        1 => (account(), 1..6_u32).prop_map(|(account, key)| Step::Rotate(account, key)),
        1 => Just(0_usize).prop_map(Step::Close),
        3 => account().prop_map(Step::Tell),
        1 => account().prop_map(Step::Evict),
        1 => account().prop_map(Step::FailCommit),
        1 => Just(Step::FailLookupCommit),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_secret_is_one_accounts_and_found_there_whatever_the_network_did(steps in steps()) {
        let mut world = World::new(3);
        for step in steps {
            world.clock = world.clock.plus(Span::from_millis(700));
            match step {
                Step::Import { account, secret, named, key } => {
                    world.import(account, secret, named.then_some("shop"), key);
                }
                Step::Arrive(which) => world.arrive(which, false),
                Step::Repeat(which) => world.arrive(which, true),
                Step::Lose(which) => world.in_flight.lose(which),
                Step::Revoke(account, key) => {
                    world.revoke(account, key);
                }
                Step::Rotate(account, key) => world.rotate(account, key),
                Step::Close(account) => {
                    world.manage(account, Command::Close);
                }
                Step::Tell(account) => {
                    world.tell(account);
                }
                Step::Evict(account) => world.evict(account),
                Step::FailCommit(account) => {
                    world.objects[account].store_mut().commits_to_fail = 1;
                }
                Step::FailLookupCommit => world.lookup.store_mut().commits_to_fail = 1,
            }
        }
        world.settle_down();
        world.check();
    }
}
