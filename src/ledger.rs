//! Lots of credits, what calls hold of them, and the entries that tell how they came and went.
//!
//! For each lot: `amount = spent + held + expired + what it can give`, or it is overdrawn (its
//! amount was lowered below what was already spent and held) and can give nothing.

use std::collections::BTreeMap;

use crate::{
    credits::Credits,
    id::CallNumber,
    policy::{Pool, Source},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// How long after its last movement an empty lot is kept in memory: a refund of a call may bring
/// credits back to it for 30 days.
const EMPTY_LOTS_KEPT: Span = Span::from_days(31);

/// The same for a lot whose money went back: that may come again when a dispute is won.
const REVERSED_LOTS_KEPT: Span = Span::from_days(400);

/// A lot's number inside its account.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize,
)]
#[cbor(transparent)]
pub struct LotNumber(#[n(0)] u32);

impl LotNumber {
    /// The lot stored as `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as it is stored.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One grant of credits in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Lot {
    /// Its number.
    #[n(0)]
    pub number: LotNumber,
    /// Where it came from.
    #[n(1)]
    pub source: Source,
    /// What was granted.
    #[n(2)]
    pub amount: Credits,
    /// What ended calls were charged.
    #[n(3)]
    pub spent: Credits,
    /// What open calls hold.
    #[n(4)]
    pub held: Credits,
    /// What nobody used in time.
    #[n(5)]
    pub expired: Credits,
    /// When the rest expires; later than granted if something came back to an expired lot.
    #[n(6)]
    pub expires_at: Option<Timestamp>,
    /// When it was granted.
    #[n(7)]
    pub granted_at: Timestamp,
    /// When credits last moved in or out.
    #[n(8)]
    pub touched_at: Timestamp,
    /// How long it is kept when it is empty, where that is longer than usual.
    #[n(9)]
    pub kept_for: Option<Span>,
    /// The lot before, of which this is what was carried over.
    #[n(10)]
    pub rolled_from: Option<LotNumber>,
}

impl Lot {
    /// What the lot can give, so that no later release can exceed the allowance.
    #[must_use]
    pub fn available(&self) -> Credits {
        self.amount
            .saturating_sub(self.spent)
            .saturating_sub(self.held)
            .saturating_sub(self.expired)
    }

    /// What the lot could give if all that is held came back.
    #[must_use]
    pub fn left(&self) -> Credits {
        self.amount
            .saturating_sub(self.spent)
            .saturating_sub(self.expired)
    }

    /// Amount less what was spent and expired: negative where the lot is overdrawn.
    #[must_use]
    pub fn balance(&self) -> i64 {
        signed(self.amount)
            .saturating_sub(signed(self.spent))
            .saturating_sub(signed(self.expired))
    }

    /// What is left of it is nobody's any more. Says how much that was.
    fn expire_rest(&mut self, at: Timestamp) -> Credits {
        let rest = self.available();
        if !rest.is_zero() {
            self.expired = self.expired.saturating_add(rest);
            self.touched_at = at;
        }
        rest
    }

    fn is_done(&self, now: Timestamp) -> bool {
        self.held.is_zero()
            && self.available().is_zero()
            && self
                .touched_at
                .plus(self.kept_for.unwrap_or(EMPTY_LOTS_KEPT))
                <= now
    }
}

fn signed(credits: Credits) -> i64 {
    i64::try_from(credits.get()).unwrap_or(i64::MAX)
}

/// What a hold takes from one lot. A hold is a list of these, in the order in which it is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Part {
    /// The lot.
    #[n(0)]
    pub lot: LotNumber,
    /// The credits.
    #[n(1)]
    pub credits: Credits,
}

/// The sum of a hold's parts.
#[must_use]
pub fn sum_of(parts: &[Part]) -> Credits {
    parts
        .iter()
        .fold(Credits::ZERO, |sum, part| sum.saturating_add(part.credits))
}

