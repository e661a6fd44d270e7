//! The admin API: from a request under `/_tollgate` to what is to be done.
//!
//! [`Endpoint::find`] looks at method, path and token, and only then is there something that can
//! read a body: [`Endpoint::read`]. What comes out has been checked in full; what is left to say
//! no to, the account's object says (no such plan, the id is taken).

mod commands;
mod events;
mod json;
mod keys;
mod openapi;
mod search;
mod shown;

use sha2::{Digest, Sha256};

pub(crate) use self::{
    commands::set_top_up,
    json::{nothing, only_line},
};
pub use self::{
    openapi::openapi,
    search::accounts,
    shown::{plans, with_key},
};
use crate::{
    account::{Fingerprint, NewKey, RotateKey, Word},
    cursor::Cursors,
    directory::Search,
    export::export_query,
    id::{AccountId, CallId, EventId, KeyId, KeyNumber},
    key::{SecretDigest, bearer},
    ledger_page::ledger_query,
    payments::ask::{self, What},
    policy::KeyPattern,
    problem::{Code, Problem},
    protocol::{Command, ImportKey, Manage},
    retried::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_MAX},
    secrets::Secrets,
    self_service::{no_parameters, operators_usage_query, summary_query},
    status::StatusQuery,
};

/// The longest body that is read, in bytes.
pub const BODY_MAX: usize = 65_536;

const ROOT: &str = "/_tollgate/v1";

/// Every endpoint. `{id}`, `{key}`, `{event}` and `{call}` stand for one segment each; HEAD is answered as GET.
const ENDPOINTS: [(&str, &str, Access, Action); 36] = [
    ("GET", "/healthz", Access::Anyone, Action::Healthz),
    ("GET", "/openapi.json", Access::Anyone, Action::OpenApi),
    ("GET", "/plans", Access::Read, Action::Plans),
    ("GET", "/status", Access::Read, Action::Status),
    ("GET", "/accounts", Access::Read, Action::List),
    ("POST", "/accounts", Access::Write, Action::Open),
    ("GET", "/accounts/{id}", Access::Read, Action::Show),
    ("PATCH", "/accounts/{id}", Access::Write, Action::Patch),
    ("DELETE", "/accounts/{id}", Access::Write, Action::Close),
    ("GET", "/accounts/{id}/keys", Access::Read, Action::ListKeys),
    (
        "POST",
        "/accounts/{id}/keys",
        Access::Write,
        Action::CreateKey,
    ),
    (
        "GET",
        "/accounts/{id}/keys/{key}",
        Access::Read,
        Action::ShowKey,
    ),
    (
        "PATCH",
        "/accounts/{id}/keys/{key}",
        Access::Write,
        Action::PatchKey,
    ),
    (
        "POST",
        "/accounts/{id}/keys/{key}/rotate",
        Access::Write,
        Action::RotateKey,
    ),
    (
        "DELETE",
        "/accounts/{id}/keys/{key}",
        Access::Write,
        Action::RevokeKey,
    ),
    (
        "POST",
        "/accounts/{id}/grants",
        Access::Write,
        Action::Grant,
    ),
    (
        "GET",
        "/accounts/{id}/balance",
        Access::Read,
        Action::Balance,
    ),
    ("GET", "/accounts/{id}/usage", Access::Read, Action::Usage),
    ("GET", "/accounts/{id}/ledger", Access::Read, Action::Ledger),
    ("GET", "/accounts/{id}/audit", Access::Read, Action::Audit),
    ("GET", "/accounts/{id}/export", Access::Read, Action::Export),
    (
        "GET",
        "/accounts/{id}/usage/summary",
        Access::Read,
        Action::UsageSummary,
    ),
    (
        "POST",
        "/accounts/{id}/adjustments",
        Access::Write,
        Action::Adjust,
    ),
    ("GET", "/accounts/{id}/events", Access::Read, Action::Events),
    (
        "GET",
        "/accounts/{id}/top-up",
        Access::Read,
        Action::ShowTopUp,
    ),
    (
        "PUT",
        "/accounts/{id}/top-up",
        Access::Write,
        Action::SetTopUp,
    ),
    (
        "POST",
        "/accounts/{id}/top-up/retry",
        Access::Write,
        Action::RetryTopUp,
    ),
    (
        "POST",
        "/accounts/{id}/credits/purchase",
        Access::Write,
        Action::Purchase,
    ),
    (
        "POST",
        "/accounts/{id}/subscription",
        Access::Write,
        Action::Subscribe,
    ),
    (
        "GET",
        "/accounts/{id}/billing/history",
        Access::Read,
        Action::BillingHistory,
    ),
    (
        "POST",
        "/accounts/{id}/billing/portal",
        Access::Write,
        Action::BillingPortal,
    ),
    (
        "POST",
        "/stripe/webhook",
        Access::Anyone,
        Action::StripeEvent,
    ),
    (
        "POST",
        "/events/{event}/replay",
        Access::Write,
        Action::ReplayEvent,
    ),
    ("GET", "/calls/{call}", Access::Read, Action::ShowCall),
    ("POST", "/calls/{call}/settle", Access::End, Action::Settle),
    (
        "POST",
        "/calls/{call}/release",
        Access::End,
        Action::Release,
    ),
];

