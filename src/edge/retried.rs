//! What a retried call is known by: read only on routes whose origin deduplicates, and only from
//! requests with an `Idempotency-Key`.

use std::collections::BTreeSet;

use super::{gateway::Gateway, visit::Visit};
use crate::{
    account::Fingerprint,
    id::KeyNumber,
    path::CanonicalPath,
    policy::Mode,
    problem::Problem,
    retried::{Content, idempotency_key},
};

impl Gateway {
    /// The digests of the request's `Idempotency-Key` and content, if it has one. They take the
    /// whole body, which is forwarded byte for byte.
    pub(super) async fn retried(
        &self,
        visit: &Visit,
        path: &CanonicalPath,
        priced_headers: &BTreeSet<&str>,
        key: KeyNumber,
        body: &mut Option<Vec<u8>>,
    ) -> Result<Option<Box<Fingerprint>>, Problem> {
        let named = visit.forwarded_values("idempotency-key");
        let Some(idempotency_key) = idempotency_key(&named)? else {
            return Ok(None);
        };
        let gateway = &self.deployment.policy.gateway;
        // No request can be made anew with the body of a GET: it is forwarded from the one that came.
        let stays = matches!(visit.method.as_str(), "GET" | "HEAD");
        let mut read = Vec::new();
        if body.is_none() {
            let kept = stays || gateway.mode == Mode::Observe;
            read = visit.body(gateway.body_limit, kept).await?;
            if !stays {
                *body = Some(std::mem::take(&mut read));
            }
        }
        let priced_headers: Vec<_> = priced_headers
            .iter()
            .map(|name| (*name, visit.forwarded_values(name)))
            .collect();
        let url = visit.url();
        let content = Content {
            method: &visit.method,
            host: &url.host(),
            path: path.as_str(),
            query: url.query.unwrap_or(""),
            body: body.as_deref().unwrap_or(&read),
            priced_headers: &priced_headers,
        };
        let fingerprint = content.fingerprint(key, idempotency_key);
        Ok(Some(Box::new(fingerprint)))
    }
}
