//! The ledger: entries and charges on one statement that adds up.

use tollgate::{ledger_page::LedgerLine, policy::Source, time::Span};

use crate::{
    auditor::audit_ledger,
    branch::{Branch, cost},
    statement::{moment, statement},
};

#[test]
fn the_ledger_merges_entries_and_charges_and_each_line_has_the_balance_after_it() {
    statement(
        "2026-11-02T10:00:00 | open free                   | 201
                             | key                         | 201
                             | call 15                     | call 1 holds 15
                             | ledger 9                    | granted credits +50 = 50
         +1s                 | settle 1 200                | settled 15
                             | call 10                     | call 2 holds 10
                             | call 0                      | call 3 holds 0
                             | settle 3 200                | settled 0
                             | grant credits 100 extra     | 201
         # A call that ends later has its line where it was admitted, and the lines still add up.
                             | settle 2 200                | settled 10
                             | release 1 because a mistake | refunded 0
                             | ledger 2                    | refunded call_acc_1 credits +15 = 140; \
                                granted credits +100 = 125
                             | ledger 9                    | refunded call_acc_1 credits +15 = 140; \
                                granted credits +100 = 125; charged call_acc_2 credits -10 = 25; \
                                charged call_acc_1 credits -15 = 35; granted credits +50 = 50",
    );
}

#[test]
fn a_corrected_call_has_the_line_of_its_first_end_and_one_for_the_correction() {
    statement(
        "2026-11-02T10:00:00 | open free                   | 201
                             | key                         | 201
                             | call 15                     | call 1 holds 15
         +300s               | tick                        | ok
                             | ledger 9                    | granted credits +50 = 50
         +1s                 | settle 1 200                | settled 15
                             | ledger 9                    | corrected call_acc_1 credits -15 = 35; \
                                granted credits +50 = 50
                             | release 1                   | refunded 0
                             | ledger 1                    | refunded call_acc_1 credits +15 = 50",
    );
}

#[test]
fn pools_have_balances_of_their_own_in_the_ledger() {
    statement(
        "2026-11-02T10:00:00 | open starter                | 201
                             | key                         | 201
                             | call 10 lyrics              | call 1 holds 10
                             | settle 1 200                | settled 10
                             | call 5                      | call 2 holds 5
                             | settle 2 200                | settled 5
                             | ledger 9                    | charged call_acc_2 credits -5 = 295; \
                                charged call_acc_1 lyrics -10 = 90; renewed lyrics +100 = 100; \
                                renewed credits +300 = 300",
    );
}

/// Pages that belong together are one statement, whatever happens between them.
#[test]
fn pages_of_the_ledger_show_the_account_as_of_the_first() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 1_000, Source::Extra, None);
    for call in 1..=40 {
        branch.call(cost(call));
        // Every fourth call is still open.
        if call % 4 != 0 {
            branch.settle(call, 200);
        }
    }
    let whole: Vec<LedgerLine> = branch.ledger(500);

    let mut paged = Vec::new();
    let mut page = branch.ledger_page(4, None);
    let mut open = (4..=40).step_by(4);
    loop {
        paged.append(&mut page.lines);
        let Some(next) = page.next else {
            break;
        };
        // Between any two pages: an old call ends, one is refunded, one is new, lots are granted,
        // and the object is thrown out of memory.
        if let Some(call) = open.next() {
            branch.settle(call, 200);
            branch.end_call(
                call - 1,
                tollgate::account::Word::Release { reason: None },
                None,
            );
        }
        branch.call(cost(1));
        branch.grant("credits", 7, Source::Promo, None);
        branch.set_clock(branch.clock.plus(Span::from_millis(1)));
        branch.evict();
        page = branch.ledger_page(4, Some(next));
    }
    assert_eq!(paged, whole);
    branch.check().expect("sound books");
    let lines = branch.ledger(7);
    assert!(lines.len() > whole.len() + 20);
    audit_ledger(&lines, branch.object.account().unwrap()).expect("it adds up");
}

/// However many calls cost nothing, no page reads more than the bound.
#[test]
fn a_page_of_the_ledger_reads_a_bounded_number_of_rows() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 10, Source::Extra, None);
    branch.call(cost(3));
    branch.settle(1, 200);
    for call in 2..=12_000 {
        branch.call(cost(0));
        branch.settle(call, 200);
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        branch.store().rows_read.set(0);
        let page = branch.ledger_page(50, after);
        let read = branch.store().rows_read.get();
        assert!(read <= 5_050, "{read} rows read");
        pages.push(page.lines.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [0, 0, 2]);
}
