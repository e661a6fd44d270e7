//! Telling the directory what was counted, at most once an hour.

use super::{Failure, Object, Store, opening::retry_at};
use crate::{account::Account, directory, status::Hours, time::Timestamp};

impl<S: Store> Object<S> {
    /// Whether it is time to tell the directory of what was counted here.
    #[must_use]
    pub fn has_figures(&self, clock: Timestamp) -> bool {
        let account = self.account.as_ref();
        let due = account.and_then(Account::figures_due_at);
        due.is_some_and(|due| due <= clock)
    }

    /// What it is told, if it is time to.
    pub fn figures_report(&mut self, clock: Timestamp) -> Option<directory::Request> {
        if !self.has_figures(clock) {
            return None;
        }
        let account = self.account.as_mut()?;
        let (number, hours) = account.tell_figures(clock);
        Some(directory::Request::Count {
            account: account.id().clone(),
            number,
            hours,
        })
    }

    /// Books that the directory has counted `hours` under `number`.
    pub(super) fn figures_heard(
        &mut self,
        number: u64,
        hours: &Hours,
        clock: Timestamp,
    ) -> Result<(), Failure> {
        self.wake(clock)?;
        let changes = self.awake()?.figures_counted(number, hours);
        self.commit(changes, None)
    }

    /// When to do that next; where it is overdue, when to try again. No message sets an alarm for it:
    /// every call brings one along, and when that has gone off it is set to this.
    #[must_use]
    pub fn figures_at(&self, clock: Timestamp) -> Option<Timestamp> {
        let due = self.account.as_ref()?.figures_due_at()?;
        Some(if due > clock {
            due
        } else {
            retry_at(due, clock)
        })
    }
}
