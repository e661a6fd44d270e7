//! The independent auditor: works out from the call log and the entries alone what every lot
//! must be, and compares. It shares no arithmetic with the core.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tollgate::{
    account::{Account, Fingerprint, Key, Rolled},
    call::{CallRow, CallState},
    id::{CallNumber, KeyNumber},
    ledger::{EntryKind, LotNumber, Part},
    ledger_page::LedgerLine,
    object::Store,
    time::{Calendar, MonthNumber, Span, Timestamp},
    totals::{Line, summary::By},
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

/// What each key's calls of the month of `clock` cost is what the account counts of its budget.
pub fn audit_costs(
    store: &MemoryStore,
    account: &Account,
    calendar: Calendar,
    clock: Timestamp,
) -> Result<(), String> {
    for (number, key) in keys_of(store, account) {
        let shown = account.view_of_key(number, &key, clock);
        let shown = serde_json::to_value(shown).expect("a key is JSON");
        let cost = cost_of_month(store, number, calendar, clock);
        if shown["budget_used"] != cost {
            return Err(format!("key {number} cost {cost}: {shown}"));
        }
    }
    Ok(())
}

/// Every key of the account, those at rest from their rows.
pub fn keys_of(store: &MemoryStore, account: &Account) -> Vec<(KeyNumber, Key)> {
    let rows = store.keys_after(KeyNumber::new(0), u64::from(u32::MAX));
    let rows = rows.expect("a store that works").into_iter();
    rows.map(|(number, row)| match account.key(number) {
        Some(key) => (number, key.clone()),
        None => (number, account.read_at_rest(number, &row).expect("a key")),
    })
    .collect()
}

/// What the calls of `key` hold and were charged, of those in the month of `clock`.
pub fn cost_of_month(
    store: &MemoryStore,
    key: KeyNumber,
    calendar: Calendar,
    clock: Timestamp,
) -> u64 {
    let month = calendar.month_of(clock);
    store
        .calls()
        .filter(|row| row.call.key == key && row.call.hold.terms.pool == "credits")
        .filter(|row| calendar.month_of(row.call.admitted_at) == month)
        .map(|row| match &row.outcome {
            Some(outcome) if !outcome.state.is_open() => outcome.charged.get(),
            _ => sum(&row.call.hold.parts),
        })
        .sum()
}

