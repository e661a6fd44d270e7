//! The independent auditor: works out from the call log and the entries alone what every lot
//! must be, and compares. It shares no arithmetic with the core.

use std::collections::BTreeMap;

use serde_json::Value;
use tollgate::{
    account::{Account, Fingerprint},
    call::{CallRow, CallState},
    ledger::{EntryKind, LotNumber, Part},
    ledger_page::LedgerLine,
    time::{Span, Timestamp},
};

use crate::memory_store::MemoryStore;

/// A lot as history tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Audited {
    pool: String,
    was_adjusted: bool,
    amount: i64,
    expired: i64,
    spent: i64,
    held: i64,
}

impl Audited {
    fn rest(&self) -> i64 {
        self.amount - self.spent - self.held - self.expired
    }
}

/// Says what is wrong with the books of `account`, or nothing.
pub fn audit(store: &MemoryStore, account: &Account) -> Result<(), String> {
    let lots = from_history(store)?;
    audit_entries(store, &lots)?;
    let shown = serde_json::to_value(account.balance_view()).expect("a balance is JSON");
    let mut seen = Vec::new();
    for (pool, balance) in shown["pools"].as_object().expect("pools") {
        let mut held = 0;
        for lot in balance["lots"].as_array().expect("lots") {
            let number = lot["id"].as_u64().expect("a lot's id");
            seen.push(number);
            let audited = lots
                .get(&number)
                .ok_or_else(|| format!("lot {number} has no entry"))?;
            compare(number, lot, pool, audited)?;
            held += audited.held;
        }
        if figure(balance, "held") != held {
            return Err(format!("{pool}: held {} and not {held}", balance["held"]));
        }
        let spent: i64 = lots
            .values()
            .filter(|lot| lot.pool == *pool)
            .map(|lot| lot.spent)
            .sum();
        if figure(balance, "spent") != spent {
            return Err(format!(
                "{pool}: spent {} and not {spent}",
                balance["spent"]
            ));
        }
    }
    for (number, lot) in &lots {
        if !seen.contains(number) && (lot.held != 0 || lot.rest() > 0) {
            return Err(format!("lot {number} was let go of: {lot:?}"));
        }
    }
    Ok(())
}

/// The entries alone and what calls were first charged come to the same balances: no charge was
/// changed without an entry.
fn audit_entries(store: &MemoryStore, lots: &BTreeMap<u64, Audited>) -> Result<(), String> {
    let mut balances: BTreeMap<u64, i64> = BTreeMap::new();
    for entry in store.entries() {
        *balances.entry(number(entry.lot)).or_default() += entry.credits;
    }
    for (lot, charged) in &store.first_charges {
        *balances.entry(number(*lot)).or_default() -= charged;
    }
    for (number, lot) in lots {
        let balance = lot.amount - lot.spent - lot.expired;
        if balances.get(number) != Some(&balance) {
            return Err(format!(
                "lot {number}: by its entries {:?}, by its calls {lot:?}",
                balances.get(number)
            ));
        }
    }
    Ok(())
}

/// What every call was charged by what the origin answered it: no error stays charged.
pub fn audit_calls(store: &MemoryStore) -> Result<(), String> {
    for row in store.calls() {
        let Some(outcome) = &row.outcome else {
            continue;
        };
        let number = row.call.number;
        let held = sum(&row.call.hold.parts);
        let charged = outcome.charged.get();
        let most = row.call.hold.terms.most.get();
        if charged > most.max(held) {
            return Err(format!("call {number} was charged {charged} of {most}"));
        }
        let is_free = match outcome.state {
            CallState::Open | CallState::Released | CallState::Cancelled | CallState::Job => true,
            CallState::UnknownReleased | CallState::Refunded => true,
            // Without a status the origin's word came, and not the gateway's.
            CallState::Settled => outcome.status.is_some_and(|status| status >= 400),
            CallState::UnknownCharged => false,
        };
        if is_free && charged > 0 {
            return Err(format!("call {number} was charged: {outcome:?}"));
        }
    }
    Ok(())
}

