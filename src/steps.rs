//! How much work a test has had done, in looks at what others sent: what a clock cannot tell where others
//! share the machine.

use std::cell::Cell;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// One look more.
pub fn count() {
    STEPS.set(STEPS.get().saturating_add(1));
}

/// How many `work` takes.
pub fn of<T>(work: impl FnOnce() -> T) -> usize {
    STEPS.set(0);
    let _ = work();
    STEPS.get()
}
