//! Tests that read like a bank statement: one line, one command, what came of it.
//!
//! `WHEN | COMMAND | OUTCOME`, where WHEN is a moment, a step (`+5s`, `-1d`) or nothing. After
//! every line the auditor looks at the books, and the account is woken from storage and compared.

use tollgate::{
    account::{
        Adjustment, Admit, Edit, Fingerprint, KeyLimits, Limit, NewKey, PatchKey, Refusal, Scope,
        Status, StatusChange, Told, Word,
    },
    call::{BodyEnd, CallState, Settle},
    id::KeyNumber,
    policy::Source,
    price::{ChargeOn, Job, Meter, OnUnknown, Quantity, Terms},
    problem::ViolatedPolicy,
    protocol::{AuditStep, Command, Page, Reply, Request},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, answered, digest_after, fingerprint, reported},
    sold,
};

/// Plays a statement and compares every outcome.
pub fn statement(lines: &str) {
    let mut teller = Teller {
        branch: Branch::new(sold::edited("standard"), Timestamp::EPOCH),
        entries_told: 0,
    };
    let mut mistakes = Vec::new();
    for line in lines.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [when, command, expected] = columns[..] else {
            panic!("three columns are needed: {line}");
        };
        teller.move_clock(when);
        let outcome = teller.carry_out(command);
        if outcome != expected {
            mistakes.push(format!(
                "{command}\n  expected {expected}\n  but      {outcome}"
            ));
        }
        if !command.starts_with("fail")
            && let Err(mistake) = teller.branch.check()
        {
            mistakes.push(format!("{command}\n  {mistake}"));
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

struct Teller {
    branch: Branch,
    entries_told: usize,
}

impl Teller {
    fn move_clock(&mut self, when: &str) {
        let clock = self.branch.clock;
        let moved = match when.chars().next() {
            None => clock,
            Some('+') => clock.plus(span(&when[1..])),
            Some('-') => clock.minus(span(&when[1..])),
            Some(_) => moment(when),
        };
        self.branch.set_clock(moved);
    }

    fn carry_out(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let branch = &mut self.branch;
        match words[..] {
            ["policy", ..] => {
                branch.policy = sold::edited(&words[1..].join(" "));
                branch.evict();
                "ok".into()
            }
            ["open", plan, ref options @ ..] => {
                let billing_day = after(options, "billing").map(|day| day.parse().unwrap());
                let subscription = after(options, "subscription").map(subscription);
                told(&branch.open(plan, billing_day, subscription))
            }
            ["key", ref options @ ..] => {
                let patch = key_patch(options);
                told(&branch.create_key_as(NewKey {
                    limits: given(patch.limits),
                    scope: given(patch.scope),
                    expires_at: given(patch.expires_at),
                    budget: given(patch.budget),
                    name: None,
                }))
            }
            ["patch", key, ref options @ ..] => {
                told(&branch.patch_key(key.parse().unwrap(), key_patch(options)))
            }
            ["rotate", key, overlap] => {
                told(&branch.rotate_key(key.parse().unwrap(), span(overlap)))
            }
            ["show", key] => {
                let key = branch.show_key(key.parse().unwrap());
                let budget = match key["budget"].as_u64() {
                    Some(budget) => format!(" of {budget}"),
                    None => String::new(),
                };
                let last_used = key["last_used_at"].as_str().map_or("never", trimmed);
                format!(
                    "{}, used {}{budget}, {} refused, last used {last_used}",
                    key["status"].as_str().unwrap(),
                    key["budget_used"],
                    key["refused_today"],
                )
            }
            ["revoke", key] => told(&branch.manage(
                Command::RevokeKey(KeyNumber::new(key.parse().unwrap())),
                None,
            )),
            ["call", ref price @ ..] => {
                let terms = terms(price);
                let key = after(price, "key").map_or(1, |key| key.parse().unwrap());
                let operation = after(price, "as").map_or_else(
                    || branch.operation(),
                    |operation| operation.parse().unwrap(),
                );
                let (method, endpoint) = after(price, "to")
                    .and_then(|route| route.split_once(':'))
                    .unwrap_or(("POST", "/search"));
                let secret = after(price, "secret").map_or_else(
                    || branch.rotations_of(key),
                    |secret| secret.parse().unwrap(),
                );
                let reply = branch.send(Request::Admit(Admit {
                    operation,
                    key: KeyNumber::new(key),
                    digest: digest_after(key, secret),
                    method: method.into(),
                    endpoint: endpoint.into(),
                    terms,
                    repeated_refusals: after(price, "repeated")
                        .map_or(0, |repeated| repeated.parse().unwrap()),
                    retried: id(price),
                }));
                self.told_admission(&reply)
            }
            ["call_with_another_secret", cost] => {
                let admit = Admit {
                    operation: 1,
                    key: KeyNumber::new(1),
                    digest: crate::branch::digest_of(99),
                    method: "GET".into(),
                    endpoint: "/".into(),
                    terms: terms(&[cost]),
                    repeated_refusals: 0,
                    retried: None,
                };
                let reply = branch.send(Request::Admit(admit));
                self.told_admission(&reply)
            }
            ["settle", call, ref word @ ..] if is_the_origins(word) => {
                let told = match word {
                    ["credits", credits, ..] => {
                        Told::Credits(sold::credits(credits.parse().unwrap()))
                    }
                    ["value", value, ..] => Told::Value(Quantity::parse(value).unwrap()),
                    _ => Told::Hold,
                };
                told_end(&branch.end_call(call.parse().unwrap(), Word::Settle(told), id(word)))
            }
            ["release", call, ref options @ ..] => {
                let reason = after(options, "because").map(str::to_owned);
                let word = Word::Release { reason };
                told_end(&branch.end_call(call.parse().unwrap(), word, id(options)))
            }
            ["adjust", pool, amount, ref options @ ..] => {
                let (takes_away, credits) = match amount.strip_prefix('-') {
                    Some(credits) => (true, credits),
                    None => (false, amount.trim_start_matches('+')),
                };
                let adjustment = Adjustment {
                    pool: pool.into(),
                    credits: sold::credits(credits.parse().unwrap()),
                    takes_away,
                    reason: "a mistake".into(),
                };
                told(&branch.manage(Command::Adjust(adjustment), id(options)))
            }
            ["settle", call, status, ref options @ ..] => {
                let call: u64 = call.parse().unwrap();
                let operation = after(options, "as").map_or_else(
                    || branch.row(call).call.hold.operation,
                    |operation| operation.parse().unwrap(),
                );
                told(&branch.send(Request::Settle(Settle {
                    answered: !options.contains(&"unreachable"),
                    reported: after(options, "reported").map(reported),
                    body: after(options, "body").map(body_end),
                    ..answered(operation, call, status.parse().unwrap())
                })))
            }
            ["cancel", operation] => told(&branch.cancel(operation.parse().unwrap())),
            ["tick"] => branch.tick().map_or_else(|error| error, |()| "ok".into()),
            ["evict"] => {
                branch.evict();
                "ok".into()
            }
            ["fail", commits] => {
                branch.object.store_mut().commits_to_fail = commits.parse().unwrap();
                "ok".into()
            }
            ["grant", pool, amount, source, ref options @ ..] => {
                let until = after(options, "until").map(moment);
                let grant = tollgate::account::NewGrant {
                    pool: pool.into(),
                    amount: sold::credits(amount.parse().unwrap()),
                    source: match source {
                        "promo" => Source::Promo,
                        "extra" => Source::Extra,
                        _ => Source::Subscription,
                    },
                    expires_at: until,
                    reference: None,
                };
                let idempotency = after(options, "id")
                    .map(|id| fingerprint(id.parse().unwrap(), grant.amount.get() as u8));
                told(&branch.manage(Command::Grant(grant), idempotency))
            }
            ["plan", plan] => told(&branch.change_plan(plan)),
            ["billing", day] => told(&branch.patch(tollgate::account::PatchAccount {
                billing_day: Some(day.parse().unwrap()),
                ..Default::default()
            })),
            ["suspend", reason] => told(&branch.change_status(Status::Suspended {
                reason: Some(reason.into()),
            })),
            ["resume"] => told(&branch.change_status(Status::Active)),
            ["close"] => told(&branch.close()),
            ["unflag"] => told(&branch.unflag()),
            ["flags"] => flags(&branch.show()),
            ["subscription", change] => told(&branch.change_subscription(subscription(change))),
            ["balance", pool] => {
                let balance = branch.balance(pool);
                let renews = balance["renews_at"]
                    .as_str()
                    .map_or_else(String::new, |at| format!(", renews {}", trimmed(at)));
                format!(
                    "{} available, {} held, {} spent{renews}",
                    balance["available"], balance["held"], balance["spent"]
                )
            }
            ["lots", pool] => lots(&branch.balance(pool)),
            ["entries"] => {
                let store = branch.store();
                let told = store.entries()[self.entries_told..]
                    .iter()
                    .map(|entry| {
                        let kind = entry.kind.as_str().replace('_', " ");
                        format!(
                            "{} {kind} {} {:+} = {}",
                            short(entry.at),
                            entry.pool,
                            entry.credits,
                            entry.balance
                        )
                    })
                    .collect::<Vec<_>>()
                    .join("; ");
                self.entries_told = store.entries().len();
                told
            }
            ["ledger", limit] => {
                let page = branch.ledger_page(limit.parse().unwrap(), None);
                told(&Reply::Ledger(page))
            }
            ["standing", ref options @ ..] => {
                let account = branch.object.account().expect("awake");
                let key = after(options, "key").map_or(1, |key| key.parse().unwrap());
                let standing = account.standing(KeyNumber::new(key), None, branch.clock);
                let window = |window: Option<tollgate::headers::Window>| {
                    window.map_or_else(
                        || "unlimited".to_owned(),
                        |window| format!("{} of {}", window.remaining, window.limit),
                    )
                };
                format!(
                    "minute {}, day {}",
                    window(standing.minute),
                    window(standing.daily)
                )
            }
            ["row", call] => {
                let row = branch.row(call.parse().unwrap());
                row.outcome.as_ref().map_or_else(
                    || "open".to_owned(),
                    |outcome| {
                        let mark = outcome
                            .mark
                            .map_or_else(String::new, |mark| format!(", {mark:?}"));
                        format!("{}{mark}", state(outcome.state, outcome.charged.get()))
                    },
                )
            }
            ["firsts"] => {
                let (tables, rows) = branch.store().firsts();
                format!("{rows} in {tables}")
            }
            ["wakeup"] => branch
                .object
                .next_wakeup()
                .map_or_else(|| "never".to_owned(), short),
            ["me"] => told(&branch.read(1, Page::Me)),
            _ => panic!("no such command: {command}"),
        }
    }

    fn told_admission(&self, reply: &Reply) -> String {
        let clock = self.branch.clock;
        let wait = |at: Timestamp| at.since(clock).as_seconds_ceil();
        match reply {
            Reply::Admitted(admission) => {
                let observed =
                    admission
                        .would_refuse
                        .as_ref()
                        .map_or_else(String::new, |refusal| {
                            format!(
                                ", would be {}",
                                self.told_admission(&Reply::Refused(refusal.clone()))
                            )
                        });
                let holds = admission.repeats.map_or_else(
                    || format!("holds {}", admission.held),
                    |first| format!("repeats {first}"),
                );
                format!("call {} {holds}{observed}", admission.call)
            }
            Reply::Refused(Refusal::RateLimited {
                violated, retry_at, ..
            }) => {
                let policies: Vec<&str> = violated
                    .iter()
                    .map(|violation| match violation.policy {
                        ViolatedPolicy::Minute => "minute",
                        ViolatedPolicy::Daily => "daily",
                        ViolatedPolicy::InFlight => "in_flight",
                        ViolatedPolicy::Account => "account",
                        ViolatedPolicy::Jobs => "jobs",
                        ViolatedPolicy::UnknownKeys => "unknown_keys",
                    })
                    .collect();
                format!("429 {}, wait {}", policies.join(" "), wait(*retry_at))
            }
            Reply::Refused(Refusal::InsufficientCredits {
                required,
                available,
                renews_at,
                affordable_then,
                budget,
                ..
            }) => {
                let retry = renews_at
                    .filter(|_| *affordable_then)
                    .map_or_else(String::new, |at| format!(", wait {}", wait(at)));
                let budget = budget.map_or_else(String::new, |budget| format!("budget {budget}, "));
                format!("402 {budget}{available} of {required}{retry}")
            }
            _ => told(reply),
        }
    }
}

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Admitted(_) => "admitted".into(),
        Reply::Refused(Refusal::UnknownKey) => "401".into(),
        Reply::Refused(Refusal::Suspended {
            restricted: Some(restricted),
            ..
        }) => {
            let who = if restricted.key_alone {
                "key"
            } else {
                "account"
            };
            format!("403 {who} until {}", short(restricted.until))
        }
        Reply::Refused(Refusal::Suspended { reason, .. }) => {
            format!("403 {}", reason.as_deref().unwrap_or_default())
        }
        Reply::Refused(Refusal::FirstRuns { .. }) => "409".into(),
        Reply::Refused(Refusal::OtherContent { .. }) => "422".into(),
        Reply::Refused(Refusal::OutOfScope {
            method, endpoint, ..
        }) => format!("403 not {method} {endpoint}"),
        Reply::Refused(Refusal::Cancelled) => "refused: cancelled".into(),
        Reply::Refused(refusal) => format!("{refusal:?}"),
        Reply::Settled(None) => "no such call".into(),
        Reply::Settled(Some(settled)) => state(settled.state, settled.charged.get()),
        Reply::Cancelled => "cancelled".into(),
        Reply::Document(document) => document.status.to_string(),
        Reply::Problem(problem) => format!("{:?}", problem.code),
        Reply::Ledger(page) => page
            .lines
            .iter()
            .map(|line| {
                let about = line
                    .request_id
                    .as_ref()
                    .map_or_else(String::new, |call| format!(" {call}"));
                format!(
                    "{}{about} {} {:+} = {}",
                    line.kind.as_str().replace('_', " "),
                    line.pool,
                    line.credits,
                    line.balance
                )
            })
            .collect::<Vec<_>>()
            .join("; "),
        Reply::Audit(AuditStep::Unfinished) => "more to read".into(),
        Reply::Audit(AuditStep::Finished { ok: true, .. }) => "ok".into(),
        Reply::Audit(AuditStep::Finished { json, .. }) => json.clone(),
        Reply::Export(slice) => format!("exported up to {:?}", slice.next),
        Reply::Unavailable { detail } => format!("unavailable: {detail}"),
        Reply::Order(order) => format!("order: {order:?}"),
    }
}