/// What a charge of `credits` takes of a hold's parts, and what it leaves.
#[must_use]
pub fn split(parts: &[Part], credits: Credits) -> (Vec<Part>, Vec<Part>) {
    let mut missing = credits;
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for part in parts {
        let charged = part.credits.min(missing);
        missing = missing.saturating_sub(charged);
        let rest = part.credits.saturating_sub(charged);
        let of_lot = |credits| Part {
            lot: part.lot,
            credits,
        };
        taken.extend((!charged.is_zero()).then(|| of_lot(charged)));
        left.extend((!rest.is_zero()).then(|| of_lot(rest)));
    }
    (taken, left)
}

/// Why an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EntryKind {
    /// A lot: by the operator, by a purchase, or a plan's one-time grant.
    #[n(0)]
    Granted,
    /// A lot: a plan's recurring grant.
    #[n(1)]
    Renewed,
    /// A lot: what a renewal carried over from the cycle before.
    #[n(2)]
    RolledOver,
    /// What was left of a lot at its end.
    #[n(3)]
    Expired,
    /// A lot's amount was changed.
    #[n(4)]
    Adjusted,
    /// A call that had been ended without its outcome got its real end.
    #[n(5)]
    Corrected,
    /// A settled call's credits came back.
    #[n(6)]
    Refunded,
    /// A lot: a customer paid for it.
    #[n(7)]
    Bought,
    /// The money went back, and with it what was left of the lot that it had bought.
    #[n(8)]
    TakenBack,
    /// The same: what of that lot had been spent already.
    #[n(9)]
    Shortfall,
    /// The money came again, and with it what had been taken back.
    #[n(10)]
    GivenBack,
    /// A lot: by an automatic top-up that was paid.
    #[n(12)]
    ToppedUp = 12,
}

impl EntryKind {
    /// Every kind, by its stored number.
    const ALL: [Self; 12] = [
        Self::Granted,
        Self::Renewed,
        Self::RolledOver,
        Self::Expired,
        Self::Adjusted,
        Self::Corrected,
        Self::Refunded,
        Self::Bought,
        Self::TakenBack,
        Self::Shortfall,
        Self::GivenBack,
        Self::ToppedUp,
    ];

    /// The kind stored as `number`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The number that is stored.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Renewed => "renewed",
            Self::RolledOver => "rolled_over",
            Self::Expired => "expired",
            Self::Adjusted => "adjusted",
            Self::Corrected => "corrected",
            Self::Refunded => "refunded",
            Self::Bought => "bought",
            Self::TakenBack => "taken_back",
            Self::Shortfall => "shortfall",
            Self::GivenBack => "given_back",
            Self::ToppedUp => "topped_up",
        }
    }
}

/// One line of the account's append-only ledger. Calls are its charges and have lines of their
/// own: the call log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3 … without gaps.
    pub number: u64,
    /// The moment it is dated at.
    pub at: Timestamp,
    /// Why.
    pub kind: EntryKind,
    /// The pool.
    pub pool: String,
    /// The lot.
    pub lot: LotNumber,
    /// What it adds to the pool; negative where it takes away.
    pub credits: i64,
    /// The pool's balance after it, holds included.
    pub balance: i64,
    /// How many calls had been admitted when it was written: its place among them.
    pub calls_before: u64,
    /// The call it is about.
    pub call: Option<CallNumber>,
    /// What brought it about: `plan/pool@period`, the operator's reference, a reason.
    pub reference: Option<String>,
}

/// What can be spent of a pool, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Spending<'a> {
    /// The pool as the policy has it; `None` if the policy no longer declares it: its lots are
    /// shown, and nothing of them can be spent.
    pub pool: Option<&'a Pool>,
    /// Whether extra lots can be spent now.
    pub extra: bool,
}

impl Spending<'_> {
    /// Whether `lot` can be spent now, if it has anything to give.
    #[must_use]
    pub fn allows(&self, lot: &Lot) -> bool {
        self.pool.is_some() && (self.extra || lot.source != Source::Extra)
    }
}

/// A hold that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// What could have been held.
    pub available: Credits,
}

