//! What a worker says of the functions it loaded.

use std::collections::BTreeMap;

use fnmesh_invoke::{Parameter, Signature};
use serde::{Deserialize, Serialize};

use crate::javascript;

/// Body of a ready frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    functions: Vec<Reported>,
}

#[derive(Debug, Deserialize)]
struct Reported {
    #[serde(flatten)]
    inspected: Inspected,
    /// The function's own source, from a language that cannot describe parameters.
    source: Option<String>,
}

/// One function as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Inspected {
    pub(crate) module: String,
    pub(crate) file: String,
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) signature: Signature,
}

/// Body of a bind frame.
#[derive(Serialize)]
struct Bind<'a> {
    functions: Vec<Option<&'a [Parameter]>>,
}

/// What is known of the sources besides what runs: TypeScript's types, by file and function.
#[derive(Debug, Default)]
pub(crate) struct Describe {
    pub(crate) hints: BTreeMap<String, BTreeMap<String, Signature>>,
}

impl Describe {
    /// The functions, and the body of the bind frame if the worker waits for one.
    pub(crate) fn apply(&self, ready: Ready) -> (Vec<Inspected>, Option<Vec<u8>>) {
        let mut readable = Vec::with_capacity(ready.functions.len());
        let mut wants_bind = false;
        let inspected: Vec<_> = ready
            .functions
            .into_iter()
            .map(|Reported { mut inspected, source }| {
                let parameters = source.as_deref().map(javascript::parameters);
                wants_bind |= parameters.is_some();
                readable.push(!matches!(parameters, Some(None)));
                inspected.signature.parameters.extend(parameters.flatten().unwrap_or_default());
                self.add_hints(&mut inspected);
                inspected
            })
            .collect();
        let functions = inspected.iter().zip(readable);
        let bind =
            Bind { functions: functions.map(|(it, readable)| readable.then_some(&*it.signature.parameters)).collect() };
        let body = wants_bind.then(|| serde_json::to_vec(&bind).expect("strings always serialize into memory"));
        (inspected, body)
    }

    fn add_hints(&self, inspected: &mut Inspected) {
        let Some(hint) = self.hints.get(&inspected.file).and_then(|file| file.get(&inspected.name)) else { return };
        let signature = &mut inspected.signature;
        signature.doc = signature.doc.take().or_else(|| hint.doc.clone());
        signature.returns = signature.returns.take().or_else(|| hint.returns.clone());
        // The running function decides what its parameters are; the source only adds their types.
        for (parameter, typed) in signature.parameters.iter_mut().zip(&hint.parameters) {
            if parameter.name == typed.name {
                *parameter = Parameter { kind: parameter.kind, ..typed.clone() };
            }
        }
    }
}
