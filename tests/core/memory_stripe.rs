//! As much of Stripe as a top-up asks, behaving as its documentation says: idempotency keys answer again
//! for a day, failures of its own included; an invoice is paid once; what was carried out and what was
//! answered are two things.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate::{
    payments::stripe::{Call, Failure, Kind, read},
    time::{Span, Timestamp},
    url::decode_form,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out and answered.
    #[default]
    None,
    /// It is carried out, and the answer is lost: the money may have moved.
    Lost,
    /// It never arrives.
    Broken,
    /// Stripe fails, and says so again whenever the same key is sent.
    Failed,
    /// There are too many.
    Busy,
}

/// What a bank says to a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Card {
    /// Yes.
    #[default]
    Good,
    /// No.
    Declined,
    /// The customer must confirm it.
    Secured,
    /// Perhaps, in a few days.
    Slow,
    /// There is no card.
    None,
    /// There is no customer any more.
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Invoice {
    pub id: String,
    pub status: &'static str,
    pub amount: u64,
    /// With tax, from when it is finalized.
    pub total: u64,
    pub paid_at: Option<Timestamp>,
    /// Paid on Stripe's own page.
    pub by_hand: bool,
    pub is_processing: bool,
    /// Why its payment failed the last time.
    error: Option<&'static str>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct MemoryStripe {
    /// What the bank says of what the customer pays with.
    pub card: Card,
    /// How often the customer took another payment method.
    pub methods_before: u32,
    /// The tax on each invoice, in percent.
    pub tax: u64,
    pub invoices: Vec<Invoice>,
    /// How often the bank was asked.
    pub charges: u32,
    /// For how much, the last time.
    pub asked_for: u64,
    /// Paths with their methods, in order.
    pub requests: Vec<String>,
    answers: BTreeMap<String, (Timestamp, String, u16, String)>,
}

impl MemoryStripe {
    /// The customer pays with something else from now on.
    pub fn change_card(&mut self, card: Card) {
        self.card = card;
        self.methods_before += 1;
    }

    /// The payment method that is the customer's default.
    pub fn method(&self) -> Option<String> {
        (self.card != Card::None).then(|| format!("pm_{}", self.methods_before + 1))
    }

    /// Carries out a request, and says what of its answer arrives.
    pub fn ask(&mut self, call: &Call, fault: Fault, now: Timestamp) -> Result<String, Failure> {
        let lost = || Err(Failure::Unclear("no answer in time".into()));
        let method = match call.kind {
            Kind::Look => "GET",
            Kind::Change { .. } => "POST",
            Kind::End => "DELETE",
        };
        self.requests.push(format!("{method} {}", call.path));
        if fault == Fault::Broken {
            return lost();
        }
        if fault == Fault::Busy {
            return read(429, "{}".into());
        }
        let (status, body) = self.answer(call, fault, now);
        if fault == Fault::Lost {
            return lost();
        }
        read(status, body)
    }

    fn answer(&mut self, call: &Call, fault: Fault, now: Timestamp) -> (u16, String) {
        let failed = (500, "{}".to_owned());
        let Kind::Change {
            form,
            idempotency_key,
        } = &call.kind
        else {
            if fault == Fault::Failed {
                return failed;
            }
            let (status, body) = self.carry_out(&call.path, "", now);
            return (status, body.to_string());
        };
        let request = format!("{} {form}", call.path);
        if let Some((at, asked, status, body)) = self.answers.get(idempotency_key)
            && now < at.plus(Span::from_days(1))
        {
            assert_eq!(*asked, request, "a key that came with something else");
            return (*status, body.clone());
        }
        let (status, body) = if fault == Fault::Failed {
            failed
        } else {
            let (status, body) = self.carry_out(&call.path, form, now);
            (status, body.to_string())
        };
        // What fails before it begins is not kept.
        if status != 400 && status != 404 {
            let kept = (now, request, status, body.clone());
            self.answers.insert(idempotency_key.clone(), kept);
        }
        (status, body)
    }

