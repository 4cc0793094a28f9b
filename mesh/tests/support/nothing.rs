//! A node without functions.

use std::sync::Arc;

use fnmesh_invoke::{AppStatus, Error, Function, Invocation, Invoke, Reply};

#[derive(Clone)]
pub(crate) struct Nothing;

impl Invoke for Nothing {
    async fn resolve(&self, app: &str, name: &str) -> Result<Arc<Function>, Error> {
        Err(Error::UnknownFunction { function: format!("{app}/{name}"), nearest: Vec::new() })
    }

    async fn call(&self, _: Invocation) -> Result<Reply, Error> {
        Err(Error::internal("nothing is served here"))
    }

    fn apps(&self) -> Vec<AppStatus> {
        Vec::new()
    }
}
