//! A call on its way: admitted, forwarded, settled. One promise, which outlives the client.

use std::rc::Rc;

use wasm_bindgen::prelude::*;

use super::{
    answer::{self, About, Refused},
    carriage::Carriage,
    forward::{Forward, Identity, OriginFailure},
    gateway::{Gateway, Interruption, Served, refused, unavailable, unexpected},
    log::{Fault, Line},
    passage::{Fare, Passage, endpoint_of},
    platform::{console_error, message_of},
    promise::{Promised, Timer},
    visit::Visit,
};
use crate::{
    account::{Admission, Admit, Refusal},
    call::{BodyEnd, Settle},
    credits::Credits,
    headers::Standing,
    id::{CallId, ExternalId},
    key::Carriers,
    policy::{Mode, Route, WhenUnavailable},
    price::{Mark, Reported},
    problem::Code,
    protocol::{Reply, Request},
    repeat::{Asked, Caller},
    status::drawn_by_key,
    task,
    time::Span,
};

/// The end of a call that took longer waits for nothing.
const ENDS_LATE_WITHIN: Span = Span::from_seconds(10);

/// From the admission to the settlement: one promise, which outlives the client.
struct Journey {
    gateway: Gateway,
    visit: Rc<Visit>,
    passage: Passage,
    ride: Option<Ride>,
    line: Line,
    /// For the origin's limit, and for the end that may wait.
    timer: Timer,
}

/// A call on its way through.
struct Ride {
    fare: Fare,
    admission: Box<Admission>,
    /// The ids of the call and of its key.
    call: String,
    key: String,
}

impl Gateway {
    /// Admits the call, forwards it, and has it settled whatever the client does meanwhile.
    pub(super) async fn pass(
        &self,
        visit: &Rc<Visit>,
        passage: Passage,
        line: &mut Line,
    ) -> Result<Served, Interruption> {
        line.would_refuse = passage.would_refuse;
        let known = passage
            .fare
            .as_ref()
            .and_then(|fare| self.known_refusal(visit, endpoint_of(passage.route), fare));
        if let Some(refusal) = known {
            return Err(refused(visit, &refusal).into());
        }
        let (to_client, answer) = Promised::new();
        let journey = Journey {
            gateway: self.clone(),
            visit: Rc::clone(visit),
            passage,
            ride: None,
            line: std::mem::take(line),
            timer: Timer::default(),
        };
        // Registered before the object is asked: whatever it admits is forwarded and settled, and
        // a client that hangs up changes nothing.
        let (over, whole) = Promised::new();
        self.context.wait_until(&whole)?;
        task::begin(async move {
            journey.make(to_client).await;
            over.keep(Ok(JsValue::UNDEFINED));
        });
        Ok(Served::OnJourney(answer))
    }

    /// A refusal that may be repeated without asking.
    fn known_refusal(&self, visit: &Visit, endpoint: &str, fare: &Fare) -> Option<Refusal> {
        if self.deployment.policy.gateway.mode == Mode::Observe {
            return None;
        }
        let asked = Asked {
            method: &visit.method,
            endpoint,
            pool: &fare.terms.pool,
            least: fare.least(),
        };
        let mut refusals = self.deployment.refusals.borrow_mut();
        refusals.recall(&Caller::of(&fare.key), asked, visit.started)
    }

