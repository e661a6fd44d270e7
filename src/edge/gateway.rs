//! The story of a request: whose is it, what is it for, may it pass; then forward and settle.

use std::rc::Rc;

use futures_channel::oneshot;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use super::{
    accounts::Objects,
    answer::{self, About, Refused},
    deployment::Deployment,
    forward::{Forward, Identity, OriginFailure},
    log::Line,
    platform::{Context, Env},
    visit::Visit,
};
use crate::{
    account::{Admission, Admit, Refusal},
    call::Settle,
    credits::Credits,
    headers::{Dropped, Standing},
    id::{CallId, KeyId},
    key::{Carriers, Presented, PresentedKey},
    path::CanonicalPath,
    policy::{
        Access, Amount, Cors, Mode, Origin, Price, Route, WhenUnavailable,
        quote::{Choice, Facts, choose},
        router::{Found, Page},
    },
    price::{Quantity, Reported, Terms},
    problem::{Code, Problem},
    protocol::{Document, Read, Reply, Request},
    quote_page::quote_page,
    repeat::Caller,
    self_service,
    signature::Signed,
};

/// What usage lists as the endpoint of a path that no route names.
const UNMATCHED_ENDPOINT: &str = "*";
/// Methods that no gateway hands on (RFC 9110 §9.3.6 and §9.3.8).
const NEVER_FORWARDED: [&str; 2] = ["CONNECT", "TRACE"];

/// Answers one request. Cheap to make; what is kept is the deployment's.
#[derive(Clone)]
pub struct Gateway {
    pub(super) deployment: &'static Deployment,
    pub(super) env: Rc<Env>,
    context: Rc<Context>,
    pub(super) objects: Rc<Objects>,
}

/// A request that may pass.
struct Passage<'a> {
    /// The path to forward it with.
    path: String,
    /// The route, unless no route names the path.
    route: Option<&'a Route>,
    /// The body, if it was read.
    body: Option<Vec<u8>>,
    /// Which headers carry Tollgate's key.
    carriers: Carriers,
    /// What it has to pay and who pays; `None` for public routes, and where observing found no one.
    fare: Option<Fare>,
    /// What enforcing would have answered.
    would_refuse: Option<&'static str>,
}

/// What a request has to pay, and whose key it carries.
struct Fare {
    key: PresentedKey,
    terms: Terms,
    /// The response header that tells the quantity.
    reported_in: Option<String>,
}

/// A call on its way through.
struct Ride {
    fare: Fare,
    admission: Box<Admission>,
}

