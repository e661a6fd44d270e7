//! Importing a key that was issued before Tollgate, and keeping the lookup objects right.
//!
//! The account keeps each matter until a lookup object has answered it (`account/imported.rs`): a
//! repeated request asks again, and the alarm does.

use super::{Failure, Object, REMEMBERED, Remembered, Store, document, opening::retry_at, to_json};
use crate::{
    account::{Fingerprint, Rejected},
    imported,
    protocol::{ImportKey, Reply},
    time::Timestamp,
};

/// What comes of a request to import a key.
#[derive(Debug)]
pub enum Imported {
    /// It is answered.
    Answered(Reply),
    /// A lookup object has to be asked this first: [`Object::import_looked_up`] takes its reply.
    Ask(imported::Request),
}

impl<S: Store> Object<S> {
    /// Imports a key, as far as that goes without a lookup object. Importing a secret again gets the
    /// same answer.
    pub fn import(
        &mut self,
        import: &ImportKey,
        idempotency: Option<Fingerprint>,
        clock: Timestamp,
    ) -> Imported {
        self.try_import(import, idempotency, clock)
            .unwrap_or_else(|failure| Imported::Answered(failure.reply()))
    }

    /// Goes on with a request to import a key after a lookup object's reply.
    pub fn import_looked_up(
        &mut self,
        import: &ImportKey,
        idempotency: Option<Fingerprint>,
        reply: &imported::Reply,
        clock: Timestamp,
    ) -> Imported {
        let booked = self.try_look_up(reply, clock).and_then(|()| match reply {
            imported::Reply::Taken { by, .. } => {
                let taken = Rejected::SecretTaken(by.clone());
                self.refuse(taken, idempotency, clock)
                    .map(Imported::Answered)
            }
            _ => self.try_import(import, idempotency, clock),
        });
        booked.unwrap_or_else(|failure| Imported::Answered(failure.reply()))
    }

    /// What a lookup object has to be asked or told, as far as this is known without waking.
    #[must_use]
    pub fn errand(&self) -> Option<imported::Request> {
        self.account.as_ref()?.errand()
    }

    /// When a lookup object should be asked at the latest, counted from `clock`; `None` while all is
    /// settled.
    #[must_use]
    pub fn errand_at(&self, clock: Timestamp) -> Option<Timestamp> {
        let since = self.account.as_ref()?.errands_since()?;
        Some(retry_at(since, clock))
    }

    /// Books what a lookup object has replied to an errand. Late and repeated replies are harmless.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn looked_up(&mut self, reply: &imported::Reply, clock: Timestamp) -> Result<(), String> {
        match self.try_look_up(reply, clock) {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(Failure::Storage(detail)) => Err(detail),
        }
    }

    fn try_import(
        &mut self,
        import: &ImportKey,
        idempotency: Option<Fingerprint>,
        clock: Timestamp,
    ) -> Result<Imported, Failure> {
        self.wake(clock)?;
        let changes = self.awake()?.tick(clock);
        self.commit(changes, None)?;
        if let Some(answer) = self.answer_again(idempotency, clock)? {
            return Ok(Imported::Answered(answer));
        }
        let account = self.awake()?;
        let (number, changes) = match account.import_key(&import.new, import.digest, clock) {
            Ok(imported) => imported,
            Err(rejected) => {
                return self
                    .refuse(rejected, idempotency, clock)
                    .map(Imported::Answered);
            }
        };
        let Some(number) = number else {
            self.commit(changes, None)?;
            let request = self.awake()?.errand_about(&import.digest);
            return request.map(Imported::Ask).ok_or(Failure::NoAccount);
        };
        let json = to_json(&account.key_view(number, clock));
        let remember = idempotency.map(|request| Remembered {
            request,
            status: 201,
            json: json.clone(),
            until: Some(clock.plus(REMEMBERED)),
        });
        self.commit(changes, remember)?;
        Ok(Imported::Answered(Reply::Document(document(201, json))))
    }

    fn try_look_up(&mut self, reply: &imported::Reply, clock: Timestamp) -> Result<(), Failure> {
        self.wake(clock)?;
        let changes = self.awake()?.looked_up(reply, clock);
        self.commit(changes, None)
    }
}
