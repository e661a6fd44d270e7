//! Tasks that go on in the very turn in which what they wait for has come. Those of wasm-bindgen-futures
//! wait for a microtask of their own, which JavaScript is asked for and comes back with: a call waits
//! several times, and each would cost three crossings more.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};

use rustc_hash::{FxBuildHasher, FxHashMap};

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks { last: 0, slots: FxHashMap::with_hasher(FxBuildHasher) }) };
}

/// The tasks of this isolate that are not done.
struct Tasks {
    last: u64,
    slots: FxHashMap<u64, Slot>,
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll};

    use super::*;

    fn unfinished() -> usize {
        TASKS.with_borrow(|tasks| tasks.slots.len())
    }

    #[test]
    fn a_task_goes_on_in_the_turn_in_which_it_is_woken() {
        let told: Rc<Cell<Option<u32>>> = Rc::default();
        let waits: Rc<RefCell<Option<Waker>>> = Rc::default();
        let heard = Rc::new(Cell::new(0));
        let (of_task, waits_in_task, heard_in_task) =
            (Rc::clone(&told), Rc::clone(&waits), Rc::clone(&heard));
        begin(async move {
            for _ in 0..2 {
                let value = poll_fn(|context| match of_task.take() {
                    Some(value) => Poll::Ready(value),
                    None => {
                        waits_in_task.replace(Some(context.waker().clone()));
                        Poll::Pending
                    }
                });
                heard_in_task.set(value.await);
            }
        });
        let tell = |value| {
            told.set(value);
            let waker = waits.borrow().clone();
            waker.unwrap().wake();
        };
        assert_eq!((heard.get(), unfinished()), (0, 1));
        tell(None);
        assert_eq!((heard.get(), unfinished()), (0, 1));
        tell(Some(7));
        assert_eq!((heard.get(), unfinished()), (7, 1));
        tell(Some(8));
        assert_eq!((heard.get(), unfinished()), (8, 0));
        // Too late: nobody waits any more.
        tell(Some(9));
        assert_eq!((heard.get(), unfinished()), (8, 0));
    }

    #[test]
    fn a_task_that_is_woken_while_it_goes_on_goes_on_once_more() {
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        begin(poll_fn(move |context| {
            counted.set(counted.get() + 1);
            if counted.get() == 3 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!((polls.get(), unfinished()), (3, 0));
    }

    #[test]
    fn a_task_may_begin_another() {
        let order: Rc<RefCell<Vec<u32>>> = Rc::default();
        let (outer, inner) = (Rc::clone(&order), Rc::clone(&order));
        begin(async move {
            outer.borrow_mut().push(1);
            begin(async move { inner.borrow_mut().push(2) });
            outer.borrow_mut().push(3);
        });
        assert_eq!(*order.borrow(), [1, 2, 3]);
        assert_eq!(unfinished(), 0);
    }
}