/// What a request turns out to be.
enum Destination<'a> {
    Through(Passage<'a>),
    Page(Page),
    Admin(CanonicalPath),
    /// A preflight that Tollgate answers, for this page's origin.
    Preflight {
        origin: Option<String>,
        methods: String,
    },
    /// A preflight that the origin answers.
    OriginPreflight {
        path: String,
    },
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

    /// Answers a request.
    ///
    /// # Errors
    /// What the platform throws where its own objects are built.
    pub async fn answer(self, request: web_sys::Request) -> Result<web_sys::Response, JsValue> {
        let visit = Rc::new(Visit::new(request)?);
        let mut line = Line {
            request_id: visit.request_id(),
            method: visit.method.clone(),
            ..Line::default()
        };
        match self.serve(&visit, &mut line).await {
            // The line of a forwarded call is written when it is settled.
            Ok(Served::Forwarded(answer)) => Ok(answer),
            Ok(Served::Own(answer)) => {
                line.answered(answer.status(), visit.started);
                line.write();
                Ok(answer)
            }
            Err(Interruption::Refused(refused)) => {
                let answer = refuse(&visit, &refused)?;
                line.code = Some(refused.problem.code.as_str());
                line.answered(answer.status(), visit.started);
                line.write();
                Ok(answer)
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

    /// What the request is for, and what it costs.
    async fn destination(
        &self,
        visit: &Visit,
        line: &mut Line,
    ) -> Result<Destination<'static>, Interruption> {
        let observes = self.deployment.policy.gateway.mode == Mode::Observe;
        let url = visit.url();
        let path = match CanonicalPath::parse(url.path) {
            Ok(path) => path,
            Err(bad) if observes => {
                let code = Problem::new(Code::BadPath, bad.to_string()).code;
                return Ok(Destination::Through(Passage::observed(
                    url.path,
                    self.carriers(visit),
                    code,
                )));
            }
            Err(bad) => return Err(Problem::new(Code::BadPath, bad.to_string()).into()),
        };
        let host = url.host();
        if let Some(preflight) = self.preflight(visit, &host, &path) {
            return Ok(preflight);
        }
        let found = self.deployment.router.find(&visit.method, &host, &path);
        match found {
            Found::SelfService(page) => return Ok(Destination::Page(page)),
            Found::Admin => return Ok(Destination::Admin(path)),
            Found::Candidates(_)
            | Found::NotAllowed { .. }
            | Found::Unmatched(_)
            | Found::NoRoute => {}
        }
        match self.passage(visit, &path, found, line).await {
            Ok(passage) => Ok(Destination::Through(passage)),
            Err(Interruption::Refused(refused)) if observes => {
                let code = refused.problem.code;
                Ok(Destination::Through(Passage::observed(
                    path.as_str(),
                    self.carriers(visit),
                    code,
                )))
            }
            Err(interruption) => Err(interruption),
        }
    }

    /// The key, then the route and its price.
    async fn passage(
        &self,
        visit: &Visit,
        path: &CanonicalPath,
        found: Found<'static>,
        line: &mut Line,
    ) -> Result<Passage<'static>, Interruption> {
        let candidates = match &found {
            Found::Candidates(candidates) => candidates.as_slice(),
            _ => &[],
        };
        // Where a route may be public, which one it is comes before the key.
        let may_be_public = candidates
            .iter()
            .any(|route| route.access == Access::Public);
        let mut body = None;
        if may_be_public {
            let chosen = self.choose(visit, candidates, &mut body).await?;
            line.route = Some(chosen.route.template.clone());
            let Some(terms) = chosen.terms else {
                return Ok(Passage {
                    path: path.as_str().to_owned(),
                    route: Some(chosen.route),
                    body,
                    carriers: self.carriers(visit),
                    fare: None,
                    would_refuse: None,
                });
            };
            let (key, carriers) = self.key(visit, line)?;
            let reported_in = reported_in(chosen.route);
            return Ok(Passage::paid(
                path,
                Some(chosen.route),
                body,
                carriers,
                Fare {
                    key,
                    terms,
                    reported_in,
                },
            ));
        }
        let (key, carriers) = self.key(visit, line)?;
        match found {
            Found::Candidates(candidates) => {
                let chosen = self.choose(visit, &candidates, &mut body).await?;
                line.route = Some(chosen.route.template.clone());
                let terms = chosen.terms.ok_or_else(|| no_route(path))?;
                let reported_in = reported_in(chosen.route);
                Ok(Passage::paid(
                    path,
                    Some(chosen.route),
                    body,
                    carriers,
                    Fare {
                        key,
                        terms,
                        reported_in,
                    },
                ))
            }
            Found::Unmatched(price) => {
                line.route = Some(UNMATCHED_ENDPOINT.to_owned());
                let on_unknown = self.deployment.policy.gateway.on_unknown;
                let terms = price
                    .terms(None, on_unknown)
                    .map_err(|bad| Problem::new(Code::BadRequest, bad.to_string()))?;
                let reported_in = reported_by(price);
                Ok(Passage::paid(
                    path,
                    None,
                    None,
                    carriers,
                    Fare {
                        key,
                        terms,
                        reported_in,
                    },
                ))
            }
            Found::NotAllowed { allow } => Err(Problem::method_not_allowed(allow).into()),
            Found::NoRoute | Found::SelfService(_) | Found::Admin => Err(no_route(path).into()),
        }
    }

    /// Chooses the route and its terms, reading the body only if they depend on it.
    async fn choose(
        &self,
        visit: &Visit,
        candidates: &[&'static Route],
        body: &mut Option<Vec<u8>>,
    ) -> Result<crate::policy::quote::Chosen<'static>, Problem> {
        let gateway = &self.deployment.policy.gateway;
        let connection = visit.header("Connection");
        let dropped = Dropped::of(connection.as_deref());
        // A header that is not forwarded must not set a price, either.
        let header = |name: &str| {
            if dropped.contains(name) {
                return Vec::new();
            }
            visit.header(name).into_iter().collect()
        };
        loop {
            let url = visit.url();
            let facts = Facts {
                query: url.query.unwrap_or(""),
                header: &header,
                body: body.as_deref(),
            };
            match choose(candidates, facts, gateway.on_unknown) {
                Choice::Made(chosen) => return Ok(chosen),
                Choice::Refused(bad) => {
                    return Err(Problem::new(Code::BadRequest, bad.to_string()));
                }
                Choice::NeedsBody => *body = Some(visit.body(gateway.body_limit).await?),
            }
        }
    }

    /// The key that the request carries, verified by its MAC alone.
    fn key(&self, visit: &Visit, line: &mut Line) -> Result<(PresentedKey, Carriers), Problem> {
        let prefixes = &self.deployment.policy.gateway.key_prefixes;
        let (authorization, x_api_key) = (visit.header("Authorization"), visit.header("X-API-Key"));
        match Presented::read(authorization.as_deref(), x_api_key.as_deref(), prefixes) {
            Presented::None => Err(Problem::new(
                Code::MissingKey,
                "this call needs a key: send it as \"Authorization: Bearer KEY\" or \"X-API-Key: KEY\"",
            )),
            Presented::TwoDifferent => Err(Problem::new(
                Code::BadRequest,
                "this request carries two different keys",
            )),
            Presented::Mixed => Err(Problem::new(
                Code::BadRequest,
                "this request carries a key and another credential in one header",
            )),
            Presented::Key { text, carriers } => {
                let key = self
                    .deployment
                    .keyring
                    .verify(prefixes, text)
                    .map_err(|_| {
                        Problem::new(Code::InvalidKey, "this key is not one of this gateway's")
                    })?;
                line.account = Some(key.account.to_string());
                line.key = Some(key_id(&key).to_string());
                Ok((key, carriers))
            }
        }
    }

    /// The headers that carry what looks like Tollgate's key.
    fn carriers(&self, visit: &Visit) -> Carriers {
        let (authorization, x_api_key) = (visit.header("Authorization"), visit.header("X-API-Key"));
        let prefixes = &self.deployment.policy.gateway.key_prefixes;
        match Presented::read(authorization.as_deref(), x_api_key.as_deref(), prefixes) {
            Presented::Key { carriers, .. } => carriers,
            Presented::None => Carriers {
                authorization: false,
                x_api_key: false,
            },
            Presented::TwoDifferent | Presented::Mixed => Carriers {
                authorization: true,
                x_api_key: true,
            },
        }
    }

    /// A preflight: of Tollgate's own paths answered here, of others by the origin or the policy,
    /// of public routes nobody's business.
    fn preflight(
        &self,
        visit: &Visit,
        host: &str,
        path: &CanonicalPath,
    ) -> Option<Destination<'static>> {
        if visit.method != "OPTIONS" {
            return None;
        }
        let origin = visit.header("Origin")?;
        let method = visit.header("Access-Control-Request-Method")?;
        match self.deployment.router.find(&method, host, path) {
            Found::SelfService(_) | Found::Admin => Some(Destination::Preflight {
                origin: Some("*".to_owned()),
                methods: "GET, POST, PUT, PATCH, DELETE".to_owned(),
            }),
            Found::Candidates(candidates)
                if candidates
                    .iter()
                    .all(|route| route.access == Access::Public) =>
            {
                None
            }
            Found::Candidates(_)
            | Found::NotAllowed { .. }
            | Found::Unmatched(_)
            | Found::NoRoute => Some(match &self.deployment.policy.gateway.cors {
                Cors::Origin => Destination::OriginPreflight {
                    path: path.as_str().to_owned(),
                },
                Cors::Origins(origins) => Destination::Preflight {
                    origin: origins.contains(&origin).then_some(origin),
                    methods: method,
                },
            }),
        }
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
            timeout: gateway.origin_timeout,
        };
        let from_origin = forward
            .send_preflight(&self.env)
            .await
            .map_err(|failure| of_failure(&failure))?;
        let request_id = visit.request_id();
        let about = About {
            request_id: &request_id,
            standing: None,
            charged: None,
        };
        Ok(answer::hand_on(
            visit,
            &forward.origin_url(),
            &from_origin,
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
        if !matches!(visit.method.as_str(), "GET" | "HEAD") {
            return Err(Problem::method_not_allowed("GET, HEAD").into());
        }
        let (key, _) = self.key(visit, line)?;
        let url = visit.url();
        if page == Page::Quote {
            let deployment = self.deployment;
            let json = quote_page(
                deployment.policy,
                &deployment.router,
                &url.host(),
                url.query,
            )?;
            return Ok(self.show_document(visit, &Document::told(json))?);
        }
        let page = self_service::read(page, url.query)?;
        let read = Request::Read(Read {
            key: key.key,
            digest: key.digest,
            page,
        });
        match self.ask(&key.account, &read, line).await? {
            Reply::Document(document) => Ok(self.show_document(visit, &document)?),
            Reply::Refused(refusal) => Err(self.refused(visit, &refusal)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn show_document(
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
        account: &crate::id::AccountId,
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

    /// Admits the call, forwards it, and has it settled whatever the client does meanwhile.
    async fn pass(
        &self,
        visit: &Rc<Visit>,
        mut passage: Passage<'static>,
        line: &mut Line,
    ) -> Result<Served, Interruption> {
        line.would_refuse = passage.would_refuse;
        let ride = match passage.fare.take() {
            None => None,
            Some(fare) => self.admit(visit, passage.route, fare, line).await?,
        };
        let (to_client, answered) = oneshot::channel();
        let journey = Journey {
            gateway: self.clone(),
            visit: Rc::clone(visit),
            passage,
            ride,
            line: std::mem::take(line),
        };
        // Registered before the origin is called: a client that hangs up changes nothing.
        let whole = future_to_promise(async move {
            journey.make(to_client).await;
            Ok(JsValue::UNDEFINED)
        });
        self.context.wait_until(&whole)?;
        answered
            .await
            .map(Served::Forwarded)
            .map_err(|_| Interruption::Thrown(JsValue::from_str("the call was interrupted")))
    }

    async fn admit(
        &self,
        visit: &Visit,
        route: Option<&'static Route>,
        fare: Fare,
        line: &mut Line,
    ) -> Result<Option<Ride>, Interruption> {
        let deployment = self.deployment;
        let observes = deployment.policy.gateway.mode == Mode::Observe;
        let caller = Caller::of(&fare.key);
        let known = deployment.refusals.borrow_mut().recall(
            &caller,
            &fare.terms.pool,
            fare.terms.least,
            visit.started,
        );
        if let Some(refusal) = known.filter(|_| !observes) {
            return Err(self.refused(visit, &refusal));
        }
        let admit = Admit {
            operation: visit.operation,
            is_retry: false,
            key: fare.key.key,
            digest: fare.key.digest,
            method: visit.method.clone(),
            endpoint: route
                .map_or(UNMATCHED_ENDPOINT, |route| &route.template)
                .to_owned(),
            terms: fare.terms.clone(),
            repeated_refusals: deployment.refusals.borrow_mut().take_repeated(&caller),
        };
        let answer = match self.objects.admit(&fare.key.account, admit).await {
            Ok(answer) => answer,
            Err(failed) => {
                line.detail = Some(failed.detail);
                self.give_up(visit, &fare);
                let may_pass = observes
                    || route.is_some_and(|route| route.when_unavailable == WhenUnavailable::Allow);
                return if may_pass {
                    line.would_refuse = Some(Code::Unavailable.as_str());
                    Ok(None)
                } else {
                    Err(unavailable().into())
                };
            }
        };
        line.rows = line.rows.saturating_add(answer.rows_written);
        match answer.reply {
            Reply::Admitted(admission) => {
                line.request_id = call_id(&fare.key, &admission).to_string();
                line.would_refuse(admission.would_refuse.as_ref(), visit.started);
                Ok(Some(Ride { fare, admission }))
            }
            Reply::Refused(refusal) if observes => {
                line.would_refuse(Some(&refusal), visit.started);
                Ok(None)
            }
            Reply::Refused(refusal) => {
                deployment.refusals.borrow_mut().remember(
                    &caller,
                    &fare.terms.pool,
                    &refusal,
                    visit.started,
                );
                Err(self.refused(visit, &refusal))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// In the background: nobody will call with this admission, so it must not count.
    fn give_up(&self, visit: &Visit, fare: &Fare) {
        let (objects, account, operation) = (
            Rc::clone(&self.objects),
            fare.key.account.clone(),
            visit.operation,
        );
        let cancelled = future_to_promise(async move {
            if let Err(failed) = objects.give_up(&account, operation).await {
                let event = serde_json::json!({ "event": "cancel_failed", "account": account, "detail": failed.detail });
                super::platform::console_error(&event.to_string());
            }
            Ok(JsValue::UNDEFINED)
        });
        // Where even this fails, the alarm ends the call.
        if let Err(thrown) = self.context.wait_until(&cancelled) {
            super::platform::console_error(&super::platform::message_of(&thrown));
        }
    }

    fn refused(&self, visit: &Visit, refusal: &Refusal) -> Interruption {
        Interruption::Refused(Box::new(Refused {
            problem: refusal.problem(visit.started),
            standing: refusal.standing().copied(),
        }))
    }

    fn origin(&self, visit: &Visit) -> &Origin {
        self.deployment
            .origin_override
            .as_ref()
            .unwrap_or_else(|| self.deployment.policy.origins.of(&visit.url().host()))
    }
}

/// An answer, and who writes its log line.
enum Served {
    /// Tollgate's own.
    Own(web_sys::Response),
    /// The origin's.
    Forwarded(web_sys::Response),
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

impl From<JsValue> for Interruption {
    fn from(thrown: JsValue) -> Self {
        Self::Thrown(thrown)
    }
}

impl Passage<'static> {
    fn paid(
        path: &CanonicalPath,
        route: Option<&'static Route>,
        body: Option<Vec<u8>>,
        carriers: Carriers,
        fare: Fare,
    ) -> Self {
        Self {
            path: path.as_str().to_owned(),
            route,
            body,
            carriers,
            fare: Some(fare),
            would_refuse: None,
        }
    }

    /// Observing, what would have been refused passes as it came.
    fn observed(path: &str, carriers: Carriers, code: Code) -> Self {
        Self {
            path: path.to_owned(),
            route: None,
            body: None,
            carriers,
            fare: None,
            would_refuse: Some(code.as_str()),
        }
    }
}

/// From the origin to the settlement: one promise, which outlives the client.
struct Journey {
    gateway: Gateway,
    visit: Rc<Visit>,
    passage: Passage<'static>,
    ride: Option<Ride>,
    line: Line,
}

impl Journey {
    async fn make(mut self, to_client: oneshot::Sender<web_sys::Response>) {
        let forwarded = self.forward().await;
        let (status, answered) = match &forwarded {
            Ok(from_origin) => (from_origin.status(), true),
            Err(failure) => (of_failure(failure).status(), false),
        };
        let reported = forwarded
            .as_ref()
            .ok()
            .and_then(|from_origin| self.reported(from_origin));
        if let Ok(answer) = self.answer(forwarded, answered, reported) {
            self.line.answered(answer.status(), self.visit.started);
            // The client may be gone: the call is settled all the same.
            drop(to_client.send(answer));
        }
        self.settle(status, answered, reported).await;
        self.line.write();
    }

    async fn forward(&mut self) -> Result<web_sys::Response, OriginFailure> {
        let identity = self.ride.as_ref().map(Ride::identity);
        let gateway = &self.gateway.deployment.policy.gateway;
        let keeps_key = gateway.forward_key;
        let route = self.passage.route;
        let forward = Forward {
            visit: &self.visit,
            origin: self.gateway.origin(&self.visit),
            path: &self.passage.path,
            body: self.passage.body.as_deref(),
            drop: if keeps_key {
                Carriers {
                    authorization: false,
                    x_api_key: false,
                }
            } else {
                self.passage.carriers
            },
            identity: identity.as_ref(),
            cache: route.is_some_and(|route| route.cache),
            upgrade: route.is_some_and(|route| route.upgrade),
            timeout: route.map_or(gateway.origin_timeout, |route| route.timeout),
        };
        let forwarded = forward
            .send(&self.gateway.env, &self.gateway.deployment.signer)
            .await;
        self.passage.body = None;
        forwarded
    }

    /// The quantity in the origin's answer, where the price asks for it.
    fn reported(&self, from_origin: &web_sys::Response) -> Option<Reported> {
        let header = self.ride.as_ref()?.fare.reported_in.as_ref()?;
        let value = from_origin.headers().get(header).ok().flatten();
        Some(
            value
                .as_deref()
                .and_then(Quantity::parse)
                .map_or(Reported::Unreadable, Reported::Value),
        )
    }

    fn answer(
        &mut self,
        forwarded: Result<web_sys::Response, OriginFailure>,
        answered: bool,
        reported: Option<Reported>,
    ) -> Result<web_sys::Response, JsValue> {
        let request_id = self.line.request_id.clone();
        match forwarded {
            Ok(from_origin) => {
                let (standing, charged) =
                    self.standing_after(from_origin.status(), answered, reported);
                let about = About {
                    request_id: &request_id,
                    standing: standing.as_ref(),
                    charged,
                };
                let origin_url = match self.gateway.origin(&self.visit) {
                    Origin::Url(url) => url.clone(),
                    Origin::Service(_) | Origin::Zone => self.visit.url().origin(),
                };
                answer::hand_on(&self.visit, &origin_url, &from_origin, &about)
            }
            Err(failure) => {
                if let OriginFailure::Unreachable(detail) = &failure {
                    self.line.detail = Some(detail.clone());
                }
                let problem = of_failure(&failure);
                self.line.code = Some(problem.code.as_str());
                let (standing, charged) = self.standing_after(problem.status(), answered, reported);
                let about = About {
                    request_id: &request_id,
                    standing: standing.as_ref(),
                    charged,
                };
                answer::problem(&self.visit, &problem.into(), &about)
            }
        }
    }

    /// How the key stands once the call is ended as its status says, and what it was charged.
    fn standing_after(
        &self,
        status: u16,
        answered: bool,
        reported: Option<Reported>,
    ) -> (Option<Standing>, Option<Credits>) {
        let Some(ride) = &self.ride else {
            return (None, None);
        };
        let observes = self.gateway.deployment.policy.gateway.mode == Mode::Observe;
        let (held, terms) = (ride.admission.held, &ride.fare.terms);
        let charged = if observes || !answered || !terms.charge_on.holds(status) {
            Some(Credits::ZERO)
        } else if terms.job.is_some() {
            None
        } else {
            Some(
                terms
                    .charge(held, reported.unwrap_or(Reported::Unreadable))
                    .credits,
            )
        };
        let comes_back = held.saturating_sub(charged.unwrap_or(held));
        let mut standing = ride.admission.standing;
        standing.credits_remaining = standing
            .credits_remaining
            .map(|rest| rest.saturating_add(comes_back));
        (Some(standing), charged)
    }

    /// Tells the account's object how the call ended. Where that fails twice, its alarm ends it.
    async fn settle(&mut self, status: u16, answered: bool, reported: Option<Reported>) {
        let Some(ride) = &self.ride else {
            return;
        };
        let settle = Request::Settle(Settle {
            call: ride.admission.call,
            operation: self.visit.operation,
            status,
            response_time_ms: u32::try_from(self.line.ms).unwrap_or(u32::MAX),
            answered,
            reported,
        });
        match self
            .gateway
            .objects
            .ask_again(&ride.fare.key.account, &settle)
            .await
        {
            Ok(answer) => self.line.rows = self.line.rows.saturating_add(answer.rows_written),
            Err(failed) => self.line.detail = Some(format!("not settled: {}", failed.detail)),
        }
    }
}

impl Ride {
    fn identity(&self) -> Identity {
        Identity {
            call: call_id(&self.fare.key, &self.admission).to_string(),
            account: self.fare.key.account.to_string(),
            key: key_id(&self.fare.key).to_string(),
            plan: self.admission.plan.clone(),
            external_id: self.admission.external_id.as_ref().map(ToString::to_string),
            held: self.admission.held,
        }
    }
}

fn refuse(visit: &Visit, refused: &Refused) -> Result<web_sys::Response, JsValue> {
    let request_id = visit.request_id();
    let about = About {
        request_id: &request_id,
        standing: refused.standing.as_ref(),
        charged: refused.standing.map(|_| Credits::ZERO),
    };
    answer::problem(visit, refused, &about)
}

fn key_id(key: &PresentedKey) -> KeyId {
    KeyId {
        account: key.account.clone(),
        number: key.key,
    }
}

fn call_id(key: &PresentedKey, admission: &Admission) -> CallId {
    CallId {
        account: key.account.clone(),
        number: admission.call,
    }
}

fn reported_in(route: &Route) -> Option<String> {
    match &route.access {
        Access::Public => None,
        Access::Priced(price) => reported_by(price),
    }
}

fn reported_by(price: &Price) -> Option<String> {
    match &price.amount {
        Amount::Reported { header, .. } => Some(header.clone()),
        Amount::Fixed(_) | Amount::Requested { .. } => None,
    }
}

fn no_route(path: &CanonicalPath) -> Problem {
    Problem::new(
        Code::NoRoute,
        format!("there is nothing at {}", path.as_str()),
    )
}

pub(super) fn unavailable() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the account cannot be asked right now; nothing was counted or charged",
    )
}

/// An answer that no version of the object gives to this question.
pub(super) fn unexpected(reply: &Reply) -> Interruption {
    super::platform::console_error(&format!("unexpected reply: {reply:?}"));
    unavailable().into()
}

fn of_failure(failure: &OriginFailure) -> Problem {
    match failure {
        OriginFailure::Unreachable(_) => Problem::new(
            Code::OriginUnreachable,
            "the origin could not be reached; nothing was charged",
        ),
        OriginFailure::Timeout => Problem::new(
            Code::OriginTimeout,
            "the origin did not answer in time; nothing was charged",
        ),
    }
}
