//! A branch of the bank: one account's object, a clock, and commands in few words.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use tollgate::{
    account::{
        Admit, Cancel, Fingerprint, NewAccount, NewGrant, NewKey, PatchAccount, PatchKey,
        RotateKey, Status, StatusChange, Word,
    },
    call::{BodyEnd, CallRow, Settle},
    directory,
    id::{AccountId, CallNumber, KeyNumber},
    key::SecretDigest,
    ledger_page::{LedgerCursor, LedgerLine, LedgerPage, LedgerQuery},
    object::{Object, Opened, Store},
    policy::{Policy, Source},
    price::{Quantity, Reported, Terms},
    protocol::{
        AuditStep, Command, Manage, Page, Read, Reply, Request, SummaryQuery, decode,
        decode_beside, encode, encode_beside,
    },
    time::{Span, Timestamp},
    totals::summary::By,
};

use crate::{
    auditor::{audit, audit_calls, audit_costs, audit_ledger, audit_rolled, audit_totals, keys_of},
    memory_store::MemoryStore,
    sold,
};

/// One account and all that moves it.
#[derive(Debug)]
pub struct Branch {
    pub object: Object<MemoryStore>,
    pub policy: Arc<Policy>,
    pub clock: Timestamp,
    /// The template of the route that is called.
    pub endpoint: String,
    /// The clock has stepped back at least once.
    pub strayed: bool,
    /// How often each key was rotated.
    pub rotations: BTreeMap<u32, u32>,
    /// Each message with its clock and its answer, in bytes, where somebody wants to know.
    pub transcript: Option<Vec<Exchange>>,
    /// Calls of which somebody has told that they succeeded, whatever they were answered.
    pub told_to_settle: BTreeSet<CallNumber>,
    operations: u64,
}

/// A message and its answer, as they travel.
#[derive(Debug)]
pub struct Exchange {
    pub clock: Timestamp,
    pub message: Vec<u8>,
    pub reply: Vec<u8>,
    pub rows: u64,
}

/// The secret part of a key that the tests issue.
pub fn digest_of(key: u32) -> SecretDigest {
    digest_after(key, 0)
}

/// The secret part that a key has after so many rotations.
pub fn digest_after(key: u32, rotations: u32) -> SecretDigest {
    SecretDigest::of(&(u64::from(rotations) << 32 | u64::from(key)).to_be_bytes())
}

/// The fingerprint of a request sent with an `Idempotency-Key`.
pub fn fingerprint(key: u8, request: u8) -> Fingerprint {
    Fingerprint {
        key: [key; 32],
        request: [request; 32],
    }
}

/// What a gateway tells of a call that was answered.
pub fn answered(operation: u64, call: u64, status: u16) -> Settle {
    Settle {
        call: CallNumber::new(call).expect("a call's number"),
        operation,
        status,
        response_time_ms: 7,
        answered: true,
        reported: None,
        body: None,
    }
}

impl Branch {
    /// Nothing is opened yet.
    pub fn new(policy: Arc<Policy>, clock: Timestamp) -> Self {
        Self {
            object: Object::new(MemoryStore::default(), Arc::clone(&policy)),
            policy,
            clock,
            endpoint: "/search".into(),
            strayed: false,
            rotations: BTreeMap::new(),
            transcript: None,
            told_to_settle: BTreeSet::new(),
            operations: 1_000_000,
        }
    }

    /// An account on `plan` with one key.
    pub fn with_account(edits: &str, plan: &str, clock: Timestamp) -> Self {
        let mut branch = Self::new(sold::edited(edits), clock);
        assert!(matches!(branch.open(plan, None, None), Reply::Document(_)));
        assert!(matches!(branch.create_key(), Reply::Document(_)));
        branch
    }

    /// Sends a message as it travels: in bytes.
    pub fn send(&mut self, request: Request) -> Reply {
        let message = encode(&request);
        let request = decode(&message).expect("a readable request");
        if let Request::Manage(Manage {
            command:
                Command::EndCall {
                    call,
                    word: Word::Settle(_),
                },
            ..
        }) = request
        {
            self.told_to_settle.insert(call);
        }
        let rows_before = self.store().rows_written;
        let reply = encode(&self.object.handle(request, self.clock));
        let answer = decode(&reply).expect("a readable reply");
        let rows = self.store().rows_written - rows_before;
        if let Some(transcript) = &mut self.transcript {
            transcript.push(Exchange {
                clock: self.clock,
                message,
                reply,
                rows,
            });
        }
        answer
    }

