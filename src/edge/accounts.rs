//! Talking to an account's object: one blocking message to admit, and what became of the call with a later
//! one, or in the background with one of its own.

use std::cell::RefCell;

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use super::{
    platform::{Env, Namespace, ObjectStub, clock, has_flag, message_of},
    promise::{Timer, settled},
};
use crate::{
    account::{Admit, Cancel},
    call::Settle,
    id::AccountId,
    protocol::{self, Answer, Reply, Request},
    unsettled::Unsettled,
};

thread_local! {
    /// Ends of calls that go with the next message to their account.
    static UNSETTLED: RefCell<Unsettled> = RefCell::default();
}

/// The account's object did not answer, or said that it cannot.
pub struct Unavailable {
    /// For the log.
    pub detail: String,
    /// Asking again may help.
    may_retry: bool,
}

/// The account objects of the deployment.
pub struct Objects {
    accounts: Namespace,
    /// The object that was asked last: a call asks the same one twice.
    asked: RefCell<Option<(AccountId, ObjectStub)>>,
}

impl Objects {
    /// Those that `env` binds.
    pub fn of(env: &Env) -> Self {
        Self {
            accounts: env.accounts(),
            asked: RefCell::default(),
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// The object cannot answer.
    pub async fn ask(&self, account: &AccountId, request: &Request) -> Result<Answer, Unavailable> {
        self.send(account, None, request).await
    }

    /// Asks for a call, once more with the same operation id where that may help.
    ///
    /// # Errors
    /// The object cannot answer. Whether it admitted the call is not known: see
    /// [`Objects::give_up`].
    pub async fn admit(&self, account: &AccountId, admit: Admit) -> Result<Answer, Unavailable> {
        let request = Request::Admit(admit);
        match self.ask(account, &request).await {
            Err(unavailable) if unavailable.may_retry => self.ask(account, &request).await,
            answered => answered,
        }
    }

    /// Undoes an admission whose answer was lost, or has it refused if it comes after this.
    ///
    /// # Errors
    /// The object still cannot answer; its alarm will end the call, if there is one.
    pub async fn give_up(
        &self,
        account: &AccountId,
        operation: u64,
    ) -> Result<Answer, Unavailable> {
        self.ask_again(account, &Request::Cancel(Cancel { operation }))
            .await
    }

    /// Asks, and once more if it failed: for messages that are safe to repeat.
    ///
    /// # Errors
    /// The object cannot answer.
    pub async fn ask_again(
        &self,
        account: &AccountId,
        request: &Request,
    ) -> Result<Answer, Unavailable> {
        self.ask_again_in(account, None, request).await
    }

    /// The same; the object is placed in `region` if it is not there yet.
    ///
    /// # Errors
    /// The object cannot answer.
    pub async fn ask_again_in(
        &self,
        account: &AccountId,
        region: Option<&str>,
        request: &Request,
    ) -> Result<Answer, Unavailable> {
        match self.send(account, region, request).await {
            Err(_) => self.send(account, region, request).await,
            answered => answered,
        }
    }

    /// Has the end of a call, which frees nothing, wait for a message to its account that it can go with.
    /// Gives whether it went with another.
    pub async fn has_gone(&self, account: &AccountId, settle: Settle, timer: &mut Timer) -> bool {
        if !UNSETTLED.with_borrow_mut(|unsettled| unsettled.list(account, settle, clock())) {
            return false;
        }
        // Where there are no timers, nothing is waited for.
        drop(timer.patience().await);
        !UNSETTLED.with_borrow_mut(|unsettled| unsettled.remove(account, settle.call))
    }

    async fn send(
        &self,
        account: &AccountId,
        region: Option<&str>,
        request: &Request,
    ) -> Result<Answer, Unavailable> {
        // One that failed may be broken for good: it is put back only when it has answered.
        let known = self.asked.take().filter(|(asked, _)| asked == account);
        let stub = match known {
            Some((_, stub)) => stub,
            None => self.accounts.object(account.as_str(), region)?,
        };
        let ends = UNSETTLED.with_borrow_mut(|unsettled| unsettled.take(account));
        let answer = tell(&stub, request, &ends).await;
        let taken = answer.as_ref().map_or(0, |answer| answer.ends_taken);
        UNSETTLED.with_borrow_mut(|unsettled| unsettled.heard(account, &ends, taken));
        let answer = answer?;
        self.asked.replace(Some((account.clone(), stub)));
        match answer.reply {
            Reply::Unavailable { detail } => Err(Unavailable {
                detail,
                may_retry: true,
            }),
            _ => Ok(answer),
        }
    }
}

async fn tell(
    stub: &ObjectStub,
    request: &Request,
    ends: &[Settle],
) -> Result<Answer, Unavailable> {
    let message = Uint8Array::from(protocol::encode_beside(request, ends).as_slice());
    let bytes: Uint8Array = settled(&stub.tell(message)?).await?.unchecked_into();
    protocol::decode(&bytes.to_vec()).map_err(|unreadable| Unavailable {
        detail: unreadable.to_string(),
        may_retry: false,
    })
}

impl From<JsValue> for Unavailable {
    /// The runtime marks errors after which a retry may help, and those that came from overload,
    /// where it would make things worse.
    fn from(thrown: JsValue) -> Self {
        Self {
            detail: message_of(&thrown),
            may_retry: has_flag(&thrown, "retryable") && !has_flag(&thrown, "overloaded"),
        }
    }
}