/// A call as the origin is told that it stands now.
fn told_end(reply: &Reply) -> String {
    let Reply::Document(document) = reply else {
        return told(reply);
    };
    let call: serde_json::Value = serde_json::from_str(&document.json).expect("a call is JSON");
    format!("{} {}", call["state"].as_str().unwrap(), call["charged"]).replace('_', " ")
}

/// The gateway tells a status, the origin credits, a quantity or nothing.
fn is_the_origins(word: &[&str]) -> bool {
    word.first()
        .is_none_or(|first| ["credits", "value", "id"].contains(first))
}

/// The `Idempotency-Key` and the request: `id KEY`, or `id KEY/REQUEST`.
fn id(options: &[&str]) -> Option<Fingerprint> {
    let id = after(options, "id")?;
    let (key, request) = id.split_once('/').unwrap_or((id, "0"));
    Some(fingerprint(key.parse().unwrap(), request.parse().unwrap()))
}

fn state(state: CallState, charged: u64) -> String {
    let state = match state {
        CallState::Open => "open",
        CallState::Settled => "settled",
        CallState::Released => "released",
        CallState::Cancelled => "undone",
        CallState::UnknownReleased => "unknown released",
        CallState::UnknownCharged => "unknown charged",
        CallState::Job => "job",
        CallState::Refunded => "refunded",
    };
    format!("{state} {charged}")
}

