//! What this release has written is read by every later one: bytes that stand here for good.

use std::sync::Arc;

use tollgate::{
    account::{Account, NewAccount, Rolled, StatusChange, Stored, TopUpSettings},
    directory::{self, Directory, Kind, Name, Search, Store as _},
    event::EventRecord,
    id::{AccountId, ExternalId, KeyNumber},
    json,
    object::{self, Intent, Object, Opened, Store},
    payments::{
        ask::{Ask, What},
        history::Payment,
        money::Money,
        sighting::Reversal,
        top_up::top_up_of,
    },
    policy::Source,
    protocol::{Command, Reply},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost, fingerprint},
    memory_directory::MemoryDirectory,
    memory_store::MemoryStore,
    memory_stripe::{Card, Fault, MemoryStripe, shown},
    sold,
};

const OPENED: &str = "2026-11-02T10:00:00Z";

/// Its profile as the first release stored it.
const PROFILE: &str = "
    8963616363f6f6f61b000001a19bb39500856773746172746572f5850a1903e8f6f6183c14828467637265646974
    7319012c8201800084666c7972696373186482018000820080828200800201";
/// Its key.
const KEY: &str = "
    835820b40711a88c7039756fb8a73827eabe2c0fe5a0346ca7e0a104adc0fc764f528df61b000001a19bb39500";
/// Its snapshot.
const SNAPSHOT: &str = "
    828b1b000001a19bb395000283a267637265646974738282890182028019012c0f04001b000001a2340d0c001b00
    0001a19bb395001b000001a19bb3950089038201801864000000f61b000001a19bb395001b000001a19bb3950083
    000000666c79726963738281890282028018640000001b000001a2340d0c001b000001a19bb395001b000001a19b
    b3950083000000030382846763726564697473018201801b000001a2340d0c0084666c7972696373028201801b00
    0001a2340d0c0080a101848282821b000001a19bb3950001821b000001a19bb39500021b000001a19bb395008182
    19511702801b000001a19bb395008282821b000001a19bb3950001821b000001a19bb39500021b000001a19bb395
    008183195f02010080821a000f42411a000f4242a08102";

/// A month that was rolled up: two calls of 15 credits, the second of which failed. A row of totals
/// is its last but one place: lines of the start, the key, the endpoint, the pool and the tally.
const ROLLED: &str = "
    89195f020001020200a16763726564697473a1010f81851b000001a1998e440001672f7365617263686763726564
    6974738302010f02";

/// An account with something of everything that is stored: two pools, a key, a bought lot, a call
/// that ended, one that is open. Its rows end at the snapshot.
fn account() -> Branch {
    let opened = Timestamp::parse_rfc3339(OPENED).unwrap();
    let mut branch = Branch::with_account("standard", "starter", opened);
    branch.call(cost(15));
    branch.settle(1, 200);
    branch.call(cost(4));
    branch.grant("credits", 100, Source::Extra, None);
    branch
}

fn unhex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// How the account of these bytes looks when it wakes.
fn woken(profile: &[u8], key: &[u8], snapshot: &[u8]) -> Account {
    let branch = account();
    let stored = Stored::read(profile, snapshot, None).unwrap();
    assert_eq!(stored.keys(), [KeyNumber::new(1)]);
    let keys = [(KeyNumber::new(1), key.to_vec())];
    let rows = stored
        .open()
        .iter()
        .map(|call| branch.row(call.get()).clone())
        .collect();
    stored
        .wake(
            Arc::clone(&sold::edited("standard")),
            &keys,
            rows,
            branch.clock,
        )
        .unwrap()
        .0
}