/// What no command brings about: the books are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// This lot is gone, or has not what a call takes from it or gives back.
    Lot(LotNumber),
    /// A call is charged more than it holds.
    AboveHold,
}

/// When credits came back to their lots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// While they can be spent.
    InTime,
    /// Some of them to a lot that had expired.
    Late,
}

/// Lots that were let go of, summed: history needs them, calls do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Totals {
    /// Sum of their amounts.
    #[n(0)]
    pub amount: u64,
    /// Sum of what was spent.
    #[n(1)]
    pub spent: u64,
    /// Sum of what expired.
    #[n(2)]
    pub expired: u64,
}

/// The lots of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Book {
    /// The lots that can still move, in the order of their numbers.
    #[n(0)]
    pub lots: Vec<Lot>,
    /// The lots that no longer can.
    #[n(1)]
    pub done: Totals,
}

impl Book {
    /// What can be spent now.
    #[must_use]
    pub fn available(&self, spending: Spending<'_>) -> Credits {
        self.lots
            .iter()
            .filter(|lot| spending.allows(lot))
            .fold(Credits::ZERO, |sum, lot| {
                sum.saturating_add(lot.available())
            })
    }

    /// What open calls hold.
    #[must_use]
    pub fn held(&self) -> Credits {
        self.lots
            .iter()
            .fold(Credits::ZERO, |sum, lot| sum.saturating_add(lot.held))
    }

    /// What ended calls were charged, ever.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.lots.iter().fold(self.done.spent, |sum, lot| {
            sum.saturating_add(lot.spent.get())
        })
    }

    /// Everything granted less everything spent and expired; holds are still in it.
    #[must_use]
    pub fn balance(&self) -> i64 {
        let done = i128::from(self.done.amount)
            .saturating_sub(i128::from(self.done.spent))
            .saturating_sub(i128::from(self.done.expired));
        let sum = self.lots.iter().fold(done, |sum, lot| {
            sum.saturating_add(i128::from(lot.balance()))
        });
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    /// The lot `number`, while it is kept.
    #[must_use]
    pub fn lot(&self, number: LotNumber) -> Option<&Lot> {
        self.lots.get(self.place_of(number)?)
    }

    fn lot_mut(&mut self, number: LotNumber) -> Option<&mut Lot> {
        let place = self.place_of(number)?;
        self.lots.get_mut(place)
    }

    fn place_of(&self, number: LotNumber) -> Option<usize> {
        self.lots
            .binary_search_by_key(&number, |lot| lot.number)
            .ok()
    }

    /// The lots that can give something, the first to be spent first: by source, then soonest
    /// expiry, then oldest.
    fn in_spending_order(&self, spending: Spending<'_>) -> Vec<&Lot> {
        let rank = |lot: &Lot| {
            let source = spending.pool.map(|pool| pool.rank(lot.source));
            (source, lot.expires_at.is_none(), lot.expires_at, lot.number)
        };
        let mut lots: Vec<&Lot> = Vec::new();
        for lot in &self.lots {
            if spending.allows(lot) && !lot.available().is_zero() {
                let at = lots.partition_point(|earlier| rank(earlier) < rank(lot));
                lots.insert(at, lot);
            }
        }
        lots
    }

    /// Chooses what a hold of at most `most` credits takes; refused if it would be less than
    /// `least`. Changes nothing.
    ///
    /// # Errors
    /// What could have been held, when that is too little.
    pub fn choose(
        &self,
        least: Credits,
        most: Credits,
        spending: Spending<'_>,
    ) -> Result<Vec<Part>, Short> {
        let mut parts = Vec::new();
        let mut missing = most;
        if !most.is_zero() {
            for lot in self.in_spending_order(spending) {
                let credits = lot.available().min(missing);
                parts.push(Part {
                    lot: lot.number,
                    credits,
                });
                missing = missing.saturating_sub(credits);
                if missing.is_zero() {
                    break;
                }
            }
        }
        let available = most.saturating_sub(missing);
        if available < least {
            return Err(Short {
                available: self.available(spending),
            });
        }
        Ok(parts)
    }
}