/// Who asks, by the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `ADMIN_TOKEN`: may do everything.
    Admin,
    /// `ADMIN_READ_TOKEN`: may read.
    ReadOnly,
    /// `ORIGIN_TOKEN`: may end calls.
    Origin,
}

impl Operator {
    /// Reads the value of `Authorization`.
    ///
    /// # Errors
    ///
    /// 401: no token, or none of this deployment's.
    pub fn of(secrets: &Secrets, authorization: Option<&str>) -> Result<Self, Problem> {
        let Some(authorization) = authorization else {
            return Err(Problem::new(
                Code::MissingKey,
                "the admin API needs its token: Authorization: Bearer ADMIN_TOKEN",
            ));
        };
        bearer(authorization)
            .and_then(|token| {
                // All are compared, so that the time does not tell which one it is.
                let admin = secrets.admin_token.matches(token);
                let origin = secrets.origin_token.matches(token);
                let read_only = secrets
                    .admin_read_token
                    .as_ref()
                    .is_some_and(|read_token| read_token.matches(token));
                match (admin, read_only, origin) {
                    (true, _, _) => Some(Self::Admin),
                    (false, true, _) => Some(Self::ReadOnly),
                    (false, false, true) => Some(Self::Origin),
                    (false, false, false) => None,
                }
            })
            .ok_or_else(|| {
                Problem::new(
                    Code::InvalidKey,
                    "this is no admin token of this deployment: Authorization: Bearer ADMIN_TOKEN \
                     is expected",
                )
            })
    }
}

/// What a token has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Anyone,
    Read,
    Write,
    /// End calls: the origin's right as well.
    End,
}