#[test]
fn an_account_stored_by_the_first_release_wakes() {
    let branch = account();
    let account = woken(&unhex(PROFILE), &unhex(KEY), &unhex(SNAPSHOT));
    let now = branch.store().load().unwrap().unwrap();
    let expected = woken(&now.profile, &branch.key_row(1), &now.snapshot);
    // It did not count what each key's calls cost.
    let key = |account: &Account| {
        let key = account.key_view(KeyNumber::new(1), branch.clock);
        let mut key = serde_json::to_value(key).unwrap();
        key["budget_used"] = 0.into();
        key
    };
    assert_eq!(key(&account), key(&expected));
    for (told, expected) in [
        (
            serde_json::to_value(account.view()),
            serde_json::to_value(expected.view()),
        ),
        (
            serde_json::to_value(account.balance_view()),
            serde_json::to_value(expected.balance_view()),
        ),
    ] {
        assert_eq!(told.unwrap(), expected.unwrap());
    }
    let credits = &serde_json::to_value(account.balance_view()).unwrap()["pools"]["credits"];
    assert_eq!(
        (&credits["available"], &credits["held"]),
        (&381.into(), &4.into())
    );
    // It was opened before there was a directory, which has to be told of it.
    let report = account.report().unwrap();
    assert_eq!(report.account, account.view());
    assert!(expected.report().is_none_or(|report| report.version > 1));
}

/// A listed account, as the first release of the directory stored it.
const RECORD: &str = "
    846461636d6501825820010101010101010101010101010101010101010101010101010101010101010158200202
    020202020202020202020202020202020202020202020202020202020202820082886461636d65656375735f3968
    41636d65204c7464706f70734061636d652e6578616d706c656773746172746572820080828201811b000001a229
    c05400181f1b000001a19bb3950080";
/// A plan in force, as it stored it.
const IN_FORCE: &str = "
    82856773746172746572f5850a1903e8f6f6183c148284676372656469747319012c8201800084666c7972696373
    18648201800001";
/// The intent to open an account, as the first release that had one stored it.
const OPENING: &str = "
    820183886461636d65656375735f396841636d65204c7464706f70734061636d652e6578616d706c656773746172
    746572181f8201808258200101010101010101010101010101010101010101010101010101010101010101582002
    02020202020202020202020202020202020202020202020202020202020202856773746172746572f5850a1903e8
    f6f6183c148284676372656469747319012c8201800084666c79726963731864820180001b000001a19bb39500";

#[test]
fn what_the_first_directory_stored_is_read() {
    let (policy, new) = (sold::edited("standard"), wanted());
    let mut object = Object::new(MemoryStore::default(), Arc::clone(&policy));
    let opened = Timestamp::parse_rfc3339(OPENED).unwrap();
    object
        .store_mut()
        .commit(&object::Write {
            opening: Some(Intent::Keep(unhex(OPENING))),
            ..object::Write::default()
        })
        .unwrap();
    let Opened::Claim(claim) = object.open(&new, opened) else {
        panic!("an account");
    };
    let directory::Request::Claim { report, opened_by } = *claim else {
        panic!("{claim:?}");
    };
    assert_eq!((report.version, opened_by), (1, new.opened_by));

    let mut tables = MemoryDirectory::default();
    let name = |kind, text: &str| Name {
        kind,
        text: text.to_owned(),
    };
    tables
        .commit(&directory::Write {
            record: Some((7, unhex(RECORD))),
            named: vec![name(Kind::Id, "acme"), name(Kind::Plan, "starter")],
            plans: vec![("starter".to_owned(), unhex(IN_FORCE))],
            ..directory::Write::default()
        })
        .unwrap();
    let mut directory = Directory::new(tables, policy);
    let list = directory::Request::List(Search {
        limit: 1,
        ..Search::default()
    });
    let directory::Reply::Page(page) = directory.handle(list) else {
        panic!("no page");
    };
    assert_eq!(page.accounts, [report.account]);
    let directory::Reply::Plans(plans) = directory.handle(directory::Request::Plans) else {
        panic!("no plans");
    };
    assert_eq!((plans[0].plan.clone(), plans[0].accounts), (report.plan, 1));
}

fn wanted() -> NewAccount {
    NewAccount {
        id: AccountId::parse("acme").unwrap(),
        external_id: ExternalId::parse("cus_9"),
        name: Some("Acme Ltd".to_owned()),
        email: Some("ops@acme.example".to_owned()),
        plan: "starter".to_owned(),
        billing_day: Some(31),
        subscription: Some(StatusChange::Cancelled),
        opened_by: fingerprint(1, 2),
    }
}

