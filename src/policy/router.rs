//! Which routes a request is for.
//!
//! One tree over the templates of all routes, keyed by the folded text of their literals: a walk
//! finds the routes that a path fits exactly and those that it fits but for its case or a closing
//! slash. The second kind matters because many origins do not tell the spellings apart: without
//! it, `/Search` would be served as `/search` and paid for as whatever else it matches.

use std::collections::BTreeMap;

use super::{
    Policy, Price, Route,
    template::{Segment, Template, toggle_slash},
};
use crate::path::{self, CanonicalPath};

/// The admin API's place, on every host and outside `base_path`.
const ADMIN: &str = "/_tollgate";

/// Finds the routes of a checked policy.
#[derive(Debug)]
pub struct Router<'p> {
    routes: Vec<Entry<'p>>,
    tree: Node,
    pages: Vec<(Template, Page)>,
    /// The same tree over the pages.
    page_tree: Node,
    unmatched: Option<&'p Price>,
}

/// What a request is for.
#[derive(Debug)]
pub enum Found<'p> {
    /// The routes that fit, in the order of the file, none of which can be skipped but by its
    /// `when`; never empty. The first whose `when` holds is taken.
    Candidates(Vec<&'p Route>),
    /// The path is known, the method is not: 405.
    NotAllowed {
        /// The value of `Allow`; empty where nothing is allowed.
        allow: String,
    },
    /// A path that no route names, at the price of `unmatched`.
    Unmatched(&'p Price),
    /// 404: a path that no route names and that has no price, or one that differs from a known
    /// path only by case or a closing slash, which never has one.
    NoRoute,
    /// One of Tollgate's own pages, whatever the method.
    SelfService(Page),
    /// `/_tollgate` and everything under it, whatever the method.
    Admin,
}

/// The pages where customers read about themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `GET /me`.
    Me,
    /// `GET /usage`.
    Usage,
    /// `GET /usage/summary`.
    UsageSummary,
    /// `GET /ledger`.
    Ledger,
    /// `GET /get-credits`.
    GetCredits,
    /// `GET /quote`.
    Quote,
    /// `POST /credits/purchase`.
    Purchase,
    /// `POST /subscription`.
    Subscription,
    /// `GET /billing/history`.
    BillingHistory,
    /// `POST /billing/portal`.
    BillingPortal,
    /// `GET` and `PUT /credits/top-up`.
    TopUp,
    /// `POST /credits/top-up/retry`.
    TopUpRetry,
}

impl Page {
    /// What is allowed there (RFC 9110 §10.2.1).
    #[must_use]
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Me
            | Self::Usage
            | Self::UsageSummary
            | Self::Ledger
            | Self::GetCredits
            | Self::Quote
            | Self::BillingHistory => "GET, HEAD",
            Self::Purchase | Self::Subscription | Self::BillingPortal | Self::TopUpRetry => "POST",
            Self::TopUp => "GET, HEAD, PUT",
        }
    }

    /// Whether what is wanted is told in a body.
    #[must_use]
    pub const fn takes_body(self) -> bool {
        match self {
            Self::Me
            | Self::Usage
            | Self::UsageSummary
            | Self::Ledger
            | Self::GetCredits
            | Self::Quote
            | Self::BillingHistory => false,
            Self::Purchase
            | Self::Subscription
            | Self::BillingPortal
            | Self::TopUp
            | Self::TopUpRetry => true,
        }
    }
}

#[derive(Debug)]
struct Entry<'p> {
    route: &'p Route,
    template: Template,
}

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    name: Option<Box<Node>>,
    /// The routes whose template ends here.
    ends: Vec<usize>,
    /// The routes whose template ends in `*` here.
    rests: Vec<usize>,
}

impl<'p> Router<'p> {
    /// A router for the routes and pages of `policy`.
    #[must_use]
    pub fn new(policy: &'p Policy) -> Self {
        let base_path = &policy.gateway.base_path;
        let mut routes = Vec::with_capacity(policy.routes.len());
        let mut tree = Node::default();
        for route in &policy.routes {
            // A checked policy's templates all parse; one that did not would match nothing.
            let Some(template) = full_template(base_path, route) else {
                continue;
            };
            tree.insert(template.segments(), routes.len());
            routes.push(Entry { route, template });
        }
        let pages = pages(policy);
        let mut page_tree = Node::default();
        for (index, (template, _)) in pages.iter().enumerate() {
            page_tree.insert(template.segments(), index);
        }
        Self {
            routes,
            tree,
            pages,
            page_tree,
            unmatched: policy.gateway.unmatched.as_ref(),
        }
    }