impl Access {
    fn check(self, operator: Operator) -> Result<(), Problem> {
        let refused = |detail| Err(Problem::new(Code::OutOfScope, detail));
        match (self, operator) {
            (Self::Anyone, _)
            | (Self::Read, Operator::Admin | Operator::ReadOnly)
            | (Self::Write, Operator::Admin)
            | (Self::End, Operator::Admin | Operator::Origin) => Ok(()),
            (Self::Write | Self::End, Operator::ReadOnly) => {
                refused("ADMIN_READ_TOKEN may only read; this needs ADMIN_TOKEN")
            }
            (Self::Read | Self::Write, Operator::Origin) => {
                refused("ORIGIN_TOKEN may only end calls; this needs ADMIN_TOKEN")
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Healthz,
    OpenApi,
    Plans,
    Status,
    Open,
    List,
    Show,
    Patch,
    Close,
    ListKeys,
    CreateKey,
    ShowKey,
    PatchKey,
    RotateKey,
    RevokeKey,
    Grant,
    Balance,
    Usage,
    UsageSummary,
    Ledger,
    Audit,
    Export,
    Adjust,
    ShowTopUp,
    SetTopUp,
    RetryTopUp,
    Purchase,
    Subscribe,
    BillingHistory,
    BillingPortal,
    StripeEvent,
    Events,
    ReplayEvent,
    ShowCall,
    Settle,
    Release,
}

/// What an operator's request asks to be done, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// `GET /healthz`: answered by the Worker.
    Healthz,
    /// `GET /openapi.json`: answered by the Worker with [`openapi()`].
    OpenApi,
    /// `GET /plans`: answered by the Worker with [`plans`], once the directory has told which
    /// are in force.
    Plans,
    /// `GET /status`: for the directory. What it answers is told with
    /// [`status`](crate::status::status).
    Status(StatusQuery),
    /// `GET /accounts`: for the directory.
    List(Search),
    /// A command for an account's object.
    Manage {
        /// The account.
        account: AccountId,
        /// The message.
        manage: Box<Manage>,
        /// The location hint for the object of an account that is to be opened.
        region: Option<&'static str>,
    },
    /// A command for the account's object once the Worker has made the secret part of a key. What
    /// the object answers is told with [`with_key`].
    IssueSecret {
        /// The account.
        account: AccountId,
        /// What the secret is for.
        purpose: Purpose,
        /// The `Idempotency-Key`, if one was sent, and what came with it.
        idempotency: Option<Fingerprint>,
    },
    /// What is about payments, for an account's object and Stripe.
    Payments {
        /// The account.
        account: AccountId,
        /// What the operator wants.
        what: What,
    },
    /// An event of Stripe's, whose signature counts and no token: for the Worker, which reads the body
    /// as it came.
    StripeEvent,
    /// For an account's object: a key that was issued before Tollgate. What the object answers is told
    /// with [`with_key`], and without the key: whoever imports it has it.
    ImportKey {
        /// The account.
        account: AccountId,
        /// The key.
        import: ImportKey,
        /// The `Idempotency-Key`, if one was sent, and what came with it.
        idempotency: Option<Fingerprint>,
    },
}

/// What a new secret is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `POST /accounts/{id}/keys`.
    Create(NewKey),
    /// `POST /accounts/{id}/keys/{key}/rotate`.
    Rotate(RotateKey),
}

impl Purpose {
    /// The command, for a secret of this digest.
    #[must_use]
    pub fn command(self, digest: SecretDigest) -> Command {
        match self {
            Self::Create(new) => Command::CreateKey { new, digest },
            Self::Rotate(rotate) => Command::RotateKey { rotate, digest },
        }
    }
}

/// What a request sends besides method, path and token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent<'a> {
    /// The query string, without `?`.
    pub query: Option<&'a str>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body as far as it was read: more than [`BODY_MAX`] bytes is too much.
    pub body: &'a [u8],
}

/// An endpoint that the caller may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    action: Action,
    method: &'a str,
    path: &'a str,
    names: Names<'a>,
}

/// What stands in a path at `{id}`, `{key}`, `{event}` and `{call}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Names<'a> {
    id: &'a str,
    key: &'a str,
    event: &'a str,
    call: &'a str,
}

impl<'a> Endpoint<'a> {
    /// Finds what a method and a canonical path (whole, from `/_tollgate` on) name, for an
    /// operator or for somebody that [`Operator::of`] does not know.
    ///
    /// # Errors
    ///
    /// 404, 405, `who`'s 401 and 403, in this order.
    pub fn find(
        method: &'a str,
        path: &'a str,
        who: Result<Operator, Problem>,
    ) -> Result<Self, Problem> {
        let under_root = path.strip_prefix(ROOT).unwrap_or_default();
        let mut allow = Vec::new();
        for (endpoint_method, template, access, action) in ENDPOINTS {
            let Some(names) = match_path(template, under_root) else {
                continue;
            };
            if method == endpoint_method || (method == "HEAD" && endpoint_method == "GET") {
                if access != Access::Anyone {
                    access.check(who?)?;
                }
                return Ok(Self {
                    action,
                    method,
                    path,
                    names,
                });
            }
            allow.push(endpoint_method);
            if endpoint_method == "GET" {
                allow.push("HEAD");
            }
        }
        Err(if allow.is_empty() {
            Problem::new(Code::NotFound, "the admin API has no such path")
        } else {
            Problem::method_not_allowed(allow.join(", "))
        })
    }