    async fn admit(
        &self,
        visit: &Visit,
        route: Option<&'static Route>,
        mut fare: Fare,
        line: &mut Line,
    ) -> Result<Option<Ride>, Box<Refused>> {
        let deployment = self.deployment;
        let observes = deployment.policy.gateway.mode == Mode::Observe;
        let caller = Caller::of(&fare.key);
        let repeated_by_code = deployment.refusals.borrow_mut().take_repeated(&caller);
        let admit = Admit {
            operation: visit.operation,
            key: fare.key.key,
            digest: fare.key.digest,
            method: visit.method.clone(),
            endpoint: endpoint_of(route).to_owned(),
            terms: fare.terms.clone(),
            repeated_refusals: drawn_by_key(&repeated_by_code),
            repeated_by_code,
            retried: fare.retried.as_deref().copied(),
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
                    Err(Box::new(unavailable().into()))
                };
            }
        };
        line.rows = line.rows.saturating_add(answer.rows_written);
        if let Reply::Refused(refusal) = &answer.reply {
            self.forget_key(&fare.key, refusal);
        }
        match answer.reply {
            Reply::Admitted(admission) => {
                line.would_refuse(admission.would_refuse.as_ref());
                if admission.repeats.is_some() {
                    fare.terms = fare.terms.of_repeat();
                }
                let ride = Ride::of(fare, admission);
                line.request_id.clone_from(&ride.call);
                Ok(Some(ride))
            }
            Reply::Refused(refusal) if observes => {
                line.would_refuse(Some(&refusal));
                Ok(None)
            }
            Reply::Refused(refusal) => {
                deployment.refusals.borrow_mut().remember(
                    &caller,
                    &fare.terms.pool,
                    &refusal,
                    visit.started,
                );
                Err(refused(visit, &refusal))
            }
            other => Err(Box::new(unexpected(&other).into())),
        }
    }

    /// In the background: nobody will call with this admission, so it must not count.
    fn give_up(&self, visit: &Visit, fare: &Fare) {
        let (objects, account, operation) = (
            Rc::clone(&self.objects),
            fare.key.account.clone(),
            visit.operation,
        );
        let (over, cancelled) = Promised::new();
        task::begin(async move {
            if let Err(failed) = objects.give_up(&account, operation).await {
                Fault {
                    account: Some(&account),
                    ..Fault::new("cancel_failed", &failed.detail)
                }
                .write();
            }
            over.keep(Ok(JsValue::UNDEFINED));
        });
        // Where even this fails, the alarm ends the call.
        if let Err(thrown) = self.context.wait_until(&cancelled) {
            console_error(&message_of(&thrown));
        }
    }
}

impl Journey {
    async fn make(mut self, to_client: Promised) {
        if let Err(refused) = self.board().await {
            to_client.keep(self.gateway.refuse(&self.visit, &refused, &mut self.line));
            return;
        }
        let forwarded = self.forward().await;
        let reported = forwarded
            .as_ref()
            .ok()
            .and_then(|from_origin| self.reported(from_origin));
        // An answer that cannot be handed on is none: a status outside 200 to 599, for one.
        let handed_on = forwarded.and_then(|from_origin| self.hand_on(&from_origin, reported));
        let answered = handed_on.is_ok();
        let (status, answer, carriage) = match handed_on {
            Ok((answer, carriage)) => (answer.status(), Ok(answer), carriage),
            Err(failure) => (failure.problem().status(), self.apologise(&failure), None),
        };
        self.line.answered(status, self.visit.started);
        // The client may be gone: the call is settled all the same.
        to_client.keep(answer);
        let mut body = None;
        if let Some(carriage) = carriage {
            let carried = carriage.carry().await;
            body = Some(carried.end);
            self.line.detail = carried.detail;
        }
        self.settle(status, answered, reported, body).await;
        self.gateway.record(&self.line);
    }

    /// Asks the account's object, where there is something to pay.
    async fn board(&mut self) -> Result<(), Box<Refused>> {
        if let Some(fare) = self.passage.fare.take() {
            self.ride = self
                .gateway
                .admit(&self.visit, self.passage.route, fare, &mut self.line)
                .await?;
        }
        Ok(())
    }