/// What every call was charged by what the origin answered it: no error stays charged, unless it was
/// `told_to_settle`.
pub fn audit_calls(
    store: &MemoryStore,
    told_to_settle: &BTreeSet<CallNumber>,
) -> Result<(), String> {
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
            CallState::Settled => {
                let is_error = outcome.status.is_none_or(|status| status >= 400);
                is_error && !told_to_settle.contains(&number)
            }
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

/// What is left of each month whose calls are gone is what its calls come to.
pub fn audit_rolled(store: &MemoryStore, account: &Account) -> Result<(), String> {
    let mut rolled: BTreeMap<MonthNumber, Vec<Rolled>> = BTreeMap::new();
    for part in store.rolled(0, u64::MAX).expect("a store that works") {
        let parts = rolled.entry(part.month).or_default();
        if usize::from(part.part) != parts.len() {
            return Err(format!("part {} comes after {}", part.part, parts.len()));
        }
        parts.push(part);
    }
    for (month, calls) in store.dropped() {
        if !account.is_rolled_up(month) {
            return Err(format!("{month:?} was dropped and is in the log"));
        }
        let parts = rolled.remove(&month).unwrap_or_default();
        audit_month(&calls, &parts).map_err(|wrong| format!("{month:?}: {wrong}"))?;
    }
    match rolled
        .into_keys()
        .find(|month| account.is_rolled_up(*month))
    {
        None => Ok(()),
        Some(month) => Err(format!("the table of {month:?} is still there")),
    }
}

fn audit_month(calls: &[&CallRow], parts: &[Rolled]) -> Result<(), String> {
    let mut left = calls.iter();
    let mut charged: BTreeMap<(&str, LotNumber), u64> = BTreeMap::new();
    for part in parts {
        let (mut listed, mut cancelled) = (0, 0);
        let of_part: Vec<_> = left
            .by_ref()
            .take((part.calls + part.cancelled) as usize)
            .collect();
        for row in &of_part {
            let outcome = row.outcome.as_ref().ok_or("an open call is gone")?;
            match outcome.state {
                CallState::Open | CallState::Job => return Err("an open call is gone".into()),
                CallState::Cancelled => cancelled += 1,
                _ => listed += 1,
            }
            let mut to_charge = outcome.first_charged.unwrap_or(outcome.charged);
            for held in &row.call.hold.parts {
                let taken = held.credits.min(to_charge);
                to_charge = to_charge.saturating_sub(taken);
                let pool = row.call.hold.terms.pool.as_str();
                *charged.entry((pool, held.lot)).or_default() += taken.get();
            }
        }
        let ends = [of_part.first(), of_part.last()].map(|row| row.map(|row| row.call.number));
        if ends != [Some(part.first), Some(part.last)]
            || (listed, cancelled) != (part.calls, part.cancelled)
        {
            return Err(format!("{ends:?}, {listed}, {cancelled} became {part:?}"));
        }
        for (pool, lots) in &part.charged {
            for (lot, credits) in lots {
                let sum = charged.entry((pool, *lot)).or_default();
                *sum = sum.checked_sub(*credits).ok_or("charged too much")?;
            }
        }
    }
    charged.retain(|_, credits| *credits > 0);
    if left.len() > 0 || !charged.is_empty() {
        return Err(format!("{} calls and {charged:?} are missing", left.len()));
    }
    Ok(())
}

/// The totals of every hour, and of every day of the months that were rolled up, are what the calls
/// of it come to: by key, endpoint and pool.
pub fn audit_totals(store: &MemoryStore, account: &Account) -> Result<(), String> {
    const HOUR: i64 = 3_600_000;
    let mut expected: BTreeMap<_, [i64; 3]> = BTreeMap::new();
    let rolled: Vec<_> = store.dropped().flat_map(|(_, calls)| calls).collect();
    let kept = store.kept().map(|row| (HOUR, row));
    for (width, row) in kept.chain(rolled.into_iter().map(|row| (24 * HOUR, row))) {
        let at = row.call.admitted_at.as_millis() / width * width;
        let place = (
            width,
            at,
            row.call.key,
            row.call.endpoint.clone(),
            row.call.hold.terms.pool.clone(),
        );
        if let Some(one) = tally(row) {
            add(expected.entry(place).or_default(), one);
        }
    }
    let mut told: BTreeMap<_, [i64; 3]> = BTreeMap::new();
    let mut tell = |width: i64, line: &Line| {
        let place = (
            width,
            line.at.as_millis(),
            line.key,
            line.endpoint.clone(),
            line.pool.clone(),
        );
        let tally = line.tally;
        let one = [tally.calls, tally.failed, tally.credits];
        add(told.entry(place).or_default(), one);
    };
    for part in store.rolled(0, u64::MAX).expect("a store that works") {
        if account.is_rolled_up(part.month) {
            part.days
                .lines()
                .iter()
                .for_each(|line| tell(24 * HOUR, line));
        }
    }
    for kept in account.log() {
        let rows = store.totals(kept.month, 0, u64::MAX);
        for (_, totals) in rows.expect("a store that works") {
            totals.lines().iter().for_each(|line| tell(HOUR, line));
        }
    }
    account.each_unwritten(&mut |line| tell(HOUR, line));
    if told != expected {
        let wrong = expected.keys().chain(told.keys());
        let wrong: Vec<_> = wrong
            .filter(|place| told.get(place) != expected.get(place))
            .map(|place| (place, told.get(place), expected.get(place)))
            .collect();
        return Err(format!("totals, told and expected: {wrong:?}"));
    }
    Ok(())
}

/// A summary of all time has every call once, in the line where it belongs.
pub fn audit_summary(store: &MemoryStore, by: By, told: &Value) -> Result<(), String> {
    let mut expected: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    let rolled: Vec<_> = store.dropped().flat_map(|(_, calls)| calls).collect();
    let kept = store.kept().map(|row| (false, row));
    for (is_rolled, row) in kept.chain(rolled.into_iter().map(|row| (true, row))) {
        let Some(one) = tally(row) else {
            continue;
        };
        let at = row.call.admitted_at.to_rfc3339();
        let line = match by {
            By::Hour if !is_rolled => format!("{}:00:00Z", &at[..13]),
            By::Day | By::Hour => at[..10].to_owned(),
            By::Endpoint => row.call.endpoint.clone(),
            By::Key => format!("key_acc_{}", row.call.key),
        };
        let of_credits = row.call.hold.terms.pool == "credits";
        let credits = if of_credits { one[2] } else { 0 };
        add(expected.entry(line).or_default(), [one[0], one[1], credits]);
    }
    let lines = told["summary"].as_array().expect("lines");
    let told: BTreeMap<String, [i64; 3]> = lines
        .iter()
        .map(|line| {
            let mut names = ["day", "hour", "endpoint", "key"].iter();
            let name = names.find_map(|name| line[name].as_str());
            let figures = ["calls", "failed", "credits_consumed"];
            let figures = figures.map(|name| figure(line, name));
            (name.expect("a name").to_owned(), figures)
        })
        .collect();
    if told == expected && told.len() == lines.len() {
        Ok(())
    } else {
        Err(format!(
            "a summary by {by:?}: {told:?} and not {expected:?}"
        ))
    }
}

/// What a call adds to a total: calls, failures and credits.
fn tally(row: &CallRow) -> Option<[i64; 3]> {
    let Some(outcome) = &row.outcome else {
        return Some([1, 0, 0]);
    };
    let charged = outcome.charged.get() as i64;
    match (outcome.state, outcome.status) {
        (CallState::Cancelled, _) => None,
        (CallState::Open | CallState::Job, _) => Some([1, 0, 0]),
        (CallState::UnknownReleased | CallState::UnknownCharged, _) => Some([1, 1, charged]),
        (CallState::Settled | CallState::Refunded, None) => Some([1, 0, charged]),
        (_, status) => {
            let failed = status.is_none_or(|status| status >= 400);
            Some([1, i64::from(failed), charged])
        }
    }
}

fn add(sum: &mut [i64; 3], one: [i64; 3]) {
    for (sum, one) in sum.iter_mut().zip(one) {
        *sum += one;
    }
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
            EntryKind::Granted
            | EntryKind::Renewed
            | EntryKind::RolledOver
            | EntryKind::Bought
            | EntryKind::ToppedUp => {
                if lot.amount != 0 {
                    return Err(format!("granted twice: {entry:?}"));
                }
                lot.pool.clone_from(&entry.pool);
                lot.amount = entry.credits;
            }
            EntryKind::Adjusted
            | EntryKind::TakenBack
            | EntryKind::Shortfall
            | EntryKind::GivenBack => {
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
