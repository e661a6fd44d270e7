//! Accounts are opened and changed, and the directory told of it, over a network that loses,
//! repeats and reorders, with commits that fail and objects that are evicted at any moment.
//! However that goes: no name opens two accounts, none is left without one, and once it is quiet
//! the directory lists the accounts as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use tollgate::{
    account::{Edit, Listed, NewAccount, NewKey, PatchAccount, Status},
    directory::{self, Directory, Filter, Search},
    id::{AccountId, ExternalId, KeyNumber},
    key::{SecretDigest, SecretId},
    object::{Object, Opened, Store},
    policy::Policy,
    problem::Code,
    protocol::{Command, Manage, Reply, Request, decode, encode},
    time::{Span, Timestamp},
};

use crate::{
    branch::fingerprint,
    memory_directory::MemoryDirectory,
    memory_store::MemoryStore,
    network::{Message, Network, What},
    properties::config,
    sold,
    statement::moment,
};

const ACCOUNTS: usize = 4;

static SOLD: LazyLock<Arc<Policy>> = LazyLock::new(|| sold::edited("standard"));

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody asks for an account.
    Open {
        account: usize,
        external_id: Option<u8>,
        key: u8,
        body: u8,
    },
    /// A message in flight arrives.
    Arrive(usize),
    /// It arrives, and once more later.
    Repeat(usize),
    /// It is lost.
    Lose(usize),
    Rename(usize, u8),
    Move(usize, bool),
    Suspend(usize),
    Close(usize),
    /// So much later that a closed account is erased.
    Outlive(usize),
    Issue(usize, u8),
    Revoke(usize, u8),
    /// The alarm, or the end of any message: the directory is told what it does not know.
    Tell(usize),
    /// The account's object is thrown out of memory.
    Evict(usize),
    EvictDirectory,
    /// The next commit of the account fails.
    FailCommit(usize),
    FailDirectoryCommit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let account = || 0..ACCOUNTS;
    let step = prop_oneof![
        6 => (account(), proptest::option::of(0..3_u8), 0..6_u8, 0..2_u8).prop_map(
            |(account, external_id, key, body)| Step::Open { account, external_id, key, body }
        ),
        12 => (0..8_usize).prop_map(Step::Arrive),
        2 => (0..8_usize).prop_map(Step::Repeat),
        2 => (0..8_usize).prop_map(Step::Lose),
        1 => (account(), 0..4_u8).prop_map(|(account, name)| Step::Rename(account, name)),
        1 => (account(), any::<bool>()).prop_map(|(account, pro)| Step::Move(account, pro)),
        1 => account().prop_map(Step::Suspend),
        1 => account().prop_map(Step::Close),
        1 => account().prop_map(Step::Outlive),
        1 => (account(), 1..4_u8).prop_map(|(account, secret)| Step::Issue(account, secret)),
        1 => (account(), 1..4_u8).prop_map(|(account, key)| Step::Revoke(account, key)),
        2 => account().prop_map(Step::Tell),
        1 => account().prop_map(Step::Evict),
        1 => Just(Step::EvictDirectory),
        1 => account().prop_map(Step::FailCommit),
        1 => Just(Step::FailDirectoryCommit),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What is on its way between an account's object and the directory. The request to open waits.
type InFlight = Network<Box<directory::Request>, directory::Reply, NewAccount>;

struct World {
    objects: Vec<Object<MemoryStore>>,
    directory: Directory<MemoryDirectory>,
    in_flight: InFlight,
    clock: Timestamp,
    /// What every request that was answered 201 was told.
    opened: BTreeMap<Fingerprinted, String>,
}

type Fingerprinted = ([u8; 32], [u8; 32]);

impl World {
    fn new() -> Self {
        let object = |_| Object::new(MemoryStore::default(), Arc::clone(&SOLD));
        Self {
            objects: (0..ACCOUNTS).map(object).collect(),
            directory: Directory::new(MemoryDirectory::default(), Arc::clone(&SOLD)),
            in_flight: InFlight::quiet(),
            clock: moment("2026-11-02T10:00:00"),
            opened: BTreeMap::new(),
        }
    }

    fn run(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            self.clock = self.clock.plus(Span::from_millis(700));
            self.step(step)?;
        }
        self.settle_down()?;
        self.check()
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Open {
                account,
                external_id,
                key,
                body,
            } => {
                let new = wanted(account, external_id, key, body);
                let opened = self.objects[account].open(&new, self.clock);
                self.go_on(account, new, opened)?;
            }
            Step::Arrive(which) => self.arrive(which, false)?,
            Step::Repeat(which) => self.arrive(which, true)?,
            Step::Lose(which) => self.in_flight.lose(which),
            Step::Rename(account, name) => self.patch(
                account,
                PatchAccount {
                    name: Some(Edit::Set(format!("Name {name}"))),
                    ..PatchAccount::default()
                },
            ),
            Step::Move(account, pro) => self.patch(
                account,
                PatchAccount {
                    plan: Some(if pro { "pro" } else { "free" }.to_owned()),
                    ..PatchAccount::default()
                },
            ),
            Step::Suspend(account) => self.patch(
                account,
                PatchAccount {
                    status: Some(Status::Suspended { reason: None }),
                    ..PatchAccount::default()
                },
            ),
            Step::Close(account) => self.manage(account, Command::Close, None),
            Step::Outlive(account) => {
                self.clock = self.clock.plus(Span::from_days(401));
                let _ = self.objects[account].tick(self.clock);
            }
            Step::Issue(account, id) => {
                let command = Command::CreateKey {
                    new: NewKey::default(),
                    digest: SecretDigest::of(&[id]),
                };
                self.manage(account, command, Some(secret(id)));
            }
            Step::Revoke(account, key) => {
                let key = KeyNumber::new(u32::from(key));
                self.manage(account, Command::RevokeKey(key), None);
            }
            Step::Tell(account) => {
                // A commit that was told to fail may be the tick's.
                let _ = self.objects[account].tick(self.clock);
                self.tell(account);
            }
            Step::Evict(account) => {
                let store = self.objects[account].store().clone();
                self.objects[account] = Object::new(store, Arc::clone(&SOLD));
            }
            Step::EvictDirectory => {
                let store = self.directory.store().clone();
                self.directory = Directory::new(store, Arc::clone(&SOLD));
            }
            Step::FailCommit(account) => self.objects[account].store_mut().commits_to_fail = 1,
            Step::FailDirectoryCommit => self.directory.store_mut().commits_to_fail = 1,
        }
        self.forget_erased();
        Ok(())
    }

    /// What an erased account was opened by gets another answer from now on.
    fn forget_erased(&mut self) {
        for account in 0..ACCOUNTS {
            if self.is_erased(account) {
                let id = id(account);
                self.opened
                    .retain(|_, json| !json.starts_with(&format!(r#"{{"id":"{id}","#)));
            }
        }
    }

    fn is_erased(&self, account: usize) -> bool {
        let tombstone = self.objects[account].store().tombstone();
        tombstone.expect("a store that works").is_some()
    }

    fn patch(&mut self, account: usize, patch: PatchAccount) {
        self.manage(account, Command::Patch(patch), None);
    }

    fn manage(&mut self, account: usize, command: Command, signs_under: Option<SecretId>) {
        let manage = Manage {
            command,
            idempotency: None,
            signs_under,
        };
        self.objects[account].handle(Request::Manage(manage), self.clock);
    }

    /// Sends what the directory may not know; whether there was something.
    fn tell(&mut self, account: usize) -> bool {
        let report = self.objects[account].report();
        let is_told = report.is_some();
        assert_eq!(
            is_told,
            self.objects[account].report_at(self.clock).is_some()
        );
        if let Some(report) = report {
            self.in_flight.send(Message {
                account,
                waiting: None,
                what: What::Request(Box::new(report)),
            });
        }
        is_told
    }

    fn arrive(&mut self, which: usize, again: bool) -> Result<(), TestCaseError> {
        let Some(Message {
            account,
            waiting,
            what,
        }) = self.in_flight.take(which, again)
        else {
            return Ok(());
        };
        match (what, waiting) {
            (What::Request(request), waiting) => {
                let request = decode(&encode(&request)).expect("a readable request");
                let reply = self.directory.handle(request);
                let reply = decode(&encode(&reply)).expect("a readable reply");
                // What cannot be answered is an error where it was asked.
                if !matches!(reply, directory::Reply::Unavailable { .. }) {
                    self.in_flight.send(Message {
                        account,
                        waiting,
                        what: What::Reply(reply),
                    });
                }
            }
            (What::Reply(reply), None) => {
                let _ = self.objects[account].hear(&reply, self.clock);
            }
            (What::Reply(reply), Some(new)) => {
                let opened = self.objects[account].claimed(&new, &reply, self.clock);
                self.go_on(account, new, opened)?;
            }
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        account: usize,
        new: NewAccount,
        opened: Opened,
    ) -> Result<(), TestCaseError> {
        let reply = match opened {
            Opened::Claim(request) => {
                self.in_flight.send(Message {
                    account,
                    waiting: Some(new),
                    what: What::Request(request),
                });
                return Ok(());
            }
            Opened::Answered(reply) => reply,
        };
        let by = (new.opened_by.key, new.opened_by.request);
        match reply {
            Reply::Document(document) => {
                prop_assert_eq!(document.status, 201);
                let first = self.opened.entry(by).or_insert(document.json.clone());
                prop_assert_eq!(
                    &document.json,
                    &*first,
                    "another answer to the same request"
                );
                let told: serde_json::Value =
                    serde_json::from_str(&document.json).expect("an account is JSON");
                prop_assert_eq!(&told["id"], new.id.as_str());
                let external_id = new.external_id.as_ref().map(ExternalId::as_str);
                prop_assert_eq!(told["external_id"].as_str(), external_id);
            }
            Reply::Problem(complaint) => {
                prop_assert!(
                    !self.opened.contains_key(&by),
                    "refused what it has: {:?}",
                    complaint
                );
                prop_assert!(
                    matches!(complaint.code, Code::Conflict | Code::IdempotencyMismatch),
                    "{:?}",
                    complaint
                );
            }
            Reply::Unavailable { .. } => {}
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    /// The network works again, and every alarm goes off.
    fn settle_down(&mut self) -> Result<(), TestCaseError> {
        self.directory.store_mut().commits_to_fail = 0;
        self.arrive_all()?;
        for account in 0..ACCOUNTS {
            self.objects[account].store_mut().commits_to_fail = 0;
            for round in 0.. {
                prop_assert!(round < 5, "account {} is told for ever", account);
                prop_assert_eq!(self.objects[account].tick(self.clock), Ok(()));
                self.forget_erased();
                if !self.tell(account) {
                    break;
                }
                self.arrive_all()?;
            }
        }
        Ok(())
    }

    fn arrive_all(&mut self) -> Result<(), TestCaseError> {
        for arrived in 0.. {
            prop_assert!(arrived < 1_000, "messages go on for ever");
            if self.in_flight.is_quiet() {
                break;
            }
            self.arrive(0, false)?;
        }
        Ok(())
    }

    fn listed(&mut self, filter: Filter) -> Vec<Listed> {
        let search = Search {
            limit: 500,
            filter,
            ..Search::default()
        };
        match self.directory.handle(directory::Request::List(search)) {
            directory::Reply::Page(page) => page.accounts,
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let accounts: Vec<Listed> = self
            .objects
            .iter()
            .filter_map(|object| object.account().map(|account| account.view()))
            .collect();
        for object in self
            .objects
            .iter()
            .filter(|object| object.account().is_some())
        {
            let intent = object.store().opening().expect("a store that works");
            prop_assert_eq!(intent, None, "an account that is open is wanted no more");
        }
        let by_id = |mut accounts: Vec<Listed>| {
            accounts.sort_by(|one, other| one.id.cmp(&other.id));
            accounts
        };
        prop_assert_eq!(by_id(self.listed(Filter::default())), accounts.clone());

        // What each is called finds it, and nothing else; a closed one has given up its name.
        let mut external_ids = BTreeSet::new();
        let is_open = |account: &&Listed| account.status.closed_at().is_none();
        for account in accounts.iter().filter(is_open) {
            if let Some(external_id) = &account.external_id {
                prop_assert!(
                    external_ids.insert(external_id.clone()),
                    "{} twice",
                    external_id
                );
                let filter = Filter {
                    external_id: Some(external_id.clone()),
                    ..Filter::default()
                };
                prop_assert_eq!(self.listed(filter), vec![account.clone()]);
            }
        }
        for plan in ["free", "pro"] {
            let has_plan = |account: &&Listed| account.plan == plan;
            let expected: Vec<Listed> = accounts.iter().filter(has_plan).cloned().collect();
            let filter = Filter {
                plan: Some(plan.to_owned()),
                ..Filter::default()
            };
            prop_assert_eq!(by_id(self.listed(filter)), expected.clone());
            let directory::Reply::Plans(plans) = self.directory.handle(directory::Request::Plans)
            else {
                panic!("no plans");
            };
            let counted = plans.iter().find(|each| each.plan.name == plan);
            let counted = counted.map_or(0, |each| each.accounts);
            let on_plan = expected.iter().filter(is_open).count();
            prop_assert_eq!(counted, on_plan as u64);
        }

        // Every request that was told that it opened an account has one, and no key opened two.
        let keys: BTreeSet<_> = self.opened.keys().map(|(key, _)| key).collect();
        prop_assert_eq!(keys.len(), self.opened.len());
        for json in self.opened.values() {
            let told: serde_json::Value = serde_json::from_str(json).expect("JSON");
            prop_assert!(
                accounts
                    .iter()
                    .any(|account| told["id"] == account.id.as_str())
            );
        }
        self.check_that_nothing_is_left(&accounts, &external_ids)
    }

    /// What no account has can be had.
    fn check_that_nothing_is_left(
        &mut self,
        accounts: &[Listed],
        external_ids: &BTreeSet<ExternalId>,
    ) -> Result<(), TestCaseError> {
        let (mut fresh, mut has_opened) = (100, false);
        for account in 0..ACCOUNTS {
            let is_open = accounts.iter().any(|listed| listed.id == id(account));
            if is_open {
                continue;
            }
            fresh += 1;
            if self.is_erased(account) {
                let new = wanted(account, None, fresh, 0);
                let opened = self.objects[account].open(&new, self.clock);
                let is_refused = matches!(&opened, Opened::Answered(Reply::Problem(complaint))
                    if complaint.code == Code::Conflict);
                prop_assert!(
                    is_refused,
                    "{} was given out again: {:?}",
                    id(account),
                    opened
                );
                continue;
            }
            let free = (0..3).find(|n| !external_ids.contains(&external(*n)));
            let is_first = !std::mem::replace(&mut has_opened, true);
            let new = wanted(account, free.filter(|_| is_first), fresh, 0);
            let by = (new.opened_by.key, new.opened_by.request);
            let opened = self.objects[account].open(&new, self.clock);
            self.go_on(account, new, opened)?;
            self.settle_down()?;
            prop_assert!(
                self.opened.contains_key(&by),
                "{} cannot be opened",
                id(account)
            );
        }
        Ok(())
    }
}

fn id(account: usize) -> AccountId {
    AccountId::parse(&format!("acc-{account}")).expect("an id")
}

fn external(number: u8) -> ExternalId {
    ExternalId::parse(&format!("cus_{number}")).expect("an external id")
}

fn secret(id: u8) -> SecretId {
    decode(&encode(&u32::from(id))).expect("a secret's id")
}

/// A request for an account. Its fingerprint covers all of it.
fn wanted(account: usize, external_id: Option<u8>, key: u8, body: u8) -> NewAccount {
    let mut opened_by = fingerprint(key, body);
    opened_by.request[0] = account as u8;
    opened_by.request[1] = external_id.map_or(9, |id| id);
    NewAccount {
        id: id(account),
        external_id: external_id.map(external),
        name: None,
        email: None,
        plan: "free".to_owned(),
        billing_day: None,
        subscription: None,
        opened_by,
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn the_directory_lists_the_accounts_as_they_are_whatever_the_network_did(steps in steps()) {
        World::new().run(steps)?;
    }
}