    /// What a request with this method, to this host (lower case, no port) and path is for.
    #[must_use]
    pub fn find(&self, method: &str, host: &str, path: &CanonicalPath) -> Found<'p> {
        let folded = path.folded();
        let spellings = [folded.as_str(), &toggle_slash(&folded)];
        match self.own(path, spellings) {
            Some(found) => found,
            None => self.find_route(method, host, path, spellings),
        }
    }

    /// Tollgate's own paths come before any route.
    fn own(&self, path: &CanonicalPath, spellings: [&str; 2]) -> Option<Found<'p>> {
        if is_admin(path.as_str()) {
            return Some(Found::Admin);
        }
        if spellings.into_iter().any(is_admin) {
            return Some(Found::NoRoute);
        }
        let near = self.page_tree.find(spellings);
        let page = near
            .iter()
            .filter_map(|index| self.pages.get(*index))
            .find(|(template, _)| template.matches(path));
        match page {
            Some((_, page)) => Some(Found::SelfService(*page)),
            None => (!near.is_empty()).then_some(Found::NoRoute),
        }
    }

    fn find_route(
        &self,
        method: &str,
        host: &str,
        path: &CanonicalPath,
        spellings: [&str; 2],
    ) -> Found<'p> {
        // Exact or near, in the order of the file.
        let fits: Vec<Fit<'_, 'p>> = self
            .tree
            .find(spellings)
            .into_iter()
            .filter_map(|index| self.routes.get(index))
            .filter(|entry| entry.route.host.as_deref().is_none_or(|only| only == host))
            .map(|entry| Fit {
                entry,
                exact: entry.template.matches(path),
            })
            .collect();
        let method = priced_as(method, &fits);
        let (mut candidates, mut near) = (Vec::new(), Vec::new());
        for Fit { entry, exact } in &fits {
            if Some(entry.route.method.as_str()) != method {
                continue;
            }
            if !exact {
                near.push(&entry.template);
                continue;
            }
            // An origin blind to the difference would serve what `near` prices.
            if near.iter().any(|near| !entry.template.spells(near)) {
                return Found::NoRoute;
            }
            candidates.push(entry.route);
            if entry.route.when.is_empty() {
                break;
            }
        }
        if !candidates.is_empty() {
            Found::Candidates(candidates)
        } else if method.is_none() || fits.iter().any(|fit| fit.exact) {
            Found::NotAllowed {
                allow: allow(&fits),
            }
        } else {
            match self.unmatched {
                Some(price) if fits.is_empty() => Found::Unmatched(price),
                _ => Found::NoRoute,
            }
        }
    }
}

struct Fit<'r, 'p> {
    entry: &'r Entry<'p>,
    exact: bool,
}

impl Node {
    fn insert(&mut self, segments: &[Segment], index: usize) {
        let mut node = self;
        for segment in segments {
            node = match segment {
                Segment::Literal { folded, .. } => node.literals.entry(folded.clone()).or_default(),
                Segment::Name => node.name.get_or_insert_default(),
                Segment::Rest => {
                    node.rests.push(index);
                    return;
                }
            };
        }
        node.ends.push(index);
    }

    /// What fits the folded path, with or without a closing slash, each once and in the order of
    /// the file.
    fn find(&self, spellings: [&str; 2]) -> Vec<usize> {
        let mut found = Vec::new();
        for folded in spellings {
            self.walk(folded, &mut found);
        }
        found
    }

    /// Visits each node at most once: the work is bounded by the tree, whatever the path.
    fn walk(&self, folded: &str, found: &mut Vec<usize>) {
        let mut level = vec![self];
        let mut next = Vec::new();
        for segment in path::segments(folded) {
            for node in level.drain(..) {
                #[cfg(test)]
                crate::steps::count();
                add(&node.rests, found);
                next.extend(node.literals.get(segment));
                next.extend(node.name.as_deref().filter(|_| !segment.is_empty()));
            }
            if next.is_empty() {
                return;
            }
            std::mem::swap(&mut level, &mut next);
        }
        for node in level {
            add(&node.ends, found);
        }
    }
}

/// Adds `items` to what is found, each once and in order.
fn add<T: Copy + Ord>(items: &[T], found: &mut Vec<T>) {
    for item in items {
        if let Err(at) = found.binary_search(item) {
            found.insert(at, *item);
        }
    }
}

/// The template of a route on the whole path.
pub(super) fn full_template(base_path: &str, route: &Route) -> Option<Template> {
    let template = Template::parse(&route.template).ok()?;
    Some(if route.root {
        template
    } else {
        template.under(base_path)
    })
}

/// Where each page that is switched on stands on the whole path.
pub(super) fn pages(policy: &Policy) -> Vec<(Template, Page)> {
    let names = &policy.self_service;
    [
        (&names.me, Page::Me),
        (&names.usage, Page::Usage),
        (&names.usage_summary, Page::UsageSummary),
        (&names.ledger, Page::Ledger),
        (&names.get_credits, Page::GetCredits),
        (&names.quote, Page::Quote),
        (&names.purchase, Page::Purchase),
        (&names.subscription, Page::Subscription),
        (&names.billing_history, Page::BillingHistory),
        (&names.billing_portal, Page::BillingPortal),
        (&names.top_up, Page::TopUp),
        (&names.top_up_retry, Page::TopUpRetry),
    ]
    .into_iter()
    .filter_map(|(path, page)| {
        let template = Template::parse(path.as_deref()?).ok()?;
        Some((template.under(&policy.gateway.base_path), page))
    })
    .collect()
}

/// Whether this path is the admin API's, to a reader blind to case if it comes folded.
pub(super) fn is_admin(path: &str) -> bool {
    path.strip_prefix(ADMIN)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The method whose routes are meant; `None` where the method is never allowed. HEAD is GET
/// unless a route names it (RFC 9110 §9.3.2: the same answer without its body).
fn priced_as<'m>(method: &'m str, fits: &[Fit<'_, '_>]) -> Option<&'m str> {
    let named = || {
        fits.iter()
            .any(|fit| fit.exact && fit.entry.route.method == method)
    };
    match method {
        "CONNECT" | "TRACE" => None,
        "HEAD" if !named() => Some("GET"),
        other => Some(other),
    }
}

/// `Allow` (RFC 9110 §10.2.1) for the path as it is spelled.
fn allow(fits: &[Fit<'_, '_>]) -> String {
    let mut methods = Vec::new();
    for fit in fits.iter().filter(|fit| fit.exact) {
        match fit.entry.route.method.as_str() {
            "GET" => add(&["GET", "HEAD"], &mut methods),
            method => add(&[method], &mut methods),
        }
    }
    methods.join(", ")
}