#[test]
fn a_month_rolled_up_by_the_first_release_is_read() {
    let mut branch = Branch::with_account(
        "usage_7",
        "prepaid",
        Timestamp::parse_rfc3339(OPENED).unwrap(),
    );
    branch.grant("credits", 100, Source::Extra, None);
    for (call, status) in [(1, 200), (2, 404)] {
        branch.call(cost(15));
        branch.settle(call, status);
    }
    branch.set_clock(branch.clock.plus(Span::from_days(60)));
    branch.rest().unwrap();
    let rolled: Rolled = minicbor::decode(&unhex(ROLLED)).unwrap();
    assert_eq!(branch.store().rolled(0, 1).unwrap(), [rolled]);
}

/// The profile of an account that was closed, as the first release that closes accounts stored it.
const CLOSED: &str = "
    8a63616363f6f6f61b000001a19bb39500856773746172746572f5850a1903e8f6f6183c14828467637265646974
    7319012c8201800084666c79726963731864820180008202811b000001a19bb39500828200800201a0";
/// The snapshot of an account with a habit and two flags, as the first release that raises flags stored it: one
/// for what it spent, which restricts, and one for a key's refusals.
const FLAGGED: &str = "
    82961b000001a20846fe000283a1676372656469747382818901820180186418470000f61b000001a19bb395001b
    000001a207d921008300000001018080a101968281821b000001a207d92100021b000001a207d921008282195117
    018219512c01801b000001a207d921008182195f021847818219512c05f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6841b
    000001a20846fe008201830105061b000001a2087dec80f48281821b000001a207d92100021b000001a207d92100
    8183195f02010080821a000f42411a000f4242a0a1195f0282851b000001a19bb3950001672f7365617263686763
    7265646974738301000a851b000001a207d9210001672f7365617263686763726564697473830100183d8404011b
    000001a19bb395001b4a0b124339864e7af6f602f6f6f6f6808184676372656469747319511782821951170a8219
    512c183d841b000001a207d921008200836763726564697473183d0a1b000001a208100f80f480";

/// An account that spent 10 credits, then 61 on a day three weeks later, and whose key was refused 5 times.
fn flagged() -> Branch {
    let opened = Timestamp::parse_rfc3339(OPENED).unwrap();
    let mut branch = Branch::with_account("unusual", "prepaid", opened);
    branch.grant("credits", 100, Source::Extra, None);
    for (call, price, day) in [(1, 10, 0), (2, 61, 21)] {
        branch.set_clock(opened.plus(Span::from_days(day)));
        branch.call(cost(price));
        branch.settle(call, 200);
    }
    branch.set_clock(branch.clock.plus(Span::from_seconds(7_200)));
    branch.ask_after_repeats(5, 1, cost(0));
    branch
}

#[test]
fn a_habit_and_flags_are_read() {
    let branch = flagged();
    let now = branch.store().load().unwrap().unwrap();
    let account = woken(&now.profile, &branch.key_row(1), &unhex(FLAGGED));
    let expected = woken(&now.profile, &branch.key_row(1), &now.snapshot);
    assert_eq!(account.view().flags.len(), 2);
    assert_eq!(account.view(), expected.view());
}

/// The snapshot of an account whose top-up is paused and that asks for one more, as the first release with
/// top-up stored it, and as this one does; then its events, that are to be sent and that are kept, and a
/// payment that was refunded in part.
const FIRST_TOP_UP: &str = "
    83981b1b000001a19e7db1800283a16763726564697473828289018201801905dc1905dc0000f61b000001a19bb3
    95001b000001a19cfd2c008a028201801904b01904b00000f61b000001a19cfd2c001b000001a19e46c3001b0000
    00080befc0008300000002038080a101868281821b000001a19cfd2c00021b000001a19cfd2c0081821951170280
    1b000001a19cfd2c008182195f02190a8c808281821b000001a19cfd2c00021b000001a19cfd2c008183195f0201
    0080821a000f42411a000f4242a0a1195f0282851b000001a19bb3950001672f7365617263686763726564697473
    83010019044c851b000001a19cfd2c0001672f73656172636867637265646974738301001906408402011b000001
    a19bb395001b9c8c3a188cf1098a820082871b000001a19bb3950001a000000000871b000001a19cfd2c0001a000
    000000f602f6f6f6f680818367637265646974731951178182195117190a8cf6f683656375735f310180f68a84f5
    1901f41907d08219271081437573641b000001a19cfd2c00038b840367637265646974731907d0821907d0814375
    7364656375735f31f41b000001a19e7db180001b000001a19e7db180f6f6f6f6f48b840267637265646974731906
    40821906408143757364656375735f31f41b000001a19e46c300071b000001a19e7db180f664706d5f3164696e5f
    32781968747470733a2f2f696e766f6963652e746573742f696e5f32f4831b000001a19e46c3008200816d636172
    645f6465636c696e6564781968747470733a2f2f696e766f6963652e746573742f696e5f321b000001a19e7db180
    1b000001a19cfd2c0082195f02821907d08143757364841b000001a19e46c3008402676372656469747319064082
    19064081437573648200816d636172645f6465636c696e656464696e5f328080";
