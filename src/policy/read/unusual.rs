//! `[unusual]`.

use super::{A_SPAN, Table, Value, parse_span};
use crate::{
    policy::{FarAbove, MostlyRefused, Unusual},
    price::Quantity,
    time::Span,
};

const SHORTEST: Span = Span::MINUTE;
const LONGEST: Span = Span::from_days(30);

/// `[unusual]`, complete only where nothing was noted.
pub(super) fn read(table: Option<Table<'_>>) -> Option<Unusual> {
    let mut table = table?;
    let spending = read_pair(&mut table, "spend_factor", "spend_floor");
    let refusals = read_pair(&mut table, "refused_share", "refused_at_least");
    if spending.is_none() && refusals.is_none() {
        table.note("spend_factor", "this, or refused_share", "neither");
    }
    let restrict = table.take("restrict");
    let unusual = Unusual {
        spending: spending.and_then(|(factor, floor)| {
            let factor = read_number(&factor?, "a number from 1 to 1000", 1_000..=1_000_000);
            let floor = floor?.credits(1);
            Some(FarAbove {
                factor: factor?,
                floor: floor?,
            })
        }),
        refusals: refusals.and_then(|(share, at_least)| {
            let share = read_number(&share?, "a number above 0 and up to 1", 1..=1_000);
            let at_least = at_least?.count(1);
            Some(MostlyRefused {
                share: share?,
                at_least: at_least?,
            })
        }),
        restrict: restrict.and_then(|restrict| {
            let expected = format!("{A_SPAN}, from \"1m\" to \"30d\"");
            let in_bounds = |span: &Span| (SHORTEST..=LONGEST).contains(span);
            restrict.parsed(&expected, |text| parse_span(text).filter(in_bounds))
        }),
    };
    table.finish();
    Some(unusual)
}

type Pair<'a> = (Option<Value<'a>>, Option<Value<'a>>);

/// Two fields that say something only together; `None` where neither is there.
fn read_pair<'a>(
    table: &mut Table<'a>,
    first: &'static str,
    second: &'static str,
) -> Option<Pair<'a>> {
    let pair = (table.take(first), table.take(second));
    match &pair {
        (None, None) => return None,
        (Some(_), None) => table.note(second, &format!("this beside {first}"), "nothing"),
        (None, Some(_)) => table.note(first, &format!("this beside {second}"), "nothing"),
        (Some(_), Some(_)) => {}
    }
    Some(pair)
}

fn read_number(
    value: &Value<'_>,
    expected: &str,
    thousandths: std::ops::RangeInclusive<u64>,
) -> Option<Quantity> {
    let number = value
        .quantity()
        .filter(|number| thousandths.contains(&number.as_thousandths()));
    if number.is_none() {
        value.wrong(&format!("{expected}, with at most 3 places"));
    }
    number
}
