//! The admin API: whom the token names, what is asked, and the object's answer.

use super::{
    answer::{self, About},
    billing::{Asker, payments_off},
    deployment::Deployment,
    directory::ask as ask_directory,
    gateway::{Gateway, Interruption, unavailable, unexpected},
    log::{Fault, Line},
    platform::{OPENAPI_TEXT, random},
    promise,
    visit::Visit,
};
use crate::{
    account::Fingerprint,
    admin::{self, AdminRequest, BODY_MAX, Endpoint, Operator, Purpose, Sent},
    directory::{self, Search},
    guesses::GUESSES_PER_MINUTE,
    id::AccountId,
    key::SecretDigest,
    path::CanonicalPath,
    problem::{Code, Problem, ViolatedPolicy, Violation},
    protocol::{AuditStep, Command, Document, Manage, Reply, Request},
    status::{StatusQuery, status},
    time::Span,
};

/// A Worker may ask objects at most 1,000 times for one request.
pub(super) const SLICES_MAX: usize = 900;
const AUDIT_UNFINISHED: &str =
    r#"{"ok":null,"detail":"there is more to read; ask again within a minute to go on"}"#;
const HEALTHY: &str = r#"{"status":"ok"}"#;

impl Gateway {
    /// Answers a request under `/_tollgate`.
    pub(super) async fn operate(
        &self,
        visit: &Visit,
        path: &CanonicalPath,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        if !answers_at(self.deployment, &visit.url().host()) {
            return Err(Problem::new(Code::NoRoute, "there is nothing here").into());
        }
        let endpoint = Endpoint::find(&visit.method, path.as_str(), self.operator(visit))?;
        let body = if endpoint.takes_body() {
            visit.body(BODY_MAX, false).await?
        } else {
            Vec::new()
        };
        let (idempotency_key, content_type) = (
            visit.header("Idempotency-Key"),
            visit.header("Content-Type"),
        );
        let sent = Sent {
            query: visit.url().query,
            idempotency_key: idempotency_key.as_deref(),
            content_type: content_type.as_deref(),
            body: &body,
        };
        let request = endpoint.read(
            &sent,
            &self.deployment.secrets,
            self.deployment.policy.imported_keys.as_ref(),
        )?;
        self.carry_out(visit, request, line).await
    }

    /// Does what was read and checked.
    async fn carry_out(
        &self,
        visit: &Visit,
        request: AdminRequest,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        match request {
            AdminRequest::Healthz => self.tell(visit, 200, HEALTHY),
            AdminRequest::OpenApi => {
                let policy = self.deployment.policy;
                let document = OPENAPI_TEXT.with(|text| admin::openapi(text, policy));
                self.tell(visit, 200, &document)
            }
            AdminRequest::Plans => self.plans(visit, line).await,
            AdminRequest::Status(query) => self.status(visit, query, line).await,
            AdminRequest::List(search) => self.list(visit, search, line).await,
            AdminRequest::Manage {
                account,
                manage,
                region,
            } => self.order(visit, &account, *manage, region, line).await,
            AdminRequest::Payments { account, what } => {
                self.serve_payments(visit, &Asker::Operator(account), what, line)
                    .await
            }
            AdminRequest::StripeEvent => self.hear_stripe(visit, line).await,
            AdminRequest::ImportKey {
                account,
                import,
                idempotency,
            } => {
                let manage = Manage {
                    command: Command::ImportKey(import),
                    idempotency,
                    signs_under: None,
                };
                let document = self.document(&account, manage, line).await?;
                // Whoever imports it has it.
                let json = admin::with_key(&document.json, None);
                self.tell(visit, document.status, &json)
            }
            AdminRequest::IssueSecret {
                account,
                purpose,
                idempotency,
            } => {
                self.issue_secret(visit, &account, purpose, idempotency, line)
                    .await
            }
        }
    }