/// `15`, `15 lyrics`, `10..600 per 60`, and words after: `job` or `job_charges` (what it is for
/// a job whose end nobody tells), `charge_unknown`, `2xx`.
fn terms(words: &[&str]) -> Terms {
    let (least, most) = words[0].split_once("..").unwrap_or((words[0], words[0]));
    let pool = ["lyrics", "strict"]
        .into_iter()
        .find(|pool| words.contains(pool))
        .unwrap_or("credits");
    let (least, most) = (
        sold::credits(least.parse().unwrap()),
        sold::credits(most.parse().unwrap()),
    );
    Terms {
        most,
        charge_on: if words.contains(&"2xx") {
            ChargeOn::TwoHundreds
        } else {
            ChargeOn::BelowFourHundred
        },
        reads_answer: after(words, "per").is_some(),
        meter: after(words, "per").map(|unit| Meter {
            rate: sold::credits(10),
            unit: Quantity::parse(unit).unwrap(),
            minimum: least,
            maximum: most,
        }),
        job: ["job", "job_charges"]
            .into_iter()
            .find(|job| words.contains(job))
            .map(|job| Job {
                settle_within: Span::from_days(1),
                on_unknown: if job == "job" {
                    OnUnknown::Release
                } else {
                    OnUnknown::Charge
                },
            }),
        on_unknown: if words.contains(&"charge_unknown") {
            OnUnknown::Charge
        } else {
            OnUnknown::Release
        },
        ..Terms::fixed(pool.into(), least)
    }
}

