//! One request: what it is for decides who answers it (`passage.rs`), and what becomes a call goes
//! on its way (`journey.rs`). Everything else is answered here.

use std::rc::Rc;

use js_sys::Promise;
use wasm_bindgen::prelude::*;

use super::{
    accounts::Objects,
    analytics::write_request,
    answer::{self, About, Refused},
    billing::Asker,
    deployment::Deployment,
    forward::Forward,
    log::Line,
    passage::Destination,
    platform::{Context, Env, console_error},
    visit::Visit,
};
use crate::{
    account::Refusal,
    admin::{BODY_MAX, check_content_type},
    credits::Credits,
    cursor::{Cursors, Listing},
    id::AccountId,
    key::Carriers,
    ledger_page::{LedgerPage, link_to_next, prefers_csv},
    policy::{Origin, router::Page},
    problem::{Code, Problem},
    protocol::{self, Document, Read, Reply, Request},
    quote_page::quote_page,
    self_service,
    signature::Signed,
};

/// Methods that no gateway hands on (RFC 9110 §9.3.6 and §9.3.8).
const NEVER_FORWARDED: [&str; 2] = ["CONNECT", "TRACE"];

/// Answers one request. Cheap to make; what is kept is the deployment's.
#[derive(Clone)]
pub struct Gateway {
    pub(super) deployment: &'static Deployment,
    pub(super) env: Rc<Env>,
    pub(super) context: Rc<Context>,
    pub(super) objects: Rc<Objects>,
}

impl Gateway {
    /// The gateway for one request.
    pub fn new(deployment: &'static Deployment, env: Env, context: Context) -> Self {
        Self {
            deployment,
            objects: Rc::new(Objects::of(&env)),
            env: Rc::new(env),
            context: Rc::new(context),
        }
    }

    /// Answers a request: with a response, or with the promise of one.
    ///
    /// # Errors
    /// What the platform throws where its own objects are built.
    pub async fn answer(self, request: web_sys::Request) -> Result<JsValue, JsValue> {
        let visit = Rc::new(Visit::new(request)?);
        let mut line = Line {
            request_id: visit.request_id(),
            method: visit.method.clone(),
            ..Line::default()
        };
        match self.serve(&visit, &mut line).await {
            // What has become a journey writes its own line, at its end.
            Ok(Served::OnJourney(answer)) => Ok(answer.into()),
            Ok(Served::Own(answer)) => {
                line.answered(answer.status(), visit.started);
                self.record(&line);
                Ok(answer.into())
            }
            Err(Interruption::Refused(refused)) => {
                self.refuse(&visit, &refused, &mut line).map(Into::into)
            }
            Err(Interruption::Thrown(thrown)) => Err(thrown),
        }
    }

    async fn serve(&self, visit: &Rc<Visit>, line: &mut Line) -> Result<Served, Interruption> {
        if self.is_loop(visit) {
            return Err(Problem::new(
                Code::Loop,
                "this request has already come through this gateway",
            )
            .into());
        }
        if NEVER_FORWARDED.contains(&visit.method.as_str()) {
            return Err(Problem::method_not_allowed(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )
            .into());
        }
        match self.destination(visit, line).await? {
            Destination::Page(page) => self.show(visit, page, line).await.map(Served::Own),
            Destination::Admin(path) => self.operate(visit, &path, line).await.map(Served::Own),
            Destination::Preflight { origin, methods } => Ok(Served::Own(answer::preflight(
                visit,
                origin.as_deref(),
                &methods,
            )?)),
            Destination::OriginPreflight { path } => {
                self.forward_preflight(visit, &path).await.map(Served::Own)
            }
            Destination::Through(passage) => self.pass(visit, passage, line).await,
        }
    }

