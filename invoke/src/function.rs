use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Stats;

/// A function's name on the mesh: `app/function`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId {
    /// The app that has it.
    pub app: Arc<str>,
    /// Its name in the app: `function`, or `module.function` where the short name is ambiguous.
    pub name: Arc<str>,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.name)
    }
}

impl Serialize for FunctionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FunctionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('/') {
            Some((app, name)) => Ok(Self { app: app.into(), name: name.into() }),
            None => Err(serde::de::Error::custom(format!("{text:?} is no function: app/function is"))),
        }
    }
}

/// The language a function is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython 3.9 or newer.
    Python,
    /// Node.js 18 or newer: JavaScript, and TypeScript with its types stripped.
    Node,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Python => "python",
            Self::Node => "node",
        })
    }
}

/// How an argument reaches a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// By position only.
    PositionalOnly,
    /// By position or by name.
    #[default]
    Positional,
    /// By name only.
    Keyword,
    /// All further positions (`*args`, `...rest`).
    VarPositional,
    /// All further names (`**kwargs`).
    VarKeyword,
}

/// What kind of value a parameter's hint or default asks for; decides how query strings convert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// No hint, or one that says nothing about JSON.
    #[default]
    Any,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A list.
    Array,
    /// A mapping.
    Object,
    /// Raw bytes.
    Bytes,
    /// The HTTP request itself.
    Request,
}

/// One parameter of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name in the source.
    pub name: String,
    /// How an argument reaches it.
    #[serde(default)]
    pub kind: ParameterKind,
    /// The kind of value it takes.
    #[serde(default, rename = "type")]
    pub value_type: ValueType,
    /// Its type hint as written in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Its default as written in the source; `None` means an argument is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What the running language says about a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Parameters in source order.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// The return type hint as written in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns: Option<String>,
    /// Docstring or JSDoc text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// `async def` or `async function`.
    #[serde(default, rename = "async")]
    pub is_async: bool,
    /// A generator: its answer streams.
    #[serde(default, rename = "generator")]
    pub is_generator: bool,
    /// It takes the HTTP request itself.
    #[serde(default, rename = "http")]
    pub takes_request: bool,
}

impl fmt::Display for Signature {
    /// `(a: str, b: int = 2, *rest) -> str`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, parameter) in self.parameters.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match parameter.kind {
                ParameterKind::VarPositional => f.write_str("*")?,
                ParameterKind::VarKeyword => f.write_str("**")?,
                _ => {}
            }
            f.write_str(&parameter.name)?;
            if let Some(hint) = &parameter.hint {
                write!(f, ": {hint}")?;
            }
            if let Some(default) = &parameter.default {
                write!(f, " = {default}")?;
            }
        }
        f.write_str(")")?;
        self.returns.as_ref().map_or(Ok(()), |hint| write!(f, " -> {hint}"))
    }
}

/// What bounds each call of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long one call may take. Default 30 s.
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// Calls in flight of this function on this node; `None` means only its pool's limit holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), concurrency: None }
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(timeout: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(timeout.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Where the runtime that described a function finds it again. Opaque to everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pool that serves it.
    pub pool: u32,
    /// Its number in the pool's workers.
    pub index: u16,
}

impl Target {
    /// Of functions that no runtime of this node has described.
    pub const ELSEWHERE: Self = Self { pool: u32::MAX, index: 0 };
}

impl Default for Target {
    fn default() -> Self {
        Self::ELSEWHERE
    }
}

/// One callable and all that is known of it. Clones count calls together.
///
/// Read from JSON it is [`Target::ELSEWHERE`] and has counters of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Function {
    /// Its name on the mesh.
    pub id: FunctionId,
    /// The module that defines it, as written in `app/module.function`.
    pub module: String,
    /// The source file, relative to the app's directory.
    pub file: String,
    /// Its language.
    pub language: Language,
    /// What the running language says about it.
    #[serde(flatten)]
    pub signature: Signature,
    /// What bounds its calls.
    #[serde(flatten)]
    pub limits: Limits,
    /// Whether HTTP callers may call it.
    pub public: bool,
    /// Where the runtime finds it.
    #[serde(skip)]
    pub target: Target,
    /// Its counters; they survive a reload of the app.
    #[serde(skip)]
    pub stats: Arc<Stats>,
}