/// The books of one account, and the numbers its lots and entries have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Ledger {
    /// By pool.
    #[n(0)]
    pub books: BTreeMap<String, Book>,
    /// Lots ever granted.
    #[n(1)]
    lots_granted: u32,
    /// Entries ever written.
    #[n(2)]
    entries_written: u64,
}

/// A grant of credits about to be booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLot<'a> {
    /// Why.
    pub kind: EntryKind,
    /// The pool it goes to.
    pub pool: &'a str,
    /// Its source.
    pub source: Source,
    /// Its credits.
    pub amount: Credits,
    /// When what is left of it expires.
    pub expires_at: Option<Timestamp>,
    /// What brought it about.
    pub reference: Option<String>,
}

/// A change of what an ended call was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction<'a> {
    /// Corrected, or refunded.
    pub kind: EntryKind,
    /// The pool.
    pub pool: &'a str,
    /// The lot.
    pub lot: LotNumber,
    /// The call.
    pub call: CallNumber,
    /// What comes back; negative where it is charged after all.
    pub credits: i64,
    /// Why, if that was told.
    pub reference: Option<String>,
}

/// Where an entry stands: its date and its place among the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The date.
    pub at: Timestamp,
    /// Calls admitted so far.
    pub calls_before: u64,
}

impl Ledger {
    /// Entries ever written: the last entry's number.
    #[must_use]
    pub const fn entries_written(&self) -> u64 {
        self.entries_written
    }

    /// The book of `pool`.
    #[must_use]
    pub fn book(&self, pool: &str) -> Option<&Book> {
        self.books.get(pool)
    }

    /// Holds what was chosen.
    ///
    /// # Errors
    /// A lot is gone.
    pub fn hold(&mut self, pool: &str, parts: &[Part]) -> Result<(), Unsound> {
        for part in parts {
            let lot = self.sound_lot(pool, part.lot)?;
            lot.held = add(lot, lot.held, part.credits)?;
        }
        Ok(())
    }

    /// Ends a hold at `at`, when everything due by `booked` is booked: charges `charge` of it, in the
    /// order of its parts, and gives the rest back.
    ///
    /// # Errors
    /// A lot is gone or holds less, or the charge is above the hold.
    pub fn end(
        &mut self,
        pool: &str,
        parts: &[Part],
        charge: Credits,
        (at, booked): (Timestamp, Timestamp),
    ) -> Result<Returned, Unsound> {
        let mut to_charge = charge;
        let mut returned = Returned::InTime;
        for part in parts {
            let charged = part.credits.min(to_charge);
            to_charge = to_charge.saturating_sub(charged);
            let lot = self.sound_lot(pool, part.lot)?;
            lot.held = take(lot, lot.held, part.credits)?;
            lot.spent = add(lot, lot.spent, charged)?;
            lot.touched_at = lot.touched_at.max(at);
            if charged < part.credits && is_past(lot.expires_at, booked) {
                returned = Returned::Late;
            }
        }
        if to_charge.is_zero() {
            Ok(returned)
        } else {
            Err(Unsound::AboveHold)
        }
    }

    /// Charges `part` without a hold: what an ended call turns out to have cost.
    ///
    /// # Errors
    /// The lot is gone.
    pub fn take(&mut self, pool: &str, part: Part, now: Timestamp) -> Result<(), Unsound> {
        let lot = self.sound_lot(pool, part.lot)?;
        lot.spent = add(lot, lot.spent, part.credits)?;
        lot.touched_at = lot.touched_at.max(now);
        Ok(())
    }

    /// Gives back a part that an ended call was charged.
    ///
    /// # Errors
    /// The lot is gone, or less was spent of it.
    pub fn give_back(
        &mut self,
        pool: &str,
        part: Part,
        now: Timestamp,
    ) -> Result<Returned, Unsound> {
        let lot = self.sound_lot(pool, part.lot)?;
        lot.spent = take(lot, lot.spent, part.credits)?;
        lot.touched_at = lot.touched_at.max(now);
        Ok(if is_past(lot.expires_at, now) {
            Returned::Late
        } else {
            Returned::InTime
        })
    }