    /// Sends a message and beside it the ends of calls, each with this status, as they travel: in bytes.
    /// Gives how many ends were taken, too.
    pub fn send_beside(&mut self, ended: &[(u64, u16)], request: &Request) -> (u32, Reply) {
        let settle = |(call, status): &(u64, u16)| {
            let operation = self.row(*call).call.hold.operation;
            answered(operation, *call, *status)
        };
        let ends: Vec<Settle> = ended.iter().map(settle).collect();
        let message = encode_beside(request, &ends);
        let (request, ends) = decode_beside(&message).expect("a readable message");
        let taken = self.object.end_calls(&ends, self.clock);
        (taken, self.send(request))
    }

    pub fn store(&self) -> &MemoryStore {
        self.object.store()
    }

    /// A fresh operation id.
    pub fn operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    pub fn manage(&mut self, command: Command, idempotency: Option<Fingerprint>) -> Reply {
        self.send(Request::Manage(Manage {
            command,
            idempotency,
            signs_under: None,
        }))
    }

    pub fn open(
        &mut self,
        plan: &str,
        billing_day: Option<u8>,
        subscription: Option<StatusChange>,
    ) -> Reply {
        let new = NewAccount {
            id: AccountId::parse("acc").expect("an id"),
            external_id: None,
            name: None,
            email: None,
            plan: plan.to_owned(),
            billing_day,
            subscription,
            opened_by: fingerprint(0, 0),
        };
        self.open_account(&new)
    }

    /// Opens an account where the directory grants what is asked for.
    pub fn open_account(&mut self, new: &NewAccount) -> Reply {
        let mut opened = self.object.open(new, self.clock);
        loop {
            opened = match opened {
                Opened::Answered(reply) => return reply,
                Opened::Claim(claim) => {
                    let directory::Request::Claim { report, .. } = *claim else {
                        panic!("no claim: {claim:?}");
                    };
                    let granted = directory::Reply::Known(report.version);
                    self.object.claimed(new, &granted, self.clock)
                }
            };
        }
    }

    pub fn create_key(&mut self) -> Reply {
        self.create_key_as(NewKey::default())
    }

    pub fn create_key_as(&mut self, new: NewKey) -> Reply {
        let number = self
            .object
            .account()
            .map_or(1, |account| account.next_key().get());
        let digest = digest_of(number);
        self.manage(Command::CreateKey { new, digest }, None)
    }

    pub fn patch_key(&mut self, key: u32, patch: PatchKey) -> Reply {
        let key = KeyNumber::new(key);
        self.manage(Command::PatchKey { key, patch }, None)
    }

    /// Gives a key its next secret, which is the one that is called with from then on.
    pub fn rotate_key(&mut self, key: u32, overlap: Span) -> Reply {
        let rotations = self.rotations_of(key) + 1;
        let rotate = RotateKey {
            key: KeyNumber::new(key),
            overlap,
        };
        let digest = digest_after(key, rotations);
        let reply = self.manage(Command::RotateKey { rotate, digest }, None);
        if matches!(reply, Reply::Document(_)) {
            self.rotations.insert(key, rotations);
        }
        reply
    }

    pub fn rotations_of(&self, key: u32) -> u32 {
        self.rotations.get(&key).copied().unwrap_or(0)
    }

    /// A key as the operator reads it.
    pub fn show_key(&mut self, key: u32) -> Value {
        match self.manage(Command::ShowKey(KeyNumber::new(key)), None) {
            Reply::Document(document) => {
                serde_json::from_str(&document.json).expect("a key is JSON")
            }
            reply => panic!("no key {key}: {reply:?}"),
        }
    }

    pub fn grant(
        &mut self,
        pool: &str,
        amount: u64,
        source: Source,
        expires_at: Option<Timestamp>,
    ) -> Reply {
        let grant = NewGrant {
            pool: pool.to_owned(),
            amount: sold::credits(amount),
            source,
            expires_at,
            reference: None,
        };
        self.manage(Command::Grant(grant), None)
    }

    pub fn patch(&mut self, patch: PatchAccount) -> Reply {
        self.manage(Command::Patch(patch), None)
    }

    /// Closes the account.
    pub fn close(&mut self) -> Reply {
        self.manage(Command::Close, None)
    }

    pub fn change_plan(&mut self, plan: &str) -> Reply {
        self.patch(PatchAccount {
            plan: Some(plan.to_owned()),
            ..PatchAccount::default()
        })
    }

    pub fn change_status(&mut self, status: Status) -> Reply {
        self.patch(PatchAccount {
            status: Some(status),
            ..PatchAccount::default()
        })
    }

    /// Takes the account's flags away.
    pub fn unflag(&mut self) -> Reply {
        self.patch(PatchAccount {
            dismisses_flags: true,
            ..PatchAccount::default()
        })
    }

    /// The account as the operator reads it.
    pub fn show(&mut self) -> Value {
        match self.manage(Command::Show, None) {
            Reply::Document(document) => {
                serde_json::from_str(&document.json).expect("an account is JSON")
            }
            reply => panic!("no account: {reply:?}"),
        }
    }

