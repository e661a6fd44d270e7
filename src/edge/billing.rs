//! Payments at the edge: pages at Stripe that somebody asks for, and the events by which Stripe tells what
//! became of them.

use wasm_bindgen::JsValue;

use super::{
    answer::{self, About},
    gateway::{Gateway, Interruption, refused, unavailable, unexpected},
    log::{Fault, Line},
    platform::clock,
    stripe::Stripe,
    visit::Visit,
};
use crate::{
    credits::Credits,
    id::AccountId,
    json,
    key::PresentedKey,
    payments::{
        ask::{Ask, Order, What},
        checkout::{self, Context, Owner},
        event::{self, Event, Payer},
        sighting::{MethodSeen, Progress, Sighting},
        stripe::{Call, Failure},
        top_up,
        webhook::is_signed,
    },
    problem::{Code, Problem},
    protocol::{Command, Manage, Page, Read, Reply, Request},
    retried::idempotency_key,
};

/// The longest event that is read, in bytes: they are some kilobytes.
const EVENT_MAX: usize = 1 << 20;
const RECEIVED: &str = r#"{"received":true}"#;

/// Who asks about payments.
pub(super) enum Asker {
    Customer(PresentedKey),
    Operator(AccountId),
}

impl Asker {
    const fn account(&self) -> &AccountId {
        match self {
            Self::Customer(key) => &key.account,
            Self::Operator(account) => account,
        }
    }
}

impl Gateway {
    /// Answers what is about payments: the history, or where the page is at Stripe.
    pub(super) async fn serve_payments(
        &self,
        visit: &Visit,
        asker: &Asker,
        what: What,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let stripe = self.stripe()?;
        let listing = what.listing();
        let mut ask = Ask {
            what,
            made: None,
            gone: None,
        };
        let mut order = match self.ask_payments(visit, asker, ask.clone(), line).await? {
            Reply::Order(order) => order,
            Reply::Document(document) => {
                return Ok(self.show_page(visit, asker.account(), listing, document)?);
            }
            other => return Err(unexpected(&other).into()),
        };
        // A customer that was deleted at Stripe is made anew, once.
        for is_last in [false, true] {
            if order.customer.is_none() {
                let call = checkout::make_customer(asker.account(), &order, ask.gone.as_deref());
                let made = have_made(stripe, &call).await;
                ask.made = Some(made.map_err(|failure| not_made(failure, line))?.id);
                order = match self.ask_payments(visit, asker, ask.clone(), line).await? {
                    Reply::Order(order) => order,
                    other => return Err(unexpected(&other).into()),
                };
            }
            let call = self.page_call(visit, asker, &order)?;
            match have_made(stripe, &call).await {
                Ok(page) => return Ok(show_made(visit, &order, &page)?),
                Err(Failure::NoCustomer) if !is_last => {
                    ask.made = None;
                    ask.gone = order.customer.take();
                }
                Err(failure) => return Err(not_made(failure, line)),
            }
        }
        Err(unavailable().into())
    }

    /// What Stripe is asked for, to make the page that was ordered.
    fn page_call(&self, visit: &Visit, asker: &Asker, order: &Order) -> Result<Call, Interruption> {
        let url = visit.url();
        let request_id = visit.request_id();
        let named = visit.header_values("idempotency-key");
        // A repeat is known by what it says; what says nothing is no repeat.
        let told = idempotency_key(&named)?;
        let parts = match told {
            Some(told) => [url.path, told],
            None => ["", request_id.as_str()],
        };
        let context = Context {
            account: asker.account(),
            opened: order.opened,
            now: clock(),
            called: &url.origin(),
            payments: &self.deployment.policy.payments,
            keeps_method: self.deployment.policy.top_up.is_some(),
        };
        let customer = order.customer.as_deref().ok_or_else(unavailable)?;
        let key = checkout::page_key(context, customer, parts);
        Ok(checkout::make_page(&order.page, customer, context, key))
    }

    async fn ask_payments(
        &self,
        visit: &Visit,
        asker: &Asker,
        ask: Ask,
        line: &mut Line,
    ) -> Result<Reply, Interruption> {
        let key = match asker {
            Asker::Customer(key) => key,
            Asker::Operator(account) => {
                let manage = manage(Command::Payments(ask));
                return self.manage(account, manage, None, line).await;
            }
        };
        let read = Request::Read(Read {
            key: key.key,
            digest: key.digest,
            page: Page::Payments(ask),
        });
        match self.ask(&key.account, &read, line).await? {
            Reply::Refused(refusal) => {
                self.forget_key(key, &refusal);
                Err(refused(visit, &refusal).into())
            }
            Reply::Problem(complaint) => Err(Problem::from(complaint).into()),
            reply => Ok(reply),
        }
    }