    /// A charge on these lots was confirmed: they are kept for as long as it can be refunded.
    pub fn touch(&mut self, pool: &str, parts: &[Part], now: Timestamp) {
        for part in parts {
            if let Some(lot) = self.lot_mut(pool, part.lot) {
                lot.touched_at = lot.touched_at.max(now);
            }
        }
    }

    /// Books a lot. Past this line nothing can fail: what the pool has no room for is not granted, and
    /// the entry says how much was. Who would rather refuse asks [`Ledger::has_room_for`] first.
    pub fn grant(&mut self, lot: NewLot<'_>, moment: Moment) -> (LotNumber, Entry) {
        let amount = lot.amount.min(self.room_in(lot.pool));
        self.lots_granted = self.lots_granted.saturating_add(1);
        let number = LotNumber(self.lots_granted);
        self.books
            .entry(lot.pool.to_owned())
            .or_default()
            .lots
            .push(Lot {
                number,
                source: lot.source,
                amount,
                spent: Credits::ZERO,
                held: Credits::ZERO,
                expired: Credits::ZERO,
                expires_at: lot.expires_at,
                granted_at: moment.at,
                touched_at: moment.at,
                kept_for: None,
                rolled_from: None,
            });
        let entry = self.entry(
            Line {
                kind: lot.kind,
                pool: lot.pool,
                lot: number,
                credits: signed(amount),
                call: None,
                reference: lot.reference,
            },
            moment,
        );
        (number, entry)
    }

    /// Notes that `lot` is what was carried over `from` the one before.
    pub fn carried_over(&mut self, pool: &str, lot: LotNumber, from: LotNumber) {
        if let Some(lot) = self.lot_mut(pool, lot) {
            lot.rolled_from = Some(from);
        }
    }

    /// Whether the pool's sum stays a number that JSON carries when `amount` is added.
    #[must_use]
    pub fn has_room_for(&self, pool: &str, amount: Credits) -> bool {
        amount <= self.room_in(pool)
    }

    /// What can be added to the pool: also when everything spent comes back to its lots, their sum
    /// is a number that JSON carries.
    fn room_in(&self, pool: &str) -> Credits {
        let lots = self.book(pool).into_iter().flat_map(|book| &book.lots);
        lots.fold(Credits::MAX, |room, lot| {
            room.saturating_sub(lot.amount.saturating_sub(lot.expired))
        })
    }

    /// Sets a lot's amount, as far as the pool has room; what it can give is never below 0.
    pub fn set_amount(
        &mut self,
        pool: &str,
        lot: LotNumber,
        amount: Credits,
        reference: &str,
        moment: Moment,
    ) -> Option<Entry> {
        let room = self.room_in(pool);
        let found = self.lot_mut(pool, lot)?;
        let amount = amount.min(found.amount.saturating_add(room));
        let change = signed(amount).saturating_sub(signed(found.amount));
        if change == 0 {
            return None;
        }
        found.amount = amount;
        found.touched_at = moment.at;
        Some(self.entry(
            Line {
                kind: EntryKind::Adjusted,
                pool,
                lot,
                credits: change,
                call: None,
                reference: Some(reference.to_owned()),
            },
            moment,
        ))
    }

    /// Takes credits from a lot's amount, or adds them, also where it is overdrawn by that or was let go of:
    /// the money that bought it went back, or came again.
    pub fn change_amount(
        &mut self,
        (pool, lot): (&str, LotNumber),
        (credits, is_taken): (Credits, bool),
        kind: EntryKind,
        reference: &str,
        moment: Moment,
    ) -> Entry {
        let book = self.books.entry(pool.to_owned()).or_default();
        let change = signed(credits);
        let change = if is_taken {
            change.saturating_neg()
        } else {
            change
        };
        match book.lots.iter_mut().find(|kept| kept.number == lot) {
            Some(found) => {
                found.amount = if is_taken {
                    found.amount.saturating_sub(credits)
                } else {
                    found.amount.saturating_add(credits)
                };
                found.touched_at = moment.at;
                found.kept_for = Some(REVERSED_LOTS_KEPT);
            }
            None => book.done.amount = book.done.amount.saturating_add_signed(change),
        }
        let line = Line {
            kind,
            pool,
            lot,
            credits: change,
            call: None,
            reference: Some(reference.to_owned()),
        };
        self.entry(line, moment)
    }