/// `budget 20`, `expires 2026-12-01`, `scope POST:/search,GET:/tracks/*`,
/// `limits minute=2,day=unlimited`; `none` in place of a value takes it away.
fn key_patch(options: &[&str]) -> PatchKey {
    fn edit<T>(text: &str, read: impl FnOnce(&str) -> T) -> Edit<T> {
        if text == "none" {
            Edit::Remove
        } else {
            Edit::Set(read(text))
        }
    }
    PatchKey {
        name: None,
        limits: after(options, "limits").map(|limits| edit(limits, key_limits)),
        scope: after(options, "scope").map(|scope| {
            let item = |item: &str| item.replacen(':', " ", 1);
            edit(scope, |scope| {
                Scope::new(scope.split(',').map(item).collect())
            })
        }),
        expires_at: after(options, "expires").map(|at| edit(at, moment)),
        budget: after(options, "budget")
            .map(|budget| edit(budget, |budget| sold::credits(budget.parse().unwrap()))),
    }
}

/// `minute=2,day=unlimited`.
fn key_limits(text: &str) -> KeyLimits {
    let mut limits = KeyLimits::default();
    for (name, limit) in text.split(',').filter_map(|limit| limit.split_once('=')) {
        let place = match name {
            "minute" => &mut limits.requests_per_minute,
            "day" => &mut limits.requests_per_day,
            "in_flight" => &mut limits.requests_in_flight,
            "jobs" => &mut limits.jobs_open,
            other => panic!("no such limit: {other}"),
        };
        *place = Some(match limit {
            Limit::UNLIMITED => Limit::Unlimited,
            limit => Limit::Of(limit.parse().unwrap()),
        });
    }
    limits
}