    /// Takes an event of Stripe's. Whatever is answered other than 2xx, Stripe sends again, for days.
    pub(super) async fn hear_stripe(
        &self,
        visit: &Visit,
        line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        let stripe = self.stripe()?;
        let body = visit.body(EVENT_MAX, false).await?;
        let header = visit.header("Stripe-Signature").unwrap_or_default();
        let secrets = self.deployment.secrets.stripe.as_ref();
        if !secrets.is_some_and(|secrets| is_signed(&header, &body, &secrets.webhook, clock())) {
            return Err(Problem::bad_field(
                "Stripe-Signature",
                "Stripe-Signature: expected Stripe's signature of this body, made within 5 minutes \
                 under STRIPE_WEBHOOK_SECRET",
            )
            .into());
        }
        let event = Event::read(&body, self.deployment.policy)
            .map_err(|_| Problem::new(Code::BadRequest, "the body must be an event of Stripe's"))?;
        match self.follow_up(stripe, event, line).await {
            // What Stripe does not know, or knows otherwise, it need not tell again.
            Ok(()) | Err(Unheard::Pointless) => self.tell(visit, 200, RECEIVED),
            Err(Unheard::Interrupted(interruption)) => Err(interruption),
        }
    }

    async fn follow_up(
        &self,
        stripe: &Stripe,
        event: Event,
        line: &mut Line,
    ) -> Result<(), Unheard> {
        let policy = self.deployment.policy;
        match event {
            Event::Purchase(owner, mut sighting) => {
                if let (Progress::Paid, Some(invoice)) =
                    (sighting.progress, &sighting.papers.invoice)
                {
                    // Good to have; the credits do not wait for it.
                    let invoice = stripe.ask(&event::look_at_invoice(invoice)).await;
                    sighting.papers.receipt_url =
                        invoice.ok().and_then(|invoice| event::receipt_of(&invoice));
                }
                self.see(owner, Command::SeePayment(sighting), line).await
            }
            Event::Invoice(payer, sighting) => {
                let owner = self.owner_of(stripe, payer, line).await?;
                self.see(owner, Command::SeePayment(sighting), line).await
            }
            Event::LongInvoice(id) => {
                let (payer, sighting) = self.look_at_long_invoice(stripe, &id, line).await?;
                let owner = self.owner_of(stripe, payer, line).await?;
                let command = Command::SeePayment(Box::new(sighting));
                self.see(owner, command, line).await
            }
            Event::Reversal(intent) => {
                let (owner, sighting) = self.look_back(stripe, &intent, line).await?;
                let command = Command::SeePayment(Box::new(sighting));
                self.see(owner, command, line).await
            }
            Event::Subscription(id) => {
                let as_of = clock();
                let found = look(stripe, &event::look_at_subscription(&id), line).await?;
                let (payer, sighting) =
                    event::subscription(&found, as_of, policy).ok_or(Unheard::Pointless)?;
                let owner = self.owner_of(stripe, payer, line).await?;
                self.see(owner, Command::SeeSubscription(sighting), line)
                    .await
            }
            Event::TopUp(owner, invoice) => self.see(owner, Command::SeeTopUp(invoice), line).await,
            Event::PaymentMethod {
                customer: id,
                at,
                updated,
            } => {
                let customer = look(stripe, &event::look_at_customer(&id), line).await?;
                let owner = event::owner_of_customer(&customer).ok_or(Unheard::Pointless)?;
                let mut now = top_up::own_method(&customer);
                if now.is_none() {
                    now = top_up::first_method(&look(stripe, &top_up::methods(&id), line).await?);
                }
                let seen = Some(MethodSeen { now, updated });
                self.see(owner, Command::SeePaymentMethod(at, seen), line)
                    .await
            }
            Event::Other => Ok(()),
        }
    }

    /// What has gone back of a payment, and whose it was.
    async fn look_back(
        &self,
        stripe: &Stripe,
        intent: &str,
        line: &mut Line,
    ) -> Result<(Owner, Sighting), Unheard> {
        let as_of = clock();
        let payment = look(stripe, &event::look_at_payment(intent), line).await?;
        let (owner, mut sighting) = match event::purchase_of(&payment) {
            Some(purchase) => purchase,
            None => {
                let found = look(stripe, &event::look_for_invoice(intent), line).await?;
                let (payer, sighting) = match event::long_invoice_of(&found) {
                    Some(id) => self.look_at_long_invoice(stripe, &id, line).await?,
                    None => event::invoice_of(&found, intent, self.deployment.policy)
                        .ok_or(Unheard::Pointless)?,
                };
                (self.owner_of(stripe, payer, line).await?, sighting)
            }
        };
        let refunds = look(stripe, &event::look_at_refunds(intent), line).await?;
        let disputes = look(stripe, &event::look_at_disputes(intent), line).await?;
        let reversal = event::reversal_of(&payment, &refunds, &disputes, as_of);
        sighting.reversal = Some(reversal.ok_or(Unheard::Pointless)?);
        Ok((owner, sighting))
    }