    /// Whether a body is looked at, and so has to be read before [`Endpoint::read`].
    #[must_use]
    pub const fn takes_body(&self) -> bool {
        match self.action {
            Action::Open
            | Action::Patch
            | Action::CreateKey
            | Action::PatchKey
            | Action::RotateKey
            | Action::Grant
            | Action::Adjust
            | Action::SetTopUp
            | Action::RetryTopUp
            | Action::Purchase
            | Action::Subscribe
            | Action::BillingPortal
            | Action::Settle
            | Action::Release => true,
            Action::Healthz
            | Action::OpenApi
            | Action::Plans
            | Action::Status
            | Action::List
            | Action::Show
            | Action::Close
            | Action::ListKeys
            | Action::ShowKey
            | Action::RevokeKey
            | Action::Balance
            | Action::Usage
            | Action::UsageSummary
            | Action::Ledger
            | Action::Audit
            | Action::Export
            | Action::ShowTopUp
            | Action::BillingHistory
            | Action::StripeEvent
            | Action::Events
            | Action::ReplayEvent
            | Action::ShowCall => false,
        }
    }

    /// Reads the request.
    ///
    /// # Errors
    ///
    /// 413, 400 with the field, parameter or header that is wrong, and 404 for a key of another
    /// account.
    pub fn read(
        &self,
        sent: &Sent<'_>,
        secrets: &Secrets,
        imported_keys: Option<&KeyPattern>,
    ) -> Result<AdminRequest, Problem> {
        // Whoever watches may put something into the query to get past caches.
        if !matches!(
            self.action,
            Action::Healthz
                | Action::Status
                | Action::Usage
                | Action::UsageSummary
                | Action::Ledger
                | Action::Export
                | Action::Events
                | Action::ListKeys
                | Action::List
                | Action::BillingHistory
        ) {
            no_parameters(sent.query)?;
        }
        if self.takes_body() {
            check_length(sent.body)?;
            check_content_type(sent.body, sent.content_type)?;
        }
        match self.action {
            Action::Healthz => Ok(AdminRequest::Healthz),
            Action::OpenApi => Ok(AdminRequest::OpenApi),
            Action::Plans => Ok(AdminRequest::Plans),
            Action::Status => StatusQuery::read(sent.query).map(AdminRequest::Status),
            Action::List => search::search(sent.query, &secrets.key_secret).map(AdminRequest::List),
            Action::Open => {
                let (new, region) = commands::open(sent.body, self.required_idempotency(sent)?)?;
                Ok(AdminRequest::Manage {
                    account: new.id.clone(),
                    manage: Box::new(Manage {
                        command: Command::Open(new),
                        idempotency: None,
                        signs_under: None,
                    }),
                    region,
                })
            }
            Action::Show => self.manage(Command::Show, None),
            Action::Patch => self.manage(Command::Patch(commands::patch(sent.body)?), None),
            Action::Close => self.manage(Command::Close, None),
            Action::ListKeys => {
                let query = keys::query(sent.query, cursors(secrets, &self.account()?))?;
                self.manage(Command::Keys(query), None)
            }
            Action::ShowKey => self.manage(Command::ShowKey(self.key()?), None),
            Action::CreateKey => match keys::create(sent.body, imported_keys)? {
                (new, None) => self.issue_secret(Purpose::Create(new), sent),
                (new, Some(digest)) => Ok(AdminRequest::ImportKey {
                    account: self.account()?,
                    import: ImportKey { new, digest },
                    idempotency: self.idempotency(sent)?.map(|(_, fingerprint)| fingerprint),
                }),
            },
            Action::PatchKey => {
                let (key, patch) = (self.key()?, keys::patch(sent.body)?);
                self.manage(Command::PatchKey { key, patch }, None)
            }
            Action::RotateKey => {
                let rotate = keys::rotate(self.key()?, sent.body)?;
                self.issue_secret(Purpose::Rotate(rotate), sent)
            }
            Action::RevokeKey => self.manage(Command::RevokeKey(self.key()?), None),
            Action::Grant => {
                let (_, fingerprint) = self.required_idempotency(sent)?;
                let grant = commands::grant(sent.body)?;
                self.manage(Command::Grant(grant), Some(fingerprint))
            }
            Action::Adjust => {
                let (_, fingerprint) = self.required_idempotency(sent)?;
                let adjustment = commands::adjust(sent.body)?;
                self.manage(Command::Adjust(adjustment), Some(fingerprint))
            }
            Action::ShowTopUp => self.manage(Command::ShowTopUp, None),
            Action::SetTopUp => {
                let set = commands::set_top_up(sent.body)?;
                self.manage(Command::SetTopUp(set), None)
            }
            Action::RetryTopUp => {
                json::nothing(sent.body)?;
                let idempotency = self.idempotency(sent)?.map(|(_, fingerprint)| fingerprint);
                self.manage(Command::RetryTopUp, idempotency)
            }
            Action::Purchase => self.payments(ask::buy(sent.body)?),
            Action::Subscribe => self.payments(ask::subscribe(sent.body)?),
            Action::BillingPortal => self.payments(ask::portal(sent.body)?),
            Action::BillingHistory => self.payments(ask::history(
                sent.query,
                cursors(secrets, &self.account()?),
            )?),
            Action::StripeEvent => Ok(AdminRequest::StripeEvent),
            Action::Events => {
                let query = events::query(sent.query, cursors(secrets, &self.account()?))?;
                self.manage(Command::Events(query), None)
            }
            Action::ReplayEvent => {
                let event = self.event()?;
                let idempotency = self.idempotency(sent)?.map(|(_, fingerprint)| fingerprint);
                let replay = Command::ReplayEvent(event.number);
                Ok(about(event.account, replay, idempotency))
            }
            Action::ShowCall => {
                let call = self.call()?;
                Ok(about(call.account, Command::ShowCall(call.number), None))
            }
            Action::Settle => self.end_call(commands::settle(sent.body)?, sent),
            Action::Release => self.end_call(commands::release(sent.body)?, sent),
            Action::Balance => self.manage(Command::Balance, None),
            Action::Usage => {
                let query = operators_usage_query(sent.query, cursors(secrets, &self.account()?))?;
                self.manage(Command::Usage(query), None)
            }
            Action::UsageSummary => {
                let query = summary_query(sent.query, cursors(secrets, &self.account()?))?;
                self.manage(Command::UsageSummary(query), None)
            }
            Action::Ledger => {
                let query = ledger_query(sent.query, cursors(secrets, &self.account()?))?;
                self.manage(Command::Ledger(query), None)
            }
            Action::Audit => self.manage(Command::Audit, None),
            Action::Export => {
                let place = export_query(sent.query, &secrets.key_secret, &self.account()?)?;
                self.manage(Command::Export(place), None)
            }
        }
    }