    /// A request that carries this deployment's own signature has come back from its origin.
    fn is_loop(&self, visit: &Visit) -> bool {
        let Some(signature) = visit.header("X-Tollgate-Signature") else {
            return false;
        };
        let url = visit.url();
        let of = |name: &str| visit.header(name).unwrap_or_default();
        let (call, account, key) = (
            of("X-Tollgate-Call"),
            of("X-Tollgate-Account"),
            of("X-Tollgate-Key"),
        );
        let (plan, external_id) = (of("X-Tollgate-Plan"), of("X-Tollgate-External-Id"));
        let signed = Signed {
            method: &visit.method,
            path: url.path,
            query: url.query.unwrap_or(""),
            call: &call,
            account: &account,
            key: &key,
            plan: &plan,
            external_id: &external_id,
        };
        self.deployment.signer.verify(&signature, &signed)
    }

    async fn forward_preflight(
        &self,
        visit: &Visit,
        path: &str,
    ) -> Result<web_sys::Response, Interruption> {
        let gateway = &self.deployment.policy.gateway;
        let forward = Forward {
            visit,
            origin: self.origin(visit),
            path,
            body: None,
            drop: Carriers {
                authorization: true,
                x_api_key: true,
            },
            identity: None,
            cache: false,
            upgrade: false,
            whole_body: false,
            timeout: gateway.origin_timeout,
        };
        let from_origin = forward
            .send_preflight(&self.env)
            .await
            .map_err(|failure| failure.problem())?;
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: None,
            charged: None,
        };
        Ok(answer::hand_on(
            visit,
            forward.origin,
            &from_origin,
            None,
            &about,
        )?)
    }

    /// A page of the caller's own account.
    async fn show(
        &self,
        visit: &Visit,
        page: Page,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let allow = page.allow();
        if !allow.split(", ").any(|method| method == visit.method) {
            return Err(Problem::method_not_allowed(allow).into());
        }
        let (key, _) = self.key(visit, line).await?;
        let url = visit.url();
        let deployment = self.deployment;
        let quote = match page {
            Page::Quote => Some(quote_page(
                deployment.policy,
                &deployment.router,
                &url.host(),
                url.query,
            )?),
            _ => None,
        };
        let mut body = Vec::new();
        if page.takes_body() {
            body = visit.body(BODY_MAX, false).await?;
            check_content_type(&body, visit.header("Content-Type").as_deref())?;
        }
        let sent = (visit.method.as_str(), url.query, body.as_slice());
        let page = self_service::read(page, sent, self.cursors(&key.account))?;
        let listing = page.listing();
        if let protocol::Page::Payments(ask) = page {
            let asker = Asker::Customer(key);
            return self.serve_payments(visit, &asker, ask.what, line).await;
        }
        let read = Request::Read(Read {
            key: key.key,
            digest: key.digest,
            page,
        });
        match self.ask(&key.account, &read, line).await? {
            Reply::Document(document) => {
                let json = quote.unwrap_or(document.json);
                let document = Document { json, ..document };
                Ok(self.show_page(visit, &key.account, listing, document)?)
            }
            Reply::Ledger(page) => Ok(self.show_ledger(visit, &key.account, &page)?),
            Reply::Refused(refusal) => {
                self.forget_key(&key, &refusal);
                Err(refused(visit, &refusal).into())
            }
            Reply::Problem(complaint) => Err(Problem::from(complaint).into()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// A page of the ledger of `account`, as JSON or CSV.
    pub(super) fn show_ledger(
        &self,
        visit: &Visit,
        account: &AccountId,
        page: &LedgerPage,
    ) -> Result<web_sys::Response, JsValue> {
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: page.standing.as_ref(),
            charged: page.standing.map(|_| Credits::ZERO),
        };
        let next = page.next(&self.deployment.secrets.key_secret, account);
        if visit
            .header("Accept")
            .is_some_and(|accept| prefers_csv(&accept))
        {
            let link = next.map(|next| link_to_next(visit.url().query, &next));
            answer::csv(visit, &page.to_csv(), link.as_deref(), &about)
        } else {
            answer::document(visit, 200, &page.to_json(next.as_deref()), &about)
        }
    }

    /// A document about `account`; where it is a page of a list, with its `next` sealed.
    pub(super) fn show_page(
        &self,
        visit: &Visit,
        account: &AccountId,
        listing: Option<Listing>,
        mut document: Document,
    ) -> Result<web_sys::Response, JsValue> {
        if let Some(listing) = listing {
            document.json = self.cursors(account).seal_next(listing, document.json);
        }
        self.show_document(visit, &document)
    }

    const fn cursors<'a>(&'a self, account: &'a AccountId) -> Cursors<'a> {
        Cursors {
            key_secret: &self.deployment.secrets.key_secret,
            account,
        }
    }

    fn show_document(
        &self,
        visit: &Visit,
        document: &Document,
    ) -> Result<web_sys::Response, JsValue> {
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: document.standing.as_ref(),
            charged: document.standing.map(|_| Credits::ZERO),
        };
        answer::document(visit, document.status, &document.json, &about)
    }

    /// Asks an object for something other than a call.
    pub(super) async fn ask(
        &self,
        account: &AccountId,
        request: &Request,
        line: &mut Line,
    ) -> Result<Reply, Interruption> {
        match self.objects.ask_again(account, request).await {
            Ok(answer) => {
                line.rows = line.rows.saturating_add(answer.rows_written);
                Ok(answer.reply)
            }
            Err(failed) => {
                line.detail = Some(failed.detail);
                Err(unavailable().into())
            }
        }
    }

    /// Answers a refusal, and writes its line.
    pub(super) fn refuse(
        &self,
        visit: &Visit,
        refused: &Refused,
        line: &mut Line,
    ) -> Result<web_sys::Response, JsValue> {
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: refused.standing.as_ref(),
            charged: refused.standing.map(|_| Credits::ZERO),
        };
        let answer = answer::problem(visit, refused, &about)?;
        line.code = Some(refused.problem.code.as_str());
        line.answered(answer.status(), visit.started);
        self.record(line);
        Ok(answer)
    }

    /// Writes the request's line, and its data point where there is a dataset for it.
    pub(super) fn record(&self, line: &Line) {
        line.write();
        if self.deployment.has_analytics {
            write_request(&self.env, &line.into());
        }
    }

    pub(super) fn origin(&self, visit: &Visit) -> &Origin {
        self.deployment
            .origin_override
            .as_ref()
            .unwrap_or_else(|| self.deployment.policy.origins.of(&visit.url().host()))
    }
}

