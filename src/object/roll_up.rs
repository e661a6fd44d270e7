//! Months whose calls are no longer kept become a row, slice by slice.

use super::{Failure, Object, Store, storage};
use crate::account::ROWS_PER_SLICE;

impl<S: Store> Object<S> {
    /// Reads one slice of the month that is to be rolled up, if there is one. The alarm alone does
    /// this, so that no call waits for more than one slice; while there is more to do it is asked
    /// to go off again ([`Object::next_wakeup`]).
    pub(super) fn roll_up(&mut self) -> Result<(), Failure> {
        let Some((month, after)) = self.awake()?.next_slice() else {
            return Ok(());
        };
        let rows = self.store.calls_after(month, after, ROWS_PER_SLICE);
        let changes = self.awake()?.roll_up(&rows.map_err(storage)?);
        self.commit(changes, None)
    }
}