    pub fn change_subscription(&mut self, change: StatusChange) -> Reply {
        self.patch(PatchAccount {
            subscription: Some(change),
            ..PatchAccount::default()
        })
    }

    pub fn admit_as(&mut self, operation: u64, key: u32, terms: Terms) -> Reply {
        self.ask(operation, key, terms, None)
    }

    /// A request that may be the repeat of an earlier one.
    pub fn ask(
        &mut self,
        operation: u64,
        key: u32,
        terms: Terms,
        retried: Option<Fingerprint>,
    ) -> Reply {
        let admit = Admit {
            retried,
            ..self.request(operation, key, terms)
        };
        self.send(Request::Admit(admit))
    }

    /// A request after so many that the isolate refused by itself.
    pub fn ask_after_repeats(&mut self, repeated_refusals: u32, key: u32, terms: Terms) -> Reply {
        let operation = self.operation();
        let admit = Admit {
            repeated_refusals,
            ..self.request(operation, key, terms)
        };
        self.send(Request::Admit(admit))
    }

    pub fn request(&self, operation: u64, key: u32, terms: Terms) -> Admit {
        Admit {
            operation,
            key: KeyNumber::new(key),
            digest: digest_after(key, self.rotations_of(key)),
            method: "POST".into(),
            endpoint: self.endpoint.clone(),
            terms,
            repeated_refusals: 0,
            repeated_by_code: std::collections::BTreeMap::new(),
            retried: None,
        }
    }

    /// A lone caller with key 1.
    pub fn call(&mut self, terms: Terms) -> Reply {
        let operation = self.operation();
        self.admit_as(operation, 1, terms)
    }

    /// Settles a call under the operation id that its row names.
    pub fn settle(&mut self, call: u64, status: u16) -> Reply {
        self.settle_body(call, status, None)
    }

    /// Settles a call whose answer's body ended so.
    pub fn settle_body(&mut self, call: u64, status: u16, body: Option<BodyEnd>) -> Reply {
        let operation = self.row(call).call.hold.operation;
        self.send(Request::Settle(Settle {
            body,
            ..answered(operation, call, status)
        }))
    }

    /// The origin's word on how a call ended.
    pub fn end_call(&mut self, call: u64, word: Word, idempotency: Option<Fingerprint>) -> Reply {
        let call = CallNumber::new(call).expect("a call's number");
        self.manage(Command::EndCall { call, word }, idempotency)
    }

    pub fn cancel(&mut self, operation: u64) -> Reply {
        self.send(Request::Cancel(Cancel { operation }))
    }

    pub fn read(&mut self, key: u32, page: Page) -> Reply {
        let read = Read {
            key: KeyNumber::new(key),
            digest: digest_after(key, self.rotations_of(key)),
            page,
        };
        self.send(Request::Read(read))
    }

    /// The account's own audit finds nothing.
    pub fn audit_itself(&mut self) -> Result<(), String> {
        loop {
            match self.manage(Command::Audit, None) {
                Reply::Audit(AuditStep::Unfinished) => {}
                Reply::Audit(AuditStep::Finished { ok: true, .. }) => return Ok(()),
                other => return Err(format!("the audit found {other:?}")),
            }
        }
    }

    /// All that ever was, summed up, as the operator reads it.
    pub fn summary(&mut self, by: By) -> Value {
        let query = SummaryQuery {
            by,
            from: Some(Timestamp::EPOCH),
            to: Some(Timestamp::from_seconds(4_000_000_000)),
            next: None,
        };
        let Reply::Document(document) = self.manage(Command::UsageSummary(query), None) else {
            panic!("no summary");
        };
        serde_json::from_str(&document.json).expect("a summary is JSON")
    }

    /// The whole ledger, newest first, read in pages of `limit` lines.
    pub fn ledger(&mut self, limit: u32) -> Vec<LedgerLine> {
        let mut lines = Vec::new();
        let mut after = None;
        loop {
            let page = self.ledger_page(limit, after);
            assert!(page.lines.len() <= limit as usize);
            lines.extend(page.lines);
            after = page.next;
            if after.is_none() {
                return lines;
            }
        }
    }

    pub fn ledger_page(&mut self, limit: u32, after: Option<LedgerCursor>) -> LedgerPage {
        let query = LedgerQuery { limit, after };
        let Reply::Ledger(page) = self.manage(Command::Ledger(query), None) else {
            panic!("no ledger");
        };
        page
    }

    pub fn row(&self, call: u64) -> &CallRow {
        self.store().row(call).expect("the call's row")
    }

    /// The row of a key.
    pub fn key_row(&self, key: u32) -> Vec<u8> {
        let rows = self.store().keys(&[KeyNumber::new(key)]);
        rows.expect("a store that works").pop().expect("its row").1
    }

