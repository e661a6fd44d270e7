//! What is on its way between accounts' objects and another one, over a network that loses, delays and
//! repeats. Numbers choose among what there is.

/// One message: a request of an account's object, or the reply to it.
#[derive(Clone)]
pub struct Message<Q, R, W> {
    pub account: usize,
    /// What waits for the reply at the account, if anything does.
    pub waiting: Option<W>,
    pub what: What<Q, R>,
}

#[derive(Clone)]
pub enum What<Q, R> {
    Request(Q),
    Reply(R),
}

pub struct Network<Q, R, W>(Vec<Message<Q, R, W>>);

impl<Q: Clone, R: Clone, W: Clone> Network<Q, R, W> {
    pub const fn quiet() -> Self {
        Self(Vec::new())
    }

    pub const fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }

    pub fn send(&mut self, message: Message<Q, R, W>) {
        self.0.push(message);
    }

    /// Takes a message that arrives, and leaves it on its way where it comes `again`.
    pub fn take(&mut self, which: usize, again: bool) -> Option<Message<Q, R, W>> {
        let at = which.checked_rem(self.0.len())?;
        let message = self.0.remove(at);
        if again {
            self.0.push(message.clone());
        }
        Some(message)
    }

    pub fn lose(&mut self, which: usize) {
        if let Some(at) = which.checked_rem(self.0.len()) {
            self.0.remove(at);
        }
    }
}
