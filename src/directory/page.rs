//! `GET /accounts`: a page of the accounts that a filter lets through.
//!
//! One of the filters is looked up in the index, the others are held against what it finds. So a
//! page costs what it shows, also among many accounts; only a rare pair of common filters has to
//! look further, and stops at the bound with what it has.

use super::{
    Directory, Failure, Filter, Found, Kind, NameRange, Page, Position, Record, Search, Standing,
    Store, failed, names, read,
};
use crate::account::Listed;

/// The most accounts on one page.
pub const LIMIT_MAX: u32 = 500;
/// The most records that one request looks at: each is a row, and so is the name that it is found
/// by, and no request reads more than 5,000.
pub const EXAMINED_MAX: u32 = 2_400;
/// What is read at once where most of it may not be shown.
const CHUNK: u32 = 200;

impl<S: Store> Directory<S> {
    pub(super) fn list(&self, search: &Search) -> Result<Page, Failure> {
        let mut walk = Walk {
            search,
            way: Way::of(search),
            accounts: Vec::new(),
            position: search.after.clone().unwrap_or_default(),
            examined: 0,
        };
        let more = walk.fill(&self.store)?;
        Ok(Page {
            accounts: walk.accounts,
            next: more.then_some(walk.position),
        })
    }
}

/// How accounts are found.
enum Way {
    /// All of them, by number.
    All,
    /// By their names of a kind, in these ranges of texts, the lowest first: each begins with the
    /// first text and ends before the second.
    Named(Kind, Vec<(String, String)>),
}

impl Way {
    /// By the filter that lets the fewest through, as far as one can know.
    fn of(search: &Search) -> Self {
        let exactly = |text: &str| (text.to_owned(), names::behind(text));
        let filter = &search.filter;
        if let Some(external_id) = &filter.external_id {
            return Self::Named(Kind::ExternalId, vec![exactly(external_id.as_str())]);
        }
        if filter.flagged {
            return Self::Named(Kind::Flagged, vec![exactly(names::FLAGGED)]);
        }
        if let Some(query) = &filter.query {
            let beginnings = (query.clone(), names::behind_beginnings(query));
            return Self::Named(Kind::Word, vec![beginnings]);
        }
        if filter.previous_keys {
            let mut texts: Vec<_> = search.secrets.iter().map(ToString::to_string).collect();
            texts.sort();
            let ranges = texts.iter().map(|text| exactly(text)).collect();
            return Self::Named(Kind::Secret, ranges);
        }
        match (&filter.status, &filter.plan) {
            // Most accounts are active.
            (Some(status), None) => Self::Named(Kind::Status, vec![exactly(status)]),
            (Some(status), Some(_)) if status != "active" => {
                Self::Named(Kind::Status, vec![exactly(status)])
            }
            (_, Some(plan)) => Self::Named(Kind::Plan, vec![exactly(plan)]),
            (None, None) => Self::All,
        }
    }

    /// The next records behind a position; fewer than `limit` only where there are no more.
    fn next<S: Store>(
        &self,
        store: &S,
        position: &Position,
        limit: u32,
    ) -> Result<Vec<Found>, Failure> {
        let Self::Named(kind, ranges) = self else {
            return store.after(position.number, limit).map_err(failed);
        };
        let mut found = Vec::new();
        for (from, to) in ranges {
            let wanted = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(limit));
            if wanted == 0 || position.text >= *to {
                continue;
            }
            let (from, number) = if position.text >= *from {
                (position.text.as_str(), position.number)
            } else {
                (from.as_str(), 0)
            };
            let range = NameRange {
                kind: *kind,
                from,
                number,
                to,
            };
            found.extend(store.named(&range, wanted).map_err(failed)?);
        }
        Ok(found)
    }

    /// Whether a record is met here for the first time on this way: it may have several names in
    /// the ranges, and is shown once.
    fn is_first(&self, record: &Record, text: &str) -> bool {
        let Self::Named(kind, ranges) = self else {
            return true;
        };
        let is_on_the_way = |name: &names::Name| {
            let text = name.text.as_str();
            let mut ranges = ranges.iter();
            name.kind == *kind
                && ranges.any(|(from, to)| from.as_str() <= text && text < to.as_str())
        };
        // In the order of kind and text.
        names::of(record)
            .into_iter()
            .find(is_on_the_way)
            .is_some_and(|name| name.text == text)
    }
}

/// A page in the making.
struct Walk<'a> {
    search: &'a Search,
    way: Way,
    accounts: Vec<Listed>,
    /// The last account looked at.
    position: Position,
    examined: u32,
}

impl Walk<'_> {
    /// Looks for accounts until the page is full, there are no more or the bound is met; whether
    /// there may be more.
    fn fill<S: Store>(&mut self, store: &S) -> Result<bool, Failure> {
        // One more than the page shows tells whether there is a next one.
        let mut chunk = self.search.limit.saturating_add(1);
        while self.examined < EXAMINED_MAX {
            chunk = chunk.min(EXAMINED_MAX.saturating_sub(self.examined));
            let found = self.way.next(store, &self.position, chunk)?;
            let is_last = found.len() < usize::try_from(chunk).unwrap_or(usize::MAX);
            for found in found {
                let record = read(&found)?;
                if let Some(account) = self.shown(record, &found.text) {
                    if self.accounts.len() >= usize::try_from(self.search.limit).unwrap_or(0) {
                        return Ok(true);
                    }
                    self.accounts.push(account);
                }
                self.position = Position {
                    text: found.text,
                    number: found.number,
                };
                self.examined = self.examined.saturating_add(1);
            }
            if is_last {
                return Ok(false);
            }
            chunk = CHUNK;
        }
        Ok(true)
    }

    /// The account, if the page shows it.
    fn shown(&self, record: Record, text: &str) -> Option<Listed> {
        let is_first = self.way.is_first(&record, text);
        let Standing::Listed { account, secrets } = record.standing else {
            return None;
        };
        let Filter {
            query,
            external_id,
            plan,
            status,
            previous_keys,
            flagged,
        } = &self.search.filter;
        let fits =
            |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        let is_queried = query
            .as_ref()
            .is_none_or(|query| names::any_word_begins(&account, query));
        let has_previous_key = secrets
            .iter()
            .any(|secret| self.search.secrets.contains(secret));
        (is_first
            && is_queried
            && external_id
                .as_ref()
                .is_none_or(|external_id| account.external_id.as_ref() == Some(external_id))
            && fits(plan, &account.plan)
            && fits(status, account.status.name())
            && (!previous_keys || has_previous_key)
            && (!flagged || !account.flags.is_empty()))
        .then_some(*account)
    }
}