    fn manage(
        &self,
        command: Command,
        idempotency: Option<Fingerprint>,
    ) -> Result<AdminRequest, Problem> {
        Ok(about(self.account()?, command, idempotency))
    }

    fn payments(&self, what: What) -> Result<AdminRequest, Problem> {
        Ok(AdminRequest::Payments {
            account: self.account()?,
            what,
        })
    }

    fn issue_secret(&self, purpose: Purpose, sent: &Sent<'_>) -> Result<AdminRequest, Problem> {
        Ok(AdminRequest::IssueSecret {
            account: self.account()?,
            purpose,
            idempotency: self.idempotency(sent)?.map(|(_, fingerprint)| fingerprint),
        })
    }

    fn end_call(&self, word: Word, sent: &Sent<'_>) -> Result<AdminRequest, Problem> {
        let CallId { account, number } = self.call()?;
        let idempotency = self.idempotency(sent)?.map(|(_, fingerprint)| fingerprint);
        Ok(about(
            account,
            Command::EndCall { call: number, word },
            idempotency,
        ))
    }

    /// The call that the path names; its id names its account.
    fn call(&self) -> Result<CallId, Problem> {
        CallId::parse(self.names.call).ok_or_else(|| {
            Problem::bad_field(
                "call",
                "call: expected a call id in the path, like call_acme_1",
            )
        })
    }

