//! What Worker and account object say to each other: one flat message each way.
//!
//! A message is a version byte and CBOR arrays whose places are numbered: a reader passes over
//! places that it does not know and takes missing ones as absent, so the versions before and
//! after understand it. Places are only ever added, at the end, and optional.

use serde::Serialize;

use crate::{
    account::{
        Adjustment, Admission, Admit, Cancel, Fingerprint, NewAccount, NewGrant, NewKey,
        PatchAccount, PatchKey, Refusal, RotateKey, Settled, TopUpSettings, Word,
    },
    call::Settle,
    cursor::Listing,
    export::{ExportPlace, ExportSlice},
    headers::Standing,
    id::{CallNumber, EventNumber, KeyNumber},
    json,
    key::{SecretDigest, SecretId},
    ledger_page::{LedgerPage, LedgerQuery},
    payments::{
        ask::{Ask, Order},
        sighting::{MethodSeen, Sighting, SubscriptionSighting},
    },
    problem::{Code, Problem},
    time::{MonthNumber, Timestamp},
    totals::summary::By,
    wire::{Decode, Encode},
};

/// The version that this crate writes.
const VERSION: u8 = 1;

/// What the Worker asks of an account's object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// A request that wants to become a call.
    #[n(0)]
    Admit(#[n(0)] Admit),
    /// How a call ended.
    #[n(1)]
    Settle(#[n(0)] Settle),
    /// An admission whose answer was lost.
    #[n(2)]
    Cancel(#[n(0)] Cancel),
    /// Self-service, with the caller's own key.
    #[n(3)]
    Read(#[n(0)] Read),
    /// The operator.
    #[n(4)]
    Manage(#[n(0)] Manage),
}

/// A customer's look at the own account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Read {
    /// The key.
    #[n(0)]
    pub key: KeyNumber,
    /// SHA-256 of the secret part that was presented.
    #[n(1)]
    pub digest: SecretDigest,
    /// What is asked for.
    #[n(2)]
    pub page: Page,
}

/// What self-service shows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Page {
    /// `GET /me`.
    #[n(0)]
    Me,
    /// `GET /usage`.
    #[n(1)]
    Usage(#[n(0)] UsageQuery),
    /// `GET /get-credits`.
    #[n(2)]
    Credits,
    /// `GET /ledger`.
    #[n(4)]
    Ledger(#[n(0)] LedgerQuery),
    /// `GET /quote`: the Worker has what is told; whether the key may ask is the object's to say.
    #[n(3)]
    Quote,
    /// `GET /usage/summary`.
    #[n(5)]
    UsageSummary(#[n(0)] SummaryQuery),
    /// What is about payments.
    #[n(77)]
    Payments(#[n(0)] Ask),
}

impl Page {
    /// The list whose page is answered as a document, if it is one.
    #[must_use]
    pub const fn listing(&self) -> Option<Listing> {
        match self {
            Self::Usage(_) => Some(Listing::Usage),
            Self::UsageSummary(_) => Some(Listing::UsageSummary),
            Self::Payments(ask) => ask.what.listing(),
            Self::Me | Self::Credits | Self::Ledger(_) | Self::Quote => None,
        }
    }
}

/// Which calls `/usage` lists: newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct UsageQuery {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// How many newer ones are left out; with `limit` at most 4,000.
    #[n(1)]
    pub offset: u32,
    /// Only calls with a lower number: where an earlier page ended.
    #[n(2)]
    pub before: Option<CallNumber>,
    /// Which of them.
    #[n(3)]
    pub filter: UsageFilter,
}

/// What the listed calls have in common; `None` is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct UsageFilter {
    /// Admitted at this moment or later.
    #[n(0)]
    pub from: Option<Timestamp>,
    /// Admitted before this moment.
    #[n(1)]
    pub to: Option<Timestamp>,
    /// The route's template.
    #[n(2)]
    pub endpoint: Option<String>,
    /// The status that the client saw.
    #[n(3)]
    pub status: Option<u16>,
    /// Only those that the operator should look at.
    #[cbor(n(4), default)]
    pub marked: bool,
}

/// What `/usage/summary` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SummaryQuery {
    /// What its lines are about.
    #[n(0)]
    pub by: By,
    /// From when on; `None`: 30 days.
    #[n(1)]
    pub from: Option<Timestamp>,
    /// Until when; `None`: now.
    #[n(2)]
    pub to: Option<Timestamp>,
    /// Where an earlier page stopped.
    #[n(3)]
    pub next: Option<SummaryPlace>,
}

/// Where a summary stopped that met the bound of what one request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SummaryPlace {
    /// At this row of the months that were rolled up.
    #[n(0)]
    Days(#[n(0)] u64),
    /// At this row of the hours of a month.
    #[n(1)]
    Hours(#[n(0)] MonthNumber, #[n(1)] u64),
}

impl SummaryPlace {
    /// Reads what [`SummaryPlace`] is displayed as.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let row = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            // What is stored are numbers that JavaScript has.
            text.parse().ok().filter(|row| is_plain && *row < 1 << 53)
        };
        if let Some(days) = text.strip_prefix('d') {
            return row(days).map(Self::Days);
        }
        let (month, hours) = text.strip_prefix('h')?.split_once('-')?;
        let month = row(month).and_then(|month| i64::try_from(month).ok())?;
        Some(Self::Hours(MonthNumber::new(month), row(hours)?))
    }
}

impl std::fmt::Display for SummaryPlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(row) => write!(formatter, "d{row}"),
            Self::Hours(month, row) => write!(formatter, "h{}-{row}", month.get()),
        }
    }
}