    /// What an invoice has paid of which an event does not tell all lines.
    async fn look_at_long_invoice(
        &self,
        stripe: &Stripe,
        id: &str,
        line: &mut Line,
    ) -> Result<(Payer, Sighting), Unheard> {
        let invoice = look(stripe, &event::look_at_invoice(id), line).await?;
        let lines = look(stripe, &event::look_at_lines(id), line).await?;
        event::invoice_with(&invoice, &lines, self.deployment.policy).ok_or(Unheard::Pointless)
    }

    async fn owner_of(
        &self,
        stripe: &Stripe,
        payer: Payer,
        line: &mut Line,
    ) -> Result<Owner, Unheard> {
        match payer {
            Payer::Account(owner) => Ok(owner),
            Payer::Customer(id) => {
                let customer = look(stripe, &event::look_at_customer(&id), line).await?;
                event::owner_of_customer(&customer).ok_or(Unheard::Pointless)
            }
        }
    }

    /// Tells an account how something stands at Stripe.
    async fn see(
        &self,
        Owner { account, opened }: Owner,
        command: Command,
        line: &mut Line,
    ) -> Result<(), Unheard> {
        let command = match opened {
            Some(opened) => Command::IfOpened(opened, Box::new(command)),
            None => command,
        };
        line.account = Some(account.to_string());
        let request = Request::Manage(manage(command));
        let fault = |detail: &str| {
            Fault {
                event: "payment_in_vain",
                account: Some(&account),
                detail,
            }
            .write();
        };
        match self.ask(&account, &request, line).await? {
            Reply::Document(seen) => {
                let seen = json::parse(&seen.json).ok();
                let problem = seen.and_then(|seen| seen.member("problem")?.string());
                if let Some(problem) = problem {
                    fault(&problem);
                }
                Ok(())
            }
            // Another deployment's, or erased.
            Reply::Problem(complaint) if complaint.code == Code::NotFound => {
                fault("there is no such account");
                Ok(())
            }
            Reply::Problem(complaint) => Err(Interruption::from(Problem::from(complaint)).into()),
            other => Err(Interruption::from(unexpected(&other)).into()),
        }
    }

    fn stripe(&self) -> Result<&'static Stripe, Problem> {
        self.deployment.stripe.as_ref().ok_or_else(payments_off)
    }
}

/// What Stripe makes of a request.
async fn have_made(stripe: &Stripe, call: &Call) -> Result<checkout::Made, Failure> {
    let answer = stripe.ask(call).await?;
    checkout::made(&answer).ok_or_else(|| Failure::Mistake("an unknown answer".to_owned()))
}

/// Why Stripe has not made it, for whoever asked.
fn not_made(failure: Failure, line: &mut Line) -> Interruption {
    line.detail = Some(failure.to_string());
    let problem = match failure {
        Failure::OtherRequest => Problem::new(
            Code::IdempotencyMismatch,
            "this Idempotency-Key was used for another request; a new request needs a new key",
        ),
        _ => Problem::new(
            Code::Unavailable,
            "the payment page cannot be made right now; nothing was paid",
        ),
    };
    problem.into()
}

/// Tells where the page is.
fn show_made(
    visit: &Visit,
    order: &Order,
    page: &checkout::Made,
) -> Result<web_sys::Response, JsValue> {
    let about = About {
        request_id: &visit.request_id(),
        standing: order.standing.as_ref(),
        charged: order.standing.map(|_| Credits::ZERO),
    };
    answer::document(visit, 201, &page.to_json(), &about)
}

pub(super) fn payments_off() -> Problem {
    Problem::new(
        Code::PaymentsOff,
        "this deployment takes no payments: STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET are not set",
    )
}

/// Why an event was not followed up.
enum Unheard {
    /// Whatever Stripe says, it would be the same again.
    Pointless,
    /// Something did not answer: it may come again.
    Interrupted(Interruption),
}

impl From<Interruption> for Unheard {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

/// Looks something up at Stripe because of an event.
async fn look(stripe: &Stripe, call: &Call, line: &mut Line) -> Result<String, Unheard> {
    stripe.ask(call).await.map_err(|failure| {
        line.detail = Some(failure.to_string());
        if failure == Failure::Missing {
            return Unheard::Pointless;
        }
        let problem = Problem::new(Code::Unavailable, "Stripe cannot be asked right now");
        Unheard::Interrupted(problem.into())
    })
}

fn manage(command: Command) -> Manage {
    Manage {
        command,
        idempotency: None,
        signs_under: None,
    }
}
