//! Tasks that go on in the very turn in which what they wait for has come. Those of wasm-bindgen-futures
//! wait for a microtask of their own, which JavaScript is asked for and comes back with: a call waits
//! several times, and each would cost three crossings more.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks { last: 0, slots: BTreeMap::new() }) };
}

/// The tasks of this isolate that are not done.
struct Tasks {
    last: u64,
    slots: BTreeMap<u64, Slot>,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

enum Slot {
    Waiting(Work),
    /// It is going on at this moment, and was woken meanwhile or not.
    GoingOn {
        is_woken: bool,
    },
}

struct Task(u64);

/// Begins `work` at once, as far as it comes without waiting.
pub fn begin(work: impl Future<Output = ()> + 'static) {
    let task = TASKS.with_borrow_mut(|tasks| {
        tasks.last = tasks.last.wrapping_add(1);
        tasks
            .slots
            .insert(tasks.last, Slot::Waiting(Box::pin(work)));
        Task(tasks.last)
    });
    Arc::new(task).go_on();
}

impl Task {
    fn go_on(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        // What is polled may begin and wake others: nothing is borrowed meanwhile.
        while let Some(mut work) = self.take() {
            let is_done = work
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready();
            let left = (!is_done).then_some(work);
            if !self.put_back(left) {
                return;
            }
        }
    }

    fn take(&self) -> Option<Work> {
        TASKS.with_borrow_mut(|tasks| {
            let slot = tasks.slots.get_mut(&self.0)?;
            match std::mem::replace(slot, Slot::GoingOn { is_woken: false }) {
                Slot::Waiting(work) => Some(work),
                Slot::GoingOn { .. } => {
                    *slot = Slot::GoingOn { is_woken: true };
                    None
                }
            }
        })
    }

    /// Puts back what is left to do; gives whether it was woken meanwhile.
    fn put_back(&self, left: Option<Work>) -> bool {
        TASKS.with_borrow_mut(|tasks| {
            let before = match left {
                Some(work) => tasks.slots.insert(self.0, Slot::Waiting(work)),
                None => tasks.slots.remove(&self.0),
            };
            matches!(before, Some(Slot::GoingOn { is_woken: true }))
        })
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.go_on();
    }
}