const TOP_UP: &str = "
    83981b1b000001a19e7db1800283a16763726564697473828289018201801905dc1905dc0000f61b000001a19bb3
    95001b000001a19cfd2c008a028201801904b01904b00000f61b000001a19cfd2c001b000001a19e46c3001b0000
    00080befc0008300000002038080a101868281821b000001a19cfd2c00021b000001a19cfd2c0081821951170280
    1b000001a19cfd2c008182195f02190a8c808281821b000001a19cfd2c00021b000001a19cfd2c008183195f0201
    0080821a000f42411a000f4242a0a1195f0282851b000001a19bb3950001672f7365617263686763726564697473
    83010019044c851b000001a19cfd2c0001672f73656172636867637265646974738301001906408402011b000001
    a19bb395001b9c8c3a188cf1098a820082871b000001a19bb3950001a000000000871b000001a19cfd2c0001a000
    000000f602f6f6f6f680818367637265646974731951178182195117190a8cf6f683656375735f310180f68d84f5
    1901f41907d08219271081437573641b000001a19cfd2c00038e840367637265646974731907d0821907d0814375
    7364656375735f31f41b000001a19e7db180001b000001a19e7db180f6f6f6f6f4f6f6008e840267637265646974
    73190640821906408143757364656375735f31f41b000001a19e46c300071b000001a19e7db180f664706d5f3164
    696e5f32781968747470733a2f2f696e766f6963652e746573742f696e5f32f41907d0f6190190831b000001a19e
    46c3008200816d636172645f6465636c696e6564781968747470733a2f2f696e766f6963652e746573742f696e5f
    321b000001a19e7db1801b000001a19cfd2c0082195f02821907d08143757364841b000001a19e46c30084026763
    7265646974731906408219064081437573648200816d636172645f6465636c696e656464696e5f3264706d5f3183
    195f028219064081437573641907d0811b000001a19e7db1808080";
const NOTICES: &str = "
    8405838582011b000001a19cfd2c0082021b000001a19e46c30082031b000001a19e46c30082041b000001a19e46
    c30082051b000001a19e46c30000008380000000";
const EVENT: &str = "
    85031b000001a19e46c30005787a7b226163636f756e74223a22616363222c2265787465726e616c5f6964223a6e
    756c6c2c22726561736f6e223a22746865207061796d656e7420776173206465636c696e65642028636172645f64
    65636c696e656429222c2275726c223a2268747470733a2f2f696e766f6963652e746573742f696e5f32227d8200
    80";
const PAYMENT: &str = "
    8a011b000001a19cfd2c0064696e5f3182038184016763726564697473190640821906408143757364021907d081
    4375736484f66770695f696e5f3164696e5f31781968747470733a2f2f696e766f6963652e746573742f696e5f31
    841b000001a19e46c3001901f400f4818567637265646974730219064019019000";