    /// The object is thrown out of memory; what is stored stays.
    pub fn evict(&mut self) {
        self.object = Object::new(self.store().clone(), Arc::clone(&self.policy));
    }

    /// Moves the clock, backwards as well.
    pub fn set_clock(&mut self, clock: Timestamp) {
        self.strayed |= clock < self.clock;
        self.clock = clock;
    }

    /// The alarm.
    pub fn tick(&mut self) -> Result<(), String> {
        self.object.tick(self.clock)
    }

    /// The alarm, again and again until there is nothing left to do.
    pub fn rest(&mut self) -> Result<(), String> {
        self.tick()?;
        while self
            .object
            .next_wakeup()
            .is_some_and(|wakeup| wakeup <= self.clock)
        {
            self.tick()?;
        }
        Ok(())
    }

    /// The balance of a pool, as the operator reads it.
    pub fn balance(&mut self, pool: &str) -> Value {
        let Reply::Document(document) = self.manage(Command::Balance, None) else {
            panic!("no balance");
        };
        let balance: Value = serde_json::from_str(&document.json).expect("a balance is JSON");
        balance["pools"][pool].clone()
    }

    /// What must hold between any two commands.
    pub fn check(&mut self) -> Result<(), String> {
        self.rest()?;
        let Some(account) = self.object.account() else {
            return Ok(());
        };
        audit(self.store(), account)?;
        audit_calls(self.store(), &self.told_to_settle)?;
        audit_rolled(self.store(), account)?;
        audit_totals(self.store(), account)?;
        audit_costs(
            self.store(),
            account,
            self.policy.gateway.calendar,
            self.clock,
        )?;
        let lines = self.ledger(3);
        let account = self.object.account().ok_or("no account")?;
        audit_ledger(&lines, account)?;
        self.audit_itself()?;
        self.check_waking()
    }

    /// Dropping the object and waking it from storage changes nothing that can be seen.
    pub fn check_waking(&self) -> Result<(), String> {
        let mut woken = Object::new(self.store().clone(), Arc::clone(&self.policy));
        woken.store_mut().rows_read.set(0);
        woken.tick(self.clock)?;
        let rows_read = woken.store().rows_read.get();
        let before = self.object.account().expect("an account");
        // A key that was dead by a clock that had strayed is at rest until somebody comes with it.
        for key in (1..=3).map(KeyNumber::new) {
            let stands = |object: &Object<MemoryStore>| {
                let key = object.account().and_then(|account| account.key(key));
                key.is_some_and(|key| key.stands(self.clock))
            };
            if stands(&self.object) && !stands(&woken) {
                let read = Read {
                    key,
                    digest: digest_after(key.get(), self.rotations_of(key.get())),
                    page: Page::Me,
                };
                woken.handle(Request::Read(read), self.clock);
            }
        }
        let open = before.open_calls() as u64;
        let keys = u64::from(before.next_key().get());
        let snapshot = woken.store().load().unwrap().unwrap().snapshot.len() as u64;
        let replayed = (snapshot / 128).clamp(256, 2_048);
        if rows_read > 3 + keys + open + replayed {
            return Err(format!("waking read {rows_read} rows"));
        }
        let seen = |object: &Object<MemoryStore>| {
            let account = object.account().expect("an account");
            let keys = keys_of(object.store(), account);
            // Nobody is told how a dead key stands, which may be at rest in one of them.
            let stands = |key: &u32| {
                let key = account.key(KeyNumber::new(*key));
                key.is_some_and(|key| key.stands(self.clock))
            };
            let me = stands(&1).then(|| account.me_view(KeyNumber::new(1), self.clock));
            let standings: Vec<_> = (1..=3)
                .filter(stands)
                .map(|key| account.standing(KeyNumber::new(key), Some("credits"), self.clock))
                .collect();
            format!(
                "{}\n{}\n{}\n{}\n{standings:?}\n{:?}\n{:?}",
                serde_json::to_string(&account.view()).expect("JSON"),
                serde_json::to_string(&account.balance_view()).expect("JSON"),
                serde_json::to_string(&me).expect("JSON"),
                serde_json::to_string(&account.keys_view(&keys, 1_000, self.clock)).expect("JSON"),
                account.next_wakeup(),
                account.notices_bytes(),
            )
        };
        let (before, after) = (seen(&self.object), seen(&woken));
        before
            .lines()
            .zip(after.lines())
            .find(|(before, after)| before != after)
            .map_or(Ok(()), |(before, after)| {
                Err(format!("waking changed\n{before}\nto\n{after}"))
            })
    }
}

/// A plain price.
pub fn cost(amount: u64) -> Terms {
    Terms::fixed("credits".into(), sold::credits(amount))
}

/// What the origin reports.
pub fn reported(value: &str) -> Reported {
    Quantity::parse(value).map_or(Reported::Unreadable, Reported::Value)
}