    /// The event that the path names; its id names its account.
    fn event(&self) -> Result<EventId, Problem> {
        EventId::parse(self.names.event).ok_or_else(|| {
            Problem::bad_field(
                "event",
                "event: expected an event id in the path, like event_acme_1",
            )
        })
    }

    fn account(&self) -> Result<AccountId, Problem> {
        AccountId::parse(self.names.id).ok_or_else(|| {
            Problem::bad_field(
                "id",
                "id: expected an account id in the path, 1 to 64 of A-Z a-z 0-9 _ -",
            )
        })
    }

    fn key(&self) -> Result<KeyNumber, Problem> {
        let account = self.account()?;
        let key = KeyId::parse(self.names.key).ok_or_else(|| {
            Problem::bad_field(
                "key",
                format!("key: expected a key id in the path, like key_{account}_1"),
            )
        })?;
        if key.account != account {
            return Err(Problem::new(Code::NotFound, "there is no such key"));
        }
        Ok(key.number)
    }

    /// The `Idempotency-Key` and its digest together with the request's.
    fn idempotency<'s>(&self, sent: &Sent<'s>) -> Result<Option<(&'s str, Fingerprint)>, Problem> {
        let Some(key) = sent.idempotency_key else {
            return Ok(None);
        };
        let fits = (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len());
        if !fits || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad_idempotency_key("found something else"));
        }
        let request = Sha256::new()
            .chain_update(self.method)
            .chain_update(b"\n")
            .chain_update(self.path)
            .chain_update(b"\n")
            .chain_update(sent.body)
            .finalize();
        let fingerprint = Fingerprint {
            key: Sha256::digest(key).into(),
            request: request.into(),
        };
        Ok(Some((key, fingerprint)))
    }

    fn required_idempotency<'s>(&self, sent: &Sent<'s>) -> Result<(&'s str, Fingerprint), Problem> {
        self.idempotency(sent)?
            .ok_or_else(|| bad_idempotency_key("found none"))
    }
}

const fn cursors<'a>(secrets: &'a Secrets, account: &'a AccountId) -> Cursors<'a> {
    Cursors {
        key_secret: &secrets.key_secret,
        account,
    }
}

fn about(account: AccountId, command: Command, idempotency: Option<Fingerprint>) -> AdminRequest {
    AdminRequest::Manage {
        account,
        manage: Box::new(Manage {
            command,
            idempotency,
            signs_under: None,
        }),
        region: None,
    }
}

fn bad_idempotency_key(found: &str) -> Problem {
    Problem::bad_field(
        IDEMPOTENCY_KEY,
        format!(
            "{IDEMPOTENCY_KEY}: expected a header of 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII \
             characters, {found}"
        ),
    )
}

fn match_path<'a>(template: &str, path: &'a str) -> Option<Names<'a>> {
    let mut names = Names::default();
    let mut segments = path.split('/');
    for part in template.split('/') {
        let segment = segments.next()?;
        match part {
            "{id}" if !segment.is_empty() => names.id = segment,
            "{key}" if !segment.is_empty() => names.key = segment,
            "{event}" if !segment.is_empty() => names.event = segment,
            "{call}" if !segment.is_empty() => names.call = segment,
            part if part == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(names)
}

fn check_length(body: &[u8]) -> Result<(), Problem> {
    if body.len() > BODY_MAX {
        return Err(Problem::new(
            Code::BodyTooLarge,
            format!("the body must have at most {BODY_MAX} bytes"),
        ));
    }
    Ok(())
}

/// Refuses a body that says that it is no JSON.
pub(crate) fn check_content_type(body: &[u8], content_type: Option<&str>) -> Result<(), Problem> {
    if body.is_empty() || content_type.is_some_and(is_json) {
        return Ok(());
    }
    Err(Problem::bad_field(
        "Content-Type",
        format!(
            "Content-Type: expected application/json, found {}",
            json::shortened(content_type.unwrap_or("none"))
        ),
    ))
}

/// `application/json`, perhaps with the charset that it always has (RFC 8259 §8.1).
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("charset")
                    && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        })
}

#[cfg(test)]
mod tests;