/// It has bought a top-up, with tax, of which a part went back; the next one was declined, and the customer
/// has asked for another one, which waits until the first one's invoice is void.
fn topped_up() -> Branch {
    let opened = Timestamp::parse_rfc3339(OPENED).unwrap();
    let mut branch = Branch::with_account("top_up told", "prepaid", opened);
    let mut stripe = MemoryStripe::default();
    stripe.tax = 25;
    let portal = Ask {
        what: What::Portal,
        made: Some("cus_1".into()),
        gone: None,
    };
    branch.manage(Command::Payments(portal), None);
    branch.grant("credits", 1_500, Source::Extra, None);
    let settings = TopUpSettings {
        is_on: true,
        threshold: sold::credits(500),
        target: sold::credits(2_000),
        monthly_cap: Some(Money::parse("100.00 USD").unwrap()),
    };
    branch.manage(Command::SetTopUp(settings), None);
    for (nth, card) in [Card::Good, Card::Declined].into_iter().enumerate() {
        stripe.card = card;
        let price = if nth == 0 { 1_100 } else { 1_600 };
        branch.call(cost(price));
        branch.settle(1 + nth as u64, 200);
        branch.set_clock(branch.clock.plus(Span::from_seconds(6 * 3_600)));
        branch.rest().unwrap();
        while let Some(ask) = branch.object.top_up_ask(branch.clock) {
            let answer = stripe.ask(&ask.call, Fault::None, branch.clock);
            let object = &mut branch.object;
            object
                .top_up_answered(ask.asked, answer, branch.clock)
                .unwrap();
        }
    }
    let invoice = shown(&stripe.invoices[0]).to_string();
    let (_, mut sighting) = top_up_of(json::parse(&invoice).unwrap()).unwrap();
    sighting.reversal = Some(Reversal {
        as_of: branch.clock,
        refunded: 500,
        disputed: 0,
        is_open: false,
    });
    branch.manage(Command::SeePayment(Box::new(sighting)), None);
    branch.set_clock(branch.clock.plus(Span::HOUR));
    branch.manage(Command::RetryTopUp, None);
    branch
}

#[test]
fn top_ups_payments_and_events_are_read() {
    let branch = topped_up();
    let now = branch.store().load().unwrap().unwrap();
    let woken = |snapshot: &[u8], notices: &[u8]| {
        let stored = Stored::read(&now.profile, snapshot, Some(notices)).unwrap();
        let keys = [(KeyNumber::new(1), branch.key_row(1))];
        let policy = Arc::clone(&branch.policy);
        stored
            .wake(policy, &keys, Vec::new(), branch.clock)
            .unwrap()
            .0
    };
    let expected = woken(&now.snapshot, now.notices.as_ref().unwrap());
    for snapshot in [FIRST_TOP_UP, TOP_UP] {
        let account = woken(&unhex(snapshot), &unhex(NOTICES));
        let view = |account: &Account| {
            let clock = branch.clock;
            let view = account.top_up_view(clock).map(serde_json::to_value);
            (view.unwrap().unwrap(), account.top_up_ask(clock))
        };
        assert_eq!(view(&account), view(&expected));
        assert_eq!(account.customer(), Some("cus_1"));
        assert_eq!(account.events_emitted(), expected.events_emitted());
        assert_eq!(account.notices_bytes(), expected.notices_bytes());
    }
    let event: EventRecord = minicbor::decode(&unhex(EVENT)).unwrap();
    assert_eq!(branch.store().event(event.number).unwrap(), Some(event));
    let payment: Payment = minicbor::decode(&unhex(PAYMENT)).unwrap();
    assert_eq!(branch.store().payment("in_1").unwrap(), Some(payment));
}

/// What was left of it when it was erased.
const TOMBSTONE: &str = "84636163631b000001a9a7a3550004f4";

#[test]
fn a_closed_account_and_what_is_left_of_an_erased_one_are_read() {
    let mut branch = account();
    branch.close();
    let now = branch.store().load().unwrap().unwrap();
    let closed = woken(&unhex(CLOSED), &branch.key_row(1), &now.snapshot);
    let expected = woken(&now.profile, &branch.key_row(1), &now.snapshot);
    assert!(closed.is_closed());
    assert_eq!(closed.view(), expected.view());

    let mut object = Object::new(MemoryStore::default(), sold::edited("standard"));
    let write = object::Write {
        tombstone: Some(unhex(TOMBSTONE)),
        ..object::Write::default()
    };
    object.store_mut().commit(&write).unwrap();
    let opened = object.open(&wanted(), branch.clock);
    assert!(
        matches!(opened, Opened::Answered(Reply::Problem(_))),
        "{opened:?}"
    );
    let id = AccountId::parse("acc").unwrap();
    let erased = directory::Request::Erased { id, version: 4 };
    assert_eq!(object.report(), Some(erased));
}
