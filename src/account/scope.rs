//! Which routes a key may call.

use crate::wire::{Decode, Encode};

use super::Rejected;
use crate::policy::{Access, Route};

/// At most so many items.
pub const SCOPE_MAX: usize = 50;

/// The routes that a key may call: each item is a route's `match` as the policy has it
/// (`POST /search`), or all routes of a method below a path (`GET /tracks/*`).
///
/// An item is held against the text of `match`, not against paths. So a route that is renamed or
/// leaves the policy is out of every scope that named it, and no new route comes into a scope but
/// below a path that the scope names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Scope(#[n(0)] Vec<String>);

impl Scope {
    /// A scope of these items, which are checked where the policy is known: [`Scope::check`].
    #[must_use]
    pub const fn new(items: Vec<String>) -> Self {
        Self(items)
    }

    /// Whether each item names a route that needs a key.
    ///
    /// # Errors
    /// The first that names none.
    pub fn check(&self, routes: &[Route]) -> Result<(), Rejected> {
        let names_none = |item: &String| {
            let mut priced = routes.iter().filter(|route| route.access != Access::Public);
            !priced.any(|route| covers(item, &route.method, &route.template))
        };
        match self.0.iter().position(names_none) {
            Some(index) => Err(Rejected::OutsidePolicy {
                index,
                item: self.0.get(index).cloned().unwrap_or_default(),
            }),
            None => Ok(()),
        }
    }

    /// Whether the route of `template` may be called with `method`. HEAD is GET, unless the policy
    /// has that route for HEAD too.
    #[must_use]
    pub fn includes(&self, method: &str, template: &str, routes: &[Route]) -> bool {
        let names_head = || {
            let mut routes = routes.iter();
            routes.any(|route| route.method == method && route.template == template)
        };
        let method = match method {
            "HEAD" if !names_head() => "GET",
            method => method,
        };
        self.0.iter().any(|item| covers(item, method, template))
    }
}

fn covers(item: &str, method: &str, template: &str) -> bool {
    let Some((of_method, path)) = item.split_once(' ') else {
        return false;
    };
    let fits = match path.strip_suffix("/*") {
        Some(above) => template
            .strip_prefix(above)
            .is_some_and(|below| below.starts_with('/')),
        None => template == path,
    };
    fits && method == of_method
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::policy::Policy;

    fn routes() -> Vec<Route> {
        let text = r#"
            [gateway]
            key_prefix = "tk"
            [origins]
            default = "https://origin.example.com"
            [pools.credits]
            [plans.free]
            [[routes]]
            match = "POST /search"
            cost = 1
            [[routes]]
            match = "GET /tracks/{id}/preview"
            cost = 0
            [[routes]]
            match = "HEAD /tracks/{id}/preview"
            cost = 0
            [[routes]]
            match = "GET /tracks/*"
            cost = 0
            [[routes]]
            match = "POST /hooks/*"
            public = true
            "#;
        Policy::parse(text).unwrap().routes
    }

    fn scope(items: &[&str]) -> Scope {
        Scope::new(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn an_item_names_a_route_or_all_below_a_path() {
        for (item, method, template, included) in [
            ("POST /search", "POST", "/search", true),
            ("POST /search", "GET", "/search", false),
            ("POST /search", "POST", "/searches", false),
            ("POST /search", "POST", "/search/", false),
            ("POST /search", "POST", "*", false),
            (
                "GET /tracks/{id}/preview",
                "GET",
                "/tracks/{id}/preview",
                true,
            ),
            (
                "GET /tracks/{id}/preview",
                "GET",
                "/tracks/{key}/preview",
                false,
            ),
            ("GET /tracks/*", "GET", "/tracks/*", true),
            ("GET /tracks/*", "GET", "/tracks/{id}/preview", true),
            ("GET /tracks/*", "GET", "/tracks/", true),
            ("GET /tracks/*", "GET", "/tracks", false),
            ("GET /tracks/*", "GET", "/tracksuits", false),
            ("GET /tracks/*", "POST", "/tracks/{id}", false),
            ("GET /*", "GET", "/anything", true),
            ("GET /*", "GET", "*", false),
            // Of a key whose route is there for HEAD as well, and of one whose route is not.
            ("GET /tracks/*", "HEAD", "/tracks/*", true),
            ("GET /tracks/*", "HEAD", "/tracks/{id}/preview", false),
            ("HEAD /tracks/*", "HEAD", "/tracks/{id}/preview", true),
            ("HEAD /tracks/*", "HEAD", "/tracks/*", false),
        ] {
            let told = scope(&["PUT /else", item]).includes(method, template, &routes());
            assert_eq!(told, included, "{item} for {method} {template}");
        }
    }

    #[test]
    fn an_item_that_names_no_route_with_a_key_is_told() {
        for item in [
            "POST /search",
            "GET /tracks/{id}/preview",
            "HEAD /tracks/*",
            "GET /*",
        ] {
            assert_eq!(scope(&[item]).check(&routes()), Ok(()), "{item}");
        }
        for item in [
            "",
            "/search",
            "POST",
            "post /search",
            "POST  /search",
            "POST /search ",
            "POST search",
            "POST /search/",
            "POST /searc*",
            "POST *",
            "* /search",
            "GET /tracks/{key}/preview",
            "DELETE /*",
            // Open to everybody: there is no key to be asked.
            "POST /hooks/*",
        ] {
            let expected = Err(Rejected::OutsidePolicy {
                index: 1,
                item: item.to_owned(),
            });
            assert_eq!(
                scope(&["GET /*", item]).check(&routes()),
                expected,
                "{item}"
            );
        }
    }
}