/// Of all calls of a key with one `Idempotency-Key`, one pays in 24 hours. `retried` tells what a
/// call was sent with, by its operation.
pub fn audit_retried(
    store: &MemoryStore,
    retried: impl Fn(u64) -> Option<Fingerprint>,
) -> Result<(), String> {
    let day = Span::from_days(1);
    let mut paid: BTreeMap<_, (Timestamp, Timestamp, &CallRow)> = BTreeMap::new();
    let mut latest = Timestamp::EPOCH;
    for row in store.calls() {
        let (admitted_at, hold) = (row.call.admitted_at, &row.call.hold);
        latest = latest.max(admitted_at);
        let pays = match row.outcome.as_ref().filter(|end| !end.state.is_open()) {
            Some(end) => end.charged.get() > 0,
            None => sum(&hold.parts) > 0,
        };
        let Some(sent) = retried(hold.operation).filter(|_| pays) else {
            continue;
        };
        let before = paid.insert((row.call.key, sent.key), (admitted_at, latest, row));
        // A clock that strays may take a day for over that is not, and the other way about.
        if let Some((at, was_latest, before)) = before
            && admitted_at < at.plus(day)
            && latest < was_latest.plus(day)
        {
            return Err(format!("{sent:?} is paid twice: {before:?} and {row:?}"));
        }
    }
    Ok(())
}

/// The ledger's lines add up, line by line, from nothing to the balance.
pub fn audit_ledger(lines: &[LedgerLine], account: &Account) -> Result<(), String> {
    let mut balances: BTreeMap<&str, i64> = BTreeMap::new();
    for line in lines.iter().rev() {
        let balance = balances.entry(&line.pool).or_default();
        *balance += line.credits;
        if *balance != line.balance {
            return Err(format!("the ledger comes to {balance} at {line:?}"));
        }
    }
    for (pool, book) in &account.ledger().books {
        let told = balances.get(pool.as_str()).copied().unwrap_or_default();
        if told != book.balance() {
            return Err(format!(
                "{pool}: the ledger comes to {told}, the balance is {}",
                book.balance()
            ));
        }
    }
    Ok(())
}

fn from_history(store: &MemoryStore) -> Result<BTreeMap<u64, Audited>, String> {
    let mut lots: BTreeMap<u64, Audited> = BTreeMap::new();
    for entry in store.entries() {
        let lot = lots.entry(number(entry.lot)).or_default();
        match entry.kind {
            EntryKind::Granted | EntryKind::Renewed | EntryKind::RolledOver => {
                if lot.amount != 0 {
                    return Err(format!("granted twice: {entry:?}"));
                }
                lot.pool.clone_from(&entry.pool);
                lot.amount = entry.credits;
            }
            EntryKind::Adjusted => {
                lot.pool.clone_from(&entry.pool);
                lot.amount += entry.credits;
                lot.was_adjusted = true;
            }
            EntryKind::Expired => lot.expired -= entry.credits,
            // The call's row says what it is charged now; `audit_entries` looks at these.
            EntryKind::Corrected | EntryKind::Refunded => {}
        }
    }
    for row in store.calls() {
        book_call(&mut lots, row)?;
    }
    Ok(lots)
}

fn book_call(lots: &mut BTreeMap<u64, Audited>, row: &CallRow) -> Result<(), String> {
    let (is_open, charged) = row.outcome.as_ref().map_or((true, 0), |outcome| {
        let is_open = matches!(outcome.state, CallState::Open | CallState::Job);
        (is_open, outcome.charged.get())
    });
    let mut to_charge = charged;
    for part in &row.call.hold.parts {
        let lot = lots
            .get_mut(&number(part.lot))
            .ok_or_else(|| format!("call {} takes from nowhere", row.call.number))?;
        let credits = part.credits.get();
        if is_open {
            lot.held += credits as i64;
        } else {
            let taken = credits.min(to_charge);
            to_charge -= taken;
            lot.spent += taken as i64;
        }
    }
    if to_charge > 0 {
        return Err(format!(
            "call {} is charged what no lot gave",
            row.call.number
        ));
    }
    Ok(())
}

fn compare(number: u64, shown: &Value, pool: &str, audited: &Audited) -> Result<(), String> {
    let told = Audited {
        pool: pool.to_owned(),
        was_adjusted: audited.was_adjusted,
        amount: figure(shown, "amount"),
        expired: figure(shown, "expired"),
        spent: figure(shown, "spent"),
        held: figure(shown, "held"),
    };
    if told != *audited {
        return Err(format!(
            "lot {number}: {told:?}, by its history {audited:?}"
        ));
    }
    if audited.rest() < 0 && !audited.was_adjusted {
        return Err(format!("lot {number} is overspent: {audited:?}"));
    }
    if figure(shown, "available") != audited.rest().max(0) {
        return Err(format!(
            "lot {number} gives {}: {audited:?}",
            shown["available"]
        ));
    }
    Ok(())
}

fn figure(shown: &Value, name: &str) -> i64 {
    shown[name].as_i64().expect("a figure")
}

fn sum(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.credits.get()).sum()
}

fn number(lot: LotNumber) -> u64 {
    serde_json::to_value(lot)
        .ok()
        .and_then(|value| value.as_u64())
        .expect("a lot's number")
}
