//! The directory: what it costs, what it finds, and what it refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use proptest::prelude::*;
use tollgate::{
    account::{Listed, Status, Subscription, SubscriptionStatus},
    directory::{
        Directory, EXAMINED_MAX, Filter, Page, PlanInForce, Reply, Report, Request, Search, Taken,
        query_text,
    },
    id::{AccountId, ExternalId},
    key::SecretId,
    policy::Policy,
    protocol::{decode, encode},
    time::Timestamp,
};

use crate::{branch::fingerprint, memory_directory::MemoryDirectory, properties::config, sold};

static SOLD: LazyLock<Arc<Policy>> = LazyLock::new(|| sold::edited("standard"));

fn directory(policy: Arc<Policy>) -> Directory<MemoryDirectory> {
    Directory::new(MemoryDirectory::default(), policy)
}

/// Sends a request as it travels: in bytes.
fn ask(directory: &mut Directory<MemoryDirectory>, request: &Request) -> Reply {
    let request = decode(&encode(request)).expect("a readable request");
    let reply = directory.handle(request);
    decode(&encode(&reply)).expect("a readable reply")
}

/// The first version of an account named by its number.
fn report(number: u32) -> Report {
    let plan = if number.is_multiple_of(100) {
        "pro"
    } else {
        "free"
    };
    Report {
        version: 1,
        account: Listed {
            id: AccountId::parse(&format!("acc_{number}")).expect("an id"),
            external_id: ExternalId::parse(&format!("cus_{number}")),
            name: Some(format!("Company {number} Ltd")),
            email: Some(format!("ops@company-{number}.example")),
            plan: plan.to_owned(),
            status: if number % 50 == 7 {
                Status::Suspended { reason: None }
            } else {
                Status::Active
            },
            subscription: Subscription {
                status: SubscriptionStatus::Active,
                billing_day: 1,
            },
            created_at: Timestamp::from_seconds(i64::from(number)),
            balance_low: None,
            flags: Vec::new(),
        },
        plan: SOLD.plans[plan].as_ref().clone(),
        secrets: BTreeSet::new(),
    }
}

fn claim(number: u32) -> Request {
    let mut opened_by = fingerprint(0, 1);
    opened_by.key[..4].copy_from_slice(&number.to_be_bytes());
    Request::Claim {
        report: report(number),
        opened_by,
    }
}

fn filled(accounts: u32) -> Directory<MemoryDirectory> {
    let mut directory = directory(Arc::clone(&SOLD));
    for number in 1..=accounts {
        assert_eq!(directory.handle(claim(number)), Reply::Known(1));
    }
    directory
}

