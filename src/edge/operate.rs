//! stub
use super::{gateway::*, log::Line, visit::Visit};
use crate::problem::{Code, Problem};
impl Gateway {
    pub(super) async fn operate(
        &self,
        _visit: &Visit,
        _line: &mut Line,
    ) -> Result<web_sys::Response, Interruption> {
        Err(Problem::new(Code::NotFound, "x").into())
    }
}