    fn carry_out(&mut self, path: &str, form: &str, now: Timestamp) -> (u16, Value) {
        let path = path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let field = |name: &str| {
            let mut fields = form.split('&').filter_map(|field| field.split_once('='));
            fields
                .find(|(other, _)| *other == name)
                .map(|(_, value)| value)
        };
        match parts[..] {
            ["customers", id] if self.card == Card::Deleted => {
                (200, json!({ "id": id, "deleted": true }))
            }
            ["customers", id] => {
                let own = json!({ "default_payment_method": self.method() });
                (200, json!({ "id": id, "invoice_settings": own }))
            }
            ["customers", _, "payment_methods"] => (200, json!({ "data": [] })),
            ["invoices"] => {
                self.invoices.push(Invoice {
                    id: format!("in_{}", self.invoices.len() + 1),
                    status: "draft",
                    amount: 0,
                    total: 0,
                    paid_at: None,
                    by_hand: false,
                    is_processing: false,
                    error: None,
                    metadata: metadata_of(form),
                });
                (200, shown(self.invoices.last().unwrap()))
            }
            ["invoiceitems"] => {
                let invoice = self.invoice(field("invoice").unwrap());
                assert_eq!((invoice.status, invoice.amount), ("draft", 0));
                invoice.amount = field("amount").unwrap().parse().unwrap();
                (200, json!({ "id": "ii_1" }))
            }
            ["invoices", id] => (200, shown(self.invoice(id))),
            ["invoices", id, "finalize"] => {
                let tax = self.tax;
                let invoice = self.invoice(id);
                if invoice.status != "draft" {
                    return (400, json!({ "error": { "message": "not a draft" } }));
                }
                invoice.status = "open";
                invoice.total = invoice.amount * (100 + tax) / 100;
                (200, shown(invoice))
            }
            ["invoices", id, "pay"] => self.pay(id, now),
            ["invoices", id, "void"] => {
                let invoice = self.invoice(id);
                if invoice.status != "open" || invoice.is_processing {
                    return (400, json!({ "error": { "message": "cannot be voided" } }));
                }
                invoice.status = "void";
                (200, shown(invoice))
            }
            _ => panic!("{path}"),
        }
    }

    fn pay(&mut self, id: &str, now: Timestamp) -> (u16, Value) {
        let card = self.card;
        let invoice = self.invoice(id);
        if invoice.status != "open" || invoice.is_processing {
            return (400, json!({ "error": { "message": "cannot be paid" } }));
        }
        let refused = |invoice: &mut Invoice, error, code: &str| {
            invoice.error = Some(error);
            (402, json!({ "error": { "code": code } }))
        };
        let answer = match card {
            Card::Good => {
                invoice.status = "paid";
                invoice.paid_at = Some(now);
                (200, shown(invoice))
            }
            Card::Slow => {
                invoice.is_processing = true;
                invoice.error = None;
                (200, shown(invoice))
            }
            Card::Declined => refused(invoice, "card_declined", "card_declined"),
            Card::Secured => refused(
                invoice,
                "authentication_required",
                "invoice_payment_intent_requires_action",
            ),
            Card::None | Card::Deleted => {
                (400, json!({ "error": { "message": "no payment method" } }))
            }
        };
        let asked_for = invoice.total;
        self.charges += 1;
        self.asked_for = asked_for;
        answer
    }

    /// A slow payment comes to its end.
    pub fn conclude(&mut self, succeeds: bool, now: Timestamp) {
        for invoice in self
            .invoices
            .iter_mut()
            .filter(|invoice| invoice.is_processing)
        {
            invoice.is_processing = false;
            if succeeds {
                invoice.status = "paid";
                invoice.paid_at = Some(now);
            } else {
                invoice.error = Some("insufficient_funds");
            }
        }
    }

    /// The customer pays what is open on Stripe's own page.
    pub fn pay_by_hand(&mut self, now: Timestamp) {
        let open = self.invoices.iter_mut();
        let mut open = open.filter(|invoice| invoice.status == "open" && !invoice.is_processing);
        if let Some(invoice) = open.next_back() {
            invoice.status = "paid";
            invoice.paid_at = Some(now);
            invoice.by_hand = true;
        }
    }

    fn invoice(&mut self, id: &str) -> &mut Invoice {
        let found = self.invoices.iter_mut().find(|invoice| invoice.id == id);
        found.unwrap_or_else(|| panic!("no invoice {id}"))
    }
}

/// The fields `metadata[NAME]` of a form.
fn metadata_of(form: &str) -> BTreeMap<String, String> {
    let fields = form.split('&').filter_map(|field| field.split_once('='));
    let named = fields.filter_map(|(name, value)| {
        let name = decode_form(name);
        let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
        Some((name.to_owned(), decode_form(value)))
    });
    named.collect()
}

/// An invoice as Stripe tells it.
pub fn shown(invoice: &Invoice) -> Value {
    let link = (invoice.status != "draft").then(|| format!("https://invoice.test/{}", invoice.id));
    let status = match invoice.status {
        "paid" => "succeeded",
        _ if invoice.is_processing => "processing",
        _ => "requires_payment_method",
    };
    let error = invoice
        .error
        .filter(|_| status == "requires_payment_method");
    let intent = json!({
        "id": format!("pi_{}", invoice.id),
        "status": status,
        "last_payment_error": error.map(|code| json!({ "code": code })),
    });
    json!({
        "id": invoice.id,
        "status": invoice.status,
        "total": invoice.total,
        "subtotal": invoice.amount,
        "metadata": invoice.metadata,
        "currency": "usd",
        "hosted_invoice_url": link,
        "payments": { "data": [{ "payment": { "payment_intent": intent } }] },
    })
}
