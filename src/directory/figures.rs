//! Sums of what accounts count, by hour: `GET /status` reads them, however many accounts there are.

use super::{Counted, Directory, Failure, Reply, Store, Write, encoded_record, failed};
use crate::{
    id::AccountId,
    status::{Counts, HOURS_KEPT, Hours},
    time::{Span, Timestamp},
};

/// The end of time.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

impl<S: Store> Directory<S> {
    /// Counts what an account tells under `number`, beyond what it has told under it before. A number
    /// that is not the latest changes nothing.
    pub(super) fn count_figures(
        &mut self,
        account: &AccountId,
        number: u64,
        hours: Hours,
    ) -> Result<Reply, Failure> {
        let (at, mut record) = self
            .record_of(account)?
            .ok_or_else(|| format!("{account} is not listed yet"))?;
        if number < record.counted.number {
            return Ok(Reply::Counted {
                number: record.counted.number,
                hours: Hours::default(),
            });
        }
        if number > record.counted.number {
            record.counted = Counted {
                number,
                hours: Hours::default(),
            };
        }
        let fresh = hours.less(&record.counted.hours);
        if !fresh.is_empty() {
            record.counted.hours.add(&fresh);
            let write = Write {
                record: Some((at, encoded_record(&record))),
                ..self.added(&fresh)?
            };
            self.store.commit(&write).map_err(failed)?;
        }
        Ok(Reply::Counted {
            number,
            hours: record.counted.hours,
        })
    }

    /// The hours that begin from `from` to before `to`.
    pub(super) fn figures(&self, from: Timestamp, to: Timestamp) -> Result<Hours, Failure> {
        let mut hours = Hours::default();
        for (_, body) in self.store.hours(from, to, HOURS_KEPT).map_err(failed)? {
            hours.count(&read(&body)?);
        }
        Ok(hours)
    }

    /// The sums with `fresh` in them; for each hour that was not there the oldest one goes.
    fn added(&self, fresh: &Hours) -> Result<Write, Failure> {
        let mut write = Write::default();
        let mut room = HOURS_KEPT;
        for counts in fresh.iter() {
            let hour = counts.hour;
            let next = hour.plus(Span::HOUR);
            let mut sum = match self.store.hours(hour, next, 1).map_err(failed)?.first() {
                Some((_, body)) => read(body)?,
                None => {
                    room = room.saturating_sub(1);
                    Counts::at(hour)
                }
            };
            sum.add(counts);
            // Encoding into memory cannot fail.
            let body = minicbor::to_vec(&sum).unwrap_or_default();
            write.hours.push((hour, body));
        }
        // Once an hour.
        if room < HOURS_KEPT {
            let there = self.store.hours(Timestamp::EPOCH, NEVER, HOURS_KEPT);
            let there = there.map_err(failed)?;
            if there.len() > room {
                write.hours_from = there.get(room.saturating_sub(1)).map(|(hour, _)| *hour);
            }
        }
        Ok(write)
    }
}

fn read(body: &[u8]) -> Result<Counts, Failure> {
    minicbor::decode(body).map_err(|error| format!("stored counts: {error}"))
}