    /// Expires what is left of a lot. No entry where nothing is left.
    pub fn expire(&mut self, pool: &str, lot: LotNumber, moment: Moment) -> Option<Entry> {
        let rest = self.lot_mut(pool, lot)?.expire_rest(moment.at);
        if rest.is_zero() {
            return None;
        }
        Some(self.entry(
            Line {
                kind: EntryKind::Expired,
                pool,
                lot,
                credits: signed(rest).saturating_neg(),
                call: None,
                reference: None,
            },
            moment,
        ))
    }

    /// What came back to those of `parts` whose lots had expired by `now` stays spendable for
    /// `restore` from then on.
    pub fn restore(&mut self, pool: &str, parts: &[Part], restore: Span, now: Timestamp) {
        for part in parts {
            if let Some(lot) = self.lot_mut(pool, part.lot)
                && is_past(lot.expires_at, now)
                && !lot.available().is_zero()
            {
                lot.expires_at = Some(now.plus(restore));
            }
        }
    }

    /// Writes that what an ended call was charged has changed.
    pub fn correct(&mut self, correction: Correction<'_>, moment: Moment) -> Entry {
        self.entry(
            Line {
                kind: correction.kind,
                pool: correction.pool,
                lot: correction.lot,
                credits: correction.credits,
                call: Some(correction.call),
                reference: correction.reference,
            },
            moment,
        )
    }

    /// Expires what is left of every lot whose time is up at `until`, the first one first, each
    /// dated at its moment. However many there are, the books are gone through once.
    pub fn expire_due(&mut self, until: Timestamp, calls_before: u64) -> Vec<Entry> {
        let mut due = Vec::new();
        for (pool, book) in self.books.values().enumerate() {
            for lot in &book.lots {
                if let Some(at) = lot.expires_at
                    && at <= until
                    && !lot.available().is_zero()
                {
                    due.push((at, lot.number, pool));
                }
            }
        }
        if due.is_empty() {
            return Vec::new();
        }
        due.sort_unstable();
        let mut books: Vec<(&String, i64, &mut Book)> = self
            .books
            .iter_mut()
            .map(|(pool, book)| (pool, book.balance(), book))
            .collect();
        let mut entries = Vec::with_capacity(due.len());
        for (at, number, pool) in due {
            let Some((pool, balance, book)) = books.get_mut(pool) else {
                continue;
            };
            let Some(lot) = book.lot_mut(number) else {
                continue;
            };
            let rest = signed(lot.expire_rest(at));
            *balance = balance.saturating_sub(rest);
            self.entries_written = self.entries_written.saturating_add(1);
            entries.push(Entry {
                number: self.entries_written,
                at,
                kind: EntryKind::Expired,
                pool: (*pool).clone(),
                lot: number,
                credits: rest.saturating_neg(),
                balance: *balance,
                calls_before,
                call: None,
                reference: None,
            });
        }
        entries
    }

    /// Lets go of lots that are empty and so old that nothing can come back to them.
    pub fn let_go(&mut self, now: Timestamp) {
        for book in self.books.values_mut() {
            let done = &mut book.done;
            book.lots.retain(|lot| {
                let is_done = lot.is_done(now);
                if is_done {
                    done.amount = done.amount.saturating_add(lot.amount.get());
                    done.spent = done.spent.saturating_add(lot.spent.get());
                    done.expired = done.expired.saturating_add(lot.expired.get());
                }
                !is_done
            });
        }
    }

