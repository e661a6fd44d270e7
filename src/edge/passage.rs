//! What a request is for, whose key it carries, and what it has to pay.

use std::collections::BTreeSet;

use super::{
    gateway::{Gateway, Interruption},
    log::Line,
    visit::Visit,
};
use crate::{
    account::Fingerprint,
    credits::Credits,
    key::{Carriers, Presented, PresentedKey},
    path::CanonicalPath,
    policy::{
        Access, Amount, Cors, Mode, Price, Route,
        quote::{self, Choice, Chosen, Facts, choose},
        router::{Found, Page},
    },
    price::Terms,
    problem::{Code, Problem},
};

/// What usage lists as the endpoint of a path that no route names.
const UNMATCHED_ENDPOINT: &str = "*";

/// What a request turns out to be.
pub(super) enum Destination {
    Through(Passage),
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

/// A request that may pass.
pub(super) struct Passage {
    /// The path to forward it with.
    pub(super) path: String,
    /// The route, unless no route names the path.
    pub(super) route: Option<&'static Route>,
    /// The body, if it was read.
    pub(super) body: Option<Vec<u8>>,
    /// Which headers carry Tollgate's key.
    pub(super) carriers: Carriers,
    /// What it has to pay and who pays; `None` for public routes, and where observing found no one.
    pub(super) fare: Option<Fare>,
    /// What enforcing would have answered.
    pub(super) would_refuse: Option<&'static str>,
}

/// The route's template, as usage lists it.
pub(super) fn endpoint_of(route: Option<&Route>) -> &str {
    route.map_or(UNMATCHED_ENDPOINT, |route| &route.template)
}

/// What a request has to pay, and whose key it carries.
pub(super) struct Fare {
    pub(super) key: PresentedKey,
    pub(super) terms: Terms,
    /// The response header that tells the quantity.
    pub(super) reported_in: Option<String>,
    /// What a retried call is known by.
    pub(super) retried: Option<Box<Fingerprint>>,
}

impl Fare {
    /// The least that it may come to: nothing, if it turns out to be a repeat.
    pub(super) const fn least(&self) -> Credits {
        if self.retried.is_some() {
            Credits::ZERO
        } else {
            self.terms.least
        }
    }
}

impl Gateway {
    /// What the request is for, and what it costs.
    pub(super) async fn destination(
        &self,
        visit: &Visit,
        line: &mut Line,
    ) -> Result<Destination, Interruption> {
        let observes = self.deployment.policy.gateway.mode == Mode::Observe;
        let url = visit.url();
        let path = match CanonicalPath::parse(url.path) {
            Ok(path) => path,
            Err(_) if observes => {
                return Ok(Destination::Through(Passage::observed(
                    url.path,
                    self.carriers(visit),
                    Code::BadPath,
                )));
            }
            Err(bad) => return Err(Problem::new(Code::BadPath, bad.to_string()).into()),
        };
        let host = url.host();
        if let Some(preflight) = self.preflight(visit, &host, &path, line) {
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

    /// A preflight: of Tollgate's own paths answered here, of others by the origin or the policy,
    /// of public routes forwarded as they are.
    fn preflight(
        &self,
        visit: &Visit,
        host: &str,
        path: &CanonicalPath,
        line: &mut Line,
    ) -> Option<Destination> {
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
                let route = *candidates.first()?;
                line.route = Some(route.template.clone());
                let carriers = self.carriers(visit);
                Some(Destination::Through(Passage::free(
                    path,
                    Some(route),
                    None,
                    carriers,
                )))
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

    /// The key, then the route and its price.
    async fn passage(
        &self,
        visit: &Visit,
        path: &CanonicalPath,
        found: Found<'static>,
        line: &mut Line,
    ) -> Result<Passage, Interruption> {
        // Where a route may be public, which one it is comes before the key.
        let may_be_public = match &found {
            Found::Candidates(candidates) => candidates
                .iter()
                .any(|route| route.access == Access::Public),
            _ => false,
        };
        let mut key = None;
        if !may_be_public {
            key = Some(self.key(visit, line).await?);
        }
        let mut body = None;
        let mut priced_headers = BTreeSet::new();
        let (route, terms, reported_in) = match found {
            Found::Candidates(candidates) => {
                let chosen = self.choose(visit, &candidates, &mut body).await?;
                line.route = Some(chosen.route.template.clone());
                if chosen.route.idempotent {
                    priced_headers = quote::priced_headers(&candidates);
                }
                (Some(chosen.route), chosen.terms, reported_in(chosen.route))
            }
            Found::Unmatched(price) => {
                line.route = Some(UNMATCHED_ENDPOINT.to_owned());
                let on_unknown = self.deployment.policy.gateway.on_unknown;
                let terms = price
                    .terms(None, on_unknown)
                    .map_err(|bad| Problem::new(Code::BadRequest, bad.to_string()))?;
                (None, Some(terms), reported_by(price))
            }
            Found::NotAllowed { allow } => return Err(Problem::method_not_allowed(allow).into()),
            Found::NoRoute | Found::SelfService(_) | Found::Admin => {
                return Err(no_route(path).into());
            }
        };
        let Some(terms) = terms else {
            return Ok(Passage::free(path, route, body, self.carriers(visit)));
        };
        let (key, carriers) = match key {
            Some(key) => key,
            None => self.key(visit, line).await?,
        };
        let retried = match route {
            Some(route) if route.idempotent => {
                self.retried(visit, path, &priced_headers, key.key, &mut body)
                    .await?
            }
            _ => None,
        };
        let fare = Fare {
            key,
            terms,
            reported_in,
            retried,
        };
        Ok(Passage {
            fare: Some(fare),
            ..Passage::free(path, route, body, carriers)
        })
    }

    /// Chooses the route and its terms, reading the body only if they depend on it.
    async fn choose(
        &self,
        visit: &Visit,
        candidates: &[&'static Route],
        body: &mut Option<Vec<u8>>,
    ) -> Result<Chosen<'static>, Problem> {
        let gateway = &self.deployment.policy.gateway;
        let header = |name: &str| visit.forwarded_values(name);
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
                Choice::NeedsBody => {
                    // Observing, a body that is refused is forwarded all the same.
                    let kept = gateway.mode == Mode::Observe;
                    *body = Some(visit.body(gateway.body_limit, kept).await?);
                }
            }
        }
    }

    /// The key that the request carries: verified by its MAC alone, or looked up where it was issued
    /// before Tollgate.
    pub(super) async fn key(
        &self,
        visit: &Visit,
        line: &mut Line,
    ) -> Result<(PresentedKey, Carriers), Problem> {
        let (authorization, x_api_key) = (visit.header("Authorization"), visit.header("X-API-Key"));
        let (key, carriers) = match self.presented(authorization.as_deref(), x_api_key.as_deref()) {
            Presented::None => {
                return Err(Problem::new(
                    Code::MissingKey,
                    "this call needs a key: send it as \"Authorization: Bearer KEY\" or \"X-API-Key: KEY\"",
                ));
            }
            Presented::TwoDifferent => {
                return Err(Problem::new(
                    Code::BadRequest,
                    "this request carries two different keys",
                ));
            }
            Presented::Mixed => {
                return Err(Problem::new(
                    Code::BadRequest,
                    "this request carries a key and another credential in one header",
                ));
            }
            Presented::Key { text, carriers } => {
                let prefixes = &self.deployment.policy.gateway.key_prefixes;
                let verified = self.deployment.keyring.verify(prefixes, text);
                (verified.map_err(|_| not_ours())?, carriers)
            }
            Presented::Imported { text, carriers } => {
                (self.imported_key(visit, text, line).await?, carriers)
            }
        };
        line.account = Some(key.account.to_string());
        line.key = Some(key.id().to_string());
        Ok((key, carriers))
    }

    fn presented<'a>(
        &self,
        authorization: Option<&'a str>,
        x_api_key: Option<&'a str>,
    ) -> Presented<'a> {
        let policy = &self.deployment.policy;
        Presented::read(
            authorization,
            x_api_key,
            &policy.gateway.key_prefixes,
            policy.imported_keys.as_ref(),
        )
    }

    /// The headers that carry what looks like Tollgate's key.
    fn carriers(&self, visit: &Visit) -> Carriers {
        let (authorization, x_api_key) = (visit.header("Authorization"), visit.header("X-API-Key"));
        match self.presented(authorization.as_deref(), x_api_key.as_deref()) {
            Presented::Key { carriers, .. } | Presented::Imported { carriers, .. } => carriers,
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
}

impl Passage {
    /// Nothing to pay: on a public route, or not yet known what.
    fn free(
        path: &CanonicalPath,
        route: Option<&'static Route>,
        body: Option<Vec<u8>>,
        carriers: Carriers,
    ) -> Self {
        Self {
            path: path.as_str().to_owned(),
            route,
            body,
            carriers,
            fare: None,
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

/// Nobody's key.
pub(super) fn not_ours() -> Problem {
    Problem::new(Code::InvalidKey, "this key is not one of this gateway's")
}

fn no_route(path: &CanonicalPath) -> Problem {
    Problem::new(
        Code::NoRoute,
        format!("there is nothing at {}", path.as_str()),
    )
}
