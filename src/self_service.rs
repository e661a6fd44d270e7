//! stub
use crate::{policy::router::Page, problem::Problem, protocol};
/// r
pub fn read(page: Page, _query: Option<&str>) -> Result<protocol::Page, Problem> {
    Ok(match page {
        Page::Usage => protocol::Page::Usage(protocol::UsageQuery {
            limit: 50,
            offset: 0,
        }),
        Page::GetCredits => protocol::Page::Credits,
        _ => protocol::Page::Me,
    })
}