    fn lot_mut(&mut self, pool: &str, number: LotNumber) -> Option<&mut Lot> {
        self.books.get_mut(pool)?.lot_mut(number)
    }

    fn sound_lot(&mut self, pool: &str, number: LotNumber) -> Result<&mut Lot, Unsound> {
        self.lot_mut(pool, number).ok_or(Unsound::Lot(number))
    }

    fn entry(&mut self, line: Line<'_>, moment: Moment) -> Entry {
        self.entries_written = self.entries_written.saturating_add(1);
        Entry {
            number: self.entries_written,
            at: moment.at,
            kind: line.kind,
            pool: line.pool.to_owned(),
            lot: line.lot,
            credits: line.credits,
            balance: self.book(line.pool).map_or(0, Book::balance),
            calls_before: moment.calls_before,
            call: line.call,
            reference: line.reference,
        }
    }
}

/// A figure of `lot` with `credits` more.
fn add(lot: &Lot, figure: Credits, credits: Credits) -> Result<Credits, Unsound> {
    figure.checked_add(credits).ok_or(Unsound::Lot(lot.number))
}

/// A figure of `lot` with `credits` less.
fn take(lot: &Lot, figure: Credits, credits: Credits) -> Result<Credits, Unsound> {
    figure.checked_sub(credits).ok_or(Unsound::Lot(lot.number))
}

fn is_past(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|expires_at| expires_at <= now)
}

/// An entry before it has a number, a date and a balance.
struct Line<'a> {
    kind: EntryKind,
    pool: &'a str,
    lot: LotNumber,
    credits: i64,
    call: Option<CallNumber>,
    reference: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u32) -> Timestamp {
        Timestamp::from_seconds(1_900_000_000 + i64::from(seconds))
    }

    /// A lot of three credits, one of them held and one spent, that expires at `expires_at`.
    fn lot(number: u32, expires_at: u32) -> Lot {
        let credits = |amount| Credits::new(amount).unwrap();
        Lot {
            number: LotNumber(number),
            source: Source::Promo,
            amount: credits(3),
            spent: credits(1),
            held: credits(1),
            expired: Credits::ZERO,
            expires_at: Some(at(expires_at)),
            granted_at: at(0),
            touched_at: at(0),
            kept_for: None,
            rolled_from: None,
        }
    }

    /// So many that a look at all of them for each would take minutes.
    #[test]
    fn thirty_thousand_lots_that_are_due_at_once_expire_in_their_order() {
        let mut ledger = Ledger::default();
        for number in 1..=30_000 {
            let pool = ["credits", "lyrics"][number as usize % 2];
            let book = ledger.books.entry(pool.to_owned()).or_default();
            // The last ones are due first, ten at a time.
            book.lots.push(lot(number, (60_000 - number) / 10));
        }
        ledger.books.get_mut("lyrics").unwrap().lots[0].expires_at = None;
        let balances = |ledger: &Ledger| {
            let books = ledger.books.values();
            books.map(Book::balance).collect::<Vec<_>>()
        };
        assert_eq!(balances(&ledger), [30_000, 30_000]);
        assert_eq!(ledger.expire_due(at(2_999), 7), []);
        let entries = ledger.expire_due(at(6_000), 7);
        assert_eq!(entries.len(), 29_999);
        assert!(entries.is_sorted_by_key(|entry| (entry.at, entry.lot)));
        assert!(entries.iter().map(|entry| entry.number).eq(1..=29_999));
        let of_pool = |pool: &str| {
            let entries = entries.iter().filter(|entry| entry.pool == pool);
            entries.map(|entry| entry.balance).collect::<Vec<_>>()
        };
        assert!(of_pool("credits").into_iter().eq((15_000..30_000).rev()));
        assert!(of_pool("lyrics").into_iter().eq((15_001..30_000).rev()));
        assert_eq!(balances(&ledger), [15_000, 15_001]);
        assert_eq!(ledger.entries_written(), 29_999);
        assert_eq!(ledger.expire_due(at(6_000), 7), []);
    }
}