/// A command of the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Manage {
    /// What to do.
    #[n(0)]
    pub command: Command,
    /// The `Idempotency-Key` and what came with it.
    #[n(1)]
    pub idempotency: Option<Fingerprint>,
    /// What the Worker signs a key under that this command makes.
    #[n(2)]
    pub signs_under: Option<SecretId>,
}

/// What the operator can have done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// `POST /accounts`.
    #[n(0)]
    Open(#[n(0)] NewAccount),
    /// `GET /accounts/{id}`.
    #[n(1)]
    Show,
    /// `PATCH /accounts/{id}`.
    #[n(2)]
    Patch(#[n(0)] PatchAccount),
    /// `POST /accounts/{id}/keys`.
    #[n(3)]
    CreateKey {
        /// The key.
        #[n(0)]
        new: NewKey,
        /// SHA-256 of the secret part that it will have.
        #[n(1)]
        digest: SecretDigest,
    },
    /// `DELETE /accounts/{id}/keys/{key}`.
    #[n(4)]
    RevokeKey(#[n(0)] KeyNumber),
    /// `POST /accounts/{id}/grants`.
    #[n(5)]
    Grant(#[n(0)] NewGrant),
    /// `GET /accounts/{id}/balance`.
    #[n(6)]
    Balance,
    /// `GET /accounts/{id}/keys`, as releases before [`Command::Keys`] ask for it: the first page. It
    /// can go with the second release that has both, since a deploy mixes two releases at most; its
    /// number stays taken.
    #[n(7)]
    ListKeys,
    /// `GET /accounts/{id}/usage`.
    #[n(8)]
    Usage(#[n(0)] UsageQuery),
    /// `POST /accounts/{id}/adjustments`.
    #[n(9)]
    Adjust(#[n(0)] Adjustment),
    /// `GET /calls/{call}`.
    #[n(10)]
    ShowCall(#[n(0)] CallNumber),
    /// `POST /calls/{call}/settle` and `/release`.
    #[n(11)]
    EndCall {
        /// The call.
        #[n(0)]
        call: CallNumber,
        /// How it ended.
        #[n(1)]
        word: Word,
    },
    /// `GET /accounts/{id}/usage/summary`.
    #[n(12)]
    UsageSummary(#[n(0)] SummaryQuery),
    /// `GET /accounts/{id}/keys`.
    #[n(20)]
    Keys(#[n(0)] KeysQuery),
    /// `GET /accounts/{id}/keys/{key}`.
    #[n(21)]
    ShowKey(#[n(0)] KeyNumber),
    /// `PATCH /accounts/{id}/keys/{key}`.
    #[n(22)]
    PatchKey {
        /// The key.
        #[n(0)]
        key: KeyNumber,
        /// What becomes of it.
        #[n(1)]
        patch: PatchKey,
    },
    /// `POST /accounts/{id}/keys/{key}/rotate`.
    #[n(23)]
    RotateKey {
        /// The key, and the overlap.
        #[n(0)]
        rotate: RotateKey,
        /// SHA-256 of the secret part that it will have.
        #[n(1)]
        digest: SecretDigest,
    },
    /// `GET /accounts/{id}/ledger`.
    #[n(30)]
    Ledger(#[n(0)] LedgerQuery),
    /// `GET /accounts/{id}/audit`: the next slice of it.
    #[n(31)]
    Audit,
    /// `DELETE /accounts/{id}`.
    #[n(50)]
    Close,
    /// `GET /accounts/{id}/export`: the slice that begins here; `None`: the first.
    #[n(51)]
    Export(#[n(0)] Option<ExportPlace>),
    /// `POST /accounts/{id}/keys` of a key that was issued before Tollgate.
    #[n(60)]
    ImportKey(#[n(0)] ImportKey),
    /// `GET /accounts/{id}/events`.
    #[n(73)]
    Events(#[n(0)] EventsQuery),
    /// `POST /events/{event}/replay`.
    #[n(74)]
    ReplayEvent(#[n(0)] EventNumber),
    /// What is about payments: `POST /accounts/{id}/credits/purchase` and the like.
    #[n(77)]
    Payments(#[n(0)] Ask),
    /// Stripe's word on a payment.
    #[n(78)]
    SeePayment(#[n(0)] Box<Sighting>),
    /// Stripe's word on the subscription.
    #[n(79)]
    SeeSubscription(#[n(0)] SubscriptionSighting),
    /// `GET /accounts/{id}/top-up`.
    #[n(84)]
    ShowTopUp,
    /// `PUT /accounts/{id}/top-up`.
    #[n(85)]
    SetTopUp(#[n(0)] TopUpSettings),
    /// `POST /accounts/{id}/top-up/retry`.
    #[n(86)]
    RetryTopUp,
    /// Stripe's word that something about the customer's payment methods was changed at this moment, and
    /// what was found then. The release before tells no more than the moment.
    #[n(87)]
    SeePaymentMethod(#[n(0)] Timestamp, #[n(1)] Option<MethodSeen>),
    /// This, if the account was opened at that moment: one of the same id in another deployment was not.
    #[n(88)]
    IfOpened(#[n(0)] Timestamp, #[n(1)] Box<Command>),
    /// Stripe's word that the payment of this invoice of a top-up has failed.
    #[n(100)]
    SeeTopUp(#[n(0)] String),
}

impl Command {
    /// Whether it is refused once the account is closed: whatever would give it something new. The
    /// ends of its calls can still be told.
    #[must_use]
    pub const fn needs_an_open_account(&self) -> bool {
        match self {
            Self::Patch(_)
            | Self::CreateKey { .. }
            | Self::ImportKey(_)
            | Self::PatchKey { .. }
            | Self::RotateKey { .. }
            | Self::RevokeKey(_)
            | Self::Grant(_)
            | Self::Adjust(_)
            | Self::SetTopUp(_)
            | Self::RetryTopUp => true,
            Self::Open(_)
            | Self::Show
            | Self::Balance
            | Self::ListKeys
            | Self::Keys(_)
            | Self::ShowKey(_)
            | Self::Usage(_)
            | Self::UsageSummary(_)
            | Self::ShowCall(_)
            | Self::EndCall { .. }
            | Self::Events(_)
            | Self::ReplayEvent(_)
            | Self::Ledger(_)
            | Self::Audit
            | Self::Export(_)
            // What is sold is another question; what is paid is paid.
            | Self::Payments(_)
            | Self::SeePayment(_)
            | Self::SeeSubscription(_)
            | Self::ShowTopUp
            | Self::SeePaymentMethod(_, _)
            | Self::SeeTopUp(_)
            | Self::Close
            | Self::IfOpened(..) => false,
        }
    }
}

/// Which events are listed: the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EventsQuery {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// Only events with a lower number: where an earlier page ended.
    #[n(1)]
    pub before: Option<EventNumber>,
    /// Only those whose webhook stands so.
    #[n(2)]
    pub state: Option<EventState>,
}

/// How an event's webhook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum EventState {
    /// Still to be sent.
    #[n(0)]
    Waiting,
    /// Taken.
    #[n(1)]
    Delivered,
    /// Given up.
    #[n(2)]
    Parked,
}

impl EventState {
    /// Every state, by its name.
    pub const NAMES: [(&str, Self); 3] = [
        (Self::Waiting.name(), Self::Waiting),
        (Self::Delivered.name(), Self::Delivered),
        (Self::Parked.name(), Self::Parked),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Parked => "parked",
        }
    }
}

impl Command {
    /// The list whose page is answered as a document, if it is one.
    #[must_use]
    pub const fn listing(&self) -> Option<Listing> {
        match self {
            Self::Keys(_) => Some(Listing::Keys),
            Self::Usage(_) => Some(Listing::Usage),
            Self::UsageSummary(_) => Some(Listing::UsageSummary),
            Self::Events(_) => Some(Listing::Events),
            Self::Payments(ask) => ask.what.listing(),
            _ => None,
        }
    }

    /// Whether it is about what the deployment does only with Stripe's secrets.
    #[must_use]
    pub const fn is_of_payments(&self) -> bool {
        matches!(self, Self::ShowTopUp | Self::SetTopUp(_) | Self::RetryTopUp)
    }
}

/// Imports a key that was issued before Tollgate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ImportKey {
    /// The key.
    #[n(0)]
    pub new: NewKey,
    /// SHA-256 of its secret.
    #[n(1)]
    pub digest: SecretDigest,
}

/// Which keys are listed: the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeysQuery {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// Only keys with a higher number: where an earlier page ended.
    #[n(1)]
    pub after: Option<KeyNumber>,
}

impl Default for KeysQuery {
    fn default() -> Self {
        Self {
            limit: 50,
            after: None,
        }
    }
}

/// What the object answers, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Answer {
    /// The answer.
    #[n(0)]
    pub reply: Reply,
    /// Rows written on the way.
    #[n(1)]
    pub rows_written: u32,
    /// How many of the ends that came beside the message are kept now: the first so many.
    #[cbor(n(2), default)]
    pub ends_taken: u32,
}

/// What the object answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The request is a call now.
    #[n(0)]
    Admitted(#[n(0)] Box<Admission>),
    /// It is not.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// How the call stands; `None`: there is no such call.
    #[n(2)]
    Settled(#[n(0)] Option<Settled>),
    /// The admission is undone, or will be refused.
    #[n(3)]
    Cancelled,
    /// A document to be handed on.
    #[n(4)]
    Document(#[n(0)] Document),
    /// A command that is not carried out, or a page that is not shown.
    #[n(5)]
    Problem(#[n(0)] Complaint),
    /// The object cannot answer now; nothing was changed.
    #[n(6)]
    Unavailable {
        /// For the log.
        #[n(0)]
        detail: String,
    },
    /// A page of the ledger, for the Worker to write down.
    #[n(7)]
    Ledger(#[n(0)] LedgerPage),
    /// How far an audit has come.
    #[n(8)]
    Audit(#[n(0)] AuditStep),
    /// A slice of an export.
    #[n(50)]
    Export(#[n(0)] ExportSlice),
    /// A page at Stripe is to be made.
    #[n(52)]
    Order(#[n(0)] Box<Order>),
}

/// How far an audit has come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AuditStep {
    /// There is more to read: ask again.
    #[n(0)]
    Unfinished,
    /// It is done.
    #[n(1)]
    Finished {
        /// Whether the books are what history tells.
        #[n(0)]
        ok: bool,
        /// What was found, as JSON.
        #[n(1)]
        json: String,
    },
}

/// A JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Document {
    /// The HTTP status that it is told with.
    #[n(0)]
    pub status: u16,
    /// The JSON text; empty with 204.
    #[n(1)]
    pub json: String,
    /// Limits and credits of the key that asked, in self-service.
    #[n(2)]
    pub standing: Option<Standing>,
    /// The key that was created or rotated just now, and not by an earlier request of the same
    /// `Idempotency-Key`: the Worker, which has its secret, signs it.
    #[n(3)]
    pub created_key: Option<KeyNumber>,
}

/// A refusal of a command or a page.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Complaint {
    /// For programs.
    #[n(0)]
    pub code: Code,
    /// For people.
    #[n(1)]
    pub detail: String,
    /// The field of what was sent that is wrong.
    #[n(2)]
    pub field: Option<String>,
    /// After how many seconds the same can be asked again, where that is known.
    #[n(3)]
    pub retry_after_seconds: Option<u64>,
}

/// What is kept of a complaint.
#[derive(Serialize)]
struct Kept<'a> {
    code: &'static str,
    detail: &'a str,
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

impl Complaint {
    /// The `Idempotency-Key` came with another request before.
    #[must_use]
    pub fn mismatch() -> Self {
        Self {
            code: Code::IdempotencyMismatch,
            detail:
                "this Idempotency-Key was used for another request; a new request needs a new key"
                    .to_owned(),
            field: None,
            retry_after_seconds: None,
        }
    }

    /// As it is kept with an `Idempotency-Key`: all that tells of how things stood.
    #[must_use]
    pub fn to_json(&self) -> String {
        let kept = Kept {
            code: self.code.as_str(),
            detail: &self.detail,
            field: self.field.as_deref(),
            retry_after_seconds: self.retry_after_seconds,
        };
        // Texts alone: writing them cannot fail.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// What was kept so; `None` where something else was.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        let kept = json::parse(json).ok()?;
        let text = |name: &str| kept.member(name)?.string();
        let name = text("code")?;
        Some(Self {
            code: Code::ALL.into_iter().find(|code| code.as_str() == name)?,
            detail: text("detail")?.into_owned(),
            field: text("field").map(Into::into),
            retry_after_seconds: kept
                .member("retry_after_seconds")
                .and_then(json::Value::whole),
        })
    }
}

impl From<Complaint> for Problem {
    fn from(complaint: Complaint) -> Self {
        let Complaint {
            code,
            detail,
            field,
            retry_after_seconds,
        } = complaint;
        match (field, retry_after_seconds) {
            (Some(field), _) => Self::of_field(code, field, detail),
            (None, Some(seconds)) => Self::new(code, detail).passing_in(seconds),
            (None, None) => Self::new(code, detail),
        }
    }
}

/// A message that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "unreadable message: {}", self.0)
    }
}

/// Writes a message to an account's object, and beside it ends of calls. A reader that does not know of
/// ends beside a message passes over them.
pub fn encode_beside(request: &Request, ends: &[Settle]) -> Vec<u8> {
    let mut bytes = encode(request);
    if !ends.is_empty() && minicbor::encode(ends, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// Reads what [`encode_beside`] writes.
///
/// # Errors
/// Another version, or bytes that are no message.
pub fn decode_beside(bytes: &[u8]) -> Result<(Request, Vec<Settle>), Unreadable> {
    let mut decoder = minicbor::Decoder::new(of_version(bytes)?);
    let request = decoder.decode().map_err(unreadable)?;
    if decoder.position() == decoder.input().len() {
        return Ok((request, Vec::new()));
    }
    let ends = decoder.decode().map_err(unreadable)?;
    Ok((request, ends))
}

/// Writes a message.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing into memory cannot fail; an empty message would be unreadable at the other end.
    if minicbor::encode(message, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// Reads a message of this version, the one before or the one after.
///
/// # Errors
/// Another version, or bytes that are no message.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Unreadable> {
    minicbor::decode(of_version(bytes)?).map_err(unreadable)
}

/// A message without its version.
fn of_version(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((version, message)) if version.abs_diff(VERSION) <= 1 => Ok(message),
        Some((version, _)) => Err(Unreadable(format!("version {version}, expected {VERSION}"))),
        None => Err(Unreadable("empty".to_owned())),
    }
}

// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn unreadable(error: minicbor::decode::Error) -> Unreadable {
    Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_with_its_code_and_field() {
        let complaint = |code, field: Option<&str>| Complaint {
            code,
            detail: "no".to_owned(),
            field: field.map(str::to_owned),
            retry_after_seconds: None,
        };
        for (complaint, problem) in [
            (
                complaint(Code::BadRequest, Some("plan")),
                Problem::bad_field("plan", "no"),
            ),
            (
                complaint(Code::BadRequest, None),
                Problem::new(Code::BadRequest, "no"),
            ),
            (
                complaint(Code::NotFound, None),
                Problem::new(Code::NotFound, "no"),
            ),
            (
                complaint(Code::Conflict, Some("id")),
                Problem::of_field(Code::Conflict, "id", "no"),
            ),
        ] {
            assert_eq!(Problem::from(complaint), problem);
        }
    }

    #[test]
    fn the_versions_before_and_after_are_read_and_others_are_not() {
        let message = encode(&Request::Cancel(Cancel { operation: 7 }));
        for (version, is_read) in [(0, true), (1, true), (2, true), (3, false), (255, false)] {
            let mut sent = message.clone();
            sent[0] = version;
            assert_eq!(decode::<Request>(&sent).is_ok(), is_read, "{version}");
        }
        assert!(decode::<Request>(&[]).is_err());
    }

    #[test]
    fn ends_beside_a_message_are_passed_over_by_who_does_not_know_of_them() {
        let request = Request::Cancel(Cancel { operation: 7 });
        let end = Settle {
            call: CallNumber::new(1).unwrap(),
            operation: 3,
            status: 200,
            response_time_ms: 9,
            answered: true,
            reported: None,
            body: None,
        };
        let message = encode_beside(&request, &[end, end]);
        assert_eq!(
            decode_beside(&message),
            Ok((request.clone(), vec![end, end]))
        );
        assert_eq!(decode(&message), Ok(request.clone()));
        assert_eq!(encode_beside(&request, &[]), encode(&request));
        assert_eq!(decode_beside(&encode(&request)), Ok((request, Vec::new())));
    }

    /// A message as the version after may write it: with a place more.
    #[derive(Encode)]
    #[cbor(array)]
    struct LongerQuery {
        #[n(0)]
        limit: u32,
        #[n(1)]
        offset: u32,
        #[n(2)]
        before: Option<CallNumber>,
        #[n(3)]
        filter: UsageFilter,
        #[n(4)]
        added: &'static str,
    }

    /// One as the version before wrote it: without its last, optional place.
    #[derive(Encode)]
    #[cbor(array)]
    struct ShorterAnswer {
        #[n(0)]
        code: Code,
        #[n(1)]
        detail: &'static str,
    }

    #[test]
    fn places_that_are_not_known_are_passed_over_and_missing_ones_are_absent() {
        let longer = LongerQuery {
            limit: 50,
            offset: 3,
            before: None,
            filter: UsageFilter::default(),
            added: "later",
        };
        let read: UsageQuery = decode(&encode(&longer)).unwrap();
        assert_eq!((read.limit, read.offset), (50, 3));

        let shorter = ShorterAnswer {
            code: Code::NotFound,
            detail: "gone",
        };
        let read: Complaint = decode(&encode(&shorter)).unwrap();
        assert_eq!((read.code, read.field), (Code::NotFound, None));
    }
}