    /// The plans, with how many accounts have them.
    async fn plans(
        &self,
        visit: &Visit,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        match self.look_up(&directory::Request::Plans, line).await? {
            directory::Reply::Plans(in_force) => {
                let plans = admin::plans(&self.deployment.policy.plans, &in_force);
                self.tell(visit, 200, &plans)
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// What requests came to, hour by hour.
    async fn status(
        &self,
        visit: &Visit,
        query: StatusQuery,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let (from, to) = query.period(visit.started);
        let asked = directory::Request::Status { from, to };
        match self.look_up(&asked, line).await? {
            directory::Reply::Status(hours) => {
                let hold = self.deployment.policy.gateway.hold;
                let told = status(&hours, (from, to), visit.started, hold);
                self.tell(visit, 200, &told)
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// A page of the accounts.
    async fn list(
        &self,
        visit: &Visit,
        mut search: Search,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let filter = search.filter.clone();
        if filter.previous_keys {
            search.secrets = self.deployment.keyring.previous_secrets();
        }
        let list = directory::Request::List(search);
        match self.look_up(&list, line).await? {
            directory::Reply::Page(page) => {
                let key_secret = &self.deployment.secrets.key_secret;
                self.tell(visit, 200, &admin::accounts(page, filter, key_secret))
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// Has an account's object carry out a command, and hands on what it says.
    async fn order(
        &self,
        visit: &Visit,
        account: &AccountId,
        manage: Manage,
        region: Option<&str>,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        if manage.command.is_of_payments() && self.deployment.stripe.is_none() {
            return Err(payments_off().into());
        }
        let listing = manage.command.listing();
        match self.manage(account, manage, region, line).await? {
            Reply::Document(document) => Ok(self.show_page(visit, account, listing, document)?),
            Reply::Ledger(page) => Ok(self.show_ledger(visit, account, &page)?),
            Reply::Audit(step) => self.audit(visit, account, step, line).await,
            Reply::Export(slice) => Ok(self.export(visit, account.clone(), slice)?),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Makes the secret of a key, has the account's object keep its digest, and shows the key. The
    /// secret is known here alone, and only to the request that made it.
    async fn issue_secret(
        &self,
        visit: &Visit,
        account: &AccountId,
        purpose: Purpose,
        idempotency: Option<Fingerprint>,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let secret = random()?;
        let keyring = &self.deployment.keyring;
        let manage = Manage {
            command: purpose.command(SecretDigest::of(&secret)),
            idempotency,
            signs_under: Some(keyring.secret()),
        };
        let document = self.document(account, manage, line).await?;
        let prefix = self.deployment.policy.gateway.key_prefix();
        let issued = document
            .created_key
            .map(|number| keyring.issue(prefix, account, number, secret));
        let key = issued.as_ref().map(|issued| issued.text.as_str());
        let json = admin::with_key(&document.json, key);
        self.tell(visit, document.status, &json)
    }

    /// The document that a command is answered with.
    async fn document(
        &self,
        account: &AccountId,
        manage: Manage,
        line: &mut Line,
    ) -> Result<Document, Interruption> {
        match self.manage(account, manage, None, line).await? {
            Reply::Document(document) => Ok(document),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Whom the token names. An address that has guessed too often is not listened to.
    fn operator(&self, visit: &Visit) -> Result<Operator, Problem> {
        let address = visit.address();
        let mut guesses = self.deployment.guesses.borrow_mut();
        if let Some(until) = guesses.refused_until(address, visit.started) {
            return Err(too_many_guesses(until.since(visit.started)));
        }
        let authorization = visit.header("Authorization");
        let operator = Operator::of(&self.deployment.secrets, authorization.as_deref());
        match &operator {
            Ok(_) => guesses.right(address, visit.started),
            Err(_) if authorization.is_some() => guesses.wrong(address, visit.started),
            Err(_) => {}
        }
        operator
    }

    /// Asks the directory for what changes nothing.
    async fn look_up(
        &self,
        request: &directory::Request,
        line: &mut Line,
    ) -> Result<directory::Reply, Interruption> {
        let asked = match ask_directory(&self.env, request).await {
            Err(_) => ask_directory(&self.env, request).await,
            answered => answered,
        };
        let answer = asked.map_err(|detail| {
            line.detail = Some(detail);
            Problem::new(Code::Unavailable, "the directory cannot be asked right now")
        })?;
        line.rows = line.rows.saturating_add(answer.rows_written);
        Ok(answer.reply)
    }

    /// Has the object read slice after slice, until it is done or this request has asked often
    /// enough: then whoever asked may ask again, and the audit goes on where it is.
    async fn audit(
        &self,
        visit: &Visit,
        account: &AccountId,
        mut step: AuditStep,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        for _ in 0..SLICES_MAX {
            if let AuditStep::Finished { ok, json } = &step {
                if !ok {
                    Fault {
                        event: "audit_failed",
                        account: Some(account),
                        detail: "the answer to the audit tells where the books differ",
                    }
                    .write();
                }
                return self.tell(visit, 200, json);
            }
            promise::others().await?;
            let next = Manage {
                command: Command::Audit,
                idempotency: None,
                signs_under: None,
            };
            step = match self.manage(account, next, None, line).await? {
                Reply::Audit(step) => step,
                other => return Err(unexpected(&other).into()),
            };
        }
        self.tell(visit, 200, AUDIT_UNFINISHED)
    }

    pub(super) async fn manage(
        &self,
        account: &AccountId,
        manage: Manage,
        region: Option<&str>,
        line: &mut Line,
    ) -> Result<Reply, Interruption> {
        line.account = Some(account.to_string());
        let opens = matches!(manage.command, Command::Open(_));
        // Only what is safe to repeat is asked again by itself: everything but what has no key to
        // be recognised by.
        let imports = matches!(manage.command, Command::ImportKey(_));
        let repeats = opens || imports || manage.idempotency.is_some();
        let near = region
            .or(self.deployment.policy.gateway.region.as_deref())
            .filter(|_| opens);
        let request = Request::Manage(manage);
        let asked = if repeats {
            self.objects.ask_again_in(account, near, &request).await
        } else {
            self.objects.ask(account, &request).await
        };
        let answer = asked.map_err(|failed| {
            line.detail = Some(failed.detail);
            unavailable()
        })?;
        line.rows = line.rows.saturating_add(answer.rows_written);
        match answer.reply {
            Reply::Problem(complaint) => Err(Problem::from(complaint).into()),
            reply => Ok(reply),
        }
    }

    pub(super) fn tell(
        &self,
        visit: &Visit,
        status: u16,
        json: &str,
    ) -> Result<web_sys::Response, Interruption> {
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: None,
            charged: None,
        };
        Ok(answer::document(visit, status, json, &about)?)
    }
}

fn too_many_guesses(retry_after: Span) -> Problem {
    let violation = Violation {
        policy: ViolatedPolicy::UnknownTokens,
        limit: GUESSES_PER_MINUTE,
    };
    Problem::rate_limited(&[violation], retry_after)
}

/// Whether the admin API answers at this hostname.
fn answers_at(deployment: &Deployment, host: &str) -> bool {
    deployment
        .policy
        .gateway
        .admin_hosts
        .as_ref()
        .is_none_or(|hosts| hosts.iter().any(|allowed| allowed == host))
}