/// An answer, and who writes its log line.
pub(super) enum Served {
    /// Tollgate's own: the gateway.
    Own(web_sys::Response),
    /// What becomes of a request that asks to be a call: its journey. The answer is yet to come.
    OnJourney(Promise),
}

/// Why a request gets no further.
pub(super) enum Interruption {
    Refused(Box<Refused>),
    Thrown(JsValue),
}

impl From<Problem> for Interruption {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem.into()))
    }
}

impl From<Box<Refused>> for Interruption {
    fn from(refused: Box<Refused>) -> Self {
        Self::Refused(refused)
    }
}

impl From<JsValue> for Interruption {
    fn from(thrown: JsValue) -> Self {
        Self::Thrown(thrown)
    }
}

pub(super) fn unavailable() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the account cannot be asked right now; nothing was counted or charged",
    )
}

/// An object's refusal on its way out.
pub(super) fn refused(visit: &Visit, refusal: &Refusal) -> Box<Refused> {
    Box::new(Refused {
        problem: refusal.problem(visit.started),
        standing: refusal.standing().copied(),
    })
}

/// An answer that no version of the object gives to this question.
pub(super) fn unexpected(reply: &impl std::fmt::Debug) -> Problem {
    console_error(&format!("unexpected reply: {reply:?}"));
    unavailable()
}