    async fn forward(&mut self) -> Result<web_sys::Response, OriginFailure> {
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
            identity: self.ride.as_ref().map(Ride::identity),
            cache: route.is_some_and(|route| route.cache),
            upgrade: route.is_some_and(|route| route.upgrade),
            whole_body: self.whole_body_ride().is_some(),
            timeout: route.map_or(gateway.origin_timeout, |route| route.timeout),
        };
        let forwarded = forward
            .send(
                &self.gateway.env,
                &self.gateway.deployment.signer,
                &mut self.timer,
            )
            .await;
        self.passage.body = None;
        forwarded
    }

    /// The quantity in the origin's answer, where the price asks for it.
    fn reported(&self, from_origin: &web_sys::Response) -> Option<Reported> {
        let header = self.ride.as_ref()?.fare.reported_in.as_ref()?;
        let value = from_origin.headers().get(header).ok().flatten();
        Some(Reported::read(value.as_deref()))
    }

    /// The call, if it may end only with its answer's body.
    fn whole_body_ride(&self) -> Option<&Ride> {
        self.ride
            .as_ref()
            .filter(|_| self.passage.route.is_some_and(|route| route.whole_body))
    }

    /// What carries the body of an answer that is charged if all of it arrives, and what the
    /// client reads then. An answer that is free by its status is not waited for.
    fn carriage(
        &self,
        from_origin: &web_sys::Response,
    ) -> Result<Option<(Carriage, web_sys::ReadableStream)>, JsValue> {
        let status = from_origin.status();
        let is_charged = |ride: &Ride| ride.fare.terms.charge_on.holds(status);
        if !self.whole_body_ride().is_some_and(is_charged) {
            return Ok(None);
        }
        let Some(body) = from_origin.body() else {
            return Ok(None);
        };
        let length = from_origin.headers().get("Content-Length")?;
        let length = length.and_then(|length| length.parse().ok());
        Carriage::of(&body, length).map(Some)
    }

    /// The origin's answer, for the client, and what carries its body if the call waits for that.
    fn hand_on(
        &self,
        from_origin: &web_sys::Response,
        reported: Option<Reported>,
    ) -> Result<(web_sys::Response, Option<Carriage>), OriginFailure> {
        let (carriage, carried) = self.carriage(from_origin)?.unzip();
        let (standing, charged) = self.standing_after(from_origin.status(), true, reported);
        let about = About {
            request_id: &self.line.request_id,
            standing: standing.as_ref(),
            // What costs nothing costs nothing however its body ends.
            charged: charged.filter(|charged| carriage.is_none() || charged.is_zero()),
        };
        let origin = self.gateway.origin(&self.visit);
        answer::hand_on(&self.visit, origin, from_origin, carried.as_ref(), &about)
            .map(|answer| (answer, carriage))
            .map_err(OriginFailure::from)
    }

    /// The answer where the origin has none.
    fn apologise(&mut self, failure: &OriginFailure) -> Result<web_sys::Response, JsValue> {
        if let OriginFailure::Unreachable(detail) = failure {
            self.line.detail = Some(detail.clone());
        }
        let problem = failure.problem();
        self.line.code = Some(problem.code.as_str());
        let (standing, charged) = self.standing_after(problem.status(), false, None);
        let about = About {
            request_id: &self.line.request_id,
            standing: standing.as_ref(),
            charged,
        };
        answer::problem(&self.visit, &problem.into(), &about)
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
    async fn settle(
        &mut self,
        status: u16,
        answered: bool,
        reported: Option<Reported>,
        body: Option<BodyEnd>,
    ) {
        let Some(ride) = &self.ride else {
            return;
        };
        let settle = Settle {
            call: ride.admission.call,
            operation: self.visit.operation,
            status,
            response_time_ms: u32::try_from(self.line.ms).unwrap_or(u32::MAX),
            answered,
            reported,
            body,
        };
        let (objects, account) = (&self.gateway.objects, &ride.fare.key.account);
        let may_end_late = self.may_end_late(ride, &settle);
        if may_end_late && objects.has_gone(account, settle, &mut self.timer).await {
            return;
        }
        match objects.ask_again(account, &Request::Settle(settle)).await {
            Ok(answer) => {
                self.line.rows = self.line.rows.saturating_add(answer.rows_written);
                if let Reply::Settled(Some(settled)) = answer.reply {
                    self.line.mark = settled.mark.map(Mark::as_str);
                }
            }
            Err(failed) => self.line.detail = Some(format!("not settled: {}", failed.detail)),
        }
    }

    /// Whether the end may wait for a message that it can go with. The runtime lets nothing outlive a caller
    /// who left for long, so a call that took long is not kept waiting.
    fn may_end_late(&self, ride: &Ride, settle: &Settle) -> bool {
        ride.admission.may_end_late
            && settle.frees_nothing(&ride.fare.terms)
            && self.line.ms <= ENDS_LATE_WITHIN.as_millis()
    }
}

impl Ride {
    fn of(fare: Fare, admission: Box<Admission>) -> Self {
        let call = CallId {
            account: fare.key.account.clone(),
            number: admission.call,
        };
        Self {
            call: call.to_string(),
            key: fare.key.id().to_string(),
            fare,
            admission,
        }
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            call: &self.call,
            account: self.fare.key.account.as_str(),
            key: &self.key,
            plan: &self.admission.plan,
            external_id: self.admission.external_id.as_ref().map(ExternalId::as_str),
            held: self.admission.held,
        }
    }
}
