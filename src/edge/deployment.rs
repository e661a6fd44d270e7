//! What is the same for all requests of one isolate: the policy, the secrets and what is made of
//! them. Plain data only: nothing of one request may be kept for another.

use std::{
    cell::{OnceCell, RefCell},
    sync::Arc,
};

use super::{
    platform::{Env, compiled_policy},
    stripe::Stripe,
};
use crate::{
    imported::ImportedMemory,
    key::Keyring,
    policy::{Origin, Policy, router::Router},
    repeat::RefusalMemory,
    secrets::Secrets,
    signature::Signer,
    webhook::WebhookSigner,
};

/// A deployment that is fit to serve.
pub struct Deployment {
    /// What it sells.
    pub policy: &'static Policy,
    /// Finds routes.
    pub router: Router<'static>,
    /// Verifies and issues keys.
    pub keyring: Keyring,
    /// Signs for the origin.
    pub signer: Signer,
    /// The operator's and the origin's tokens.
    pub secrets: Secrets,
    /// Signs webhooks, where the policy has any sent.
    pub webhooks: Option<WebhookSigner>,
    /// Refusals that may be repeated without asking the object again.
    pub refusals: RefCell<RefusalMemory>,
    /// What is known of keys issued before Tollgate.
    pub imported_keys: RefCell<ImportedMemory>,
    /// Stripe, if payments are set up.
    pub stripe: Option<Stripe>,
    /// In development, where all calls go, whatever the policy says.
    pub origin_override: Option<Origin>,
}

thread_local! {
    static POLICY: OnceCell<Result<&'static Arc<Policy>, String>> = const { OnceCell::new() };
    static DEPLOYMENT: OnceCell<Result<&'static Deployment, String>> = const { OnceCell::new() };
}

/// The policy, read once.
///
/// # Errors
/// It was compiled for another version of this code.
pub fn policy() -> Result<Arc<Policy>, String> {
    shared_policy().map(Arc::clone)
}

fn shared_policy() -> Result<&'static Arc<Policy>, String> {
    POLICY.with(|policy| {
        policy
            .get_or_init(|| {
                // It lives as long as the isolate.
                Policy::from_compiled(&compiled_policy())
                    .map(|policy| &*Box::leak(Box::new(Arc::new(policy))))
            })
            .clone()
    })
}

impl Deployment {
    /// The deployment, made with the first request.
    ///
    /// # Errors
    /// Why it is not fit to serve, for the log: a policy of another version, secrets that are missing.
    pub fn of(env: &Env) -> Result<&'static Self, String> {
        DEPLOYMENT.with(|deployment| {
            deployment
                .get_or_init(|| Self::read(env).map(|deployment| &*Box::leak(Box::new(deployment))))
                .clone()
        })
    }

    fn read(env: &Env) -> Result<Self, String> {
        let policy = shared_policy()?;
        let development = env.text("DEVELOPMENT").as_deref() == Some("true");
        let secrets = Secrets::read(|name| env.text(name), development).map_err(|faults| {
            faults
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        })?;
        Ok(Self {
            policy,
            router: Router::new(policy),
            keyring: Keyring::new(&secrets.key_secret),
            signer: Signer::new(&secrets.origin_secret),
            stripe: secrets
                .stripe
                .as_ref()
                .map(|secrets| Stripe::new(env, secrets)),
            secrets,
            webhooks: match &policy.notifications {
                Some(_) => Some(WebhookSigner::read(|name| env.text(name), development)?),
                None => None,
            },
            refusals: RefCell::default(),
            imported_keys: RefCell::default(),
            origin_override: env
                .text("ORIGIN_OVERRIDE")
                .filter(|_| development)
                .map(|origin| Origin::Url(origin.trim_end_matches('/').to_owned())),
        })
    }
}
