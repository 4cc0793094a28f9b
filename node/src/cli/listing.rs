use fnmesh_invoke::{Failure, Parameter, ParameterKind, Signature, ValueType};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Stop, client::Client};

/// An app as `/_/apps` describes it.
#[derive(Debug, Deserialize)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) directory: String,
    pub(super) version: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) error: Option<Failure>,
    #[serde(default)]
    pub(super) pools: Vec<Pool>,
    pub(super) functions: Vec<Function>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    pub(super) language: String,
    pub(super) instances: Vec<Instance>,
    pub(super) starting: usize,
    pub(super) want: usize,
    pub(super) min_instances: usize,
    pub(super) max_instances: usize,
    pub(super) in_flight: usize,
    pub(super) queued: usize,
    pub(super) max_queued: usize,
    pub(super) standby: Option<u32>,
    pub(super) lost: u64,
    pub(super) start_ms: Option<f64>,
    pub(super) cold_starts: u64,
    pub(super) cold_start_total_ms: f64,
    pub(super) circuit: String,
    pub(super) failures: u32,
    pub(super) failure: Option<Failure>,
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) in_flight: usize,
    pub(super) calls: u64,
    pub(super) age_s: u64,
    pub(super) memory_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Function {
    pub(super) id: String,
    pub(super) file: String,
    pub(super) language: String,
    /// In seconds.
    pub(super) timeout: f64,
    #[serde(default)]
    pub(super) concurrency: Option<u32>,
    pub(super) public: bool,
    #[serde(flatten)]
    pub(super) signature: Signature,
}

impl Function {
    /// The signature with what its answer is: `async (a: str) -> str`.
    pub(super) fn signature(&self) -> String {
        let mut text = String::new();
        if self.signature.is_async {
            text += "async ";
        }
        if self.signature.is_generator {
            text += "stream ";
        }
        text + &self.signature.to_string()
    }

    /// A shell line that calls it on the node at `url`, with a made-up value for each argument that is required.
    pub(super) fn curl(&self, url: &str) -> String {
        let body: serde_json::Map<_, _> = self
            .signature
            .parameters
            .iter()
            .filter(|parameter| parameter.default.is_none() && is_plain(parameter.kind))
            .filter(|parameter| parameter.value_type != ValueType::Request)
            .map(|parameter| (parameter.name.clone(), sample(parameter)))
            .collect();
        let stream = if self.signature.is_generator { "-N " } else { "" };
        match &self.signature.parameters[..] {
            [only] if only.value_type == ValueType::Bytes => {
                format!(
                    "curl {stream}{url}/{} -H 'content-type: application/octet-stream' --data-binary @FILE",
                    self.id
                )
            }
            _ if body.is_empty() => format!("curl {stream}{url}/{}", self.id),
            _ => format!("curl {stream}{url}/{} -d '{}'", self.id, Value::Object(body)),
        }
    }
}

fn is_plain(kind: ParameterKind) -> bool {
    !matches!(kind, ParameterKind::VarPositional | ParameterKind::VarKeyword)
}

fn sample(parameter: &Parameter) -> Value {
    match parameter.value_type {
        ValueType::Integer => 1.into(),
        ValueType::Number => 1.5.into(),
        ValueType::Boolean => true.into(),
        ValueType::Array => Value::Array(Vec::new()),
        ValueType::Object => Value::Object(serde_json::Map::new()),
        ValueType::Any | ValueType::String | ValueType::Bytes | ValueType::Request => parameter.name.as_str().into(),
    }
}

/// What a node serves: for people, and as the JSON it sent.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) apps: Vec<App>,
    pub(super) json: Box<RawValue>,
}

impl Listing {
    /// Asks the node.
    ///
    /// # Errors
    /// As [`Client::list`]; a failed [`Stop`] when the answer is not a list of apps.
    pub(super) async fn fetch(client: &Client) -> Result<Self, Stop> {
        let list = client.list("/_/apps", "apps").await?;
        Ok(Self { apps: list.read()?, json: list.json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(parameters: Value) -> Function {
        serde_json::from_value(serde_json::json!({
            "id": "shop/total", "module": "cart", "file": "cart.js", "language": "node", "timeout": 30.0, "public": true,
            "async": true, "returns": "number", "parameters": parameters,
        }))
        .unwrap()
    }

    #[test]
    fn node_json_is_understood() {
        let status = fnmesh_invoke::AppStatus {
            name: "shop".to_owned(),
            directory: "/srv/shop".to_owned(),
            version: "0123456789ab".to_owned(),
            hash: [1; 32],
            state: fnmesh_invoke::AppState::Stale {
                error: Failure { kind: "SyntaxError".to_owned(), ..Failure::default() },
            },
            pools: vec![fnmesh_invoke::PoolStatus {
                circuit: fnmesh_invoke::CircuitState::HalfOpen,
                instances: vec![fnmesh_invoke::InstanceStatus {
                    pid: 7,
                    state: fnmesh_invoke::InstanceState::Draining,
                    in_flight: 1,
                    calls: 2,
                    age_s: 3,
                    memory_bytes: None,
                }],
                ..fnmesh_invoke::PoolStatus::empty(fnmesh_invoke::Language::Node)
            }],
            functions: Vec::new(),
        };
        let app: App = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        let pool = &app.pools[0];
        assert_eq!((pool.circuit.as_str(), pool.instances[0].state.as_str()), ("half_open", "draining"));
        assert_eq!((app.state.as_str(), app.error.unwrap().kind.as_str()), ("stale", "SyntaxError"));
    }

    #[test]
    fn signature_says_what_the_answer_is() {
        let function =
            function(serde_json::json!([{"name": "items", "type": "array"}, {"name": "rate", "default": "1"}]));
        assert_eq!(function.signature(), "async (items, rate = 1) -> number");
    }

    #[test]
    fn curl_line_names_required_arguments_only() {
        let two = function(serde_json::json!([{"name": "items", "type": "array"}, {"name": "rate", "default": "1"}]));
        assert_eq!(two.curl("http://n"), r#"curl http://n/shop/total -d '{"items":[]}'"#);
        let none = function(serde_json::json!([{"name": "rest", "kind": "var_positional"}]));
        assert_eq!(none.curl("http://n"), "curl http://n/shop/total");
        let bytes = function(serde_json::json!([{"name": "image", "type": "bytes"}]));
        assert!(bytes.curl("http://n").ends_with("--data-binary @FILE"));
    }
}