fn page(directory: &mut Directory<MemoryDirectory>, search: Search) -> Page {
    match ask(directory, &Request::List(search)) {
        Reply::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

/// All pages of a list: what is on them, and how many there are.
fn all(directory: &mut Directory<MemoryDirectory>, filter: &Filter) -> (Vec<String>, usize) {
    let mut ids = Vec::new();
    let (mut pages, mut after) = (0, None);
    loop {
        directory.store().rows_read.set(0);
        let search = Search {
            limit: 500,
            filter: filter.clone(),
            after,
            secrets: BTreeSet::new(),
        };
        let page = page(directory, search);
        assert!(directory.store().rows_read.get() <= 5_000);
        assert!(page.accounts.len() <= 500);
        ids.extend(page.accounts.iter().map(|account| account.id.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (ids, pages);
        }
    }
}

fn by_query(query: &str) -> Filter {
    Filter {
        query: query_text(query),
        ..Filter::default()
    }
}

fn ids(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|number| format!("acc_{number}")).collect()
}

#[test]
fn an_account_costs_the_same_among_ten_and_among_three_thousand() {
    let cost_of_next = |directory: &mut Directory<MemoryDirectory>, number| {
        let store = directory.store();
        let (written, read) = (store.rows_written, store.rows_read.get());
        assert_eq!(directory.handle(claim(number)), Reply::Known(1));
        let store = directory.store();
        (store.rows_written - written, store.rows_read.get() - read)
    };
    let mut directory = filled(10);
    let few = cost_of_next(&mut directory, 100_011);
    for number in 11..3_000 {
        directory.handle(claim(number));
    }
    let many = cost_of_next(&mut directory, 100_013);
    assert_eq!(few, many);
    assert!(few.0 <= 20 && few.1 <= 10, "{few:?}");
}

#[test]
fn every_list_is_paged_through_in_bounded_work_and_has_each_account_once() {
    let mut directory = filled(2_600);
    let plan = |plan: &str| Filter {
        plan: Some(plan.to_owned()),
        ..Filter::default()
    };
    let status = |status: &str| Filter {
        status: Some(status.to_owned()),
        ..Filter::default()
    };
    let every = || (1..=2_600).rev();
    for (filter, expected) in [
        (Filter::default(), ids(every())),
        (plan("pro"), ids(every().filter(|n| n % 100 == 0))),
        (plan("free"), ids(every().filter(|n| n % 100 != 0))),
        (plan("gone"), vec![]),
        (status("suspended"), ids(every().filter(|n| n % 50 == 7))),
        (
            Filter {
                plan: Some("pro".to_owned()),
                ..status("suspended")
            },
            vec![],
        ),
        (
            Filter {
                plan: Some("free".to_owned()),
                ..status("active")
            },
            ids(every().filter(|n| n % 100 != 0 && n % 50 != 7)),
        ),
    ] {
        assert_eq!(all(&mut directory, &filter).0, expected, "{filter:?}");
    }
    // Found by words: in their order, each account once, though more than one of its words fits.
    for (query, filter, expected) in [
        ("company", Filter::default(), ids(1..=2_600)),
        (
            "company",
            plan("pro"),
            ids((1..=2_600).filter(|n| n % 100 == 0)),
        ),
        (
            "c",
            status("suspended"),
            ids((1..=2_600).filter(|n| n % 50 == 7)),
        ),
    ] {
        let filter = Filter {
            query: query_text(query),
            ..filter
        };
        let (mut found, _) = all(&mut directory, &filter);
        let mut expected = expected;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
}

#[test]
fn a_search_that_meets_the_bound_answers_with_what_it_found() {
    let mut directory = filled(2_600);
    let filter = Filter {
        status: Some("active".to_owned()),
        plan: Some("pro".to_owned()),
        ..by_query("company")
    };
    let search = Search {
        limit: 500,
        filter,
        after: None,
        secrets: BTreeSet::new(),
    };
    let page = page(&mut directory, search);
    assert!(page.next.is_some());
    assert!(page.accounts.len() < 60);
    let looked_at = directory.store().rows_read.get() as u32;
    assert!(looked_at >= 2 * EXAMINED_MAX);
}

#[test]
fn accounts_are_found_by_the_beginning_of_their_words() {
    let mut directory = filled(30);
    let mut account = report(1_000);
    account.account.name = Some("Müller & Söhne (Berlin)".to_owned());
    account.account.email = Some("Ops@Mueller.Example".to_owned());
    account.account.external_id = ExternalId::parse("CRM 7/x");
    directory.handle(Request::Tell(account));
    for query in [
        "acc_1000",
        "ACC_1000",
        "1000",
        "müller",
        "MÜLLER & sö",
        "söhne",
        "berlin",
        "(berlin)",
        "ops@mueller",
        "mueller.ex",
        "@mueller.example",
        "crm 7",
        "7/X",
    ] {
        let (found, _) = all(&mut directory, &by_query(query));
        assert_eq!(found, ["acc_1000"], "{query}");
    }
    for (query, found) in [
        ("company 17", vec!["acc_17"]),
        ("company-17.example", vec!["acc_17"]),
        ("ompany", vec![]),
        ("nobody", vec![]),
        (
            "cus_2",
            vec![
                "acc_2", "acc_20", "acc_21", "acc_22", "acc_23", "acc_24", "acc_25", "acc_26",
                "acc_27", "acc_28", "acc_29",
            ],
        ),
    ] {
        assert_eq!(all(&mut directory, &by_query(query)).0, found, "{query}");
    }
    for (external_id, found) in [
        ("cus_7", vec!["acc_7"]),
        ("CUS_7", vec![]),
        ("cus_", vec![]),
    ] {
        let filter = Filter {
            external_id: ExternalId::parse(external_id),
            ..Filter::default()
        };
        assert_eq!(all(&mut directory, &filter).0, found, "{external_id}");
    }
}

#[test]
fn a_closed_account_has_given_up_its_external_id_and_an_erased_one_everything_but_its_id() {
    let mut directory = filled(2);
    let mut closed = report(1);
    (closed.version, closed.account.status) = (
        2,
        Status::Closed {
            at: Timestamp::from_seconds(9),
        },
    );
    let plan = closed.account.plan.clone();
    let in_force = |directory: &mut Directory<_>| match ask(directory, &Request::Plans) {
        Reply::Plans(plans) => plans
            .iter()
            .find(|each| each.plan.name == plan)
            .map(|each| each.accounts),
        other => panic!("{other:?}"),
    };
    assert_eq!(in_force(&mut directory), Some(2));
    assert_eq!(ask(&mut directory, &Request::Tell(closed)), Reply::Known(2));
    assert_eq!(in_force(&mut directory), Some(1), "it is on no plan");
    let external_id = |number: u32| Filter {
        external_id: ExternalId::parse(&format!("cus_{number}")),
        ..Filter::default()
    };
    let status = |status: &str| Filter {
        status: Some(status.to_owned()),
        ..Filter::default()
    };
    for (filter, expected) in [
        (external_id(1), vec![]),
        (status("closed"), vec!["acc_1"]),
        (status("active"), vec!["acc_2"]),
        (by_query("cus_1"), vec!["acc_1"]),
    ] {
        assert_eq!(all(&mut directory, &filter).0, expected, "{filter:?}");
    }
    let mut heir = claim(3);
    if let Request::Claim { report, .. } = &mut heir {
        report.account.external_id = ExternalId::parse("cus_1");
    }
    assert_eq!(ask(&mut directory, &heir), Reply::Known(1));
    assert_eq!(all(&mut directory, &external_id(1)).0, ["acc_3"]);

    let id = AccountId::parse("acc_1").expect("an id");
    let erased = Request::Erased { id, version: 3 };
    assert_eq!(ask(&mut directory, &erased), Reply::Known(3));
    let rows = directory.store().rows_written;
    // A repeat, and a late copy of what it was.
    assert_eq!(ask(&mut directory, &erased), Reply::Known(3));
    assert_eq!(
        ask(&mut directory, &Request::Tell(report(1))),
        Reply::Known(3)
    );
    assert_eq!(directory.store().rows_written, rows);
    for filter in [by_query("company 1"), by_query("acc_1"), status("closed")] {
        assert_eq!(all(&mut directory, &filter).0, [""; 0], "{filter:?}");
    }
    assert_eq!(
        all(&mut directory, &Filter::default()).0,
        ["acc_3", "acc_2"]
    );
    // What opened it opens nothing else.
    let mut again = claim(1);
    if let Request::Claim { report, .. } = &mut again {
        report.account.id = AccountId::parse("acc_4").expect("an id");
    }
    let taken = Taken::IdempotencyKey;
    assert_eq!(
        ask(&mut directory, &again),
        Reply::Taken { version: 1, taken }
    );
}

#[test]
fn who_has_a_key_under_an_older_secret_is_found_until_it_is_revoked() {
    let mut directory = filled(5);
    let secret = |id: u32| decode::<SecretId>(&encode(&id)).expect("an id");
    let tell = |directory: &mut Directory<_>, number, version, secrets: &[u32]| {
        let report = Report {
            version,
            secrets: secrets.iter().map(|id| secret(*id)).collect(),
            ..report(number)
        };
        assert_eq!(
            ask(directory, &Request::Tell(report)),
            Reply::Known(version)
        );
    };
    tell(&mut directory, 2, 2, &[1, 3]);
    tell(&mut directory, 3, 2, &[1, 2]);
    tell(&mut directory, 4, 2, &[3]);
    let with_previous = |directory: &mut Directory<_>, limit| {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = page(
                directory,
                Search {
                    limit,
                    filter: Filter {
                        previous_keys: true,
                        ..Filter::default()
                    },
                    after,
                    secrets: BTreeSet::from([secret(1), secret(2)]),
                },
            );
            found.extend(page.accounts.iter().map(|account| account.id.to_string()));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    assert_eq!(with_previous(&mut directory, 50), ["acc_3", "acc_2"]);
    assert_eq!(with_previous(&mut directory, 1), ["acc_3", "acc_2"]);
    tell(&mut directory, 3, 3, &[3]);
    assert_eq!(with_previous(&mut directory, 50), ["acc_2"]);
}

#[test]
fn what_is_older_than_what_was_heard_changes_nothing() {
    let mut directory = filled(1);
    let at = |version, name: &str| {
        let mut report = report(1);
        report.version = version;
        report.account.name = Some(name.to_owned());
        Request::Tell(report)
    };
    assert_eq!(ask(&mut directory, &at(3, "Third")), Reply::Known(3));
    let rows = directory.store().rows_written;
    for late in [at(2, "Second"), at(3, "Third"), claim(1)] {
        assert_eq!(ask(&mut directory, &late), Reply::Known(3));
    }
    assert_eq!(directory.store().rows_written, rows);
    assert_eq!(all(&mut directory, &by_query("third")).0, ["acc_1"]);
    assert!(all(&mut directory, &by_query("company 1")).0.is_empty());
}

#[test]
fn what_another_account_has_is_refused_and_a_late_copy_stays_refused() {
    let mut directory = filled(2);
    let as_other = |change: fn(&mut Report), key: u8| {
        let mut report = report(9);
        change(&mut report);
        Request::Claim {
            report,
            opened_by: fingerprint(key, 1),
        }
    };
    let same_external_id = as_other(
        |report| report.account.external_id = ExternalId::parse("cus_2"),
        9,
    );
    let taken = Reply::Taken {
        version: 1,
        taken: Taken::ExternalId(AccountId::parse("acc_2").expect("an id")),
    };
    assert_eq!(ask(&mut directory, &same_external_id), taken);
    assert_eq!(ask(&mut directory, &same_external_id), taken);
    assert_eq!(
        all(&mut directory, &Filter::default()).0,
        ["acc_2", "acc_1"]
    );

    // The id was not given out: another request may have it, under another version.
    let again = as_other(|report| report.version = 2, 9);
    assert_eq!(ask(&mut directory, &again), Reply::Known(2));
    assert_eq!(ask(&mut directory, &same_external_id), Reply::Known(2));
    assert_eq!(
        all(&mut directory, &Filter::default()).0,
        ["acc_9", "acc_2", "acc_1"]
    );

    // One Idempotency-Key opens one account, whatever else is free.
    let mut other = report(10);
    other.account.external_id = None;
    let same_key = Request::Claim {
        report: other,
        opened_by: fingerprint(9, 2),
    };
    let refused = ask(&mut directory, &same_key);
    assert!(
        matches!(
            refused,
            Reply::Taken {
                version: 1,
                taken: Taken::IdempotencyKey
            }
        ),
        "{refused:?}"
    );
}

#[test]
fn a_plan_in_force_is_known_after_it_left_the_policy_as_it_was_last_sold() {
    let mut directory = filled(100);
    let in_force = |directory: &mut Directory<_>| match ask(directory, &Request::Plans) {
        Reply::Plans(plans) => plans,
        other => panic!("{other:?}"),
    };
    let counted = |plans: &[PlanInForce]| {
        let counts = plans
            .iter()
            .map(|each| (each.plan.name.clone(), each.accounts));
        counts.collect::<BTreeMap<_, _>>()
    };
    let counts = |free, pro| BTreeMap::from([("free".to_owned(), free), ("pro".to_owned(), pro)]);
    assert_eq!(counted(&in_force(&mut directory)), counts(99, 1));
    let mut moved = report(5);
    moved.version = 2;
    moved.account.plan = "pro".to_owned();
    moved.plan = sold::edited("standard").plans["pro"].as_ref().clone();
    ask(&mut directory, &Request::Tell(moved));
    assert_eq!(counted(&in_force(&mut directory)), counts(98, 2));

    // The plan is edited, and then gone.
    let mut policy = Policy::parse(sold::STANDARD).expect("a policy");
    let mut edited = policy.plans["pro"].as_ref().clone();
    edited.max_keys = Some(7);
    policy
        .plans
        .insert("pro".to_owned(), Arc::new(edited.clone()));
    let mut directory = Directory::new(directory.store().clone(), Arc::new(policy));
    in_force(&mut directory);
    let mut policy = Policy::parse(sold::STANDARD).expect("a policy");
    policy.plans.remove("pro");
    let mut directory = Directory::new(directory.store().clone(), Arc::new(policy));
    let plans = in_force(&mut directory);
    assert_eq!(counted(&plans), counts(98, 2));
    assert!(plans.iter().any(|each| each.plan == edited));
}

proptest! {
    #![proptest_config(config(48))]

    /// Whatever an account was before, it is found by what it is, and by nothing else.
    #[test]
    fn an_account_is_found_by_what_it_is_and_by_nothing_that_it_was(
        names in proptest::collection::vec("[a-cA-C]{1,3}( [a-c]{1,3}){0,3}", 1..6), query in "[a-c]{1,2}",
    ) {
        let mut directory = filled(0);
        for (version, name) in names.iter().enumerate() {
            let mut report = report(1);
            report.version = version as u64 + 1;
            report.account.name = Some(name.clone());
            report.account.email = None;
            report.account.external_id = None;
            report.account.id = AccountId::parse("x").expect("an id");
            directory.handle(Request::Tell(report));
        }
        let last = names.last().expect("a name").to_lowercase();
        let fits = last.split(' ').any(|word| word.starts_with(&query));
        let (found, _) = all(&mut directory, &by_query(&query));
        prop_assert_eq!(found.len(), usize::from(fits));
    }
}