fn given<T>(edit: Option<Edit<T>>) -> Option<T> {
    match edit? {
        Edit::Set(value) => Some(value),
        Edit::Remove => None,
    }
}

fn body_end(told: &str) -> BodyEnd {
    match told {
        "whole" => BodyEnd::Whole,
        "left" => BodyEnd::Left,
        "never_begun" => BodyEnd::BrokenOff { begun: false },
        "broken_off" => BodyEnd::BrokenOff { begun: true },
        other => panic!("no end of a body: {other}"),
    }
}

/// What is unusual, the latest first.
fn flags(account: &serde_json::Value) -> String {
    let Some(flags) = account["flags"].as_array() else {
        return "none".into();
    };
    let told = flags.iter().map(|flag| {
        let what = match flag["cause"].as_str() {
            Some("spending") => format!(
                "{} {} after {}",
                flag["spent"],
                flag["pool"].as_str().unwrap(),
                flag["habit"]
            ),
            _ => format!(
                "{} refused {} of {}",
                flag["key"].as_str().unwrap(),
                flag["refused"],
                flag["requests"]
            ),
        };
        match flag["restricted_until"].as_str() {
            Some(until) => format!("{what} until {}", trimmed(until)),
            None => what,
        }
    });
    told.collect::<Vec<_>>().join("; ")
}

fn lots(balance: &serde_json::Value) -> String {
    balance["lots"]
        .as_array()
        .expect("lots")
        .iter()
        .map(|lot| {
            let mut told = format!("{} {}", lot["source"].as_str().unwrap(), lot["amount"]);
            for figure in ["spent", "held", "expired", "available"] {
                if lot[figure] != 0 {
                    told += &format!(", {} {figure}", lot[figure]);
                }
            }
            told
        })
        .collect::<Vec<_>>()
        .join("; ")
}

fn subscription(change: &str) -> StatusChange {
    match change {
        "active" => StatusChange::Active,
        "cancelled" => StatusChange::Cancelled,
        "lapsed" => StatusChange::Lapsed,
        other => panic!("no such subscription: {other}"),
    }
}

fn after<'a>(words: &[&'a str], word: &str) -> Option<&'a str> {
    let index = words.iter().position(|other| *other == word)?;
    words.get(index + 1).copied()
}

/// `2026-11-22`, or with `T10:00:00`.
pub fn moment(text: &str) -> Timestamp {
    let text = if text.contains('T') {
        format!("{text}Z")
    } else {
        format!("{text}T00:00:00Z")
    };
    Timestamp::parse_rfc3339(&text).unwrap_or_else(|| panic!("no moment: {text}"))
}

fn short(at: Timestamp) -> String {
    trimmed(&at.to_rfc3339()).to_owned()
}

fn trimmed(at: &str) -> &str {
    at.trim_end_matches('Z').trim_end_matches("T00:00:00")
}

fn span(text: &str) -> Span {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let number: i64 = number.parse().unwrap();
    match unit {
        "ms" => Span::from_millis(number),
        "s" => Span::from_seconds(number),
        "m" => Span::from_seconds(number * 60),
        "h" => Span::from_seconds(number * 3_600),
        "d" => Span::from_days(number),
        other => panic!("no unit: {other}"),
    }
}
